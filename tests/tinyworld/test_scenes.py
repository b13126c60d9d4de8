"""Scenes: deterministic, true to their words, and held-out combinations stay out."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamcore.tinyworld import SUBJECTS, draw, scene_at
from dreamcore.tinyworld import vocabulary as words
from dreamcore.tinyworld.__main__ import write_subject
from dreamcore.tinyworld.draws import Draws
from dreamcore.tinyworld.figures import FIGURES
from dreamcore.tinyworld.patterns import KINDS, mask
from dreamcore.tinyworld.placement import Placement, rectangle
from dreamcore.tinyworld.places import PLACES
from dreamcore.tinyworld.scenes import WIDE, Scene, named_scene


def pixels(scene: Scene, seed: int = 0) -> np.ndarray:
    return np.asarray(draw(scene, Draws(seed))).astype(int)


GOLDEN_DICE = [0.30931491118583454, 0.3569562367935075, 0.036904530468356844]
PLAIN = Scene("mug", words.COLOURS["red"], "plain", words.COLOURS["blue"], "on grass", "red", "blue")


def test_the_world_is_rich_enough() -> None:
    assert len(words.CLASSES) >= 8
    assert len(words.COLOURS) == 8
    assert len(words.PLACES) >= 5
    assert tuple(FIGURES) == words.CLASSES
    assert tuple(PLACES) == words.PLACES
    assert set(words.PATTERNS) < set(KINDS)


def test_same_seed_same_picture_other_seed_other_picture() -> None:
    first, again, other = (scene_at(*where) for where in ((3, 5), (3, 5), (3, 6)))
    assert first[0] == again[0]
    assert first[2] == again[2]
    assert np.array_equal(np.asarray(first[1]), np.asarray(again[1]))
    assert not np.array_equal(np.asarray(first[1]), np.asarray(other[1]))


def test_dice_are_the_same_everywhere() -> None:
    """Philox's first doubles, written down once: NumPy's version and the platform must not matter."""
    draws = Draws(1, 2)
    assert [draws.uniform(0, 1) for _ in range(3)] == GOLDEN_DICE


@pytest.mark.parametrize("kind", words.CLASSES)
def test_body_colour_is_what_most_of_the_body_shows(kind: str) -> None:
    """Between bodies of two colours only the thing changes, and it shows the colours asked for."""
    red, blue = (pixels(replace(PLAIN, kind=kind, body=words.COLOURS[c])) for c in ("red", "blue"))
    changed = np.abs(red - blue).sum(-1) > 200
    assert 0.06 < changed.mean() < 0.5
    assert np.abs(np.median(red[changed], 0) - words.COLOURS["red"]).max() < 45
    assert np.abs(np.median(blue[changed], 0) - words.COLOURS["blue"]).max() < 45


@pytest.mark.parametrize("kind", words.CLASSES)
def test_patterns_show_on_every_class_without_hiding_the_body(kind: str) -> None:
    red, blue = (pixels(replace(PLAIN, kind=kind, body=words.COLOURS[c])) for c in ("red", "blue"))
    whole = np.abs(red - blue).sum(-1)
    for pattern in KINDS[1:]:
        shown = np.abs(red - pixels(replace(PLAIN, kind=kind, pattern=pattern))).sum(-1)
        assert not (shown > 60)[whole <= 20].any(), pattern
        assert 0.05 < shown.sum() / whole.sum() < (0.5 if pattern in words.PATTERNS else 0.65), pattern


def test_a_place_changes_the_surroundings_not_the_throws() -> None:
    day, night = (pixels(replace(PLAIN, place=p)) for p in ("on grass", "at night"))
    assert day[:8].mean() > night[:8].mean() + 100


def test_captions_tell_the_truth_and_only_that() -> None:
    for index in range(200):
        scene, _, text = scene_at(0, index)
        assert scene.kind in text.split()
        said = set(text.split()) & set(words.COLOURS)
        assert said <= {scene.colour, scene.second_colour if scene.pattern != "plain" else None}
        assert not [p for p in words.PLACES if p in text and p != scene.place]
    texts = [scene_at(0, i)[2] for i in range(200)]
    assert len({len(t.split()) for t in texts}) > 5, "words are left out at random"


def test_whole_captions_read_well() -> None:
    scene = replace(PLAIN, colour="orange", pattern="stripe")
    assert scene.caption() == "a photo of an orange mug with a blue stripe on grass"
    assert doctest.testmod(words).failed == 0


def test_held_out_combinations_never_occur_but_their_pairs_do() -> None:
    seen = {(s.kind, s.colour, s.place) for s in (named_scene(Draws(9, i)) for i in range(3000))}
    out = {(k, c, p) for k in words.CLASSES for c in words.COLOURS for p in words.PLACES if words.held_out(k, c, p)}
    assert 15 <= len(out) <= 40
    assert not seen & out
    assert {(k, c) for k, c, _ in out} <= {(k, c) for k, c, _ in seen}
    assert {(k, p) for k, _, p in out} <= {(k, p) for k, _, p in seen}
    assert {(c, p) for _, c, p in out} <= {(c, p) for _, c, p in seen}


def test_subjects_are_of_several_classes_and_beyond_all_captions() -> None:
    assert len(SUBJECTS) >= 5
    assert len({s.kind for s in SUBJECTS.values()}) >= 5
    for subject in SUBJECTS.values():
        assert subject.pattern not in words.PATTERNS
        named = np.array(list(words.COLOURS.values()))
        for colour in (subject.body, subject.second):
            assert np.abs(named - colour).sum(-1).min() > 60
    assert len({p.tobytes() for p in SUBJECTS["zigzag-mug"].pictures(5)}) == 5


def test_a_subject_is_written_with_captions_that_say_its_places(tmp_path: Path) -> None:
    write_subject(tmp_path, "barred-fish")
    for number, place in enumerate(("on grass", "on sand", "in snow", "at night", "at sunset")):
        assert (tmp_path / f"{number}.txt").read_text() == f"a photo of a sks fish {place}\n"
        drawn = SUBJECTS["barred-fish"].draw(place, seed=0, index=number, width=WIDE)
        assert drawn.size == (WIDE, 64)
        assert np.array_equal(Image.open(tmp_path / f"{number}.png"), drawn)


def test_wild_scenes_have_colours_that_no_word_names() -> None:
    bodies = [scene_at(0, i, wild=True)[0].body for i in range(60)]
    assert len(set(bodies)) > 55
    assert all(np.std([b[c] for b in bodies]) > 40 for c in range(3))


def test_pen_mirrors_and_turns() -> None:
    corner = [(1.0, 0.0)]
    assert Placement(10, 10, 4).place(corner) == [(14, 10)]
    assert Placement(10, 10, 4, mirrored=True).place(corner) == [(6, 10)]
    assert Placement(10, 10, 4, tilt=np.pi / 2).place(corner) == [(10, 14)]


def test_unknown_pattern_is_an_error() -> None:
    with pytest.raises(ValueError, match="tartan"):
        mask((8, 8), "tartan", rectangle(0, 0, 1, 1), Placement(4, 4, 4))
