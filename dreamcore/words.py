"""Prompts on their way into the denoiser: which text encoder sees which tokens, and how their answers are joined.

The order of the steps stands here, once; a backend brings its tensors and runs its networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .choices import words_length
from .config import TrainConfig
from .families import TextEncoder
from .modelfolder import ModelFolder

T = TypeVar("T")
"""A backend's tensors."""
KEPT = 16
"""Prompts besides those that batches number whose embeddings are kept: 8 MiB each for Flux.  Pictures ask for a batch's
and for the unwanted words, again and again."""


class Condition(NamedTuple, Generic[T]):
    """What words tell the denoiser, or one text encoder of them."""

    words: T | None
    """[B, tokens, width]."""
    pooled: T | None
    """[B, width]."""

    def values(self) -> dict[str, T]:
        """By the names of the family's description."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def each(self, change: Callable[[T], T]) -> Condition[T]:
        """With both changed."""
        return Condition(*(None if t is None else change(t) for t in self))


@dataclass
class Part(Generic[T]):
    """One text encoder at work."""

    description: TextEncoder
    tokenizer: Any
    network: Any
    max_length: int = 0
    trains: bool = False
    """Whether the network's weights, among them LoRA's, change from update to update."""
    ids: T | None = None
    """[prompts, length] of the prompts that batches number, where the network trains; masks alike."""
    masks: T | None = None
    answers: Condition[T] | None = None
    """To those prompts, where it does not."""

    def __post_init__(self) -> None:
        self.max_length = self.description.length or self.window

    @property
    def window(self) -> int:
        """Tokens that the encoder takes at most: its tokenizer's number, which is endless where no file says one, or
        the number of its positions."""
        positions = getattr(getattr(self.network, "config", None), "max_position_embeddings", None)
        return int(min(self.tokenizer.model_max_length, positions or self.tokenizer.model_max_length))

    def set_length(self, config: TrainConfig) -> None:
        """Pad and cut as the settings say."""
        self.max_length = words_length(config, self.description, self.window)

    def tokens(self, prompt: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and attention mask, each [1, length]; padded with the tokenizer's own token, as its model was
        trained (end-of-text for SD 1, "!" for SD 2)."""
        cut = {"max_length": self.max_length, "truncation": True}
        ids = np.array(self.tokenizer([prompt], padding="max_length", **cut)["input_ids"], np.int64)
        words = len(self.tokenizer([prompt], **cut)["input_ids"][0])
        return ids, (np.arange(ids.shape[1]) < words).astype(np.int64)[None]


@dataclass(frozen=True)
class Layout:
    """How the answers of text encoders become one condition; encoders are numbered from 0."""

    groups: tuple[tuple[int, ...], ...]
    """Encoders whose words lie side by side; the groups follow one another.  An empty one is zeros."""
    zeros: tuple[int, ...]
    """How many tokens of zeros each group has, where it is empty."""
    width: int | None
    """Width that words are filled up to with zeros, or cut to."""
    pooled: tuple[int, ...]
    """Encoders whose pooled embeddings lie side by side."""


def joined_words(
    layout: Layout,
    words: Sequence[T],
    rows: int,
    concat: Callable[[list[T], int], T],
    zeros: Callable[[int, int, int], T],
) -> T:
    """[B, tokens, width] of each encoder's own words; plain enough for a framework's compiler.

    Args:
        words: by encoder; only those in the layout are looked at.
        rows: B.
        concat: of tensors along a dimension.
        zeros: of three sizes.
    """
    groups = []
    for i in range(len(layout.groups)):
        if len(layout.groups[i]) == 0:
            groups.append(zeros(rows, layout.zeros[i], layout.width or 0))
            continue
        group: Any = concat([words[k] for k in layout.groups[i]], -1)
        if layout.width is not None and group.shape[2] < layout.width:
            group = concat([group, zeros(rows, group.shape[1], layout.width - group.shape[2])], -1)
        elif layout.width is not None and group.shape[2] > layout.width:
            group = group[:, :, : layout.width]  # as diffusers pads by a negative number
        groups.append(group)
    return concat(groups, 1)


class Words(ABC, Generic[T]):
    """The text encoders of a model; embeddings are float32.

    Args:
        precision: what a backend calls the arithmetic of its encoders.
    """

    def __init__(self, model: ModelFolder, parts: Sequence[Part[T]], precision: Any = None):
        self.parts = list(parts)
        self._model, self._precision = model, precision
        self._kept: dict[tuple[str, Any], Condition[T]] = {}  # the last used at the end
        self._row: dict[tuple[str, Any], int] = {}  # of `conditions`
        self._absent = model.absent_words
        self._present = np.ones(0, np.float32)
        self.conditions: Condition[T] = Condition(None, None)
        """Of the prompts that batches number, where no text encoder trains."""

    # What a backend brings

    @abstractmethod
    def tensor(self, array: NDArray[Any]) -> T:
        """An array on the device."""

    @abstractmethod
    def concat(self, tensors: Sequence[T], axis: int) -> T:
        """Tensors side by side along a dimension."""

    @abstractmethod
    def rows(self, tensor: T, rows: NDArray[np.int64]) -> T:
        """Some rows of a tensor."""

    @abstractmethod
    def encode(self, part: Part[T], ids: T, masks: T) -> Condition[T]:
        """The words and the pooled embedding that the family's description asks for, of token ids [B, length]."""

    @abstractmethod
    def answer(self, part: Part[T], prompt: str, precision: Any) -> Condition[T]:
        """`encode` of one prompt, in float32 and without gradients."""

    # What follows from it

    @property
    def trains(self) -> bool:
        """Whether some encoder does."""
        return any(part.trains for part in self.parts)

    def networks(self, *, fp16: bool = False) -> dict[str, Any]:
        """The encoders, by component; for fp16 those alone that fit its range."""
        return {p.description.network: p.network for p in self.parts if p.description.fits_fp16 or not fp16}

    def prepare(self, config: TrainConfig) -> dict[str, Any]:
        """Take the lengths that the settings ask for; returns the encoders that are to train, by component."""
        for part in self.parts:
            part.set_length(config)
            part.trains = bool(part.description.lora_layers) and config.train_text_encoder
        if self._absent and config.max_sequence_length is not None:
            self._absent = dict.fromkeys(self._absent, config.max_sequence_length)
        return {part.description.network: part.network for part in self.parts if part.trains}

    def layout(self) -> Layout:
        """How the encoders' answers are joined."""
        described = [part.description for part in self.parts]
        numbers = sorted({d.group for d in described if d.group is not None} | self._absent.keys())
        return Layout(
            groups=tuple(tuple(i for i, d in enumerate(described) if d.group == n) for n in numbers),
            zeros=tuple(self._absent.get(n, 0) for n in numbers),
            width=self._model.words_width,
            pooled=tuple(i for i, d in enumerate(described) if d.pooled),
        )

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """The prompts that batches number: tokens where an encoder trains, its answers otherwise."""
        if not self.trains:
            self.conditions = self.embeddings(prompts)
            self._row = {(prompt, self._precision): row for row, prompt in enumerate(prompts)}
            self._kept.clear()
            return
        self._present = np.array([self._says(p) for p in prompts], np.float32)
        for part in self.parts:
            if part.trains:
                ids, masks = zip(*(part.tokens(p) for p in prompts), strict=True)
                part.ids, part.masks = self.tensor(np.concatenate(ids)), self.tensor(np.concatenate(masks))
            else:
                part.answers = self._below([self.answer(part, p, self._precision) for p in prompts])

    def embeddings(self, prompts: Sequence[str], precision: Any = None) -> Condition[T]:
        """One row for each, by the encoders as they are now."""
        return self._below([self._embedding(p, precision or self._precision) for p in prompts])

    def condition(self, prompt: NDArray[np.int64]) -> Condition[T]:
        """One row for each; text encoders that train run once for each distinct prompt of the batch."""
        if not self.trains:
            return self.conditions.each(lambda t: self.rows(t, prompt))
        distinct, inverse = np.unique(prompt, return_inverse=True)
        found = self.joined([self._part(part, distinct) for part in self.parts], len(distinct))
        if self._model.zeroes_empty:
            found = self._heard(found, self._present[distinct])
        return found.each(lambda t: self.rows(t, inverse.reshape(-1)))

    def forget(self) -> None:
        """Embed anew: the encoders' weights are others now."""
        self._kept.clear()
        self._row.clear()

    def joined(self, answers: Sequence[Condition[T]], rows: int) -> Condition[T]:
        """Groups of words one after the other, those within a group side by side; pooled ones side by side."""
        layout = self.layout()
        words: Any = [a.words for a in answers]
        pooled: Any = [answers[i].pooled for i in layout.pooled]
        return Condition(
            joined_words(layout, words, rows, self.concat, lambda *sizes: self.tensor(np.zeros(sizes, np.float32))),
            self.concat(pooled, -1) if pooled else None,
        )

    def _part(self, part: Part[T], distinct: NDArray[np.int64]) -> Condition[T]:
        if part.ids is None or part.masks is None:
            assert part.answers is not None, "set_prompts comes first"
            return part.answers.each(lambda t: self.rows(t, distinct))
        return self.encode(part, self.rows(part.ids, distinct), self.rows(part.masks, distinct))

    def _embedding(self, prompt: str, precision: Any) -> Condition[T]:
        """One row; held once, as long as the text encoders do not change.  Embedded one prompt at a time, so that the
        bits do not depend on which others there are."""
        key = prompt, precision
        if key in self._row:
            row = np.array([self._row[key]])
            return self.conditions.each(lambda t: self.rows(t, row))
        found = self._kept.pop(key, None)
        if found is None:
            found = self.joined([self.answer(part, prompt, precision) for part in self.parts], 1)
            if not self._says(prompt):
                found = self._heard(found, np.zeros(1, np.float32))
        if not self.trains:
            self._kept[key] = found
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return found

    def _says(self, prompt: str) -> bool:
        """Whether a prompt is more than words for which zeros stand."""
        return bool(prompt) or not self._model.zeroes_empty

    def _heard(self, condition: Condition[T], present: NDArray[np.float32]) -> Condition[T]:
        """Rows [B] times 1 or 0."""

        def change(tensor: Any) -> Any:
            return tensor * self.tensor(present.reshape(-1, *[1] * (tensor.ndim - 1)))

        return condition.each(change)

    def _below(self, conditions: Sequence[Condition[T]]) -> Condition[T]:
        """The rows of several, one below the other."""
        words, pooled = ([t for t in part if t is not None] for part in zip(*conditions, strict=True))
        return Condition(self.concat(words, 0) if words else None, self.concat(pooled, 0) if pooled else None)
