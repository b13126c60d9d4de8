"""Who looks at pictures: one interface for the embedded model's own judge and for published encoders.

    judge = open_judge(["dino", "clip"])          # folders or ids on the Hub, too; refused in words where none is there
    judge.likenesses                              # ("DINO", "CLIP-I"): the first one serves PRES, DIV and nearest
    judge.embed("DINO", pictures)                 # [N, width], for metrics.likeness, spread, nearest, confusion
    judge.follows(pictures, prompts)              # {"CLIP-T": [N]}
    scores.score(judge, Subject(...))             # all of a subject's measures with intervals

Pictures are arrays uint8 [H, W, 3], of any sizes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .metrics import Embeddings, Scores

Picture = NDArray[np.uint8]
"""[H, W, 3], sRGB."""


class Judge(ABC):
    """Turns pictures into what the measures (`metrics`) are made of."""

    name: str
    """What it is, in a few words."""
    about: str
    """What its figures mean, in a sentence."""
    likenesses: tuple[str, ...]
    """Names of its ways to see a subject, each a space of embeddings; the first one serves PRES, DIV, the nearest
    photograph and the confusion matrix as well."""
    threshold: float | None = None
    """From which likeness on, of the first kind, a picture shows the subject; None where nobody has measured one."""
    sources: Mapping[str, str]
    """Encoder -> where it came from and its weights' SHA-256: figures are comparable where these are the same."""

    @abstractmethod
    def embed(self, likeness: str, pictures: Sequence[Picture]) -> Embeddings:
        """[N, width] of N pictures, in the space of that name."""

    @abstractmethod
    def follows(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> dict[str, Scores]:
        """How true each picture is to its own prompt: measure -> [N]; empty where it knows no words."""
