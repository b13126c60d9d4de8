"""diffusers' DreamBooth scripts and this library in turn: the same model, photographs and updates.

    python -m benchmarks.compare_diffusers --script .../train_dreambooth.py --lora_script .../train_dreambooth_lora.py

prints, for full fine-tuning and LoRA, the whole process's time, the time of an update and the peak memory of both, best
of three.  The scripts are diffusers' `examples/dreambooth`, of a version that fits the one installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .random_model import GEOMETRIES, write_random_model

ROOT = Path(__file__).parents[1]
LOWEST = {
    "whole process, s": "process_seconds",
    "update, s": "seconds_per_update",
    "peak host memory, GiB": "host_memory_gib",
    "peak device memory, GiB": "device_memory_gib",
}
Measured = dict[str, float | None]


def main() -> None:
    asked = _arguments()
    geometry = GEOMETRIES[asked.geometry]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = asked.model or write_random_model(scratch / "model", geometry)
        photos = asked.instance_data_dir or _draw(scratch / "photos", asked.resolution or geometry.resolution)
        for method, script in (("full fine-tuning", asked.script), ("LoRA", asked.lora_script)):
            if script is None:
                continue
            common = [
                f"--pretrained_model_name_or_path={model}",
                f"--instance_data_dir={photos}",
                "--instance_prompt=a photo of sks dog",
                f"--resolution={asked.resolution or geometry.resolution}",
                "--center_crop",
                f"--train_batch_size={asked.train_batch_size}",
                f"--max_train_steps={asked.updates}",
                "--checkpointing_steps=1000000",
                "--learning_rate=1e-5",
                "--lr_scheduler=constant",
                "--lr_warmup_steps=0",
                "--seed=0",
            ]
            theirs = [str(script), *common, f"--mixed_precision={asked.their_precision or asked.mixed_precision}"]
            ours = ["dreambooth", "train", *(c for c in common if "warmup" not in c), "--backend=torch"]
            ours += [f"--mixed_precision={asked.mixed_precision}", *asked.ours]
            if method == "LoRA":
                ours += ["--use_lora"]
            print(f"{method}, {asked.geometry}, {asked.updates} updates", flush=True)
            _report(_in_turn({"diffusers": theirs, "dreambooth": ours}, asked.repeats, asked.warmup, scratch))


def _in_turn(commands: dict[str, list[str]], repeats: int, warmup: int, scratch: Path) -> dict[str, list[Measured]]:
    """What each command measured, `repeats` times, alternating so that a busy moment hits both."""
    found: dict[str, list[Measured]] = {name: [] for name in commands}
    for number in range(repeats):
        for name, command in commands.items():
            found[name].append(_run(command, warmup, scratch, f"{name}-{number}"))
    return found


def _run(command: list[str], warmup: int, scratch: Path, name: str) -> Measured:
    result = scratch / f"{name}.json"
    result.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as output:
        runner = [sys.executable, "-m", "benchmarks.runner", str(result), str(warmup)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        started = time.perf_counter()
        done = subprocess.run(
            [*runner, *command, f"--output_dir={output}/run"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
    if done.returncode or not result.is_file():
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}\n{name}: ended with {done.returncode}")
    return {"process_seconds": seconds, **json.loads(result.read_text(encoding="utf-8"))}


def _report(found: dict[str, list[Measured]]) -> None:
    names = list(found)
    print(f"  {'best of ' + str(len(found[names[0]])):<26}" + "".join(f"{n:>12}" for n in names) + f"{'ratio':>8}")
    for title, key in LOWEST.items():
        best = [min(v for m in found[n] if (v := m[key]) is not None) if found[n][0][key] else None for n in names]
        if best[0] is not None and best[1] is not None:
            print(f"  {title:<26}" + "".join(f"{b:>12.4g}" for b in best) + f"{best[1] / best[0]:>8.3f}")
    for name in names:
        print(f"  {name}: " + "; ".join(json.dumps(m) for m in found[name]), flush=True)


def _draw(folder: Path, resolution: int) -> Path:
    from tests.support.tiny import draw_photos

    folder.mkdir()
    draw_photos(folder, size=resolution)
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", type=Path, help="diffusers' train_dreambooth.py")
    parser.add_argument("--lora_script", type=Path, help="diffusers' train_dreambooth_lora.py")
    parser.add_argument("--geometry", choices=GEOMETRIES, default="23m", help="of the random model")
    parser.add_argument("--model", type=Path, help="a model's folder, in place of a random one")
    parser.add_argument("--instance_data_dir", type=Path, help="photographs; the default is five drawn images")
    parser.add_argument("--resolution", type=int, help="the default is the geometry's own")
    parser.add_argument("--train_batch_size", type=int, default=1)
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=5, help="first updates that do not count")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mixed_precision", default="no", help="of both")
    parser.add_argument("--their_precision", help="diffusers' own, where it differs")
    parser.add_argument("ours", nargs="*", help="more settings for this library, after --")
    asked = parser.parse_args()
    if asked.script is None and asked.lora_script is None:
        parser.error("give --script, --lora_script, or both")
    if asked.updates <= asked.warmup:
        parser.error("--updates must be more than --warmup")
    return asked


if __name__ == "__main__":
    main()
