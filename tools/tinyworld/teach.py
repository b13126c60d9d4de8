"""Teach the embedded model subjects with the quickstart's preset, with and without the prior, and measure each.

    python tools/tinyworld/teach.py --out build/tinyworld/subjects
    python tools/tinyworld/teach.py --out DIR --subjects zigzag-mug -- --learning_rate 3e-4 --max_train_steps 300

What follows `--` are settings of `dreambooth train`, for trying recipes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from evaluate import measure_subject

from dreamcore.models.locate import embedded_model
from dreamcore.tinyworld import SUBJECTS
from dreamcore.tinyworld.__main__ import IDENTIFIER, write_subject


def teach(name: str, folder: Path, settings: list[str]) -> float:
    """Train on five images of a subject; seconds that the command took."""
    kind, start = SUBJECTS[name].kind, time.monotonic()
    words = [f"--instance_prompt=a photo of a {IDENTIFIER} {kind}", f"--class_prompt=a photo of a {kind}"]
    command = [sys.executable, "-m", "dreamcore.cli", "train", "--config", "quickstart", "--device", "cpu"]
    if "--no-with_prior_preservation" in settings:
        words.pop()
    command += ["--instance_data_dir", str(folder.parent / "pictures"), "--output_dir", str(folder), *words]
    command += [f"--validation_prompt=a photo of a {IDENTIFIER} {kind} on grass", "--overwrite_output_dir", *settings]
    with folder.with_suffix(".log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return round(time.monotonic() - start, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--subjects", nargs="+", choices=tuple(SUBJECTS), default=tuple(SUBJECTS))
    parser.add_argument("--only", choices=("before", "with the prior", "without the prior"), nargs="+")
    parser.add_argument("--model", type=Path, default=embedded_model(), help="the model to teach")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("settings", nargs="*", help="settings of `dreambooth train`, after --")
    args = parser.parse_args()
    recipes = {"before": None, "with the prior": [], "without the prior": ["--no-with_prior_preservation"]}
    report: dict[str, dict[str, object]] = {}
    for name in args.subjects:
        folder = args.out / name
        write_subject(folder / "pictures", name)
        report[name] = {}
        for recipe in args.only or recipes:
            model, extra, seconds = args.model, recipes[recipe], 0.0
            if extra is not None:
                model = folder / recipe.split()[0]
                base = ["--pretrained_model_name_or_path", str(args.model)]
                seconds = teach(name, model, [*base, *extra, *args.settings])
            sheet = folder / f"{recipe.split()[0]}.png"
            measured = measure_subject(SUBJECTS[name], model, IDENTIFIER, args.steps, args.guidance, sheet)
            report[name][recipe] = {**measured, "seconds": seconds}
            print(name, recipe, json.dumps(report[name][recipe]), flush=True)
            (args.out / "subjects.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
