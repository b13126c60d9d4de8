"""What one update consists of: operators, copies to the host, arithmetic, and how far from the floor its time is.

    python -m benchmarks.profile_step --geometry sd15 --mixed_precision bf16 [--use_lora] [-- more settings]

The floor is the time that the update's arithmetic takes at the device's peak plus the time that the optimizer's reads
and writes take at its bandwidth; give the device's own figures (the defaults are an H200's).  Times are printed on GPUs
only.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .prepared import prepared
from .random_model import GEOMETRIES, write_random_model

TO_HOST = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "Memcpy DtoH")
BYTES_PER_WEIGHT = 7 * 4
"""AdamW in float32 reads weight, gradient and two moments, and writes weight and moments."""


def main() -> None:
    asked = _arguments()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _profile(_prepare(asked, Path(folder), stack), asked)


def _prepare(asked: argparse.Namespace, scratch: Path, stack: ExitStack) -> Any:
    geometry = GEOMETRIES[asked.geometry]
    words = [
        "--train_batch_size=1",
        f"--mixed_precision={asked.mixed_precision}",
        *asked.settings,
        *(["--use_lora"] if asked.use_lora else []),
    ]
    model = write_random_model(scratch / "model", geometry)
    return prepared(model, geometry.resolution, scratch, stack, *words)


def _profile(prepared: Any, asked: argparse.Namespace) -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile
    from torch.utils.flop_counter import FlopCounterMode

    on_gpu = prepared.backend.device.type == "cuda"
    number = iter(range(1000))

    def update() -> None:
        at = next(number)
        prepared.backend.train_step(prepared.batcher.micro_batches(at), prepared.resolved.rates.at(at))

    for _ in range(3):
        update()
    with FlopCounterMode(display=False) as counter:
        update()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(asked.updates):
            update()
    events = profiler.key_averages()
    to_host = [e for e in profiler.events() if e.name.startswith(TO_HOST)]
    inside = sum(_in_adamw(e) for e in to_host)
    print(f"waits of the host for a value: {(len(to_host) - inside) / asked.updates:g} an update")
    if inside:
        print(f"  and {inside / asked.updates:g} in AdamW's CPU kernel, which reads its count of steps, in host memory")
    print(f"operators: {sum(e.count for e in events if e.key.startswith('aten::')) / asked.updates:.0f} an update")
    casts = sum(e.count for e in events if e.key == "aten::_to_copy") / asked.updates
    print(f"casts and copies (aten::_to_copy): {casts:.0f} an update")
    flops, weights = counter.get_total_flops(), sum(p.numel() for p in prepared.backend.optimizer.named.values())
    print(f"arithmetic: {flops / 1e12:.4g} TFLOP; weights that train: {weights / 1e6:.4g} M")
    if on_gpu:
        _times(update, flops / asked.tflops / 1e9 + weights * BYTES_PER_WEIGHT / asked.gb_per_s / 1e6, asked.updates)
        print(f"peak device memory: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
        print(events.table(sort_by="self_cuda_time_total", row_limit=25))


def _in_adamw(event: Any) -> bool:
    while event is not None:
        if event.name.startswith("aten::_fused_adamw"):
            return True
        event = event.cpu_parent
    return False


def _times(update: Any, floor: float, updates: int) -> None:
    import torch

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(updates):
        update()
    end.record()
    torch.cuda.synchronize()
    milliseconds = start.elapsed_time(end) / updates
    print(f"update: {milliseconds:.2f} ms; floor {floor:.2f} ms, {100 * floor / milliseconds:.0f} % of it")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="23m")
    parser.add_argument("--mixed_precision", default="no")
    parser.add_argument("--use_lora", action="store_true")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--tflops", type=float, default=989.0, help="peak of the arithmetic's type, dense")
    parser.add_argument("--gb_per_s", type=float, default=4800.0, help="memory bandwidth")
    parser.add_argument("settings", nargs="*", help="more settings of `dreambooth train`, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
