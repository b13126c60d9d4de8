"""ppdiffusers' DreamBooth script and this library on Paddle, in turn: the same model, photographs and updates.

    python -m benchmarks.compare_ppdiffusers --script .../ppdiffusers/examples/dreambooth/train_dreambooth.py \
        --model MODEL --instance_data_dir PHOTOS

prints, for an update and for the whole process, seconds by the clock and seconds of the processor (which a busy machine
spoils less): of a run the median update after the first `--warm_up`, of some rounds the median run, and the median of
what a round's two runs are to each other.  Who goes first changes from round to round.  `--model` is a folder in
diffusers' layout; both read it in ppdiffusers'.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from dreamcore.formats.ppdiffusers import to_ppdiffusers

THEIRS, OURS = "ppdiffusers", "dreambooth"


class Took(NamedTuple):
    """Seconds of a run."""

    update_by_the_clock: float
    update_of_the_processor: float
    process_by_the_clock: float
    process_of_the_processor: float


def main() -> None:
    asked = _arguments()
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
        steps = f"--max_train_steps={asked.updates}"
        commands = {
            THEIRS: [str(asked.script), *common, steps, "--noise_offset=0", "--lr_warmup_steps=0"],
            OURS: ["dreambooth", "train", *common, steps, "--backend=paddle", "--overwrite_output_dir"],
        }
        commands[THEIRS].append(f"--resolution={asked.resolution}")
        commands[OURS] += ["--export_format=ppdiffusers", "--report_to=visualdl"]
        rounds: list[dict[str, Took]] = []
        for number in range(asked.rounds):
            order = list(commands)[:: 1 if number % 2 else -1]
            rounds.append({name: _run(commands[name], scratch / name, asked.warm_up) for name in order})
            _print(rounds)


def _run(words: list[str], output: Path, warm_up: int) -> Took:
    result = output.with_suffix(".json")
    command = [sys.executable, "-m", "benchmarks.paddle_runner", str(result), *words, f"--output_dir={output}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    clock = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    ends = json.loads(result.read_text(encoding="utf-8"))[warm_up - 1 :]
    update = [statistics.median(b - a for a, b in pairwise(kind)) for kind in zip(*ends, strict=True)]
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(update[0], update[1], clock, processor)


def _print(rounds: list[dict[str, Took]]) -> None:
    print(f"{len(rounds)} rounds, s{'':28} {THEIRS}  {OURS}  ratio")
    for kind, what in enumerate(Took._fields):
        theirs, ours = ([one[name][kind] for one in rounds] for name in (THEIRS, OURS))
        ratio = statistics.median(b / a for a, b in zip(theirs, ours, strict=True))
        label = what.replace("_", " ")
        print(f"{label:38} {statistics.median(theirs):11.3f} {statistics.median(ours):11.3f} {ratio:6.2f}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", type=Path, required=True, help="ppdiffusers' train_dreambooth.py")
    parser.add_argument("--model", type=Path, required=True, help="a model's folder in diffusers' layout")
    parser.add_argument("--instance_data_dir", type=Path, required=True, help="photographs")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--train_batch_size", type=int, default=2)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--warm_up", type=int, default=5, help="updates that do not count")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
