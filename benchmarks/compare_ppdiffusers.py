"""ppdiffusers' DreamBooth script and this library on Paddle, in turn: the same model, photographs and updates.

    python -m benchmarks.compare_ppdiffusers --script .../ppdiffusers/examples/dreambooth/train_dreambooth.py \
        --model MODEL --instance_data_dir PHOTOS

prints, for the whole process and for an update, seconds by the clock and seconds of the processor (which a busy machine
spoils less), each the best of some rounds.  An update is what a longer run takes more than a shorter one.  `--model` is
a folder in diffusers' layout; both read it in ppdiffusers'.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dreamcore.formats.ppdiffusers import to_ppdiffusers


def main() -> None:
    asked = _arguments()
    few, many = asked.updates
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = Path(shutil.copytree(asked.model, scratch / "model"))
        to_ppdiffusers(model)
        common = [
            f"--pretrained_model_name_or_path={model}",
            f"--instance_data_dir={asked.instance_data_dir}",
            "--instance_prompt=a photo of sks dog",
            f"--height={asked.resolution}",
            f"--width={asked.resolution}",
            f"--train_batch_size={asked.train_batch_size}",
            "--learning_rate=1e-5",
            "--lr_scheduler=constant",
            "--center_crop",
            "--checkpointing_steps=1000000",
            "--seed=0",
        ]
        theirs = [
            sys.executable,
            str(asked.script),
            *common,
            "--noise_offset=0",
            "--lr_warmup_steps=0",
            f"--resolution={asked.resolution}",
        ]
        ours = [sys.executable, "-m", "dreamcore.cli", "train", *common, "--backend=paddle", "--overwrite_output_dir"]
        ours += ["--export_format=ppdiffusers", "--report_to=visualdl"]
        best: dict[tuple[str, int], tuple[float, float]] = {}
        for _ in range(asked.rounds):
            for name, command in (("ppdiffusers", theirs), ("dreambooth", ours)):
                for updates in (few, many):
                    seconds = _run([*command, f"--max_train_steps={updates}", f"--output_dir={scratch / name}"])
                    held = best.get((name, updates), seconds)
                    best[name, updates] = (min(held[0], seconds[0]), min(held[1], seconds[1]))
        _print(best, few, many)


def _run(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    clock = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _print(best: dict[tuple[str, int], tuple[float, float]], few: int, many: int) -> None:
    print(f"{'':34} ppdiffusers  dreambooth  ratio")
    for kind, what in enumerate(("by the clock", "of the processor")):
        whole = [best[name, many][kind] for name in ("ppdiffusers", "dreambooth")]
        update = [
            (best[name, many][kind] - best[name, few][kind]) / (many - few) for name in ("ppdiffusers", "dreambooth")
        ]
        for label, (theirs, ours) in ((f"process of {many} updates", whole), ("an update", update)):
            print(f"{f'{label}, s {what}':44} {theirs:9.3f} {ours:9.3f} {ours / theirs:9.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", type=Path, required=True, help="ppdiffusers' train_dreambooth.py")
    parser.add_argument("--model", type=Path, required=True, help="a model's folder in diffusers' layout")
    parser.add_argument("--instance_data_dir", type=Path, required=True, help="photographs")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--train_batch_size", type=int, default=2)
    parser.add_argument("--updates", type=int, nargs=2, default=(10, 60), help="of the shorter and of the longer run")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
