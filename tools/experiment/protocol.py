"""The paper's own protocol (2208.12242, section 4.1) on its 30 subjects, for who has weights and a GPU.

    git clone https://github.com/google/dreambooth
    python -m tools.experiment.protocol dreambooth/dataset --config sd15-full --output protocol

Each folder of photographs in DATASET is a subject, whose class `prompts_and_classes.txt` there tells.  It is taught by
`dreambooth train` and judged by `dreambooth evaluate`, in OUTPUT/SUBJECT; then OUTPUT/protocol.txt has each subject's
measures, their means, and the paper's.  What is done is not done again, and a training that was interrupted goes on.

    --train "--learning_rate 2e-6"      further settings of `train`
    --evaluate "--judge dino/,clip/"    further settings of `evaluate`
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamcore.errors import ConfigError
from dreamcore.evaluation.metrics import interval
from dreamcore.io.files import write_atomically
from dreamcore.io.names import EVALUATION, INDEX, LORA_FILE
from dreamcore.runs.checkpoint import list_checkpoints

IDENTIFIER, PROMPT = "sks", "a photo of {identifier} {class}"
CLASSES = "prompts_and_classes.txt"
PAPER = {
    "real images": {"DINO": 0.774, "CLIP-I": 0.885},
    "DreamBooth (Imagen)": {"DINO": 0.696, "CLIP-I": 0.812, "CLIP-T": 0.306},
    "DreamBooth (Stable Diffusion)": {"DINO": 0.668, "CLIP-I": 0.803, "CLIP-T": 0.305},
    "Textual Inversion (Stable Diffusion)": {"DINO": 0.569, "CLIP-I": 0.780, "CLIP-T": 0.255},
}
"""Table 1, of 30 subjects."""
Measures = Mapping[str, float]


def read_classes(dataset: Path) -> dict[str, str]:
    """Subject -> its class, of those whose photographs are there.

    Raises:
        ConfigError: the folder is not the paper's dataset, or one like it.
    """
    file = dataset / CLASSES
    if not file.is_file():
        raise ConfigError(f"{dataset}: no {CLASSES} there; give the folder `dataset` of github.com/google/dreambooth")
    lines = file.read_text(encoding="utf-8").split("Prompts")[0].splitlines()
    rows = [line.split(",") for line in lines if line.count(",") == 1 and not line.startswith("subject_name")]
    found = {name.strip(): word.strip() for name, word in rows if (dataset / name.strip()).is_dir()}
    if not found:
        raise ConfigError(f"{dataset}: no folder of a subject that {CLASSES} names")
    return found


def commands(photographs: Path, word: str, folder: Path, config: str, more: Sequence[str]) -> Iterator[list[str]]:
    """What is left to be done for a subject, as arguments of `dreambooth`.

    Args:
        more: further settings of `train`, and of `evaluate`, each as one line.
    """
    run, judged = folder / "run", folder / "evaluation"
    if not any((run / name).is_file() for name in (INDEX, LORA_FILE)):
        words = ["--instance_prompt", PROMPT, "--identifier", IDENTIFIER, "--class_word", word]
        given = ["--config", config, "--instance_data_dir", str(photographs), "--output_dir", str(run), *words]
        going_on = ["--resume_from_checkpoint", "latest"] if list_checkpoints(run) else ["--overwrite_output_dir"]
        yield ["train", *given, *going_on, *shlex.split(more[0])]
    if not (judged / EVALUATION).is_file():
        yield ["evaluate", str(run), "--output_dir", str(judged), *shlex.split(more[1])]


def read_measures(folder: Path) -> Measures:
    """What an evaluation found of its one subject."""
    content: dict[str, Any] = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    return {name: float(one["value"]) for name, one in content["subjects"][0]["measures"].items()}


def table(found: Mapping[str, Measures]) -> str:
    """A row for each subject, their means with 95 % intervals (bootstrap over subjects), and the paper's."""
    names = list(dict.fromkeys(name for one in found.values() for name in one))
    rows = [["", *names]]
    rows += [[subject, *(_cell(one.get(name)) for name in names)] for subject, one in found.items()]
    rows.append([f"mean of {len(found)}", *(_mean([o[name] for o in found.values() if name in o]) for name in names)])
    if set(names) & {"DINO", "CLIP-I", "CLIP-T"}:
        rows += [[f"paper: {what}", *(_cell(one.get(name)) for name in names)] for what, one in PAPER.items()]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _mean(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.3f}"
    if len(values) == 1:
        return mean
    low, high = interval(values, range(len(values)))
    return f"{mean} ({low:.3f} to {high:.3f})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiment.protocol",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--config", default="sd15-full", help="preset or file of settings (sd15-full)")
    parser.add_argument("--output", type=Path, default=Path("protocol"))
    parser.add_argument("--subjects", nargs="*", help="those of the dataset's that are wanted; all by default")
    parser.add_argument("--train", default="", help="further settings of train, as one word of the shell")
    parser.add_argument("--evaluate", default="", help="further settings of evaluate, likewise")
    args = parser.parse_args(argv)
    try:
        classes = read_classes(args.dataset)
    except ConfigError as error:
        parser.error(str(error))
    if unknown := set(args.subjects or ()) - classes.keys():
        parser.error(f"--subjects: {', '.join(sorted(unknown))}: not there; there are {', '.join(classes)}")
    found: dict[str, Measures] = {}
    for name in args.subjects or classes:
        folder = args.output / name
        steps = commands(args.dataset / name, classes[name], folder, args.config, (args.train, args.evaluate))
        for step in steps:
            subprocess.run([sys.executable, "-m", "dreamcore.cli", *step], check=True)
        found[name] = read_measures(folder / "evaluation")
        write_atomically(args.output / "protocol.txt", table(found))
    sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
