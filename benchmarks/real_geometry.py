"""Trains a few LoRA updates on a random model of a real model's geometry, and says what memory that took.

    python -m benchmarks.real_geometry                    # Stable Diffusion 1.5 at 512×512: 5.7 GiB of memory
    python -m benchmarks.real_geometry --geometry small   # a moment

The model is written first, in a process of its own, so that its memory is not counted.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .random_model import GEOMETRIES
from .runner import measure_whole_run

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="sd15")
    parser.add_argument("--resolution", type=int, help="the default is the geometry's own")
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--mixed_precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--no_gradient_checkpointing", action="store_true")
    parser.add_argument("--limit_gib", type=float, default=20.0, help="more than this is an error")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        subprocess.run([sys.executable, "-m", "benchmarks.random_model", asked.geometry, model], cwd=ROOT, check=True)
        peak = _train(asked, model, Path(folder))
    print(f"peak memory: {peak:.2f} GiB (limit {asked.limit_gib:g})")
    sys.exit(peak > asked.limit_gib)


def _train(asked: argparse.Namespace, model: Path, scratch: Path) -> float:
    """Train; the peak of this process's resident memory in GiB."""
    import dreamcore
    from tests.support.tiny import draw_photos

    resolution = asked.resolution or GEOMETRIES[asked.geometry].resolution
    measure_whole_run()
    started = time.perf_counter()
    run = dreamcore.train(
        pretrained_model_name_or_path=str(model),
        instance_data_dir=str(draw_photos(scratch / "photos", size=resolution)),
        instance_prompt="a photo of sks dog",
        output_dir=str(scratch / "run"),
        resolution=resolution,
        center_crop=True,
        use_lora=True,
        train_batch_size=1,
        max_train_steps=asked.updates,
        mixed_precision=asked.mixed_precision,
        gradient_checkpointing=not asked.no_gradient_checkpointing,
        backend="torch",
        report_to="none",
    )
    for record in run.metrics:
        print(f"update {record['step']}: loss {record['loss']:.4f}, {record['seconds']:.1f} s")
    print(f"whole run: {time.perf_counter() - started:.0f} s")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
