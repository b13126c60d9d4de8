"""Measure a tinyworld model with the judge: the base model, or what DreamBooth made of it.

python tools/tinyworld/evaluate.py base --model dreamcore/tinyworld/model --out build/tinyworld/base
python tools/tinyworld/evaluate.py subject --model RUN --before dreamcore/tinyworld/model --subject zigzag-mug --out DIR
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from drawn import save_sheet
from numpy.typing import NDArray

from dreamcore.tinyworld import SUBJECTS, Subject, draw, judge
from dreamcore.tinyworld.draws import Draws
from dreamcore.tinyworld.scenes import Scene
from dreamcore.tinyworld.vocabulary import CLASSES, COLOURS, PLACES, caption, held_out

Pictures = NDArray[np.uint8]
Asked = list[tuple[str, str, str]]

VARIED = (
    ("mug", "red", "on grass"),
    ("fish", "blue", "at night"),
    ("car", "yellow", "in snow"),
    ("tree", "green", "on sand"),
)
"""Prompts of which several images are compared."""
ALL = [(k, c, p) for k in CLASSES for c in COLOURS for p in PLACES]


def generate(model: Path, prompts: list[str], seeds: list[int], steps: int, guidance: float) -> Pictures:
    """One 64 x 64 image for each prompt and seed, by DDIM."""
    pipe = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    channels, made = pipe.unet.config.in_channels, []
    for i in range(0, len(prompts), 32):
        noise = torch.cat(
            [torch.randn(1, channels, 16, 16, generator=torch.Generator().manual_seed(s)) for s in seeds[i : i + 32]]
        )
        out = pipe(
            prompts[i : i + 32],
            latents=noise,
            height=64,
            width=64,
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        )
        made.append((out.images * 255).round().astype(np.uint8))
    return np.concatenate(made)


def rates(pictures: Pictures, asked: Asked) -> dict[str, float]:
    """Share of images that show the class, colour and place asked for, and all three."""
    seen = judge.look(pictures)
    right = np.array(
        [(np.array(s) == np.array(a)) for s, a in zip(_traits(seen), zip(*asked, strict=True), strict=True)]
    )
    class_, colour, place = (round(float(r.mean()), 4) for r in right)
    return {"class": class_, "colour": colour, "place": place, "all three": round(float(right.all(0).mean()), 4)}


def _traits(seen: judge.Verdict) -> tuple[list[str], list[str], list[str]]:
    return seen.kind, seen.colour, seen.place


def spread(pictures: Pictures) -> float:
    """Mean absolute difference between images of one prompt [N, 64, 64, 3], over all pairs, in grey levels."""
    x = pictures.astype(np.float32)
    differences = [np.abs(x[i] - x[j]).mean() for i in range(len(x)) for j in range(i)]
    return round(float(np.mean(differences)), 2)


def evaluate_base(args: argparse.Namespace) -> dict[str, object]:
    known = [combination for combination in ALL if not held_out(*combination)]
    draws = Draws(11)
    asked = [draws.choice(known) for _ in range(256)]
    unseen = [c for c in ALL if held_out(*c)] * 4
    report: dict[str, object] = {"steps": args.steps, "guidance": args.guidance}
    for name, wanted, seed in (("seen combinations", asked, 1000), ("held-out combinations", unseen, 2000)):
        prompts = [caption(k, c, place=p) for k, c, p in wanted]
        made = generate(args.model, prompts, [seed + i for i in range(len(wanted))], args.steps, args.guidance)
        report[name] = {"pictures": len(wanted)} | rates(made, wanted)
        save_sheet(list(made[:64]), 8, args.out / f"{name.split()[0]}.png")
    report["diversity"] = diversity(args)
    return report


def diversity(args: argparse.Namespace) -> dict[str, float]:
    """How far 16 images of one prompt lie apart, over 4 prompts, beside drawn scenes of the same words."""
    made, drawn = [], []
    for i, (kind, colour, place) in enumerate(VARIED):
        prompt = caption(kind, colour, place=place)
        seeds = [3000 + 100 * i + j for j in range(16)]
        made.append(spread(generate(args.model, [prompt] * 16, seeds, args.steps, args.guidance)))
        scene = Scene(kind, COLOURS[colour], "plain", COLOURS["white"], place, colour)
        drawn.append(spread(np.stack([np.asarray(draw(scene, Draws(4000 + i, j))) for j in range(16)])))
    return {"generated": round(float(np.mean(made)), 2), "drawn": round(float(np.mean(drawn)), 2)}


def measure_subject(
    subject: Subject,
    model: Path,
    identifier: str,
    steps: int,
    guidance: float,
    sheet: Path,
    leave_out: str = "at sunset",
) -> dict[str, float]:
    """Recognition under the identifier in 4 places x 16 seeds, the places, and what the class prompt shows.

    "apart" is how far the images of one place differ, in grey levels: little, where what is shown is the photograph of
    that place.  An image can be like several subjects; "nearest" is the share that is most like this one, and like
    neither another nor the same thing with its two colours exchanged.
    """
    references = pictures_of(subject)
    wanted = [place for place in PLACES if place != leave_out for _ in range(16)][:64]
    prompts = [f"a photo of a {identifier} {subject.kind} {place}" for place in wanted]
    made = generate(model, prompts, [5000 + i for i in range(64)], steps, guidance)
    plain = generate(model, [f"a photo of a {subject.kind}"] * 64, list(range(6000, 6064)), steps, guidance)
    own, seen = judge.subject_scores(references, made), judge.look(made)
    apart = [spread(made[i : i + 16]) for i in range(0, 64, 16)]
    swapped = replace(subject, body=subject.second, second=subject.body)
    others = [judge.subject_scores(pictures_of(s), made) for s in (swapped, *SUBJECTS.values()) if s != subject]
    save_sheet([*references, *made[::4], *plain[:19]], 8, sheet)
    return {
        "recognised": round(float((own >= judge.threshold()).mean()), 4),
        "mean score": round(float(own.mean()), 3),
        "nearest": round(float((own > np.max(others, 0)).mean()), 4),
        "class": judge.agreement(seen.kind, [subject.kind] * 64),
        "place": judge.agreement(seen.place, wanted),
        "apart": round(float(np.mean(apart)), 1),
        "class prompt shows the subject": float(judge.shows_subject(references, plain).mean()),
        "class prompt shows the class": judge.agreement(judge.look(plain).kind, [subject.kind] * 64),
    }


def pictures_of(subject: Subject) -> Pictures:
    """The five that it is taught from."""
    return np.stack([np.asarray(p) for p in subject.pictures(5)])


def evaluate_subject(args: argparse.Namespace) -> dict[str, object]:
    subject: Subject = SUBJECTS[args.subject]
    report: dict[str, object] = {"subject": args.subject, "threshold": judge.threshold()}
    for name, model in (("before", args.before), ("after", args.model)):
        if model is not None:
            sheet = args.out / f"{args.subject}-{name}.png"
            report[name] = measure_subject(
                subject, model, args.identifier, args.steps, args.guidance, sheet, args.leave_out
            )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("base", "subject"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--before", type=Path, help="the model that was taught, to be measured too")
    parser.add_argument("--subject", choices=tuple(SUBJECTS), default="zigzag-mug")
    parser.add_argument("--identifier", default="sks")
    parser.add_argument("--leave_out", choices=PLACES, default="at sunset", help="place that no prompt asks for")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    report = evaluate_base(args) if args.what == "base" else evaluate_subject(args)
    text = json.dumps(report, indent=2)
    (args.out / f"{args.what if args.what == 'base' else args.subject}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
