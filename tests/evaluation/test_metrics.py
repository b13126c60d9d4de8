"""The measures against SciPy's distances and loops over pairs, on embeddings of no encoder."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.spatial.distance import cdist, cosine, pdist

from dreamcore.evaluation import Judge, Picture, Subject, score
from dreamcore.evaluation.metrics import Embeddings, Scores, confusion, interval, likeness, nearest, spread, truth
from dreamcore.evaluation.prompts import LIVE_SUBJECTS, OBJECTS, prompts

RNG = np.random.default_rng(7)
PICTURES, PHOTOGRAPHS, WORDS = (RNG.standard_normal((n, 5)).astype(np.float32) for n in (6, 3, 6))
ASKED = ["a", "b", "a", "b", "c", "a"]


def test_likeness_is_the_mean_cosine_to_all_photographs() -> None:
    expected = [np.mean([1 - cosine(g, r) for r in PHOTOGRAPHS]) for g in PICTURES]
    np.testing.assert_allclose(likeness(PICTURES, PHOTOGRAPHS), expected, atol=1e-6)


def test_truth_is_each_pictures_cosine_to_its_own_prompt() -> None:
    expected = [1 - cosine(g, t) for g, t in zip(PICTURES, WORDS, strict=True)]
    np.testing.assert_allclose(truth(PICTURES, WORDS), expected, atol=1e-6)


def test_spread_is_among_pictures_of_one_prompt_alone() -> None:
    found = spread(PICTURES, ASKED)
    assert set(found) == {"a", "b"}, "c has one picture"
    for prompt in found:
        rows = [n for n, asked in enumerate(ASKED) if asked == prompt]
        expected = np.mean([cosine(PICTURES[i], PICTURES[j]) for i, j in itertools.combinations(rows, 2)])
        assert found[prompt] == pytest.approx(expected, abs=1e-6)


def test_nearest() -> None:
    which, how = nearest(PICTURES, PHOTOGRAPHS)
    distances = cdist(PICTURES, PHOTOGRAPHS, "cosine")
    assert which.tolist() == distances.argmin(1).tolist()
    np.testing.assert_allclose(how, 1 - distances.min(1), atol=1e-6)


def test_confusion_by_hand() -> None:
    """Two of three pictures of the first point its way, and both of the second its own."""
    one, other = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32), np.array([[0, 1], [0.1, 1]], np.float32)
    photographs = [np.array([[1, 0], [1, 0.2]], np.float32), np.array([[0, 1]], np.float32)]
    np.testing.assert_allclose(confusion([one, other], photographs), [[2 / 3, 1 / 3], [0, 1]])


def test_interval_covers_what_the_normal_one_does() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = interval(values, range(400))
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert interval(values, range(400)) == (low, high), "the same again"


def test_pictures_of_one_prompt_are_no_evidence_of_their_own() -> None:
    """Each value four times: the interval is as wide as of one of them."""
    values = np.random.default_rng(1).normal(size=30)
    once = interval(values, range(30))
    assert interval(np.repeat(values, 4), np.repeat(range(30), 4).tolist()) == pytest.approx(once)


def test_papers_prompts() -> None:
    assert len(set(OBJECTS)) == len(set(LIVE_SUBJECTS)) == 25
    assert prompts("live", "sks", "dog")[10] == "a sks dog wearing a red hat"
    assert prompts("objects", "", "teapot")[0] == "a teapot in the jungle"


class Fixed(Judge):
    """Whose embedding of a picture is its first row of numbers."""

    name, about, likenesses, sources = "fixed", "nothing", ("one", "half"), {"one": "here"}

    def embed(self, likeness: str, pictures: Sequence[Picture]) -> Embeddings:
        found = np.stack([picture[0, :, 0] for picture in pictures]).astype(np.float32)
        return found if likeness == "one" else found[:, :2]

    def follows(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> dict[str, Scores]:
        return {"length": np.array([np.nan if prompt == "?" else float(len(prompt)) for prompt in prompts])}


def test_a_subjects_scores() -> None:
    some = [np.random.default_rng(n).integers(1, 255, (4, 6, 3)).astype(np.uint8) for n in range(12)]
    pictures, photographs, of_class = some[:6], some[6:9], some[9:]
    words = ["on sand", "?", "on sand", "in snow", "?", "in snow"]
    found = score(Fixed(), Subject("it", pictures, words, photographs, of_class, ["a mug"] * 3))
    assert list(found.measures) == ["one", "half", "length", "PRES", "class length", "DIV", "photographs one"]
    rows = {name: np.stack([p[0, :, 0] for p in part]).astype(float) for name, part in
            (("g", pictures), ("r", photographs), ("h", of_class))}  # fmt: skip
    values = {name: measure.value for name, measure in found.measures.items()}
    assert values["one"] == pytest.approx(1 - cdist(rows["g"], rows["r"], "cosine").mean(), abs=1e-6)
    assert values["half"] == pytest.approx(1 - cdist(rows["g"][:, :2], rows["r"][:, :2], "cosine").mean(), abs=1e-6)
    assert values["PRES"] == pytest.approx(1 - cdist(rows["h"], rows["r"], "cosine").mean(), abs=1e-6)
    assert values["photographs one"] == pytest.approx(1 - pdist(rows["r"], "cosine").mean(), abs=1e-6)
    pairs = [(0, 2), (1, 4), (3, 5)]
    assert values["DIV"] == pytest.approx(np.mean([cosine(rows["g"][i], rows["g"][j]) for i, j in pairs]), abs=1e-6)
    assert values["length"] == 7 and found.measures["length"].count == 4, "those without a value count for nothing"
    assert found.nearest[0] == cdist(rows["g"], rows["r"], "cosine").argmin(1).tolist()
    assert found.alike == pytest.approx(1 - pdist(rows["r"], "cosine").min(), abs=1e-6)


def test_what_was_learned_by_heart_is_told_by_what_was_trained_on() -> None:
    """Held-out photographs, here two of the same, have no say in it; and of one photograph there is nothing to tell."""
    some = [np.random.default_rng(n).integers(1, 255, (4, 6, 3)).astype(np.uint8) for n in range(6)]
    found = score(Fixed(), Subject("it", some[:2], [], [some[5]] * 2, trained_on=some[2:5]))
    trained = np.stack([p[0, :, 0] for p in some[2:5]]).astype(float)
    assert found.alike == pytest.approx(1 - pdist(trained, "cosine").min(), abs=1e-6)
    assert score(Fixed(), Subject("it", some[:2], [], some[5:])).alike is None


def test_a_judge_reads_no_rare_word() -> None:
    some = [np.random.default_rng(n).integers(1, 255, (4, 6, 3)).astype(np.uint8) for n in range(3)]
    asked = ["a sks mug", "a sks mug on sand"]
    found = score(Fixed(), Subject("it", some[:2], asked, some[2:], identifier="sks"))
    assert found.pictures["length"].tolist() == [len("a mug"), len("a mug on sand")]
    assert set(found.pictures) == {"one", "half", "length"}
