"""What two threads save, or cost: batches formed one update ahead, and checkpoints written beside training.

    python -m benchmarks.ahead --geometry 23m [--cases lora,prior] [--rounds 12] [--updates 5]

Each case is one run, in one process, whose updates are made by training's own loop.  A round is two blocks of as many
updates, one with the thread and one without, in an order that changes from round to round.  Printed are the medians of
both, the median of what a round's two differ by, and their ratio with its quartiles: seconds by the clock, and of the
processor, all threads' together.  On a machine that is shared, neighbours lengthen the first; the second shows what the
thread itself costs.  In `saving` (LoRA of rank 64) and `saving full` a block begins with the update at which a
checkpoint is due, and `due` is that update alone.

No setting turns the threads off: the benchmark does it from outside.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from .prepared import prepared
from .random_model import GEOMETRIES, write_random_model

LORA = ["--use_lora", "--rank=4"]
RANDOM = ["--no_cache_latents", "--no_center_crop", "--random_flip"]
CASES: dict[str, list[str]] = {
    "lora": LORA,
    "prior": [*LORA, "--with_prior_preservation", "--class_prompt=a photo of dog", "--gradient_accumulation_steps=2"],
    "crops": [*LORA, *RANDOM],
    "decoding": [*LORA, *RANDOM],
    "saving": ["--use_lora", "--rank=64", "--checkpoints_total_limit=1"],
    "saving full": ["--checkpoints_total_limit=1"],
}
"""`prior`: two micro-batches, each with a class image; `crops`: a new crop for every sample, encoded in its update, of
photographs that are kept in memory; `decoding`: of photographs that are not, such as those of a large set.  Of `saving
full` on a CPU a part is written at once, as ever where networks may need the memory that copies would take."""
PIXELS = (4000, 3000)
"""Width and height of the photographs of `decoding`, in JPEG."""


class Took(NamedTuple):
    """Seconds."""

    clock: float
    processor: float


def main() -> None:
    asked = _arguments()
    import torch

    torch.set_num_threads(1)
    print(f"{asked.geometry}, rounds of {asked.updates} updates, s an update: median without, with; of differences")
    for case in asked.cases.split(","):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            measured = _case(case, asked, Path(folder), stack)
        for what, pairs in measured.items():
            _print(f"{case}{what}", pairs)


def _case(case: str, asked: argparse.Namespace, scratch: Path, stack: ExitStack) -> dict[str, list[tuple[Took, Took]]]:
    """What is measured -> by round, without and with the thread."""
    from dreamcore.data import folder as photographs
    from dreamcore.track import RunInfo
    from dreamcore.training.callbacks import Callbacks
    from dreamcore.training.loop import _Loop

    geometry = GEOMETRIES[asked.geometry]
    model = write_random_model(scratch / "model", geometry)
    more = [*CASES[case], "--mixed_precision=no"]
    if case == "prior":
        more += [f"--class_data_dir={_drawn(scratch / 'classes', 4, geometry.resolution)}", "--num_class_images=4"]
    if case == "decoding":
        more.append(f"--instance_data_dir={_drawn(scratch / 'large', 4, *PIXELS)}")
        photographs.CACHE_BYTES = 0
    if case.startswith("saving"):
        more.append(f"--checkpointing_steps={asked.updates}")
    run = prepared(model, geometry.resolution, scratch, stack, *more)
    run.trackers.start(RunInfo(run.folder, run.resolved.rates.total, 1, run.resolved.settings, None))
    loop = _Loop(time.monotonic(), run, Callbacks(()))
    stack.callback(loop.close)
    return _rounds(loop, asked, saving=case.startswith("saving"))


def _rounds(loop: Any, asked: argparse.Namespace, *, saving: bool) -> dict[str, list[tuple[Took, Took]]]:
    found: dict[str, list[tuple[Took, Took]]] = {"": [], **({", due": []} if saving else {})}
    first = asked.updates - 1 if saving else 0  # the update that begins a block; counted from 0, so that it is due
    for update in range(first):
        loop.update(update)
    for number in range(asked.rounds + 1):
        took: dict[bool, list[Took]] = {}
        for thread in (False, True) if number % 2 else (True, False):
            block = range(first, first := first + asked.updates)
            took[thread] = (_save if saving else _form)(loop, block, thread=thread)
        if number:  # the first one warms up
            for what, without, beside in zip(found, took[False], took[True], strict=True):
                found[what].append((without, beside))
    return found


def _form(loop: Any, block: range, *, thread: bool) -> list[Took]:
    """An update of a block whose batches are formed ahead, or not; all that is formed is used."""
    from dreamcore.training.ahead import Ahead

    loop.close()
    loop.total = block.stop + 1  # so that none of these is the last one
    ahead = loop.p.batches_ahead
    loop.batches = Ahead(loop.form, block.stop if thread and ahead else None)
    loop.images = Ahead(loop.decode, block.stop if thread and not ahead else None)
    return [_timed(lambda: [loop.update(update) for update in block], len(block))]


def _save(loop: Any, block: range, *, thread: bool) -> list[Took]:
    """An update of a block that begins with a checkpoint, written by a thread or at once; and that first one alone."""
    from dreamcore.training import loop as training

    training.WORTH = 0 if thread else 2**62  # type: ignore[misc]
    due: list[Took] = []

    def updates() -> None:
        due.append(_timed(lambda: loop.update(block.start)))
        for update in block[1:]:
            loop.update(update)
        loop.saving.wait()

    return [_timed(updates, len(block)), *due]


def _timed(work: Callable[[], Any], count: int = 1) -> Took:
    before, started = _processor(), time.perf_counter()
    work()
    return Took((time.perf_counter() - started) / count, (_processor() - before) / count)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _print(case: str, pairs: list[tuple[Took, Took]]) -> None:
    for kind, what in enumerate(("by the clock", "of the processor")):
        without, beside = [one[kind] for one, _ in pairs], [one[kind] for _, one in pairs]
        difference = statistics.median(b - a for a, b in zip(without, beside, strict=True))
        low, ratio, high = statistics.quantiles((b / a for a, b in zip(without, beside, strict=True)), n=4)
        medians = f"{statistics.median(without):8.4f} {statistics.median(beside):8.4f} {difference:+9.4f}"
        print(f"{case:14} {what:16} {medians}  ratio {ratio:.3f} ({low:.2f} to {high:.2f})", flush=True)


def _drawn(folder: Path, count: int, width: int, height: int | None = None) -> Path:
    """Photographs of noise as coarse as a camera's."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (60, 80, 3), np.uint8))
        coarse.resize((width, height or width), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=92)
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="23m")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--updates", type=int, default=5, help="of a block")
    return parser.parse_args()


if __name__ == "__main__":
    main()
