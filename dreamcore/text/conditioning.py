"""Prompts on their way into the denoiser: which text encoder sees which tokens, and how their answers are joined.

The order of the steps stands here, once; a backend brings its tensors and runs its networks.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..families import TextEncoder
from ..io.progress import each
from ..models.folder import ModelFolder
from .lengths import padded_length

T = TypeVar("T")
"""A backend's tensors."""
CACHED_PROMPTS = 16
"""Prompts besides those that batches number whose embeddings are kept: 8 MiB each for Flux.  Sampling asks for a
batch's and for the negative prompt's, again and again."""
ON_DEVICE = 2**30
"""Bytes of the embeddings of numbered prompts that may lie on the device: of 128 prompts for Flux, of 4,500 for Stable
Diffusion 1."""


class Conditioning(NamedTuple, Generic[T]):
    """What the denoiser is conditioned on by prompts, or one text encoder's part of it."""

    prompt_embeds: T | None
    """[B, tokens, width]."""
    pooled_prompt_embeds: T | None
    """[B, width]."""

    def values(self) -> dict[str, T]:
        """By the names of the family's description, which are those of pipelines' arguments."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def each(self, change: Callable[[T], T]) -> Conditioning[T]:
        """With both changed."""
        return Conditioning(*(None if t is None else change(t) for t in self))


@dataclass
class LoadedEncoder(Generic[T]):
    """One text encoder at work."""

    description: TextEncoder
    tokenizer: Any
    network: Any
    window: int
    """Tokens that the encoder takes at most (`ModelFolder.window`)."""
    max_length: int = 0
    trains: bool = False
    """Whether the network's weights, among them LoRA's, change from update to update."""
    uses_mask: bool = False
    """Whether the network is told which tokens are words."""
    ids: T | None = None
    """[prompts, length] of the prompts that batches number, where the network trains; masks alike."""
    masks: T | None = None
    answers: Rows[T] | None = None
    """To those prompts, where it does not."""

    def __post_init__(self) -> None:
        self.max_length = self.description.length or self.window
        padding = self.description.sees_padding
        own = getattr(self.network.config, "use_attention_mask", None)
        self.uses_mask = bool(own) if padding is None else not padding

    def settle(self, config: TrainConfig) -> None:
        """Pad, cut and mask as the settings say."""
        self.max_length = padded_length(config, self.description, self.window)
        if self.description.sees_padding is not None and config.text_encoder_use_attention_mask is not None:
            self.uses_mask = config.text_encoder_use_attention_mask

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
    """Encoders whose prompt embeddings lie side by side; the groups follow one another.  An empty one is zeros."""
    zeros: tuple[int, ...]
    """How many tokens of zeros each group has, where it is empty."""
    width: int | None
    """Width that prompt embeddings are filled up to with zeros, or cut to."""
    pooled: tuple[int, ...]
    """Encoders whose pooled embeddings lie side by side."""


def join_prompt_embeds(
    layout: Layout,
    embeds: Sequence[T],
    rows: int,
    concat: Callable[[list[T], int], T],
    zeros: Callable[[int, int, int], T],
) -> T:
    """[B, tokens, width] of each encoder's own; plain enough for a framework's compiler.

    Args:
        embeds: by encoder; only those in the layout are looked at.
        rows: B.
        concat: of tensors along a dimension.
        zeros: of three sizes.
    """
    groups = []
    for i in range(len(layout.groups)):
        if len(layout.groups[i]) == 0:
            groups.append(zeros(rows, layout.zeros[i], layout.width or 0))
            continue
        group: Any = concat([embeds[k] for k in layout.groups[i]], -1)
        if layout.width is not None and group.shape[2] < layout.width:
            group = concat([group, zeros(rows, group.shape[1], layout.width - group.shape[2])], -1)
        elif layout.width is not None and group.shape[2] > layout.width:
            group = group[:, :, : layout.width]  # as diffusers pads by a negative number
        groups.append(group)
    return concat(groups, 1)


class TextHooks(ABC, Generic[T]):
    """What a backend brings to its text encoders."""

    @abstractmethod
    def to_device(self, array: NDArray[Any]) -> T:
        """An array as a tensor on the device."""

    @abstractmethod
    def to_host(self, tensor: T) -> NDArray[np.float32]:
        """A tensor as an array in float32."""

    @abstractmethod
    def concat(self, tensors: Sequence[T], axis: int) -> T:
        """Tensors side by side along a dimension."""

    @abstractmethod
    def rows(self, tensor: T, rows: NDArray[np.int64]) -> T:
        """Some rows of a tensor."""

    @abstractmethod
    def encode_prompt(self, part: LoadedEncoder[T], prompt: str, precision: Any) -> Conditioning[T]:
        """`encode_tokens` of one prompt, in float32 and without gradients."""

    def begin_words(self) -> None:
        """Text encoders that do not train are about to answer."""

    def rest(self, part: LoadedEncoder[T]) -> None:
        """A text encoder has answered."""

    def encode_tokens(self, part: LoadedEncoder[T], ids: T, masks: T) -> Conditioning[T]:
        """The prompt embeddings and the pooled ones that the family's description asks for, of token ids [B, length];
        for libraries whose networks answer by name."""
        wanted = part.description
        out = part.network(
            ids,
            attention_mask=masks if part.uses_mask else None,
            output_hidden_states=wanted.layer is not None,
            return_dict=True,
        )
        found = None
        if wanted.group is not None:
            found = out.last_hidden_state if wanted.layer is None else out.hidden_states[wanted.layer]
        return Conditioning(found, getattr(out, wanted.pooled) if wanted.pooled else None)


class Rows(Generic[T]):
    """Embeddings of prompts by number, each in a place of its own: on the device as long as the budget lasts, then in
    the host's memory, from which a batch's come when it needs them.

    Args:
        hooks: the backend's.
    """

    def __init__(self, hooks: TextHooks[T]):
        self._hooks, self._left = hooks, ON_DEVICE
        self._rows: list[Conditioning[Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, row: Conditioning[T]) -> None:
        """Take in the next prompt's, of one row."""
        tensors: list[Any] = [tensor for tensor in row if tensor is not None]
        self._left -= sum(4 * math.prod(tensor.shape) for tensor in tensors)
        self._rows.append(row if self._left >= 0 else row.each(self._hooks.to_host))  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Conditioning[T]:
        """One row."""
        row = self._rows[number]
        return row.each(lambda t: self._hooks.to_device(t) if isinstance(t, np.ndarray) else t)

    def take(self, number: int) -> Conditioning[T]:
        """One row, which is not held any more."""
        found, self._rows[number] = self[number], Conditioning(None, None)
        return found

    def rows(self, numbers: NDArray[np.int64]) -> Conditioning[T]:
        """A row for each."""
        return below([self[int(number)] for number in numbers], self._hooks)


def below(conditions: Sequence[Conditioning[T]], hooks: TextHooks[T]) -> Conditioning[T]:
    """The rows of several, one below the other."""
    embeds, pooled = ([t for t in part if t is not None] for part in zip(*conditions, strict=True))
    return Conditioning(hooks.concat(embeds, 0) if embeds else None, hooks.concat(pooled, 0) if pooled else None)


class TextConditioner(Generic[T]):
    """The text encoders of a model; embeddings are float32.

    Args:
        hooks: the backend's.
        precision: what they call the arithmetic of the encoders.
    """

    def __init__(
        self, model: ModelFolder, parts: Sequence[LoadedEncoder[T]], hooks: TextHooks[T], precision: Any = None
    ):
        self.encoders = list(parts)
        self._model, self._hooks, self._precision = model, hooks, precision
        self._cached: dict[tuple[str, Any], Conditioning[T]] = {}  # the last used at the end
        self._row: dict[tuple[str, Any], int] = {}  # of `conditions`
        self._absent = model.absent_words
        self.present = np.ones(0, np.float32)
        """Of the prompts that batches number, where some encoder trains: 0 for one for which zeros stand, else 1."""
        self.conditions: Rows[T] = Rows(hooks)
        """Of the prompts that batches number, where no text encoder trains."""

    @property
    def trains(self) -> bool:
        """Whether some encoder does."""
        return any(part.trains for part in self.encoders)

    def networks(self, *, fp16: bool = False) -> dict[str, Any]:
        """The encoders, by component; for fp16 those alone that fit its range."""
        return {p.description.network: p.network for p in self.encoders if p.description.fits_fp16 or not fp16}

    def prepare(self, config: TrainConfig) -> dict[str, Any]:
        """Take the lengths that the settings ask for; returns the encoders that are to train, by component."""
        for part in self.encoders:
            part.settle(config)
            part.trains = bool(part.description.lora_layers) and config.train_text_encoder
        if self._absent and config.max_sequence_length is not None:
            self._absent = dict.fromkeys(self._absent, config.max_sequence_length)
        return {part.description.network: part.network for part in self.encoders if part.trains}

    def layout(self) -> Layout:
        """How the encoders' answers are joined."""
        described = [part.description for part in self.encoders]
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
            self._cached.clear()
            self._row.clear()
            self.conditions = Rows(self._hooks)
            for row in self._made(prompts, self._precision):
                self.conditions.append(row)
            self._row = {(prompt, self._precision): row for row, prompt in enumerate(prompts)}
            return
        self.present = np.array([self._says(p) for p in prompts], np.float32)
        for part in self.encoders:
            if part.trains:
                ids, masks = zip(*(part.tokens(p) for p in prompts), strict=True)
                part.answers = None
                part.ids, part.masks = (self._hooks.to_device(np.concatenate(given)) for given in (ids, masks))
                continue
            part.answers = Rows(self._hooks)
            for prompt in each(prompts, "encoding prompts"):
                part.answers.append(self._hooks.encode_prompt(part, prompt, self._precision))
            self._hooks.rest(part)

    def embeddings(self, prompts: Sequence[str], precision: Any = None) -> Conditioning[T]:
        """One row for each, by the encoders as they are now."""
        precision = precision or self._precision
        known = self._known(prompts, precision)
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        known |= dict(zip(missing, self._made(missing, precision), strict=True))
        if not self.trains:
            self._cached |= {(prompt, precision): known[prompt] for prompt in missing}
            for key in list(self._cached)[: max(0, len(self._cached) - CACHED_PROMPTS)]:
                del self._cached[key]
        return below([known[prompt] for prompt in prompts], self._hooks)

    def summary(self, prompt: str) -> T:
        """[width]: the first encoder's last state at the end-of-text token, which has seen the whole prompt."""
        first = copy.copy(self.encoders[0])
        first.description = replace(first.description, layer=None, group=0)
        states: Any = self._hooks.encode_prompt(first, prompt, self._precision).prompt_embeds
        _, mask = first.tokens(prompt)
        last: T = states[0, int(mask.sum()) - 1]
        return last

    def condition(self, prompt: NDArray[np.int64]) -> Conditioning[T]:
        """One row for each; text encoders that train run once for each distinct prompt of the batch."""
        if not self.trains:
            return self.conditions.rows(prompt)
        distinct, inverse = np.unique(prompt, return_inverse=True)
        found = self.joined([self._part(part, distinct) for part in self.encoders], len(distinct))
        if self._model.zeroes_empty:
            found = self._zeroed(found, self.present[distinct])
        return found.each(lambda t: self._hooks.rows(t, inverse.reshape(-1)))

    def forget(self) -> None:
        """Embed anew: the encoders' weights are others now."""
        self._cached.clear()
        self._row.clear()

    def joined(self, answers: Sequence[Conditioning[T]], rows: int) -> Conditioning[T]:
        """Groups of prompt embeddings one after the other, side by side within a group; pooled ones side by side."""
        layout, hooks = self.layout(), self._hooks
        embeds: Any = [a.prompt_embeds for a in answers]
        pooled: Any = [answers[i].pooled_prompt_embeds for i in layout.pooled]
        return Conditioning(
            join_prompt_embeds(
                layout, embeds, rows, hooks.concat, lambda *sizes: hooks.to_device(np.zeros(sizes, np.float32))
            ),
            hooks.concat(pooled, -1) if pooled else None,
        )

    def _part(self, part: LoadedEncoder[T], distinct: NDArray[np.int64]) -> Conditioning[T]:
        if part.ids is None or part.masks is None:
            assert part.answers is not None, "set_prompts comes first"
            return part.answers.rows(distinct)
        ids, masks = (self._hooks.rows(tensor, distinct) for tensor in (part.ids, part.masks))
        return self._hooks.encode_tokens(part, ids, masks)

    def _known(self, prompts: Sequence[str], precision: Any) -> dict[str, Conditioning[T]]:
        """Those whose embeddings are held, as long as the text encoders do not change."""
        found: dict[str, Conditioning[T]] = {}
        for prompt in dict.fromkeys(prompts):
            key = prompt, precision
            if key in self._row:
                found[prompt] = self.conditions[self._row[key]]
            elif key in self._cached:
                found[prompt] = self._cached[key] = self._cached.pop(key)  # the last used at the end
        return found

    def _made(self, prompts: Sequence[str], precision: Any) -> Iterator[Conditioning[T]]:
        """A row of each, encoder after encoder, so that no two need be there at once; of one prompt at a time, so that
        the bits do not depend on which others there are."""
        if not prompts:
            return
        answers: list[Rows[T]] = []
        self._hooks.begin_words()
        for part in self.encoders:
            answers.append(Rows(self._hooks))
            for prompt in each(prompts, "encoding prompts"):
                answers[-1].append(self._hooks.encode_prompt(part, prompt, precision))
            self._hooks.rest(part)
        for number, prompt in enumerate(prompts):
            found = self.joined([rows.take(number) for rows in answers], 1)
            yield found if self._says(prompt) else self._zeroed(found, np.zeros(1, np.float32))

    def _says(self, prompt: str) -> bool:
        """Whether a prompt is more than one for which zeros stand."""
        return bool(prompt) or not self._model.zeroes_empty

    def _zeroed(self, condition: Conditioning[T], present: NDArray[np.float32]) -> Conditioning[T]:
        """Rows [B] times 1 or 0."""

        def change(tensor: Any) -> Any:
            return tensor * self._hooks.to_device(present.reshape(-1, *[1] * (tensor.ndim - 1)))

        return condition.each(change)
