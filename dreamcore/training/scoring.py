"""Scores of a run's validation images, on the main process, as the model learns.

The measures are those of `dreambooth evaluate` (`evaluation.metrics` has the formulas) on pictures of one prompt; the
photographs are embedded once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..config import TrainConfig
from ..config.naming import rare_word, without_name
from ..config.selecting import scores
from ..data import decode
from ..data.decode import decode_bytes
from ..evaluation import Judge, Picture, open_judge
from ..evaluation.metrics import Embeddings, likeness, spread
from ..evaluation.opening import usual
from ..evaluation.scores import DIVERSITY, SHOWN
from ..io.progress import progress
from .training_data import TrainingData

MOST_PHOTOGRAPHS = 32
"""Photographs that pictures are compared with: the first ones."""


class Scoring:
    """What scores.

    Args:
        judge: looks at the pictures.
        photographs: of the first subject, which the validation prompt is about.
        prompt: the pictures' words, without the rare word, which no judge knows.
    """

    def __init__(self, judge: Judge, photographs: Sequence[Picture], prompt: str):
        self.judge, self._photographs, self.prompt = judge, photographs, prompt
        self._embedded: dict[str, Embeddings] = {}

    @classmethod
    def of(cls, config: TrainConfig, data: TrainingData, prompt: str) -> Scoring | None:
        """As the settings ask for; None where nothing is scored.

        Args:
            prompt: the validation images'.

        Raises:
            ConfigError: the judge's weights cannot be had.
        """
        if not scores(config):
            return None
        judge = open_judge(config.judge or usual(config.pretrained_model_name_or_path), config.cache_dir)
        first = data.subjects[0]
        held_out = [photo for part in data.held_out for photo in part.images.photos] if len(data.subjects) == 1 else []
        photos = (held_out or first.images.photos)[:MOST_PHOTOGRAPHS]
        words = without_name(prompt, rare_word(config, first.concept) or "")
        return cls(judge, [np.asarray(decode_bytes(photo.data(), photo.path).image) for photo in photos], words)

    def knows_words(self) -> bool:
        """Whether the judge can say how true a picture is to the prompt."""
        return bool(self.judge.follows([self._photographs[0]], [self.prompt]))

    def score(self, files: Sequence[Path]) -> dict[str, float]:
        """Measure -> the mean over pictures that have it."""
        pictures, judge = [np.asarray(decode(file)) for file in files], self.judge
        found, embedded = dict[str, float](), dict[str, Embeddings]()
        with progress("scoring the validation images"):
            for space in judge.likenesses:
                embedded[space] = judge.embed(space, pictures)
                each = likeness(embedded[space], self._photographs_in(space))
                found[space] = float(each.mean())
                if judge.threshold is not None and space == judge.likenesses[0]:
                    found[SHOWN] = float((each >= judge.threshold).mean())
            for name, values in judge.follows(pictures, [self.prompt] * len(pictures)).items():
                found[name] = float(np.nanmean(values))
        for value in spread(embedded[judge.likenesses[0]], [self.prompt] * len(pictures)).values():
            found[DIVERSITY] = value
        return found

    def _photographs_in(self, space: str) -> Embeddings:
        if space not in self._embedded:
            self._embedded[space] = self.judge.embed(space, self._photographs)
        return self._embedded[space]

    def summed_up(self, record: Mapping[str, float], by: str) -> float | None:
        """What `best_by` looks at, of the scores of one update; None where there are none."""
        subject = record.get(self.judge.likenesses[0])
        others = {*self.judge.likenesses, SHOWN, DIVERSITY, "step", "validation_loss"}
        truths = [value for name, value in record.items() if name not in others and value is not None]
        words = float(np.mean(truths)) if truths else None
        if by in ("subject", "words"):
            return subject if by == "subject" else words
        return None if subject is None or words is None else math.sqrt(max(subject, 0.0) * max(words, 0.0))
