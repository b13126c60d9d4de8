"""Draw the training set of the denoiser: pictures with side-car captions, some of whose words are left out at random.

One caption in sixteen gets a rare word before the class, so that a word without meaning changes nothing.

    python tools/tinyworld/make_dataset.py --out build/tinyworld/scenes --count 10000
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dreamcore.tinyworld.dice import Dice
from dreamcore.tinyworld.scenes import scene_at
from dreamcore.tinyworld.words import RARE_WORDS


def with_rare_word(text: str, kind: str, dice: Dice) -> str:
    words = text.split()
    words.insert(words.index(kind), dice.choice(RARE_WORDS))
    if words[words.index(kind) - 2] == "an":
        words[words.index(kind) - 2] = "a"
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for i in range(args.count):
        scene, picture, text = scene_at(args.seed, i)
        dice = Dice(args.seed + 1, i)
        if dice.chance(1 / 16):
            text = with_rare_word(text, scene.kind, dice)
        picture.save(args.out / f"{i:05d}.png")
        (args.out / f"{i:05d}.txt").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
