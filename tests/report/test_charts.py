"""The arithmetic of the charts, against plain loops."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from dreamcore.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Line, line_chart, number, smooth, ticks
from dreamcore.report.page import duration, spread


def test_smoothing_is_the_mean_of_the_window_around_each_update() -> None:
    values = np.random.default_rng(0).normal(size=100)
    values[[3, 40, 41, 42]] = np.nan
    half = 100 // 24
    expected = [np.nanmean(values[max(0, i - half) : i + half + 1]) for i in range(100)]
    np.testing.assert_allclose(smooth(values), expected, rtol=1e-12)


def test_smoothing_nothing_but_gaps_stays_a_gap() -> None:
    assert np.isnan(smooth(np.full(5, np.nan))).all()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0, 0.25, [0, 0.1, 0.2]),
        (1, 400, [100, 200, 300, 400]),
        (0.195, 0.23, [0.2, 0.21, 0.22, 0.23]),
        (0, 2e-6, [0, 5e-7, 1e-6, 1.5e-6, 2e-6]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_lines_reach_the_frames_corners() -> None:
    chart = line_chart("x", "t", "s", [Line("a", "instance", np.array([1.0, 3.0]), np.array([0.0, 1.0]))])
    start = f"M{LEFT:.1f} {HEIGHT - BOTTOM:.1f}"
    assert f'd="{start}L{WIDTH - RIGHT:.1f} ' in chart


def test_long_lines_keep_their_extremes() -> None:
    y = np.zeros(20_000)
    y[12_345] = 1.0
    x = np.arange(20_000.0)
    spike = line_chart("x", "t", "s", [Line("a", "instance", x, y)])
    flat = line_chart("x", "t", "s", [Line("a", "instance", x, np.zeros(20_000))])
    heights = {point.split(" ")[1] for point in spike.split(' d="')[1].split('"')[0].replace("M", "L").split("L")[1:]}
    assert len(heights) == 2
    assert len(spike) < 20_000
    assert len(flat) < 20_000


def test_single_peaks_do_not_flatten_the_mean() -> None:
    x = np.arange(200.0)
    raw = np.where(x == 50, 1000.0, 1.0)
    chart = line_chart("x", "t", "s", [Line("r", "faint", x, raw, faint=True), Line("m", "", x, np.ones(200))])
    top = float(chart.rsplit('d="M', 1)[1].split(" ")[1].split("L")[0])
    assert top < HEIGHT / 4, "the mean lies near the top of the frame"


def test_the_mark_lies_on_its_point_with_room_for_its_words() -> None:
    x, y = np.array([10.0, 20.0, 30.0]), np.array([0.4, 0.25, 0.3])
    chart = line_chart("x", "t", "s", [Line("a", "", x, y, dots=True)], mark=(20, 0.25, "lowest"), zero=False)
    mark = chart.split('class="mark"')[1]
    cx, cy = (mark.split(f'{name}="')[1].split('"')[0] for name in ("cx", "cy"))
    assert f'<circle cx="{cx}" cy="{cy}" r="3"/>' in chart
    assert float(cy) + 24 < HEIGHT - BOTTOM


def test_numbers_are_short() -> None:
    assert [number(v) for v in (0, 0.25, 1234.5, 2e-6, 0.123456)] == ["0", "0.25", "1,234", "2e-06", "0.1235"]
    assert [duration(s) for s in (0.2123, 59, 75, 3700)] == ["0.212 s", "59 s", "1 min 15 s", "1 h 1 min"]


@pytest.mark.parametrize("count", range(1, 60))
def test_a_choice_of_steps_keeps_the_ends_and_its_size(count: int) -> None:
    steps = [10 * i for i in range(count)]
    chosen = spread(steps, 12)
    assert chosen[0] == 0
    assert chosen[-1] == steps[-1]
    assert len(chosen) <= 12
    assert len({b - a for a, b in pairwise(chosen[:-1])}) <= 1, "evenly spread"
    assert chosen == steps or count > 12


def test_below_a_share_of_nothing_there_is_nothing() -> None:
    x = np.arange(3.0)
    for y in (np.zeros(3), np.array([0.0, 0.2, 0.1])):
        drawn = line_chart("x", "t", "s", [Line("a", "", x, y, dots=True)], zero=False)
        assert not re.search(r"<text [^>]*>[-\N{MINUS SIGN}]", drawn)
