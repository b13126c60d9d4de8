"""What a condition is under which a setting acts, what it asks of a run, and the plainest ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

OURS = ("torch", "paddle", "mindspore")
"""Backends whose settings the table knows; others decide for themselves."""


@dataclass(frozen=True)
class ModelFacts:
    """What the table asks of a model."""

    flow: bool
    """Flow matching."""
    weighting_scheme: str
    """The family's own, of flow matching."""
    embeds_guidance: bool
    """Whether the denoiser has an input for the strength of guidance."""
    classifier_free: bool
    """Whether images are guided by a second answer."""
    optional_encoder: bool
    """Whether the family can do without one of its text encoders."""
    long_words: bool
    """Whether the family has a text encoder of more words beside CLIP: T5; left out, as many zeros stay."""
    unguided: float = 1.0
    """Up to which strength images are not guided."""
    trains_words: bool = True
    """Whether some text encoder can train."""
    frozen_words: bool = True
    """Whether some text encoder never trains."""
    encoders: tuple[str, ...] = ()
    """What other programs call its text encoders."""
    learns_words: bool = True
    """Whether a text encoder takes new words."""
    masks_words: bool = False
    """Whether a text encoder may look at a prompt's words alone."""
    stacked_layers: bool = False
    """Whether words are several hidden states of a text encoder side by side."""
    words_elsewhere: bool = False
    """Whether a text encoder may lie in another folder."""
    autoencoder: bool = True
    """Whether there is one: DeepFloyd IF is of pixels."""
    upscales: bool = False
    """Whether an image is made of a smaller one."""
    refers: bool = False
    """Whether the denoiser may see a reference image."""
    class_labels: bool = False
    """Whether the denoiser is told labels."""


@dataclass(frozen=True)
class Context:
    """What is known of a run beside its settings; None is what is not known (yet), where a setting may act."""

    backend: str | None = None
    model: ModelFacts | None = None
    places: frozenset[str] | None = None
    """The settings (identifier, class_word) that some text has a place for."""


@dataclass(frozen=True)
class When:
    """A condition."""

    holds: Callable[[Any, Context], bool]
    words: str
    """It, after "acts only"."""
    remedy: str = "remove it"
    of: Literal["settings", "backend", "model"] = "settings"
    """What it asks; the settings are None where it asks one of the others."""


class Use:
    """When a setting acts.

    Args:
        conditions: all of which hold then.
        same: of a configuration, the values besides the default that mean what the run does anyway.
    """

    def __init__(self, *conditions: When, same: Callable[[Any], Collection[Any]] = lambda config: ()):
        self.conditions, self.same = conditions, same


def beside(name: str) -> When:
    """Where another setting is on, or has a value."""
    return When(lambda c, _: getattr(c, name) not in (None, False), f"with {name}", f"give {name}, or remove it")


def on(backend: str) -> When:
    return When(lambda _, r: r.backend in (None, backend) or r.backend not in OURS, f"on {backend}", of="backend")


def of_model(fact: Callable[[ModelFacts], bool], words: str) -> When:
    return When(lambda _, r: r.model is None or fact(r.model), words, of="model")
