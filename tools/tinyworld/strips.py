"""A blind test for the eye: shuffled strips, half of a taught subject, half of the same with its colours exchanged.

    python tools/tinyworld/strips.py --subject zigzag-mug --model RUN --out DIR
    python tools/tinyworld/strips.py --out DIR --answers ssrsr…

The first teaches the relative by the quickstart's preset, and writes strips.png (above, the subject's photographs;
below, numbered strips of four pictures that either model made) and key.txt, which whoever sorts must not read.  The
second counts what was sorted rightly: an s for each strip that shows the subject, an r for each with the relative.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from evaluate import Pictures, generate, pictures_of
from PIL import Image, ImageDraw
from teach import teach

from dreamcore.models.locate import embedded_model
from dreamcore.tinyworld import QUICKSTART, SIZE, SUBJECTS
from dreamcore.tinyworld.__main__ import IDENTIFIER, write_pictures
from dreamcore.tinyworld.draws import Draws
from dreamcore.tinyworld.vocabulary import PLACES

STRIPS, LONG, ZOOM = 20, 4, 2
COLUMNS, MARGIN = 2, 24


def shuffled(seed: int) -> str:
    """s and r in equal number, in an order drawn from the seed."""
    draws, left, order = Draws(seed), list("sr" * (STRIPS // 2)), ""
    while left:
        order += left.pop(draws.whole(0, len(left) - 1))
    return order


def taught_relative(name: str, out: Path, base: Path) -> Path:
    """A model that was taught the subject with its two colours exchanged."""
    subject, run = SUBJECTS[name], out / "relative" / "run"
    write_pictures(run.parent / "pictures", replace(subject, body=subject.second, second=subject.body))
    teach(name, run, ["--pretrained_model_name_or_path", str(base)])
    return run


def sheet_of(photographs: Pictures, strips: list[Pictures]) -> Image.Image:
    """The photographs in the first row; below them the strips, numbered from 1."""
    cell = SIZE * ZOOM
    rows = -(-len(strips) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (MARGIN + LONG * cell), (1 + rows) * (cell + 8)), "white")
    words = ImageDraw.Draw(sheet)
    places = [(MARGIN + i * cell, 0, picture) for i, picture in enumerate(photographs)]
    for number, strip in enumerate(strips):
        left, top = number % COLUMNS * (MARGIN + LONG * cell), (1 + number // COLUMNS) * (cell + 8)
        words.text((left + 4, top + cell // 2), str(number + 1), "black")
        places += [(left + MARGIN + i * cell, top, picture) for i, picture in enumerate(strip)]
    for x, y, picture in places:
        sheet.paste(Image.fromarray(picture).resize((cell, cell), Image.Resampling.NEAREST), (x, y))
    return sheet


def make(args: argparse.Namespace) -> None:
    order = shuffled(args.seed)
    models = {"s": args.model, "r": taught_relative(args.subject, args.out, args.base)}
    prompts = [f"a photo of a {IDENTIFIER} {SUBJECTS[args.subject].kind} {place}" for place in PLACES[:LONG]]
    pictures = {}
    for letter, model in models.items():
        numbers = [i for i, other in enumerate(order) if other == letter]
        seeds = [7000 + LONG * i + j for i in numbers for j in range(LONG)]
        made = generate(model, prompts * len(numbers), seeds, args.steps, args.guidance)
        pictures |= dict(zip(numbers, np.split(made, len(numbers)), strict=True))
    sheet_of(pictures_of(SUBJECTS[args.subject]), [pictures[i] for i in range(STRIPS)]).save(args.out / "strips.png")
    (args.out / "key.txt").write_text(order + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--subject", choices=tuple(SUBJECTS), default=QUICKSTART)
    parser.add_argument("--model", type=Path, help="the run that was taught the subject")
    parser.add_argument("--base", type=Path, default=embedded_model(), help="the model to teach the relative to")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--answers", help=f"{STRIPS} letters, s or r")
    args = parser.parse_args()
    if not args.answers:
        if args.model is None:
            parser.error("--model: the run that was taught the subject")
        args.out.mkdir(parents=True, exist_ok=True)
        make(args)
        return
    key = (args.out / "key.txt").read_text().strip()
    if len(args.answers) != len(key) or set(args.answers) - set("sr"):
        parser.error(f"--answers: {len(key)} letters, each s or r")
    print(f"{sum(a == b for a, b in zip(args.answers, key, strict=True))} of {len(key)} sorted rightly")


if __name__ == "__main__":
    main()
