"""The embedded model's own judge (`tinyworld.judge`) behind the interface of all judges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..io.hashing import file_sha256
from ..tinyworld import SIZE
from ..tinyworld.judge import WEIGHTS, look
from ..tinyworld.judge import threshold as frozen_threshold
from ..tinyworld.vocabulary import CLASSES, PLACES
from .judge import Judge, Picture
from .metrics import Embeddings, Scores

LIKENESS, THING, PLACE = "likeness", "thing", "place"


class EmbeddedJudge(Judge):
    """Tells tinyworld's drawings apart: whose they are, what they show, and where."""

    name = "tinyworld's judge"
    about = (
        "A small network that knows the embedded model's drawings: likeness is the mean cosine to the photographs, "
        "thing and place are the shares of pictures that show what their prompts name."
    )
    likenesses = (LIKENESS,)

    def __init__(self) -> None:
        self.threshold = frozen_threshold()
        self.sources = {LIKENESS: f"with this library, sha256 {file_sha256(WEIGHTS)}"}

    def embed(self, likeness: str, pictures: Sequence[Picture]) -> Embeddings:
        return look(_small(pictures)).embedding

    def follows(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> dict[str, Scores]:
        """Of prompts that name a thing, and a place, that the judge knows; NaN of others."""
        seen = look(_small(pictures))
        found = {THING: _agree(seen.kind, prompts, CLASSES), PLACE: _agree(seen.place, prompts, PLACES)}
        return {name: values for name, values in found.items() if not np.isnan(values).all()}


def _agree(seen: Sequence[str], prompts: Sequence[str], known: Sequence[str]) -> Scores:
    """1 where what is seen is what the prompt says, 0 where not, NaN where it says none."""
    asked = [next((word for word in known if f" {word} " in f" {prompt} "), None) for prompt in prompts]
    return np.array([np.nan if word is None else float(word == what) for word, what in zip(asked, seen, strict=True)])


def _small(pictures: Sequence[Picture]) -> Picture:
    """[N, 64, 64, 3]: the middle square, larger ones averaged down."""
    small = []
    for picture in pictures:
        side = min(picture.shape[:2])
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        image = Image.fromarray(picture[top : top + side, left : left + side])
        small.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX)))
    return np.stack(small) if small else np.zeros((0, SIZE, SIZE, 3), np.uint8)
