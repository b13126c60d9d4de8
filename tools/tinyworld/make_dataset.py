"""Draw the training set of the denoiser: images with side-car captions, some of whose words are left out at random.

One caption in sixteen gets a rare word before the class, so that a word without meaning changes nothing.  Every other
scene has colours that words cannot say, and any pattern, which its caption names: who has seen only what words can say
cannot be taught a subject, and a pattern that no word asks for is learned badly.  No class wears the pattern that one
of its subjects wears.

    python tools/tinyworld/make_dataset.py --out build/tinyworld/scenes --count 12000
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from dreamcore.tinyworld.draws import Draws
from dreamcore.tinyworld.scenes import Scene, scene_at
from dreamcore.tinyworld.subjects import SUBJECTS
from dreamcore.tinyworld.vocabulary import RARE_WORDS

RESERVED = {(subject.kind, subject.pattern) for subject in SUBJECTS.values()}
"""Classes and patterns that only subjects bring together."""
REDRAW = 1_000_000
"""Added to the number of a scene that is drawn again."""


def with_rare_word(text: str, kind: str, draws: Draws) -> str:
    words = text.split()
    words.insert(words.index(kind), draws.choice(RARE_WORDS))
    if words[words.index(kind) - 2] == "an":
        words[words.index(kind) - 2] = "a"
    return " ".join(words)


def training_scene(seed: int, index: int) -> tuple[Scene, Image.Image, str]:
    """Scene number `index`; every other is a wild one that resembles no subject."""
    wild, attempt = index % 2 == 1, index
    while True:
        scene, picture, text = scene_at(seed, attempt, wild)
        if not wild or (scene.kind, scene.pattern) not in RESERVED:
            return scene, picture, text
        attempt += REDRAW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for i in range(args.count):
        scene, picture, text = training_scene(args.seed, i)
        draws = Draws(args.seed + 1, i)
        if draws.chance(1 / 16):
            text = with_rare_word(text, scene.kind, draws)
        picture.save(args.out / f"{i:05d}.png")
        (args.out / f"{i:05d}.txt").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
