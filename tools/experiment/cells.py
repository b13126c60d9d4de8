"""What is tried on the embedded model: each cell is the quickstart's recipe with something changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dreamcore.models.locate import embedded_model
from tests.support.paths import ROOT

SUBJECTS = ("zigzag-mug", "diagonal-boat", "ringed-bird")
SEEDS = (0, 1, 2, 3)
"""Of training: order and noise of the samples."""
PICTURES = 16
"""Seeds of pictures, of each of the five places."""
STEPS, GUIDANCE = 20, 1.5
WRONG = {"mug": "house", "boat": "tree", "bird": "car"}
"""A class that the subject is none of."""


@dataclass(frozen=True)
class Cell:
    """One recipe."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Beside the preset `quickstart`."""
    photographs: int = 5
    noun: str = "right"
    """right, wrong, or none: what the captions and the prompts call the subject."""
    trains: bool = True
    first: bool = True
    """Whether it is run when nothing is said; the others are asked for by name."""


LORA = {"use_lora": True, "rank": 16, "learning_rate": 2e-3}
NO_PRIOR = {"with_prior_preservation": False}
CELLS = (
    Cell("before", trains=False),
    Cell("full"),
    Cell("full, no prior", NO_PRIOR),
    Cell("LoRA", LORA),
    Cell("LoRA, no prior", LORA | NO_PRIOR),
    Cell("1 picture", photographs=1),
    Cell("3 pictures", photographs=3),
    Cell("wrong noun", noun="wrong"),
    Cell("no noun", noun="none"),
    Cell("text encoder frozen", {"train_text_encoder": False}, first=False),
    Cell("LoRA of rank 4", LORA | {"rank": 4}, first=False),
    Cell("100 updates", {"max_train_steps": 100}, first=False),
    Cell("600 updates", {"max_train_steps": 600}, first=False),
    Cell("no min-SNR", {"snr_gamma": None}, first=False),
    Cell("LoRA, output preservation", LORA | NO_PRIOR | {"diff_output_preservation": True}, first=False),
)
BY_NAME = {cell.name: cell for cell in CELLS}


def basis() -> str:
    """What every cell stands on, the embedded model's weights, the preset and how it is judged, as twelve digits of a
    SHA-256: what was measured with others is measured again, and never shown beside it."""
    digest = hashlib.sha256(repr((PICTURES, STEPS, GUIDANCE)).encode())
    for file in (*sorted(embedded_model().glob("*/*.safetensors")), ROOT / "configs" / "quickstart.toml"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Claim:
    """That one cell's measure is higher than another's, or lower."""

    words: str
    source: str
    one: str
    other: str
    measure: str
    higher: bool


CLAIMS = (
    Claim("Training teaches the subject", "section 4.2", "full", "before", "likeness", higher=True),
    Claim("Prior preservation keeps the subject out of the class", "table 3, PRES", "full", "full, no prior", "PRES",
          higher=False),
    Claim("Prior preservation keeps pictures varied", "table 3, DIV", "full", "full, no prior", "DIV", higher=True),
    Claim("It costs some subject fidelity", "table 3, DINO", "full", "full, no prior", "likeness", higher=False),
    Claim("The right class noun is better than a wrong one", "table 4", "full", "wrong noun", "likeness", higher=True),
    Claim("The right class noun is better than none", "table 4", "full", "no noun", "likeness", higher=True),
    Claim("Three pictures are better than one", "section 1", "3 pictures", "1 picture", "likeness", higher=True),
    Claim("Five pictures are better than three", "section 1", "full", "3 pictures", "likeness", higher=True),
)  # fmt: skip
