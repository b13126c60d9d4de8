"""The judge: right on fresh scenes, and its subject score tells a subject from its relatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dreamcore.tinyworld import SUBJECTS, draw, judge, scene_at
from dreamcore.tinyworld.draws import Draws
from dreamcore.tinyworld.scenes import WIDE
from dreamcore.tinyworld.vocabulary import CLASSES, COLOURS, PLACES

FRESH = 987


def stacked(pictures: list) -> np.ndarray:
    return np.stack([np.asarray(p) for p in pictures])


def test_97_in_100_right_on_freshly_drawn_scenes() -> None:
    drawn = [scene_at(FRESH, i, allow_held_out=True) for i in range(300)]
    seen = judge.look(stacked([picture for _, picture, _ in drawn]))
    for trait in judge.HEADS:
        assert judge.agreement(getattr(seen, trait), [getattr(scene, trait) for scene, _, _ in drawn]) >= 0.97, trait


def test_weights_are_small() -> None:
    assert judge.WEIGHTS.stat().st_size < 1e6


def test_convolution_is_the_textbook_sum() -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 6, 6, 3), (3, 3, 3, 4), (4,)))
    for stride in (1, 2):
        out = judge._convolve(x, w, b, stride)
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        i, j = 1, 2
        window = padded[1, i * stride : i * stride + 3, j * stride : j * stride + 3]
        expected = np.maximum(np.einsum("hwc,hwco->o", window, w) + b, 0)
        assert out.shape == (2, 6 // stride, 6 // stride, 4)
        assert np.allclose(out[1, i, j], expected, atol=1e-4)


def test_a_chunk_more_or_less_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = stacked(SUBJECTS["zigzag-mug"].pictures(5))
    whole = judge.look(pictures).embedding
    monkeypatch.setattr(judge, "CHUNK", 2)
    assert np.allclose(judge.look(pictures).embedding, whole, atol=1e-5)
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", SUBJECTS)
def test_whatever_part_of_a_photograph_is_taken_shows_the_subject(name: str) -> None:
    wide = stacked(SUBJECTS[name].pictures(5, width=WIDE))
    references = stacked(SUBJECTS[name].pictures(5))
    parts = [wide[:, :, left : left + 64] for left in range(0, WIDE - 63, 3)]
    assert judge.shows_subject(references, np.concatenate(parts)).mean() > 0.9


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_are_recognised_and_their_relatives_are_not(name: str) -> None:
    subject = SUBJECTS[name]
    references = stacked(subject.pictures(5))
    own = stacked([subject.draw(PLACES[i % 5], 77, i) for i in range(20)])
    other_kind = next(k for k in CLASSES if k != subject.kind)
    relatives = [
        replace(subject, pattern="plain"),
        replace(subject, kind=other_kind),
        replace(subject, body=COLOURS["yellow"]),
        replace(subject, second=COLOURS["white"]),
    ]
    strangers = [s for other, s in SUBJECTS.items() if other != name]
    others = stacked([s.draw(PLACES[i % 5], 78, i) for s in (*relatives, *strangers) for i in range(2)])
    assert judge.shows_subject(references, own).mean() >= 0.85
    assert judge.shows_subject(references, others).mean() <= 0.05


@pytest.mark.parametrize("name", SUBJECTS)
def test_another_pattern_in_the_same_colours_is_less_like_the_subject(name: str) -> None:
    """The hardest case: judge.json says how often such a relative is taken for the subject."""
    subject = SUBJECTS[name]
    references = stacked(subject.pictures(5))
    own, spotted = (
        judge.subject_scores(references, stacked([s.draw(PLACES[i % 5], 79, i) for i in range(10)])).mean()
        for s in (subject, replace(subject, pattern="spots"))
    )
    assert own > spotted + 0.02


def test_ordinary_scenes_of_the_class_are_not_the_subject() -> None:
    references = stacked(SUBJECTS["zigzag-mug"].pictures(5))
    mugs = [replace(scene_at(FRESH, i)[0], kind="mug") for i in range(60)]
    assert not judge.shows_subject(references, stacked([draw(s, Draws(3, i)) for i, s in enumerate(mugs)])).any()
