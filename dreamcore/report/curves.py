"""The report's curves: loss, held-out loss, learning rate, with their numbers in words and in a table."""

from __future__ import annotations

from html import escape

import numpy as np

from ..io.names import BEST
from .charts import Line, line_chart, number, smooth
from .collect import RunData
from .facts import LOSS, lowest_held_out
from .style import series

ROWS = 9
"""Rows of the table of figures."""
_LOSSES = (
    ("loss_instance", "instance", "subject"),
    ("loss_prior", "prior", "class (prior)"),
    ("loss_preservation", "preservation", "class (the model's own answers)"),
)


def curves(data: RunData) -> str:
    """The charts and the table, or what is missing."""
    charts = [chart for chart in (_loss(data), _held_out(data), _scores(data), _learning_rate(data)) if chart]
    if not charts:
        return '<p class="missing">No metrics were recorded.</p>'
    return f'<div class="charts">{"".join(charts)}</div>{_table(data)}'


def _loss(data: RunData) -> str | None:
    if not data.metrics:
        return None
    steps = data.column("step")
    columns = [(data.column(name), style, label) for name, style, label in _LOSSES]
    columns = [column for column in columns if np.isfinite(column[0]).any()]
    columns = columns or [(data.column("loss"), "instance", "loss")]
    raw = [Line(label, f"{style} faint", steps, y, faint=True) for y, style, label in columns]
    means = [Line(label, style, steps, smooth(y)) for y, style, label in columns]
    summary = "; ".join(
        f"{line.label}: moving mean {number(line.y[0])} at first, {number(line.y[-1])} at the end" for line in means
    )
    return charted(
        "Training loss",
        line_chart("loss", "Training loss over the updates", summary, [*raw, *means]),
        f"{_legend(means)}{LOSS} Strong: moving mean. Faint: single updates, their highest peaks cut. {_lost(data)}",
    )


def _lost(data: RunData) -> str:
    """What the lines cannot show."""
    skipped = sum(bool(record.get("skipped")) for record in data.metrics)
    broken = int((~np.isfinite(data.column("loss"))).sum())
    words = [f"Updates skipped (fp16 overflow): {skipped}."] if skipped else []
    words += [f"Losses that were not finite, and leave gaps: {broken}."] if broken else []
    return " ".join(words)


def _held_out(data: RunData) -> str | None:
    lowest = lowest_held_out(data)
    if lowest is None:
        return None
    steps, losses = (np.array(values, np.float64) for values in zip(*data.held_out, strict=True))
    words = f"lowest: {number(lowest[1])} at {lowest[0]:,}"
    line = Line("held-out loss", "instance", steps, losses, dots=True)
    chart = line_chart("held", "Loss on held-out photographs", words, [line], mark=(*lowest, words), zero=False)
    note = "Photographs that do not train, at noise that never changes: where this rises, the run overfits."
    if lowest[0] == steps[-1]:
        note += " It is lowest at the end, and has not turned."
    if data.checkpoints:
        nearest = min(data.checkpoints, key=lambda update: abs(update - lowest[0]))
        note += f" Nearest checkpoint to the lowest point: checkpoint-{nearest}."
    return charted("Held-out loss", chart, note)


def _scores(data: RunData) -> str | None:
    """What the judge has said of the validation images."""
    names = [name for name in data.measures if name != "validation_loss"]
    measured = [(name, np.array(data.measured(name))) for name in names]
    lines = [Line(n, series(k), pairs[:, 0], pairs[:, 1], dots=True) for k, (n, pairs) in enumerate(measured)]
    if not lines:
        return None
    summary = "; ".join(
        f"{line.label}: {number(line.y[0])} at first, {number(line.y[-1])} at the end" for line in lines
    )
    keys = "".join(f"<span>{swatch(line.style)}{escape(line.label)}</span>" for line in lines)
    chart = line_chart("scores", "Scores of the validation images", summary, lines, zero=False)
    about = f"By {data.judge}. {data.about_judge}" if data.judge else ""
    chosen = f" {BEST} is of update {data.best.update:,}: {data.best.words}." if data.best else ""
    caption = f'<span class="legend">{keys}</span><br>{escape(about + chosen)}'
    return charted("Scores of the validation images", chart, caption)


def swatch(style: str) -> str:
    """A line's colour and dashes, for what stands beside its name."""
    return (
        f'<svg class="swatch {style}" viewBox="0 0 36 6" aria-hidden="true"><line x1="0" x2="36" y1="3" y2="3"/></svg>'
    )


def _learning_rate(data: RunData) -> str | None:
    if not np.isfinite(data.column("lr")).any():
        return None
    steps = data.column("step")
    names = dict.fromkeys(name for record in data.metrics for name in record if name.startswith("lr_"))
    lines = [Line("learning rate", "instance", steps, data.column("lr"))]
    for name in names:
        if not np.array_equal(data.column(name), lines[0].y, equal_nan=True):
            lines.append(Line(name.removeprefix("lr_").replace("_", " "), "prior", steps, data.column(name)))
    summary = "; ".join(f"{line.label}: {_range(line)}" for line in lines)
    chart = line_chart("lr", "Learning rate over the updates", summary, lines)
    return charted("Learning rate", chart, (_legend(lines) if len(lines) > 1 else "") + escape(summary) + ".")


def _range(line: Line) -> str:
    low, high = number(float(np.nanmin(line.y))), number(float(np.nanmax(line.y)))
    return low if low == high else f"{low} to {high}"


def _legend(lines: list[Line]) -> str:
    keys = (f'<span><i class="key {line.style}"></i>{escape(line.label)}</span>' for line in lines)
    return f'<span class="legend">{"".join(keys)}</span><br>' if len(lines) > 1 else ""


def charted(title: str, chart: str, caption: str) -> str:
    """A chart with its title and what it shows, which may hold elements."""
    return f"<figure><h3>{title}</h3>{chart}<figcaption>{caption}</figcaption></figure>"


def _table(data: RunData) -> str:
    """The curves' numbers at a few updates, for those who cannot see the lines."""
    if not data.metrics:
        return ""
    known = ("loss", *(name for name, *_ in _LOSSES), "lr", "grad_norm")
    names = [name for name in known if any(name in record for record in data.metrics)]
    columns = {n: data.column(n) if n == "lr" else smooth(data.column(n)) for n in names}
    rows = np.unique(np.linspace(0, len(data.metrics) - 1, min(ROWS, len(data.metrics))).round().astype(int))
    head = "".join(f'<th scope="col">{escape(n.replace("_", " "))}</th>' for n in ("update", *names))
    body = "".join(
        f'<tr><th scope="row">{data.metrics[i]["step"]:,}</th>'
        + "".join(f"<td>{number(columns[n][i]) if np.isfinite(columns[n][i]) else '–'}</td>" for n in names)
        + "</tr>"
        for i in rows
    )
    return (
        "<details><summary>The curves in numbers (moving means)</summary>"
        '<p class="note">lr is the learning rate; grad norm is how large a correction was before it was cut to '
        "max_grad_norm.</p>"
        f'<div class="scroll"><table class="figures"><tr>{head}</tr>{body}</table></div></details>'
    )
