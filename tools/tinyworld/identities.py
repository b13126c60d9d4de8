"""Families of things that differ in one trait: what the judge's embedding must tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dreamcore.tinyworld.draws import Draws
from dreamcore.tinyworld.patterns import KINDS
from dreamcore.tinyworld.scenes import Scene, draw, named_scene, wild_scene
from dreamcore.tinyworld.vocabulary import CLASSES, COLOURS, PLACES, RGB

MEMBERS = 5


def far_colour(draws: Draws, *others: RGB) -> RGB:
    """A random colour, or a named one, that nobody would take for one of the others."""
    while True:
        colour = draws.choice(list(COLOURS.values())) if draws.chance(0.3) else wild_scene(draws).body
        if all(sum(abs(a - b) for a, b in zip(colour, other, strict=True)) > 130 for other in others):
            return colour


def family(draws: Draws) -> list[Scene]:
    """A patterned thing, and four that differ from it in the pattern, the body, the second colour or the class."""
    base = named_scene(draws) if draws.chance(0.3) else wild_scene(draws)
    if base.pattern == "plain":
        base = replace(base, pattern=draws.choice(KINDS[1:]))
    return [
        base,
        replace(base, pattern=draws.choice([k for k in KINDS if k != base.pattern])),
        replace(base, body=far_colour(draws, base.body, base.second)),
        replace(base, second=far_colour(draws, base.body, base.second)),
        replace(base, kind=draws.choice([k for k in CLASSES if k != base.kind])),
    ]


def draw_families(seed: int, count: int, views: int) -> tuple[list[list[Scene]], torch.Tensor]:
    """Families, and uint8 [count, MEMBERS, views, 3, 64, 64], each view in a place of its own."""
    families = [family(Draws(seed, i)) for i in range(count)]
    pictures = np.empty((count, MEMBERS, views, 64, 64, 3), np.uint8)
    for i, members in enumerate(families):
        draws = Draws(seed + 1, i)
        for j, scene in enumerate(members):
            for k in range(views):
                pictures[i, j, k] = draw(replace(scene, place=draws.choice(PLACES)), draws)
    return families, torch.from_numpy(pictures).permute(0, 1, 2, 5, 3, 4).contiguous()
