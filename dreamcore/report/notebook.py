"""A run as a card in a notebook: what it is, its loss, before and after, and what to do with it.

A piece of HTML of some hundred kilobytes, which asks nothing of anybody: pictures are data URIs, and it has no script.
Its styles reach nothing outside it, and its colours are the notebook's, light or dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from uuid import uuid4

import numpy as np

from ..runs.watching import WatchedRun, look_at
from .charts import Line, line_chart, number, smooth
from .collect import RunData, collect
from .facts import facts
from .images import SMALL, data_uri, load

SIDE, SEEDS = 192, 4
"""Longer side of a picture, in pixels, and how many of one update are shown."""
NAME = "dreambooth-run"
STYLE = f"""
.{NAME} {{ font: 14px/1.5 system-ui, sans-serif; max-width: 56rem; }}
.{NAME} .row {{ display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; margin: .6rem 0; }}
.{NAME} .row > * {{ flex: 1 1 20rem; min-width: 0; }}
.{NAME} b, .{NAME} dd, .{NAME} code {{ overflow-wrap: anywhere; }}
.{NAME} dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0; }}
.{NAME} dt, .{NAME} .when {{ opacity: .7; font-weight: 400; }}
.{NAME} dd {{ margin: 0; }}
.{NAME} .pictures {{ display: grid; grid-template-columns: repeat({SEEDS}, minmax(0, {SIDE}px)); gap: .3rem; }}
.{NAME} .when {{ grid-column: 1 / -1; }}
.{NAME} img {{ width: 100%; height: auto; margin: 0; }}
.{NAME} img.pixels {{ image-rendering: pixelated; }}
.{NAME} svg {{ width: 100%; max-width: 30rem; height: auto; }}
.{NAME} svg text {{ font-size: 12px; fill: currentColor; opacity: .7; }}
.{NAME} .axes line {{ stroke: currentColor; opacity: .2; }}
.{NAME} .line path {{ fill: none; stroke: #3b82d6; stroke-width: 2; }}
.{NAME} .line.faint path {{ stroke-width: 1; opacity: .4; }}
"""


def card(folder: Path) -> str:
    """The run in a folder, or that there is none there any more, in HTML."""
    run = look_at(folder)
    if run is None:
        return f"<p>{_text(folder)}: holds no run any more.</p>"
    data = collect(folder)
    parts = (_head(run), f'<div class="row">{_facts(data)}{_loss(data)}</div>', _pictures(data), _next(data))
    return f'<div class="{NAME}"><style>{STYLE}</style>{"".join(parts)}</div>'


def _text(value: object) -> str:
    return escape(str(value))


def _head(run: WatchedRun) -> str:
    reason = f" ({run.status.reason})" if run.status.reason else ""
    return (
        f"<div><b>{_text(run.folder)}</b> <span>{_text(run.state + reason)}, {_text(run.status.progress)}</span></div>"
    )


def _facts(data: RunData) -> str:
    found = [fact for fact in facts(data) if fact.name != "State"]  # it stands above
    return f"<dl>{''.join(f'<dt>{_text(one.name)}</dt><dd>{_text(one.value)}</dd>' for one in found)}</dl>"


def _loss(data: RunData) -> str:
    steps, loss = data.column("step"), data.column("loss")
    if not np.isfinite(loss).any():
        return ""
    lines = [Line("loss", "faint", steps, loss, faint=True), Line("its moving mean", "", steps, smooth(loss))]
    last = float(smooth(loss)[np.isfinite(loss)][-1])
    summary = f"{len(loss):,} updates; its mean ends at {number(last)}."
    return f"<div><div class='when'>loss</div>{line_chart(f'{NAME}-{uuid4().hex}', 'Loss', summary, lines)}</div>"


def _pictures(data: RunData) -> str:
    """Before and after, or what there is of them."""
    shown = sorted({min(data.samples), max(data.samples)}) if data.samples else []
    return f'<div class="pictures">{"".join(part for step in shown for part in _of_update(data, step))}</div>'


def _of_update(data: RunData, step: int) -> Iterator[str]:
    when = "before training" if step == 0 else f"after {step:,} updates"
    words = f": {data.prompt}" if data.prompt else ""
    yield f'<div class="when">{_text(when + words)}</div>'
    for seed, file in list(data.samples[step].items())[:SEEDS]:
        picture = load(file, SIDE)
        if picture is None:
            yield f"<div>{_text(file.name)} cannot be read</div>"
            continue
        pixels = ' class="pixels"' if max(picture.size) <= SMALL else ""
        yield f'<img{pixels} src="{data_uri(picture)}" alt="{_text(f"image {seed + 1}, {when}")}">'


def _next(data: RunData) -> str:
    if data.next is None:
        return ""
    rows = [("words to use", data.next.words), ("images", data.next.generate), ("report", data.next.report)]
    found = "".join(f"<dt>{name}</dt><dd><code>{_text(value)}</code></dd>" for name, value in rows if value)
    return f"<dl>{found}</dl>"
