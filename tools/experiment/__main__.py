"""What the paper claims, tried on the embedded model: `nox -s experiment`.

python -m tools.experiment [--cells NAME ...] [--subjects NAME ...] [--seeds N ...] [--folder FOLDER] [--write]

Every cell trains each subject with each training seed and judges pictures of it (`dreambooth evaluate`).  What is done
stays in FOLDER and is not done again, so the work can be stopped and taken up.  At the end, or with --write alone,
docs/experiment.md is written from those files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dreamcore
from dreamcore.io.files import write_atomically
from dreamcore.io.images import png_bytes
from dreamcore.tinyworld import SUBJECTS as DRAWN
from dreamcore.tinyworld.scenes import WIDE
from dreamcore.tinyworld.vocabulary import PLACES

from .cells import BY_NAME, CELLS, GUIDANCE, PICTURES, SEEDS, STEPS, SUBJECTS, WRONG, Cell, basis
from .document import RESULTS, read_record, write_document

IDENTIFIER = "sks"


def called(cell: Cell, kind: str) -> str:
    """What a cell calls a subject of a class: its rare word, and the noun that it has there."""
    return " ".join([IDENTIFIER, *{"right": [kind], "wrong": [WRONG[kind]], "none": []}[cell.noun]])


def write_photographs(folder: Path, cell: Cell, name: str) -> None:
    """The subject's pictures, each with its words."""
    subject = DRAWN[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, (place, picture) in enumerate(zip(PLACES, subject.pictures(len(PLACES), width=WIDE), strict=True)):
        if number < cell.photographs:
            (folder / f"{number}.png").write_bytes(png_bytes(np.asarray(picture)))
            (folder / f"{number}.txt").write_text(f"a photo of a {called(cell, subject.kind)} {place}\n")


def one(cell: Cell, name: str, seed: int, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Train and judge once; what it measured, and how long it took.

    Args:
        folder: CELL/SUBJECT/SEED of the experiment's own.
    """
    kind, began = DRAWN[name].kind, time.monotonic()
    photographs, run, judged = (folder / part for part in ("photographs", "run", "evaluation"))
    for part in (run, judged):
        shutil.rmtree(part, ignore_errors=True)
    write_photographs(photographs, cell, name)
    if cell.trains:
        of_class = WRONG[kind] if cell.noun == "wrong" else kind
        given: dict[str, Any] = {"instance_prompt": f"a photo of a {called(cell, kind)}"}
        given |= {"class_prompt": f"a photo of a {of_class}"}
        given |= {"num_validation_images": 1, "report_to": "none", "seed": seed, **cell.settings, **settings}
        if cell.settings.get("with_prior_preservation") is False and not cell.settings.get("diff_output_preservation"):
            del given["class_prompt"]
        elif not cell.settings.get("diff_output_preservation"):  # the same for all, so made once
            given["class_data_dir"] = str(folder.parents[2] / "class-images" / of_class)
        dreamcore.train("quickstart", instance_data_dir=str(photographs), output_dir=str(run), **given)
    trained = time.monotonic()
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"a photo of a {called(cell, kind)} {place}\n" for place in PLACES))
    every = folder / "all-photographs"
    write_photographs(every, BY_NAME["full"], name)
    found = dreamcore.evaluate(
        source=str(run) if cell.trains else "tinyworld", judge=["tinyworld"], instance_data_dir=str(every),
        identifier=IDENTIFIER, class_word=kind, class_prompt=f"a photo of a {kind}", prompt_file=str(prompts),
        num_images=PICTURES, num_class_images=4 * PICTURES, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        scheduler="ddim", batch_size=PICTURES, output_dir=str(judged), **({} if cell.trains else settings),
    )  # fmt: skip
    shutil.rmtree(run, ignore_errors=True)
    seconds = {"training": round(trained - began, 1), "judging": round(time.monotonic() - trained, 1)}
    return {"measures": found.content["subjects"][0]["measures"], "seconds": seconds}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="*", choices=tuple(BY_NAME), default=[c.name for c in CELLS if c.first])
    parser.add_argument("--subjects", nargs="*", choices=tuple(DRAWN), default=SUBJECTS)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--folder", type=Path, default=Path("build") / "experiment")
    parser.add_argument("--backend")
    parser.add_argument("--write", action="store_true", help="write docs/experiment.md from what is there, and no more")
    args = parser.parse_args(argv)
    settings = {"backend": args.backend} if args.backend else {}
    for name in [] if args.write else args.cells:
        for subject in args.subjects:
            for seed in args.seeds if BY_NAME[name].trains else SEEDS[:1]:
                folder = args.folder / name.replace(" ", "-").replace(",", "") / subject / f"seed-{seed}"
                if read_record(folder / RESULTS).get("basis") == basis():
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                with dreamcore.verbosity("quiet"):
                    found = one(BY_NAME[name], subject, seed, folder, settings)
                said = {"cell": name, "subject": subject, "seed": seed, "basis": basis(), **found}
                write_atomically(folder / RESULTS, json.dumps(said, indent=1))
                sys.stdout.write(f"{name}, {subject}, seed {seed}: {found['seconds']}\n")
    sys.stdout.write(f"{write_document(args.folder)}\n")


if __name__ == "__main__":
    main()
