"""What each placement takes of the device's memory, and how long an update takes, beside all on the device.

    python -m benchmarks.placement --geometry sd15 --mixed_precision bf16 [--updates 10] [-- more settings]
    python -m benchmarks.placement --geometry small --device cpu     # a moment, to try the script

Each placement trains in a process of its own, on the same random model, with gradient checkpointing, one sample at a
time, without clipping: full fine-tuning with the optimizer on the device, half of it on the host, all of it there,
and there with updates while gradients arrive; LoRA with none, a third, and all of its blocks waiting on the host.
Printed of each: the most that PyTorch allocated on the device, what the driver says is taken there, the most that the
store counted there and on the host, the host's resident memory, milliseconds an update, and how far the losses lie
from those of the plain run.
"""

from __future__ import annotations

import argparse
import json
import resource
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
FULL = {
    "all on the device": [],
    "while gradients arrive": ["--fused_backward_pass"],
    "half of the optimizer on the host": ["--placement=cpu", "--offload_optim_frac=0.5"],
    "the optimizer on the host": ["--placement=cpu"],
    "on the host, while gradients arrive": ["--placement=cpu", "--fused_backward_pass"],
}
LORA = {"LoRA, all on the device": 0.0, "LoRA, a third of its blocks waits": 1 / 3, "LoRA, all blocks wait": 1.0}
WARM = 3
"""Updates that are not timed."""


def main() -> None:
    asked = _arguments()
    if asked.one is not None:
        print(json.dumps(_measure(asked)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        subprocess.run([sys.executable, "-m", "benchmarks.random_model", asked.geometry, model], cwd=ROOT, check=True)
        plain: dict[str, list[float]] = {}
        for name in (*FULL, *LORA):
            command = [
                sys.executable,
                "-m",
                "benchmarks.placement",
                *_same(asked),
                "--one",
                name,
                "--model",
                str(model),
            ]
            done = subprocess.run([*command, "--", *asked.settings], cwd=ROOT, check=True, stdout=subprocess.PIPE)
            found = json.loads(done.stdout.splitlines()[-1])
            first = plain.setdefault("LoRA" if name in LORA else "full", found["losses"])
            found["apart"] = max(abs(one / other - 1) for one, other in zip(found["losses"], first, strict=True))
            _show(name, found)


def _show(name: str, found: dict[str, Any]) -> None:
    gib = {key: f"{size / 2**30:.2f} GiB" for key, size in found["bytes"].items() if size is not None}
    sizes = ", ".join(f"{key} {size}" for key, size in gib.items())
    print(f"{name}: {found['milliseconds']:.0f} ms an update; {sizes}; losses within {found['apart']:.1e}", flush=True)


def _measure(asked: argparse.Namespace) -> dict[str, Any]:
    import torch

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        found = _prepare(asked, Path(folder), stack)
        backend, losses = found.backend, []
        on_gpu = backend.device.type == "cuda"

        def update(number: int) -> None:
            backend.train_step(found.batcher.micro_batches(number), found.resolved.rates.at(number))

        for number in range(WARM):
            update(number)
        losses += [float(result.errors.mean()) for result in backend.metrics()]
        free = None
        started = time.perf_counter()
        for number in range(WARM, WARM + asked.updates):
            update(number)
        losses += [float(result.errors.mean()) for result in backend.metrics()]  # waits for the device
        seconds = (time.perf_counter() - started) / asked.updates
        if on_gpu:
            free, total = torch.cuda.mem_get_info(backend.device)
            free = total - free
        counted = {place: sum(size for (p, _), size in backend.store.peak.items() if p == place) for place in PLACES}
        sizes = {
            "allocated": torch.cuda.max_memory_allocated(backend.device) if on_gpu else None,
            "taken of the card": free,
            **{f"counted on the {place} at most, each by itself,": size for place, size in counted.items()},
            "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10,
        }
    return {"milliseconds": 1000 * seconds, "bytes": sizes, "losses": losses}


PLACES = ("device", "host")


def _prepare(asked: argparse.Namespace, scratch: Path, stack: ExitStack) -> Any:
    from dreamcore.models.folder import ModelFolder
    from dreamcore.placement.blocks import blocks_by_size
    from dreamcore.placement.headers import stored_weights

    resolution = asked.resolution or GEOMETRIES[asked.geometry].resolution
    more = FULL.get(asked.one)
    if more is None:
        model = ModelFolder.open(asked.model)
        blocks = blocks_by_size(stored_weights(model.weight_files(model.family.denoiser)).shapes)
        count = round(len(blocks) * LORA[asked.one])
        more = ["--use_lora", "--rank=16", *([f"--blocks_to_swap={count}"] if count else [])]
    words = [
        "--train_batch_size=1",
        "--gradient_checkpointing",
        "--max_grad_norm=0",  # as updates while gradients arrive want it
        f"--mixed_precision={asked.mixed_precision}",
        *([f"--device={asked.device}"] if asked.device else []),
        *asked.settings,
        *more,
    ]
    return prepared(asked.model, resolution, scratch, stack, *words)


def _same(asked: argparse.Namespace) -> list[str]:
    said = [f"--geometry={asked.geometry}", f"--mixed_precision={asked.mixed_precision}", f"--updates={asked.updates}"]
    said += [f"--resolution={asked.resolution}"] if asked.resolution else []
    return said + ([f"--device={asked.device}"] if asked.device else [])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="sd15")
    parser.add_argument("--resolution", type=int, help="the default is the geometry's own")
    parser.add_argument("--mixed_precision", default="no")
    parser.add_argument("--device")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", help="more settings of `dreambooth train`, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
