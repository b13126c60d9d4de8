"""Rare words to name a subject by, as in DreamBooth (arXiv 2208.12242), section 3.2.

The paper takes tokens that are rare in the vocabulary and decode to at most three letters, so that they bring no strong
prior of their own.  CLIP's vocabulary is ordered by frequency (a late merge is rare), and how much of a prior a token
brings is measured: how far it moves the text encoder's answer for the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..backends.installed import choose_backend
from ..backends.protocol import Backend, SampleRequest
from ..backends.registry import load_backend
from ..config.identifiers import IdentifiersConfig
from ..config.used import Context, refuse_idle
from ..diffusion.randomness import first_noise
from ..io.files import AGAIN, explain_disk_errors, numbered, usable_file, write_new
from ..io.images import contact_sheet, png_bytes
from ..io.progress import each
from ..models.folder import ModelFolder
from ..models.settings import model_facts, refuse_before_fetching
from ..text.rare_tokens import rare_words
from ..text.tokenizer import Tokenizer
from ..track import shows_progress
from .found_identifiers import Kept


@dataclass(frozen=True)
class Identifier:
    """A rare word."""

    word: str
    number: int
    """Of its token in the vocabulary; a higher one is rarer."""
    distance: float
    """Cosine distance between the text encoder's answers for "a photo of WORD CLASS" and "a photo of CLASS": how much
    of a prior it brings."""


@shows_progress
def identifiers(config: IdentifiersConfig) -> list[Identifier]:
    """Rare words, those with the least prior of their own first; a model is asked once, and its answers are kept.

    Raises:
        ConfigError: naming the setting that cannot be used and what would be right.
    """
    name = choose_backend(config.backend)
    refuse_before_fetching(config, name)
    model = ModelFolder.of(config)
    refuse_idle(config, Context(name, model_facts(model)))
    class_word, count, grid = config.class_word, config.num_identifiers, config.grid
    words = rare_words(Tokenizer.open(model), config.num_candidates, class_word)
    drawing = (config.num_inference_steps, config.seed, config.batch_size) if grid is not None else (0, 0, 1)
    if grid is not None:
        usable_file(Path(grid).expanduser(), "grid")
    if not words:
        return []
    kept = Kept(config, model, [word for word, _ in words])
    distances = kept.read()
    backend = load_backend(name, model, config) if distances is None or grid is not None else None
    if distances is None:
        assert backend is not None
        answers = backend.embed([_prompt(word, class_word) for word in ("", *(word for word, _ in words))])
        distances = cosine_distances(answers[0], answers[1:]).tolist()
        kept.write(distances)
    found = [Identifier(word, number, distance) for (word, number), distance in zip(words, distances, strict=True)]
    found = sorted(found, key=lambda one: one.distance)[:count]
    if grid is not None and backend is not None:
        _draw_grid(Path(grid).expanduser(), [_prompt(one.word, class_word) for one in found], backend, model, *drawing)
    return found


def cosine_distances(one: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 − cosine between [W] and each of [N, W]."""
    a, b = one.astype(np.float64), others.astype(np.float64)
    distances: NDArray[np.float64] = 1 - b @ a / (np.linalg.norm(a) * np.linalg.norm(b, axis=1))
    return distances


def _prompt(word: str, class_word: str | None) -> str:
    return " ".join(["a photo of", *([word] if word else []), *([class_word] if class_word else [])])


def _draw_grid(
    file: Path, prompts: list[str], backend: Backend, model: ModelFolder, steps: int, seed: int, batch_size: int
) -> None:
    side = model.native_resolution // model.latent_factor
    scale, scheduler = model.family.guidance_scale, model.schedule.samplers[0]
    pictures: list[NDArray[np.uint8]] = []
    starts = range(0, len(prompts), batch_size)
    backend.set_prompts([*dict.fromkeys(prompts), ""])  # all at once: then text encoders make room for the denoiser
    for start in each(starts, "making images", len(starts)):
        some = prompts[start : start + batch_size]
        noise = first_noise([seed] * len(some), (model.latent_channels, side, side))
        pictures += list(backend.sample(SampleRequest(some, noise, [seed] * len(some), steps, scale, scheduler)))
    with explain_disk_errors(f"grid: {file}", AGAIN):
        write_new(numbered(file), png_bytes(contact_sheet(pictures)))
