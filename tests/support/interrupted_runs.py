"""Small runs with everything that writes to the disk in them, to be disturbed and gone on with."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamcore.io.names import lora_name
from dreamcore.runs.checkpoint import list_checkpoints, verify

from .fork_server import Command, ForkServer
from .tiny import draw_photos

UPDATES = 6
CLASS_IMAGES = 6
KINDS = {
    "full": ["--train_text_encoder", "--checkpoints_total_limit=1"],
    "lora": ["--use_lora", "--lora_dropout=0.1", "--use_ema", "--random_flip"],
}


@dataclass
class Case:
    """One kind of run, and what it writes when nothing disturbs it."""

    argv: list[str]
    fork_server: ForkServer
    folder: Path
    seconds: float = 0.0
    changes: int = 0

    def start(self, output: Path, *more: str, **trouble: Any) -> Command:
        """Begin or go on with a run; `trouble` as in the nursery's jobs."""
        argv = [*self.argv, f"--output_dir={output}", "--resume_from_checkpoint=latest", *more]
        return self.fork_server.start(argv, self.log(output), **trouble)

    def log(self, output: Path) -> Path:
        """What the runs in a folder have said."""
        return self.folder / f"{output.name}.log"


def undisturbed(kind: str, fork_server: ForkServer, model: Path, folder: Path) -> Case:
    """A case of one of `KINDS`, and its undisturbed run in FOLDER/whole."""
    draw_photos(folder / "photos", count=3)
    draw_photos(folder / "held_out", count=1, seed=9)
    settings = {
        "pretrained_model_name_or_path": model,
        "instance_data_dir": folder / "photos",
        "instance_prompt": "a photo of sks dog",
        "class_prompt": "a photo of dog",
        "num_class_images": CLASS_IMAGES,
        "prior_num_inference_steps": 2,
        "sample_batch_size": 2,
        "train_batch_size": 1,
        "learning_rate": 1e-3,
        "max_train_steps": UPDATES,
        "checkpointing_steps": 2,
        "logging_steps": 3,
        "validation_data_dir": folder / "held_out",
        "validation_prompt": "a sks dog in snow",
        "validation_steps": 2,
        "validation_num_inference_steps": 2,
        "num_validation_images": 1,
        "report_to": "none",
        "device": "cpu",
    }
    argv = ["train", "--with_prior_preservation", *(f"--{k}={v}" for k, v in settings.items()), *KINDS[kind]]
    case = Case(argv, fork_server, folder)
    started = time.monotonic()
    command = case.start(folder / "whole")
    assert command.wait() == 0, (folder / "whole.log").read_text()
    case.seconds = time.monotonic() - started
    case.changes = int((folder / "whole.log").read_text().rsplit(": ", 1)[1])
    return case


def records(file: Path) -> list[dict[str, Any]]:
    """A file of JSON lines, without times."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def results(output: Path) -> dict[str, Any]:
    """Every file of a finished run but those that tell of times, of folders and of how often it was begun anew."""
    told = ("log.txt", "metrics.jsonl", "config.yaml", "state.json", "report.html", "report.png", "report_data.json")
    told += ("status.json", "README.md")
    files = {str(f.relative_to(output)): f for f in output.rglob("*") if f.is_file() and f.name not in told}
    if (own := lora_name(output)) in files:  # the folder's name
        files["NAME.safetensors"] = files.pop(own)
    return {name: content(f) for name, f in files.items() if not re.search(r"(^|/)\.", name)}


def content(file: Path) -> Any:
    """A file's bytes; of safetensors, whose metadata have no order, the header apart, without its date and the folder's
    name."""
    raw = file.read_bytes()
    if file.suffix != ".safetensors":
        return raw
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    for told in ("modelspec.date", "modelspec.title", "ss_output_name"):
        header.get("__metadata__", {}).pop(told, None)
    return header, raw[start:]


def assert_nothing_half_written(output: Path) -> None:
    """What a killed run leaves is whole wherever it bears a name that counts."""
    for _, folder in list_checkpoints(output):
        verify(folder)
    for image in output.glob("class_images/*.png"):
        assert image.read_bytes().endswith(b"IEND\xaeB`\x82"), image
    if (output / "model_index.json").exists():
        index = json.loads((output / "model_index.json").read_text())
        assert all((output / name).is_dir() for name, value in index.items() if isinstance(value, list) and value[0])


def pictures(output: Path) -> int:
    """How many class images there are."""
    return len(list(output.glob("class_images/*.png")))
