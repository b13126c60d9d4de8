"""The page of runs beside each other: one HTML file that loads nothing, drawn as the report is."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from . import live
from .charts import Array, Line, line_chart, number, smooth
from .comparison import Compared, Comparison, same_seeds, shown
from .curves import charted, swatch
from .elements import duration, figure, flat, image, missing, note, section, text, when
from .facts import LOSS, final_loss, held_out_summary
from .page import spread
from .style import STYLE, series

MOST_SEEDS, MOST_STEPS = 12, 6
"""Seeds whose last pictures are shown; updates along the way."""
SIDE, SMALL_SIDE = 384, 192
"""Longest side of pictures, in pixels: the last ones; along the way."""
_OWN_STYLE = """
.letter { font-weight: 700; }
.runs { list-style: none; padding: 0; margin: .6rem 0 0; }
.runs li { margin: 0 0 .5rem; overflow-wrap: anywhere; }
.runs .note { margin: 0; display: block; }
.compared th, .compared td { padding-right: 1.2rem; }
.compared td { overflow-wrap: anywhere; max-width: 22rem; }
.beside { display: grid; gap: .5rem; margin: 0 0 1.2rem;
  grid-template-columns: repeat(var(--runs), minmax(0, 16rem)); }
.beside > .note { grid-column: 1 / -1; margin: 0; }
@media (max-width: 40rem) {
  .beside { grid-template-columns: repeat(min(var(--runs), 3), minmax(0, 1fr)); }
  .compared { font-size: .8rem; }
  .compared th, .compared td { padding-right: .6rem; }
}
"""


def render_comparison(comparison: Comparison) -> str:
    """The whole page."""
    runs = comparison.runs
    sections = (
        _warnings(comparison),
        section("Settings that differ", _settings(comparison)),
        section("In figures", _intervals(comparison) + _table(runs, figures(comparison))),
        section("Curves", _curves(comparison)),
        section("The same seeds, side by side", _beside(runs)),
        section("Along the way", film) if (film := _film(runs)) else "",
    )
    names = " · ".join(run.name for run in runs)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(live.STILL)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{escape(names)}: DreamBooth runs compared</title><link rel="icon" href="data:,">'
        f"<style>{STYLE}{_OWN_STYLE}</style></head><body>"
        f'<header><p class="kicker">DreamBooth runs compared</p><h1>{text(names)}</h1>{_list(runs)}</header>'
        f"<main>{''.join(sections)}</main></body></html>\n"
    )


def _style(run: Compared) -> str:
    return series(run.place)


def _letter(run: Compared) -> str:
    return f'<span class="letter {_style(run)}">{escape(run.letter)}</span>'


def _list(runs: Sequence[Compared]) -> str:
    items = "".join(
        f"<li>{swatch(_style(run))}{_letter(run)} {text(run.name)}"
        f'<span class="note">{text(", ".join(filter(None, (run.data.state, str(run.folder)))))}</span></li>'
        for run in runs
    )
    return f'<ul class="runs">{items}</ul>'


def _warnings(comparison: Comparison) -> str:
    items = "".join(f"<li>{text(words)}</li>" for words in comparison.warnings)
    return section("What cannot be compared", f'<ul class="warnings">{items}</ul>') if items else ""


def _settings(comparison: Comparison) -> str:
    if not comparison.differs:
        return missing("All settings are alike, but for where the runs lie.")
    about = note("A dash: the setting is not given there, or does not act.")
    rows = [(name, [shown(value) for value in values]) for name, values in comparison.differs.items()]
    return about + _table(comparison.runs, rows)


def _table(runs: Sequence[Compared], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f'<th scope="col">{_letter(run)} {text(run.name)}</th>' for run in runs)
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(f"<td>{text(value)}</td>" for value in values)}</tr>'
        for name, values in rows
    )
    return f'<div class="scroll"><table class="compared"><tr><td></td>{head}</tr>{body}</table></div>'


def figures(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """What came of each run; rows that say nothing of any are left out."""
    runs = comparison.runs
    rows = [
        ("updates", [f"{run.data.updates:,}" for run in runs]),
        ("loss, mean of the last tenth", [_number(final_loss(run.data)) for run in runs]),
        *(
            (f"{spoken(name)}, {which}", [_of(run, name, which) for run in runs])
            for name in comparison.measures
            for which in ("before training", "last")
        ),
        ("Held-out loss, lowest", [held_out_summary(run.data) or "–" for run in runs]),
        ("checkpoint-best", [_best(run) for run in runs]),
        *((name, [shown(dict(flat(run.data.scores)).get(name)) for run in runs]) for name in comparison.scores),
        *((f"{name}, evaluated", [_judged(run, name) for run in runs]) for name in comparison.evaluated),
        ("one update, median", [_seconds(run) for run in runs]),
        ("memory, at most", [_memory(run) for run in runs]),
    ]
    return [(name, values) for name, values in rows if any(value != "–" for value in values)]


def _intervals(comparison: Comparison) -> str:
    if not comparison.evaluated:
        return ""
    return note("Evaluated: by `dreambooth evaluate`, with 95 % intervals (bootstrap over prompts) in brackets.")


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def spoken(name: str) -> str:
    """A measure's name for readers."""
    return "Held-out loss" if name == "validation_loss" else name


def _of(run: Compared, name: str, which: str) -> str:
    found = run.data.measured(name)
    if which == "before training":
        return _number(dict(found).get(0))
    return f"{number(found[-1][1])} ({when(found[-1][0])})" if found and found[-1][0] else "–"


def _best(run: Compared) -> str:
    """Of which update a run's best checkpoint is, and why."""
    best = run.data.best
    return f"update {best.update:,}: {best.by} {number(best.value)}" if best else "–"


def _judged(run: Compared, name: str) -> str:
    """A score with its interval."""
    score = run.evaluated.scores.get(name) if run.evaluated else None
    return "–" if score is None else str(score)


def _seconds(run: Compared) -> str:
    seconds = run.data.column("seconds")
    return duration(float(np.nanmedian(seconds))) if np.isfinite(seconds).any() else "–"


def _memory(run: Compared) -> str:
    held = run.data.status.memory_bytes if run.data.status else None
    return f"{held / 2**30:.2f} GiB" if held else "–"


def _curves(comparison: Comparison) -> str:
    runs = comparison.runs
    trained = [run for run in runs if run.data.metrics]
    losses = [_of_updates(run, smooth(run.data.column("loss"))) for run in trained]
    charts = [_chart("loss", "Training loss", losses, f"Moving means. {LOSS}", zero=True)] if losses else []
    for place, name in enumerate(comparison.measures):
        measured = [(run, np.array(found)) for run in runs if (found := run.data.measured(name))]
        lines = [Line(run.letter, _style(run), pairs[:, 0], pairs[:, 1], dots=True) for run, pairs in measured]
        charts.append(_chart(f"measure-{place}", spoken(name), lines, "", zero=False))
    rates = [_of_updates(run, run.data.column("lr")) for run in trained]
    if any(not np.array_equal(line.y, rates[0].y, equal_nan=True) for line in rates):
        charts.append(_chart("lr", "Learning rate", rates, "", zero=True))
    if not charts:
        return missing("No metrics were recorded.")
    return f'<div class="charts">{"".join(charts)}</div>'


def _of_updates(run: Compared, values: Array) -> Line:
    return Line(run.letter, _style(run), run.data.column("step"), values)


def _chart(identity: str, title: str, lines: Sequence[Line], caption: str, *, zero: bool) -> str:
    summary = "; ".join(_course(line) for line in lines)
    drawn = line_chart(identity, f"{title} over the updates", summary, lines, zero=zero)
    keys = "".join(
        f'<span>{swatch(line.style)}<b class="letter {line.style}">{escape(line.label)}</b></span>' for line in lines
    )
    return charted(escape(title), drawn, f'<span class="legend">{keys}</span><br>{escape(caption)}')


def _course(line: Line) -> str:
    known = line.y[np.isfinite(line.y)]
    return f"{line.label}: {number(known[0])} at first, {number(known[-1])} at the end" if len(known) else line.label


def _beside(runs: Sequence[Compared]) -> str:
    """Of every seed the last picture of each run, after one from before training."""
    rows = same_seeds(runs)
    if not rows:
        return missing("No pictures of the same seeds: give the runs one validation_prompt and one seed.")
    before = next((run for run in runs if 0 in run.data.samples and run.last), None)
    first = dict(same_seeds([before], lambda run: 0)) if before else {}
    shared = [run for run in runs if run.data.samples]
    cells = [_row(runs, seed, files, first.get(seed)) for seed, files in rows[:MOST_SEEDS]]
    left_out = f" {len(rows) - MOST_SEEDS} more are left out." if len(rows) > MOST_SEEDS else ""
    prompts = list(dict.fromkeys(run.data.prompt for run in shared if run.data.prompt))
    said = note(f"Prompt: {' / '.join(map(text, prompts))}.{left_out}") if prompts else ""
    return said + "".join(cells)


Files = Sequence[Path | None]


def _row(runs: Sequence[Compared], seed: int | None, files: Files, first: Files | None) -> str:
    title = f"Seed {seed}" if seed is not None else "The same image to begin with"
    cells = [f'<p class="note">{title}</p>']
    if first and first[0]:
        cells.append(figure(image(first[0], SIDE, f"{title}, before training"), "before training"))
    for run, file in zip(runs, files, strict=True):
        caption = f"{_letter(run)} {when(run.last or 0)}"
        if file is not None:
            cells.append(figure(image(file, SIDE, f"{title}, run {run.letter}, {when(run.last or 0)}"), caption))
    return f'<div class="beside" style="--runs: {len(cells) - 1}">{"".join(cells)}</div>'


def _film(runs: Sequence[Compared]) -> str:
    """One seed's pictures at the updates that all runs with pictures have looked at."""
    looked = [run for run in runs if run.data.samples]
    common = sorted(set.intersection(*(set(run.data.samples) for run in looked))) if looked else []
    if len(looked) < 2 or len(common) < 2:
        return ""
    steps, cells, seed = spread(common, MOST_STEPS), "", None
    for step in steps:
        rows = same_seeds(looked, lambda run, step=step: step)  # type: ignore[misc]
        if not rows:
            return ""
        seed, files = rows[0]
        cells += f'<div class="step">{"before" if step == 0 else f"{step:,}"}</div>'
        cells += "".join(
            image(file, SMALL_SIDE, f"run {run.letter}, {when(step)}") if file else "<div></div>"
            for run, file in zip(looked, files, strict=True)
        )
    order = ", ".join(_letter(run) for run in looked)
    of = f"Seed {seed}" if seed is not None else "One picture"
    where = "in each column, from above (on a narrow screen from the left)"
    about = note(f"{of} after more and more updates; {where}: {order}.")
    return f'{about}<div class="film" style="--pictures: {len(looked)}; --steps: {len(steps)}">{cells}</div>'
