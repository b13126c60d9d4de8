"""The pieces of the page.  Each word that comes from a user (prompts, paths, settings) passes `text`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from .collect import RunData
from .images import SMALL, data_uri, load


def text(value: object) -> str:
    """A user's words, for HTML; a right-to-left prompt does not turn its surroundings."""
    return f"<bdi>{escape(str(value))}</bdi>"


def section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def missing(words: str) -> str:
    return f'<p class="missing">{escape(words)}</p>'


def note(words: str) -> str:
    """Words of the page's own, which may hold elements."""
    return f'<p class="note">{words}</p>'


def image(path: Path, most: int, alt: str) -> str:
    """An image of at most so many pixels along its longer side, with its description."""
    picture = load(path, most)
    if picture is None:
        return '<p class="problem">Cannot be read.</p>'
    kind = ' class="pixels"' if max(picture.size) <= SMALL else ""
    return (
        f'<img{kind} src="{data_uri(picture)}" width="{picture.width}" height="{picture.height}" alt="{escape(alt)}">'
    )


def figure(picture: str, caption: str) -> str:
    """A picture with a caption of the page's own words."""
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def gallery(paths: list[Path], what: str, most: int) -> str:
    """The first images of a list, and how many there are."""
    shown = paths[:most]
    figures = "".join(figure(image(path, 320, f"{what} {path.name}"), text(path.name)) for path in shown)
    plural = what if len(paths) == 1 else f"{what}s"
    count = f"{len(paths)} {plural}" + (f"; the first {len(shown)} are shown" if len(shown) < len(paths) else "")
    return f'{note(f"{count}.")}<div class="pictures">{figures}</div>'


def sample(data: RunData, step: int, number: int, most: int) -> str:
    """A validation image."""
    return image(
        data.samples[step][number], most, f"{data.prompt or 'validation image'}: image {number + 1}, {when(step)}"
    )


def when(step: int) -> str:
    """Which images of a run."""
    return "before training" if step == 0 else f"after {step:,} update{'s' * (step != 1)}"


def command(identity: str, words: str) -> str:
    """What is to be typed, or said, with a button that copies it where scripts run.

    Args:
        identity: unique in the page.
    """
    return (
        f'<div class="copied"><code id="{identity}">{text(words)}</code>'
        f'<button type="button" data-copy="{identity}" hidden>Copy</button></div>'
    )


def typed(words: str) -> str:
    """Words of the page's own; what stands between backticks is typed."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(words, quote=False))


def table(rows: Mapping[str, Any], style: str = "names") -> str:
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{text(_value(value))}</td></tr>' for name, value in flat(rows)
    )
    return f'<div class="scroll"><table class="{style}">{body}</table></div>'


def flat(rows: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in rows.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name} · ")
        else:
            yield f"{before}{name}", value


def spoken(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Names as words: class_images is class images."""
    return {name.replace("_", " "): value for name, value in flat(rows)}


def duration(seconds: float) -> str:
    """Seconds in words: 0.21 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
