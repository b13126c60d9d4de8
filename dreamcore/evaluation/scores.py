"""A subject's scores: each picture's, their means with intervals, and the photograph that each is most like."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from ..config.naming import without_name
from .judge import Judge, Picture
from .metrics import Embeddings, Scores, cosines, interval, likeness, nearest, spread

Distance = Callable[[Picture, Picture], float]
PRIOR, DIVERSITY, SHOWN = "PRES", "DIV", "shown"
CLASS = "class "
"""What the measures of the class's pictures begin with."""
PHOTOGRAPHS = "photographs"
"""What the measure of the photographs among themselves begins with: what a picture of the subject can reach."""
LOWER_IS_BETTER = (PRIOR, CLASS + SHOWN)


@dataclass(frozen=True)
class Subject:
    """What is judged of one subject."""

    name: str
    pictures: Sequence[Picture]
    prompts: Sequence[str]
    """Of each picture; empty where they are not known."""
    photographs: Sequence[Picture]
    """What the pictures are to be like: held-out ones, where there are any."""
    class_pictures: Sequence[Picture] = ()
    """Pictures of the class, made with words that do not name the subject."""
    class_prompts: Sequence[str] = ()
    identifier: str = ""
    """The rare word, which is left out of what judges read."""
    trained_on: Sequence[Picture] = ()
    """The photographs that were trained on, for the nearest one; the same as `photographs` where left out."""


@dataclass(frozen=True)
class Measure:
    """One figure: the mean over pictures, with its 95 % interval (bootstrap over prompts, for pictures of one prompt
    are alike; none where there is one prompt)."""

    value: float
    low: float | None
    high: float | None
    count: int

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        rounded = [None if value is None else round(value, 6) for value in (self.value, self.low, self.high)]
        return dict(zip(("value", "low", "high"), rounded, strict=True)) | {"count": self.count}


@dataclass(frozen=True)
class SubjectScores:
    """What a judge makes of one subject."""

    name: str
    measures: Mapping[str, Measure]
    """In the order of a table's columns."""
    pictures: Mapping[str, Scores]
    """Measure -> each picture's, [N]."""
    nearest: tuple[list[int], Scores]
    """Of each picture which photograph of `trained_on` it is most like, and how like."""
    alike: float | None
    """How like the two of `trained_on` are that are most alike: a picture that is nearer to one of them was learned by
    heart.  None of a single one."""
    embeddings: Mapping[str, Embeddings] = field(repr=False)
    """"pictures" and "photographs" in the judge's first space: for `metrics.confusion`."""


def score(judge: Judge, subject: Subject, apart: Distance | None = None) -> SubjectScores:
    """All measures that a judge has of one subject (`metrics` has the formulas).

    Args:
        apart: how far two pictures of one prompt lie apart, for DIV; 1 - cos in the judge's first space by default.
    """
    prompts: Sequence[Hashable] = subject.prompts or range(len(subject.pictures))
    measures, each = dict[str, Measure](), dict[str, Scores]()
    kept = dict[str, Embeddings]()
    for space in judge.likenesses:
        photographs, pictures = (judge.embed(space, some) for some in (subject.photographs, subject.pictures))
        kept |= {name: value for name, value in (("photographs", photographs), ("pictures", pictures)) if not each}
        each[space] = likeness(pictures, photographs)
        measures[space] = _measure(each[space], prompts)
    first = judge.likenesses[0]
    if judge.threshold is not None:
        each[SHOWN] = (each[first] >= judge.threshold).astype(np.float64)
        measures[SHOWN] = _measure(each[SHOWN], prompts)
    if subject.prompts:
        words = [without_name(prompt, subject.identifier) for prompt in subject.prompts]
        for name, values in judge.follows(subject.pictures, words).items():
            each[name], measures[name] = values, _measure(values, prompts)
    if subject.class_pictures:
        measures |= _of_class(judge, subject, kept["photographs"])
    if subject.prompts and (spreads := _spreads(subject, kept["pictures"], apart)):
        measures[DIVERSITY] = _measure(np.array(list(spreads.values())), list(spreads))
    if len(subject.photographs) > 1:
        among = cosines(kept["photographs"], kept["photographs"])[np.triu_indices(len(subject.photographs), 1)]
        measures[f"{PHOTOGRAPHS} {first}"] = Measure(float(among.mean()), None, None, len(among))
    learned = judge.embed(first, subject.trained_on) if len(subject.trained_on) else kept["photographs"]
    which, how = nearest(kept["pictures"], learned)
    pairs = cosines(learned, learned)[np.triu_indices(len(learned), 1)]
    alike = float(pairs.max()) if len(pairs) else None
    return SubjectScores(subject.name, measures, each, (which.tolist(), how), alike, kept)


def _spreads(subject: Subject, pictures: Embeddings, apart: Distance | None) -> dict[Hashable, float]:
    if apart is None:
        return spread(pictures, subject.prompts)
    of = {prompt: [p for p, asked in zip(subject.pictures, subject.prompts, strict=True) if asked == prompt]
          for prompt in subject.prompts}  # fmt: skip
    return {
        prompt: float(np.mean([apart(one, other) for one, other in combinations(some, 2)]))
        for prompt, some in of.items()
        if len(some) > 1
    }


def _of_class(judge: Judge, subject: Subject, photographs: Embeddings) -> dict[str, Measure]:
    """PRES; and whether the class is still there: how true its pictures are to their own words."""
    first, rows = judge.likenesses[0], range(len(subject.class_pictures))
    like = likeness(judge.embed(first, subject.class_pictures), photographs)
    found = {PRIOR: _measure(like, rows)}
    if judge.threshold is not None:
        found[CLASS + SHOWN] = _measure((like >= judge.threshold).astype(np.float64), rows)
    if subject.class_prompts:
        for name, values in judge.follows(subject.class_pictures, subject.class_prompts).items():
            found[CLASS + name] = _measure(values, rows)
    return found


def _measure(values: Scores, groups: Sequence[Hashable]) -> Measure:
    """Of the pictures that have a value."""
    there = [n for n, value in enumerate(values) if not np.isnan(value)]
    kept, members = values[there], [groups[n] for n in there]
    low, high = interval(kept, members) if len(set(members)) > 1 else (None, None)
    return Measure(float(kept.mean()), low, high, len(kept))
