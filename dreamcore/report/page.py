"""The page: one HTML file that loads nothing, not even from beside itself, and runs no script.

The content security policy forbids every load but data URIs, so a mistake here could not become a request.  Each
word that comes from a user (prompts, paths, settings) passes `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .collect import RunData, is_number
from .curves import curves
from .facts import facts
from .images import SMALL, data_uri, load
from .style import STYLE

MOST_INSTANCES, MOST_CLASS_IMAGES = 24, 12
"""Images that are shown of the subject and of its class."""
MOST_SEEDS = 12
"""Validation images that are shown of one update."""
MOST_STEPS = 12
"""Updates whose images are shown side by side, the first and the last among them."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def text(value: object) -> str:
    """A user's words, for HTML; a right-to-left prompt does not turn its surroundings."""
    return f"<bdi>{escape(str(value))}</bdi>"


def render_page(data: RunData) -> str:
    """The whole page."""
    sections = (
        _section("The subject", _instance(data)),
        _section("Before and after", _before_after(data)),
        _section("Along the way", _film(data)) if _has_film(data) else "",
        _section("Curves", curves(data)),
        _section("Scores", _table(_spoken(data.scores))) if data.scores else "",
        _section("The class", _gallery(data.class_images, "class image", MOST_CLASS_IMAGES))
        if data.class_images
        else "",
        _section("Time", _timing(data)),
        _section("Configuration", _configuration(data)),
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{escape(data.name)}: DreamBooth report</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
        f"</head><body>{_header(data)}<main>{''.join(sections)}</main></body></html>\n"
    )


def _header(data: RunData) -> str:
    prompt = data.config.get("instance_prompt")
    lead = f"<p>Trained on {text(prompt)}</p>" if prompt else ""
    problems = "".join(f'<p class="problem">Could not be read: {text(problem)}</p>' for problem in data.problems)
    cards = "".join(f"<div><dt>{escape(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts(data))
    return (
        f'<header><p class="kicker">DreamBooth run</p><h1>{text(data.name)}</h1>{lead}{problems}'
        f'<dl class="facts">{cards}</dl></header>'
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _missing(words: str) -> str:
    return f'<p class="missing">{escape(words)}</p>'


def _image(path: Path, most: int, alt: str) -> str:
    picture = load(path, most)
    if picture is None:
        return '<p class="problem">Cannot be read.</p>'
    kind = ' class="pixels"' if max(picture.size) <= SMALL else ""
    return (
        f'<img{kind} src="{data_uri(picture)}" width="{picture.width}" height="{picture.height}" alt="{escape(alt)}">'
    )


def _instance(data: RunData) -> str:
    if not data.instance_images:
        return _missing("The run folder does not say which images were trained on.")
    return _gallery(data.instance_images, "instance image", MOST_INSTANCES)


def _gallery(paths: list[Path], what: str, most: int) -> str:
    shown = paths[:most]
    figures = "".join(
        f"<figure>{_image(path, 320, f'{what} {path.name}')}<figcaption>{text(path.name)}</figcaption></figure>"
        for path in shown
    )
    plural = what if len(paths) == 1 else f"{what}s"
    count = f"{len(paths)} {plural}" + (f"; the first {len(shown)} are shown" if len(shown) < len(paths) else "")
    return f'<p class="note">{count}.</p><div class="pictures">{figures}</div>'


def _before_after(data: RunData) -> str:
    if not data.samples:
        return _missing("No validation images: set validation_prompt to have them made before and during training.")
    last = max(data.samples)
    if 0 not in data.samples or last == 0:
        return _missing("There are images from " + ("before training only." if last == 0 else "after training only."))
    numbers = sorted(set(data.samples[0]) & set(data.samples[last]))[:MOST_SEEDS]
    pairs = "".join(
        f'<figure><div class="pair">{_sample(data, 0, n, 512)}{_sample(data, last, n, 512)}</div>'
        f"<figcaption>Image {n + 1}: before training, and after {last:,} updates</figcaption></figure>"
        for n in numbers
    )
    return f'{_prompt(data)}<div class="pairs">{pairs}</div>'


def _has_film(data: RunData) -> bool:
    """Whether there is more to show than before and after."""
    return len(data.samples) > 2 or (bool(data.samples) and 0 not in data.samples)


def _film(data: RunData) -> str:
    steps = spread(list(data.samples), MOST_STEPS)
    numbers = sorted(set(chain.from_iterable(data.samples[step] for step in steps)))[:MOST_SEEDS]
    cells = "".join(
        f'<div class="step">{"before" if step == 0 else f"{step:,}"}</div>'
        + "".join(_sample(data, step, n, 256) if n in data.samples[step] else "<div></div>" for n in numbers)
        for step in steps
    )
    left_out = len(data.samples) - len(steps)
    note = f" {left_out} of {len(data.samples)} validations are left out here." if left_out else ""
    return (
        f'<p class="note">The same seeds after more and more updates.{note}</p>'
        f'<div class="film" tabindex="0" role="group" aria-label="Pictures over time" '
        f'style="--pictures: {len(numbers)}">{cells}</div>'
    )


def spread(items: list[int], most: int) -> list[int]:
    """Every item, or every second, third ... so that at most `most` remain; the first and the last always do."""
    stride = max(1, -(-(len(items) - 1) // (most - 1)))
    return items[:-1:stride] + items[-1:]


def _sample(data: RunData, step: int, number: int, most: int) -> str:
    when = "before training" if step == 0 else f"after {step:,} updates"
    return _image(data.samples[step][number], most, f"{data.prompt or 'validation image'}: image {number + 1}, {when}")


def _prompt(data: RunData) -> str:
    prompt = data.prompt
    return f'<p class="note">Each pair comes from the same seed. Prompt: {text(prompt)}</p>' if prompt else ""


def _timing(data: RunData) -> str:
    seconds = data.column("seconds")
    rows: dict[str, Any] = {}
    if np.isfinite(seconds).any():
        rows = {
            "updates recorded": f"{len(seconds):,}",
            "all updates": duration(float(np.nansum(seconds))),
            "one update, median": duration(float(np.nanmedian(seconds))),
        }
    for name, value in _spoken(data.timing).items():
        # Numbers are seconds, but for a rate such as "updates per second".
        timed = is_number(value) and " per " not in name
        rows[name.removesuffix(" seconds").rstrip(",")] = duration(value) if timed else value
    return _table(rows) if rows else _missing("No times were recorded.")


def duration(seconds: float) -> str:
    """Seconds in words: 0.21 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _configuration(data: RunData) -> str:
    if not data.config:
        return _missing("The run folder has no readable config.yaml.")
    summary = f"All {len(data.config)} settings that the run used"
    return f"<details><summary>{summary}</summary>{_table(data.config, 'settings')}</details>"


def _table(rows: Mapping[str, Any], style: str = "names") -> str:
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{text(_value(value))}</td></tr>' for name, value in _flat(rows)
    )
    return f'<div class="scroll"><table class="{style}">{body}</table></div>'


def _flat(rows: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in rows.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name} · ")
        else:
            yield f"{before}{name}", value


def _spoken(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Names as words: class_images is class images."""
    return {name.replace("_", " "): value for name, value in _flat(rows)}


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
