"""TensorBoard's files, read back record by record, and Weights & Biases through a stand-in."""

from __future__ import annotations

import io
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamcore.track import RunInfo, Trackers
from dreamcore.track.tensorboard import TensorBoard
from dreamcore.track.visualdl import VisualDL
from dreamcore.track.wandb import WandB


def info(folder: Path, first: int = 1) -> RunInfo:
    return RunInfo(folder, 10, first, {"instance_prompt": "a photo of sks mug"}, folder / "logs")


def events(folder: Path) -> Iterator[Any]:
    """Every event of the TFRecord files: length (8 bytes), its checksum (4), the message, its checksum (4)."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="tensorboardX is not installed")
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_tensorboard_holds_every_number_and_picture(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    Image.new("RGB", (5, 3), (200, 10, 20)).save(tmp_path / "a.png")
    board = TensorBoard()
    board.start(info(tmp_path))
    board.update({"step": 1, "loss": 0.5, "lr": 1e-4, "seconds": 0.1, "grad_norm": float("nan")})
    board.update({"step": 2, "loss": 0.25, "lr": 2e-4, "seconds": 0.1, "grad_norm": 3.0})
    board.scalars(2, {"validation_loss": 0.75})
    board.images(2, [tmp_path / "a.png"], "a <photo> of sks mug")
    board.close("finished")
    board.close("finished")

    scalars: dict[str, list[tuple[int, float]]] = {}
    pictures, texts = {}, {}
    for event in events(tmp_path / "logs"):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
            elif value.HasField("image"):
                pictures[value.tag] = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
            else:
                texts[value.tag] = b"".join(value.tensor.string_val).decode()
    assert set(scalars) == {"train/loss", "train/lr", "train/seconds", "train/grad_norm", "validation/loss"}
    assert scalars["train/loss"] == [(1, 0.5), (2, 0.25)]
    assert scalars["train/lr"] == [(1, pytest.approx(1e-4)), (2, pytest.approx(2e-4))]
    assert np.isnan(scalars["train/grad_norm"][0][1])
    assert scalars["validation/loss"] == [(2, 0.75)]
    (pixels,) = pictures.values()
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8([200, 10, 20]), (3, 5, 3)))
    assert any("a photo of sks mug" in text for text in texts.values())


def test_visualdl_holds_every_number_and_picture(tmp_path: Path) -> None:
    """Read back by VisualDL's own reader."""
    reader = pytest.importorskip("visualdl", reason="visualdl is not installed").LogReader
    Image.new("RGB", (5, 3), (200, 10, 20)).save(tmp_path / "a.png")
    board = VisualDL()
    board.start(info(tmp_path))
    board.update({"step": 1, "loss": 0.5, "lr": 1e-4, "grad_norm": float("nan")})
    board.update({"step": 2, "loss": 0.25, "lr": 2e-4, "grad_norm": 3.0})
    board.scalars(2, {"validation_loss": 0.75})
    board.images(2, [tmp_path / "a.png"], "a <photo> of sks mug")
    board.close("finished")
    board.close("finished")

    (file,) = (tmp_path / "logs" / "visualdl").iterdir()
    found = reader(file_path=str(file))
    losses = [(point.id, point.value) for point in found.get_data("scalar", "train/step_loss")]
    assert losses == [(1, 0.5), (2, 0.25)]
    assert [point.value for point in found.get_data("scalar", "train/lr")] == [pytest.approx(1e-4), pytest.approx(2e-4)]
    assert np.isnan(found.get_data("scalar", "train/grad_norm")[0].value)
    assert [(p.id, p.value) for p in found.get_data("scalar", "validation/loss")] == [(2, 0.75)]
    (picture,) = found.get_data("image", "validation/picture_0")
    pixels = np.asarray(Image.open(io.BytesIO(picture.image.encoded_image_string)).convert("RGB"))
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8([200, 10, 20]), (3, 5, 3)))
    (prompt,) = found.get_data("text", "validation/prompt")
    assert prompt.text.encoded_text_string == "a <photo> of sks mug"


def test_tensorboard_forgets_what_a_resumed_run_makes_anew(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    for first in (1, 4):
        board = TensorBoard()
        board.start(info(tmp_path, first))
        board.update({"step": first, "loss": 1.0})
        board.close("interrupted")
    session_starts = [event.step for event in events(tmp_path / "logs") if event.HasField("session_log")]
    assert sorted(session_starts) == [1, 4]
    assert len(list((tmp_path / "logs").iterdir())) == 2, "a resumed run overwrites nothing"


class FakeRun:
    def __init__(self, **settings: Any) -> None:
        self.settings, self.logged, self.finished = settings, [], 0

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        pass

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.finished += 1


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """Stands in for the package wandb; the runs it was asked to begin."""
    made: list[FakeRun] = []
    module = types.ModuleType("wandb")
    module.init = lambda **settings: made.append(FakeRun(**settings)) or made[-1]  # type: ignore[attr-defined]
    module.Image = lambda path, caption: (path, caption)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return made


def test_wandb_gets_the_run_and_goes_on_under_its_id(tmp_path: Path, runs: list[FakeRun]) -> None:
    for first in (1, 5, 1):
        tracker = WandB()
        tracker.start(info(tmp_path, first))
        tracker.update({"step": first, "loss": 0.5})
        tracker.scalars(first, {"validation_loss": 0.25})
        tracker.images(first, [tmp_path / "a.png"], "a mug")
        tracker.close("finished")
    assert runs[0].logged == [
        {"update": 1, "train/loss": 0.5},
        {"update": 1, "validation/loss": 0.25},
        {"update": 1, "validation/pictures": [(str(tmp_path / "a.png"), "a mug")]},
    ]
    assert runs[0].settings["config"] == {"instance_prompt": "a photo of sks mug"}
    assert runs[0].settings["id"] == runs[1].settings["id"] != runs[2].settings["id"]
    assert [run.finished for run in runs] == [1, 1, 1]


def test_wandb_without_a_network_does_not_stop_the_run(
    tmp_path: Path, runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**settings: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    trackers = Trackers([WandB()])
    trackers.start(info(tmp_path))
    trackers.update({"step": 1, "loss": 0.5})
    trackers.close("finished")
    assert list(trackers) == []
