"""One table: what an update takes on a GPU, and how near that is to what its arithmetic and its bytes would take.

    python -m benchmarks.gpu --tflops 989 --gb_per_s 4800 [--script .../train_dreambooth.py --lora_script ...]
    python -m benchmarks.gpu --geometries sd15 --batches 1       # a part of it
    python -m benchmarks.gpu --geometries small --batches 1,2 --device cpu --updates 3    # a moment, to try the script

Rows are geometries (random weights), full fine-tuning and LoRA of rank 16, ways, and batch sizes; each is a process of
its own, which prints its row when it is done: what fails is said and the others go on.  Ways are eager, compiled
(`--compile`), graphs (`--cuda_graphs`), both, and trees (what is compiled in PyTorch's mode `reduce-overhead`, which
replays forward and backward as CUDA graphs of its own).  Where diffusers' scripts are given, they train the same model
in the same call (of Stable Diffusion 1).

- *update*: the mean of `--updates`, the device waited for at the first and the last alone.
- *floor*: counted floating-point operations at `--tflops`, or counted bytes at `--gb_per_s`, whichever is more: bytes
  of weights read in both passes, gradients, and AdamW's own; activations are not counted.
- *allocated* is PyTorch's peak, *taken* what the driver says is taken of the card at the end: context and reserve too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .prepared import prepared
from .random_model import GEOMETRIES

ROOT = Path(__file__).parents[1]
RESOLUTIONS = {"sdxl": 1024, "sd3": 512, "flux": 512} | {name: g.resolution for name, g in GEOMETRIES.items()}
METHODS: dict[str, list[str]] = {"full": [], "lora": ["--use_lora", "--rank=16"]}
WAYS: dict[str, list[str]] = {
    "eager": [],
    "compiled": ["--compile"],
    "graphs": ["--cuda_graphs"],
    "both": ["--compile", "--cuda_graphs"],
    "trees": ["--compile"],
}
TOO_LARGE = {("flux", "full"), ("sdxl", "full")}
"""What does not fit beside AdamW in float32, or takes most of a card."""
WARM = 5
"""Updates that are not timed."""


def main() -> None:
    asked = _arguments()
    if asked.one:
        print(json.dumps(_measure(asked)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print("| geometry | method | way | batch | ms | samples/s | allocated | taken | floor, ms | of it |")
        print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
        for geometry in asked.geometries.split(","):
            model = _model(geometry, Path(folder) / geometry)
            for method in asked.methods.split(","):
                for way in asked.ways.split(","):
                    for batch in asked.batches.split(","):
                        if (geometry, method) not in TOO_LARGE:
                            _row(asked, model, (geometry, method, way, batch))
            _theirs(asked, geometry, model)


def _model(geometry: str, folder: Path) -> Path:
    if geometry in GEOMETRIES:
        words = ["benchmarks.random_model", geometry, str(folder)]
    elif geometry == "sdxl":
        words = ["benchmarks.random_sdxl", str(folder)]
    else:
        words = ["benchmarks.random_flow", geometry, str(folder)]
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def _row(asked: argparse.Namespace, model: Path, case: tuple[str, str, str, str]) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", json.dumps(case), "--model", str(model)]
    command += [f"--{name}={getattr(asked, name)}" for name in ("device", "updates", "tflops", "gb_per_s", "profile")]
    command += [f"--mixed_precision={asked.mixed_precision}", "--", *asked.settings]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no word"])[-1]
        print(f"| {' | '.join(case)} | failed: {why[:160]} |", flush=True)
        return
    *_, last = done.stdout.splitlines()
    found = json.loads(last)
    share = f"{100 * found['floor'] / found['ms']:.0f} %" if found["floor"] else ""
    sizes = [f"{size / 1e9:.2f} GB" if size else "" for size in (found["allocated"], found["taken"])]
    rate = 1000 * int(case[3]) / found["ms"]
    cells = [*case, f"{found['ms']:.1f}", f"{rate:.2f}", *sizes, f"{found['floor']:.1f}", share]
    print(f"| {' | '.join(cells)} |")
    for name, ms in found["costliest"]:
        print(f"    {ms:8.2f} ms  {name}")
    sys.stdout.flush()


def _measure(asked: argparse.Namespace) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        found = _prepare(asked, Path(folder), stack)
        backend = found.backend
        card = backend.device if backend.device.type == "cuda" else None
        numbers = iter(range(100000))

        def update() -> None:
            number = next(numbers)
            backend.train_step(found.batcher.micro_batches(number), found.resolved.rates.at(number))

        for _ in range(WARM):
            update()
        backend.metrics()  # waits for the device
        started = time.perf_counter()
        for _ in range(asked.updates):
            update()
        backend.metrics()
        ms = 1000 * (time.perf_counter() - started) / asked.updates
        allocated = torch.cuda.max_memory_allocated(card) if card else None
        free, total = torch.cuda.mem_get_info(card) if card else (0, 0)
        costliest = _profile(update, on_card=card is not None) if asked.profile else []
        operations = 0
        if "--compile" not in WAYS[json.loads(asked.one)[2]]:
            with FlopCounterMode(display=False) as counter:
                update()
            operations = counter.get_total_flops()
        moved = _bytes(backend)
    floor = max(operations / asked.tflops / 1e9, moved / asked.gb_per_s / 1e6) if card or asked.device == "cpu" else 0
    return {"ms": ms, "allocated": allocated, "taken": total - free, "floor": floor, "costliest": costliest}


def _bytes(backend: Any) -> int:
    """That an update must move for weights: each read in the forward and in the backward pass; gradients written and
    read; AdamW reads and writes original and moments, and writes what networks compute with."""
    read = sum(p.numel() * p.element_size() for network in backend._at_work.values() for p in network.parameters())
    trains = sum(p.numel() for p in backend.optimizer.named.values())
    size = backend.dtype.itemsize
    return int(2 * read + trains * (2 * size + 6 * 4 + size))


def _profile(update: Any, *, on_card: bool) -> list[tuple[str, float]]:
    """The ten costliest operators of an update, in ms."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]) as profiler:
        update()
    key = "self_device_time_total" if on_card else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -float(getattr(event, key)))
    return [(event.key[:90], getattr(event, key) / 1000) for event in events[:10]]


def _prepare(asked: argparse.Namespace, scratch: Path, stack: ExitStack) -> Any:
    geometry, method, way, batch = json.loads(asked.one)
    if way == "trees":
        _replay_trees()
    more = [
        f"--train_batch_size={batch}",
        f"--mixed_precision={asked.mixed_precision}",
        f"--device={asked.device}",
        "--ignore_memory_plan",
        *METHODS[method],
        *WAYS[way],
        *asked.settings,
    ]
    return prepared(asked.model, RESOLUTIONS[geometry], scratch, stack, *more)


def _replay_trees() -> None:
    """Let what is compiled be replayed as CUDA graphs, which no setting does: docs/how-it-works.md says why."""
    import torch

    in_place = torch.nn.Module.compile

    def compile(self: Any) -> None:
        in_place(self, mode="reduce-overhead")

    torch.nn.Module.compile = compile  # type: ignore[method-assign, assignment]


def _theirs(asked: argparse.Namespace, geometry: str, model: Path) -> None:
    """diffusers' scripts on the same model, beside this library, whole processes."""
    if geometry not in GEOMETRIES or not (asked.script or asked.lora_script):
        return
    command = [sys.executable, "-m", "benchmarks.compare_diffusers", f"--model={model}", f"--geometry={geometry}"]
    command += [f"--script={asked.script}"] if asked.script else []
    command += [f"--lora_script={asked.lora_script}"] if asked.lora_script else []
    command += ["--repeats=1", f"--updates={asked.updates + WARM}", f"--mixed_precision={asked.mixed_precision}"]
    subprocess.run(command, cwd=ROOT, check=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometries", default="sd15,sdxl,sd3,flux", help="with commas; also small, 23m")
    parser.add_argument("--methods", default="full,lora")
    parser.add_argument("--ways", default="eager", help="of eager, compiled, graphs, both, trees")
    parser.add_argument("--batches", default="1,4,8")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mixed_precision", default="bf16")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--tflops", type=float, default=989.0, help="peak of the arithmetic's type, dense")
    parser.add_argument("--gb_per_s", type=float, default=4800.0, help="memory bandwidth")
    parser.add_argument("--profile", type=int, default=1, help="0: without the ten costliest operators")
    parser.add_argument("--script", type=Path, help="diffusers' train_dreambooth.py")
    parser.add_argument("--lora_script", type=Path, help="diffusers' train_dreambooth_lora.py")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", help="more settings of `dreambooth train`, after --")
    asked = parser.parse_args()
    if asked.device != "cpu":
        import torch

        if not torch.cuda.is_available():
            parser.error(f"torch {torch.__version__} finds no GPU here; --device cpu tries the script")
    return asked


if __name__ == "__main__":
    main()
