"""What a run's plan says of the host's memory beside what the run takes, stage by stage, on models of a real geometry.

    nice python -m benchmarks.plan_against_peak                     # all of them: hours on two cores, 21 GiB of memory
    nice python -m benchmarks.plan_against_peak sdxl-lora-int8      # one
    python -m benchmarks.plan_against_peak small-lora               # a moment, to try the script

Each trains two updates (the second beside the optimizer's state) on the CPU in a process of its own.  Measured is
what the process holds of its own at most while a stage lasts, less what it held idle; pages of mapped files, which the
system takes back when it wants them, stand apart.  A stage whose plan is 2 GiB or more must lie within 10 % of it.

A component's loading, wherever it falls, stands in a row of its own: what the process holds at most while its weights
come, beside what these are in the type that they are used in: in a LoRA run no more than 1.2 times the largest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .random_model import GEOMETRIES

ROOT = Path(__file__).parents[1]
GIB = 2**30
LORA = ["--use_lora", "--rank=16"]
CASES: dict[str, tuple[str, int, list[str]]] = {
    "small-lora": ("small", 64, LORA),
    "sd15-lora": ("sd15", 512, LORA),
    "sd15-lora-bf16": ("sd15", 512, [*LORA, "--mixed_precision=bf16"]),
    "sd15-lora-int8": ("sd15", 512, [*LORA, "--quantize_base=int8"]),
    "sd15-full": ("sd15", 512, []),
    "sdxl-lora": ("sdxl", 1024, LORA),
    "sdxl-lora-int8": ("sdxl", 1024, [*LORA, "--quantize_base=int8"]),
    "sdxl-lora-nf4": ("sdxl", 1024, [*LORA, "--quantize_base=nf4"]),
    "sdxl-lora-bf16": ("sdxl", 1024, [*LORA, "--mixed_precision=bf16"]),
}
"""Geometry, resolution and settings."""
WITHIN, FROM = 0.1, 2 * GIB
WHILE_LOADING, SMALL = 1.2, GIB // 4
"""Times the largest component's weights that a LoRA run may hold while one comes; what is too small to be judged so."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="all of them where none is given")
    parser.add_argument("--resolution", type=int, help="in place of the model's own")
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--models", type=Path, help="a folder where the models are kept; they are written anew if none")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        _measure(asked.cases[0], Path(asked.measure), asked.models, asked.resolution, asked.updates)
        return
    wrong = False
    for case in asked.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            model = (asked.models or Path(folder)).absolute() / f"model-{CASES[case][0]}"
            if not model.exists():
                _write(CASES[case][0], model)
            more = ["--resolution", str(asked.resolution)] if asked.resolution else []
            given = ["--measure", folder, "--models", str(model), "--updates", str(asked.updates), *more]
            command = [sys.executable, "-m", "benchmarks.plan_against_peak", case, *given]
            wrong |= subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    sys.exit(wrong)


def _write(geometry: str, model: Path) -> None:
    """A model of random weights in bfloat16."""
    own = geometry in GEOMETRIES
    module = "benchmarks.random_model" if own else f"benchmarks.random_{geometry}"
    words = [geometry, str(model), "bfloat16"] if own else [str(model)]
    subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=True)


Row = tuple[str, int, int, int]
"""Of what, bytes that it is measured by, bytes taken, bytes of mapped files."""


@dataclass
class Watch:
    """What this process holds of its own, and of mapped files, at most since it was last asked; a look every 5 ms."""

    most: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> dict[str, int]:
        lines = Path("/proc/self/status").read_text().splitlines()
        now = {line[3:7]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssFile"))}
        with self.lock:
            self.most = {kind: max(size, self.most.get(kind, 0)) for kind, size in now.items()}
        return now

    def take(self) -> dict[str, int]:
        self.look()
        with self.lock:
            most, self.most = self.most, {}
        return most

    @contextmanager
    def apart(self) -> Iterator[Callable[[], dict[str, int]]]:
        """A while with a peak of its own, which counts for what is around it too; yields what tells it afterwards."""
        before = self.take()
        yield lambda: most
        most = self.take()
        with self.lock:
            self.most = {kind: max(size, most[kind], self.most.get(kind, 0)) for kind, size in before.items()}

    def start(self) -> None:
        def forever() -> None:
            while not stop.wait(0.005):
                self.look()

        stop = threading.Event()
        threading.Thread(target=forever, daemon=True).start()


def _measure(case: str, folder: Path, model: Path, resolution: int | None, updates: int) -> None:
    from dreamcore.backends.loading import Residence
    from dreamcore.backends.peak_memory import PeakMemory
    from dreamcore.cli.main import main as dreambooth
    from tests.support.tiny import draw_photos

    watch, idle, rows, loads = Watch(), dict[str, int](), list[Row](), list[Row]()
    began, ended, came = PeakMemory.idle, PeakMemory.end, Residence.come

    def idling(self: PeakMemory) -> None:
        began(self)
        idle.update(watch.look())
        watch.take()
        watch.start()

    def ending(self: PeakMemory, stage: str) -> None:
        ended(self, stage)
        most = watch.take()
        planned = self._predicted.get(stage, 0)
        rows.append((stage, planned, most["Anon"] - idle["Anon"], most["File"] - idle["File"]))

    def coming(self: Residence, name: str) -> None:
        if name in self.bytes:
            came(self, name)
            return
        with watch.apart() as peak:
            came(self, name)
        most, weights = peak(), self.bytes[name]
        loads.append((name, weights, most["Anon"] - idle["Anon"], most["File"] - idle["File"]))

    PeakMemory.idle, PeakMemory.end, Residence.come = idling, ending, coming  # type: ignore[method-assign]
    _, side, settings = CASES[case]
    side = resolution or side
    given: dict[str, Any] = {
        "pretrained_model_name_or_path": model,
        "instance_data_dir": draw_photos(folder / "photos", size=side),
        "instance_prompt": "a photo of sks dog",
        "output_dir": folder / "run",
        "resolution": side,
        "train_batch_size": 1,
        "max_train_steps": updates,
        "device": "cpu",
        "report_to": "none",
    }
    words = ["--center_crop", "--gradient_checkpointing", "--ignore_memory_plan", *settings]
    code = dreambooth(["train", *(f"--{name}={value}" for name, value in given.items()), *words])
    print(f"\n{case} at {side}²; GiB beside the idle process's {idle['Anon'] / GIB:.2f}")
    wrong = bool(code) | _print("stage", "plan", rows, lambda plan, taken: abs(taken / plan - 1) > WITHIN, FROM)
    if "--use_lora" in settings:  # in full training what trains is there while others come
        largest = max(weights for _, weights, _, _ in loads)
        wrong |= _print("comes", "weights", loads, lambda _, taken: taken > WHILE_LOADING * largest, SMALL)
    print(json.dumps({"case": case, "side": side, "stages": rows, "loads": loads}))
    sys.exit(wrong)


def _print(head: str, beside: str, rows: Sequence[Row], off: Callable[[int, int], bool], least: int) -> bool:
    """A table; returns whether a row of `least` bytes or more is off."""
    wrong = False
    print(f"\n{head:28} {beside:>7} {'taken':>7} {'ratio':>6} {'of mapped files':>16}")
    for name, size, taken, mapped in rows:
        beyond = size >= least and off(size, taken)
        wrong |= beyond
        ratio = f"{taken / size:.2f}" if size else ""
        mark = "  beyond its bound" if beyond else ""
        print(f"{name:28} {size / GIB:7.2f} {taken / GIB:7.2f} {ratio:>6} {mapped / GIB:16.2f}{mark}")
    return wrong


if __name__ == "__main__":
    main()
