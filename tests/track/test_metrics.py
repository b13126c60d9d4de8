"""metrics.jsonl: whole lines, valid JSON, truncation on resuming, a disk that fills."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import RunError
from dreamcore.track import MetricsFile, RunInfo, read_lines, truncate_metrics


def info(folder: Path, first: int = 1) -> RunInfo:
    return RunInfo(folder, total_updates=10, first_update=first, settings={}, logging_dir=folder / "logs")


def record(step: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "loss": 0.1 * step,
        "loss_instance": 0.05,
        "lr": 1e-4,
        "grad_norm": 1.5,
        "seconds": 0.2,
    } | more


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def written(folder: Path, count: int) -> Path:
    metrics = MetricsFile()
    metrics.start(info(folder))
    for step in range(1, count + 1):
        metrics.update(record(step))
    metrics.close("finished")
    return folder / "metrics.jsonl"


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system takes a file's first `size` bytes and refuses the rest, as a disk does that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_one_line_an_update_there_at_once(tmp_path: Path) -> None:
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    metrics.update(record(1, loss_prior=0.25))
    # Read before close: a killed process must have lost nothing.
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == record(1, loss_prior=0.25)


def test_numpy_numbers_keep_value_and_kind(tmp_path: Path) -> None:
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    metrics.update({"step": np.int64(1), "loss": np.float32(0.1), "skipped": np.bool_(True)})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 1, "loss": float(np.float32(0.1)), "skipped": True}
    assert type(line["step"]) is int
    assert line["skipped"] is True


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), np.float32("nan")])
def test_not_finite_values_leave_valid_json(tmp_path: Path, value: float) -> None:
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    metrics.update(record(1, grad_norm=value))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line["grad_norm"] is None
    assert line["loss"] == 0.1


def test_resuming_drops_what_lies_beyond_the_checkpoint_and_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path, 6)
    before = path.read_bytes()
    metrics = MetricsFile()
    metrics.start(info(tmp_path, first=4))
    for step in range(4, 7):
        metrics.update(record(step))
    metrics.close("finished")
    assert path.read_bytes() == before


def test_a_new_run_begins_with_empty_files(tmp_path: Path) -> None:
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    metrics.scalars(0, {"validation_loss": 0.5})
    metrics.close("finished")
    written(tmp_path, 3)
    assert steps(written(tmp_path, 2)) == [1, 2]
    assert (tmp_path / "validation.jsonl").read_bytes() == b""


def test_validation_of_the_checkpoint_is_kept_on_resuming(tmp_path: Path) -> None:
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    for step in (0, 2, 4):
        metrics.scalars(step, {"validation_loss": step / 10})
    metrics.close("interrupted")
    MetricsFile().start(info(tmp_path, first=3))
    assert read_lines(tmp_path / "validation.jsonl") == [
        {"step": 0, "validation_loss": 0.0},
        {"step": 2, "validation_loss": 0.2},
    ]


@pytest.mark.parametrize("damage", [b'{"step": 4, "lo', b'{"step": 4}', b"\x00\x00\x00\n", b"[4]\n", b'{"loss": 1}\n'])
def test_truncating_keeps_whole_lines_only(tmp_path: Path, damage: bytes) -> None:
    path = written(tmp_path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole + damage)
    truncate_metrics(path, 5)
    assert path.read_bytes() == whole
    truncate_metrics(path, 1)
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]


def test_truncating_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    truncate_metrics(tmp_path / "metrics.jsonl", 5)
    assert list(tmp_path.iterdir()) == []


def test_truncating_on_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = written(tmp_path, 5)
    before = path.read_bytes()
    with no_file_larger_than(10), pytest.raises(RunError, match="is as it was"):
        truncate_metrics(path, 4)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_in_the_middle_of_a_line_stops_the_run_with_whole_lines(tmp_path: Path) -> None:
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    metrics.update(record(1))
    metrics.update(record(2))
    path = tmp_path / "metrics.jsonl"
    before = path.read_bytes()
    with no_file_larger_than(len(before) + 20), pytest.raises(RunError) as caught:
        metrics.update(record(3))
    metrics.close("failed")
    assert path.read_bytes() == before
    assert str(path) in str(caught.value)
    assert "Intact: the metrics up to update 2 and every finished checkpoint" in str(caught.value)


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent/metrics\.jsonl.*No such file"):
        MetricsFile().start(info(tmp_path / "absent"))
