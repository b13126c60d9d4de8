"""Draw the training set of the denoiser: images with side-car captions, some of whose words are left out at random.

One caption in sixteen gets a rare word before the class, so that a word without meaning changes nothing.  Two scenes of
three have colours that words cannot say, and any pattern, which the caption names: who has seen only what words can say
cannot be taught a subject, and a pattern that no word asks for is learned badly.  Of these, patterns that only they
wear come twice as often as the others, for they are the hard ones; and every other caption calls the two colours by the
nearest colour words, as people do.  No scene resembles a subject: a class wears the pattern of one of its subjects only
in colours of which neither is near either of the subject's.

    python tools/tinyworld/make_dataset.py --out build/tinyworld/scenes --count 26000
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image

from dreamcore.tinyworld.draws import Draws
from dreamcore.tinyworld.scenes import Scene, partial_caption, scene_at, wild_scene
from dreamcore.tinyworld.subjects import SUBJECTS
from dreamcore.tinyworld.vocabulary import COLOURS, PATTERNS, RARE_WORDS, RGB

NEAR = 120
"""Colours whose channels differ by less than this in sum are near each other."""
REDRAW = 1_000_000
"""Added to the number of a scene that is drawn again."""


def with_rare_word(text: str, kind: str, draws: Draws) -> str:
    words = text.split()
    words.insert(words.index(kind), draws.choice(RARE_WORDS))
    if words[words.index(kind) - 2] == "an":
        words[words.index(kind) - 2] = "a"
    return " ".join(words)


def resembles_a_subject(scene: Scene) -> bool:
    """Whether a subject has the scene's class and pattern, and one of its colours, be it in the other's place."""
    return any(
        (scene.kind, scene.pattern) == (subject.kind, subject.pattern)
        and any(_near(a, b) for a in (scene.body, scene.second) for b in (subject.body, subject.second))
        for subject in SUBJECTS.values()
    )


def _near(a: RGB, b: RGB) -> bool:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) < NEAR


def training_scene(seed: int, index: int) -> tuple[Scene, Image.Image, str]:
    """Scene number `index`; two of three are wild ones that resemble no subject."""
    wild, attempt = index % 3 > 0, index
    while wild and not _wanted(seed, attempt):
        attempt += REDRAW
    return scene_at(seed, attempt, wild)


def _wanted(seed: int, attempt: int) -> bool:
    scene = wild_scene(Draws(seed, attempt))
    return not resembles_a_subject(scene) and (scene.pattern not in PATTERNS or Draws(seed + 2, attempt).chance(0.5))


def nearest_word(colour: RGB) -> str:
    """
    >>> nearest_word((250, 20, 60))
    'red'
    """
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(colour, COLOURS[name], strict=True)))


def training_caption(scene: Scene, text: str, draws: Draws) -> str:
    """The scene's words, perhaps with the nearest colour words, where two tell its colours apart, and a rare word."""
    rare = draws.chance(1 / 16)
    body, second = nearest_word(scene.body), nearest_word(scene.second)
    if scene.colour is None and draws.chance(0.5) and body != second:
        text = partial_caption(replace(scene, colour=body, second_colour=second), draws)
    return with_rare_word(text, scene.kind, draws) if rare else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=26000)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first: several processes can share the work"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for i in range(args.first, args.first + args.count):
        scene, picture, text = training_scene(args.seed, i)
        text = training_caption(scene, text, Draws(args.seed + 1, i))
        picture.save(args.out / f"{i:05d}.png")
        (args.out / f"{i:05d}.txt").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
