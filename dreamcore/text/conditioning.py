"""Prompts on their way into the denoiser: which text encoder sees which tokens, and how their answers are joined.

The order of the steps stands here, once; a backend brings its tensors and runs its networks.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..families import Family, TextEncoder
from ..io.progress import each
from ..models.folder import ModelFolder
from ..models.settings import encoder_dropout, learns_words
from .lengths import padded_length
from .new_words import NewWords

T = TypeVar("T")
"""A backend's tensors."""
CACHED_PROMPTS = 16
"""Prompts besides those that batches number whose embeddings are kept: 8 MiB each for Flux.  Sampling asks for a
batch's and for the negative prompt's, again and again."""
ON_DEVICE = 2**30
"""Bytes of the embeddings of numbered prompts that may lie on the device: of 128 prompts for Flux, of 4,500 for Stable
Diffusion 1."""


Tokens = tuple[NDArray[np.int64], NDArray[np.int64]]
"""A prompt's token ids and its attention mask, each [1, length]."""


class Conditioning(NamedTuple, Generic[T]):
    """What the denoiser is conditioned on by prompts, or one text encoder's part of it."""

    prompt_embeds: T | None = None
    """[B, tokens, width]."""
    pooled_prompt_embeds: T | None = None
    """[B, width]."""
    layer_embeds: T | None = None
    """[B, layers, tokens, width] every hidden state of a language model."""
    lengths: NDArray[np.int64] | None = None
    """[B] how many of the tokens are words, and not padding, where the family wants to know; on the host."""

    @property
    def tensors(self) -> tuple[T | None, T | None, T | None]:
        return self.prompt_embeds, self.pooled_prompt_embeds, self.layer_embeds

    def values(self, family: Family) -> dict[str, Any]:
        """The tensors by the names of the family's description, as the denoiser receives them: layers come first."""
        words, layers = cast(Any, self.prompt_embeds), cast(Any, self.layer_embeds)
        if family.parts_words:
            words = words.reshape(*words.shape[:2], family.parts_words, -1)
        tensors = (words, self.pooled_prompt_embeds, None if layers is None else layers.swapaxes(0, 1))
        found = {name: t for name, t in zip(self._fields[:3], tensors, strict=True) if t is not None}
        listed = "unpadded" in (*family.inputs.values(), *family.pipeline.values())
        return found | ({"unpadded": self.unpadded} if listed else {})

    @property
    def unpadded(self) -> list[T]:
        """Each row's words alone, [length, width]."""
        embeds: Any = self.prompt_embeds
        assert self.lengths is not None, "the family asks for them"
        return [embeds[row, :length] for row, length in enumerate(self.lengths.tolist())]

    def masks(self, family: Family, image: int) -> dict[str, NDArray[Any]]:
        """Which tokens are words and which padding, by the family's names; beside so many tokens of the image."""
        embeds: Any = self.prompt_embeds
        if self.lengths is None:
            return {}
        return {name: mask(self.lengths, embeds.shape[1], image) for name, mask in family.masks.items()}

    def each(self, change: Callable[[T], T]) -> Conditioning[T]:
        """With all tensors changed."""
        embeds, pooled, layers = (None if tensor is None else change(tensor) for tensor in self.tensors)
        return Conditioning(embeds, pooled, layers, self.lengths)


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
    words: NewWords | None = None
    """Words that prompts hold and that are spelt with tokens of their own."""
    uses_mask: bool = False
    """Whether the network is told which tokens are words."""
    ids: T | None = None
    """[prompts, length] of the prompts that batches number, where the network trains; masks alike."""
    masks: T | None = None
    answers: Rows[T] | None = None
    """To those prompts, where it does not."""

    def __post_init__(self) -> None:
        if self.description.kind.generates and self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # as pipelines fill Llama's words up
        self.max_length = self.description.length or self.window
        padding = self.description.sees_padding
        own = getattr(self.network.config, "use_attention_mask", None)
        self.uses_mask = self.description.kind.generates or (bool(own) if padding is None else not padding)

    def settle(self, config: TrainConfig) -> None:
        """Pad, cut and mask as the settings say."""
        self.max_length = padded_length(config, self.description, self.window)
        if self.description.sees_padding is not None and config.text_encoder_use_attention_mask is not None:
            self.uses_mask = config.text_encoder_use_attention_mask

    def tokens(self, prompt: str, *, bare: bool = False) -> Tokens:
        """Its token ids and attention mask; padded with the tokenizer's own token, as its model was
        trained (end-of-text for SD 1, "!" for SD 2).

        Args:
            bare: whether the prompt stands in no template.
        """
        described, prompt = self.description, self.spelt(prompt)
        if described.lowers:
            prompt = prompt.lower().strip()
        if described.without:
            prompt = prompt.replace(described.without, "")
        text = prompt if bare else templated(described, self.tokenizer, prompt)
        cut = {"max_length": self.max_length + (0 if bare else self.dropped), "truncation": True}
        if not described.kind.generates:
            ids = np.array(self.tokenizer([text], padding="max_length", **cut)["input_ids"], np.int64)
            words = len(self.tokenizer([text], **cut)["input_ids"][0])
            return ids, (np.arange(ids.shape[1]) < words).astype(np.int64)[None]
        side: dict[str, Any] = {"padding_side": "right"} if described.pads_right else {}
        if text.startswith(getattr(self.tokenizer, "bos_token", None) or "\0"):  # the template has written it
            side["add_special_tokens"] = False
        padding = "longest" if described.trims else "max_length"
        if described.ending:
            return self._ended(text, cut["max_length"], {"padding": padding, **side})
        made = self.tokenizer([text], padding=padding, **side, **cut)
        return np.array(made["input_ids"], np.int64), np.array(made["attention_mask"], np.int64)

    def _ended(self, text: str, length: int, padding: dict[str, Any]) -> Tokens:
        """A text's tokens with those of the ending, which no cut takes away, before padding: they see the same as where
        padding comes between."""
        ending = self.tokenizer(self.description.ending)["input_ids"]
        ids = self.tokenizer(text, max_length=length - len(ending), truncation=True)["input_ids"] + ending
        made = self.tokenizer.pad({"input_ids": [ids]}, max_length=length, return_attention_mask=True, **padding)
        return np.array(made["input_ids"], np.int64), np.array(made["attention_mask"], np.int64)

    def spelt(self, prompt: str) -> str:
        """A prompt with its new words spelt in their tokens."""
        return prompt if self.words is None else self.words.spelt(prompt)

    @cached_property
    def dropped(self) -> int:
        """How many tokens of the template its words are without."""
        described = self.description
        if described.drops is None:
            return 0
        before = described.template.partition("{}")[0]
        return described.drops(len(self.tokenizer(before)["input_ids"]))


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
    def encode_prompt(self, part: LoadedEncoder[T], tokens: Tokens, precision: Any) -> Conditioning[T]:
        """`encode_tokens` of one prompt's, in float32 and without gradients."""

    def begin_words(self) -> None:
        """Text encoders that do not train are about to answer."""

    def rest(self, part: LoadedEncoder[T]) -> None:
        """A text encoder has answered."""

    def encode_tokens(self, part: LoadedEncoder[T], ids: T, masks: T) -> Conditioning[T]:
        """The prompt embeddings and the pooled ones that the family's description asks for, of token ids [B, length];
        for libraries whose networks answer by name."""
        wanted, network, more = part.description, part.network, {}
        if wanted.kind.generates:  # without the next word
            network, more = getattr(network, "model", network), {"use_cache": False}
        out = network(
            ids,
            attention_mask=masks if part.uses_mask else None,
            output_hidden_states=bool(wanted.layer is not None or wanted.layers or wanted.stacks),
            return_dict=True,
            **more,
        )
        found = stacked = None
        if wanted.stacks:
            stacked = self.concat([state[:, None] for state in out.hidden_states[1:]], 1)
        elif wanted.layers:
            found = self.concat([out.hidden_states[layer] for layer in wanted.layers], -1)
        elif wanted.group is not None:
            found = out.last_hidden_state if wanted.layer is None else out.hidden_states[wanted.layer]
        return Conditioning(found, getattr(out, wanted.pooled) if wanted.pooled else None, stacked)


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
        tensors: list[Any] = [tensor for tensor in row.tensors if tensor is not None]
        self._left -= sum(4 * math.prod(tensor.shape) for tensor in tensors)
        self._rows.append(row if self._left >= 0 else row.each(self._hooks.to_host))  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Conditioning[T]:
        """One row."""
        row = self._rows[number]
        return row.each(lambda t: self._hooks.to_device(t) if isinstance(t, np.ndarray) else t)

    def take(self, number: int) -> Conditioning[T]:
        """One row, which is not held any more."""
        found, self._rows[number] = self[number], Conditioning()
        return found

    def rows(self, numbers: NDArray[np.int64]) -> Conditioning[T]:
        """A row for each."""
        return below([self[int(number)] for number in numbers], self._hooks)


def below(conditions: Sequence[Conditioning[T]], hooks: TextHooks[T]) -> Conditioning[T]:
    """The rows of several, one below the other; words filled up with zeros to the longest."""
    embeds: list[Any] = [c.prompt_embeds for c in conditions if c.prompt_embeds is not None]
    tokens = max((e.shape[1] for e in embeds), default=0)
    for place, short in enumerate(embeds):
        if short.shape[1] < tokens:
            zeros = np.zeros((len(short), tokens - short.shape[1], short.shape[2]), np.float32)
            embeds[place] = hooks.concat([short, hooks.to_device(zeros)], 1)
    others = ([c.tensors[i] for c in conditions] for i in (1, 2))
    pooled, layers = (
        hooks.concat(some, 0) if (some := [t for t in all_ if t is not None]) else None for all_ in others
    )
    lengths = [c.lengths for c in conditions if c.lengths is not None]
    words: T | None = hooks.concat(embeds, 0) if embeds else None
    return Conditioning(words, pooled, layers, np.concatenate(lengths) if lengths else None)


def templated(described: TextEncoder, tokenizer: Any, prompt: str) -> str:
    """The text that a text encoder reads for a prompt."""
    text = described.template.replace("{}", prompt)
    if described.chat is None:
        return text
    said = [("system", described.system)] if described.system else []
    reads_images = described.kind.nested is not None  # what it is told comes in parts

    def parts(content: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": content}] if reads_images else content

    messages = [{"role": role, "content": parts(content)} for role, content in (*said, ("user", text))]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **described.chat))


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
        self._absent, self._drops = model.absent_words, False
        self.present = np.ones(0, np.float32)
        """Of the prompts that batches number, where encoders are asked apart: 0 where zeros stand for one, else 1."""
        self.conditions: Rows[T] = Rows(hooks)
        """Of the prompts that batches number, where they are not."""

    @property
    def trains(self) -> bool:
        """Whether some encoder does."""
        return any(part.trains for part in self.encoders)

    @property
    def apart(self) -> bool:
        """Whether a batch's conditioning is joined anew from each encoder's answer."""
        return self.trains or self._drops

    @property
    def erases(self) -> bool:
        """Whether zeros may stand for an encoder's answer, where they are asked apart."""
        return self._model.zeroes_empty or self._drops

    def networks(self, *, fp16: bool = False) -> dict[str, Any]:
        """The encoders, by component; for fp16 those alone that fit its range."""
        return {p.description.network: p.network for p in self.encoders if p.description.fits_fp16 or not fp16}

    def prepare(self, config: TrainConfig) -> dict[str, Any]:
        """Take the lengths that the settings ask for; returns the encoders whose weights are to train, by component."""
        for part in self.encoders:
            part.settle(config)
            part.trains = bool(part.description.lora_layers) and config.train_text_encoder
            part.trains = part.trains or learns_words(config, part.description)
        self._drops = any(encoder_dropout(config, self._model))
        if self._absent and config.max_sequence_length is not None:
            self._absent = dict.fromkeys(self._absent, config.max_sequence_length)
        weighty = (part for part in self.encoders if part.trains and not learns_words(config, part.description))
        return {part.description.network: part.network for part in weighty}

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
        if not self.apart:
            self._cached.clear()
            self._row.clear()
            self.conditions = Rows(self._hooks)
            for row in self._made(prompts, self._precision):
                self.conditions.append(row)
            how = self._how(self._precision, negative=False)
            self._row = {(prompt, how): row for row, prompt in enumerate(prompts)}
            return
        self.present = np.array([self._says(p) for p in prompts], np.float32)
        self._hooks.begin_words()
        for part in self.encoders:
            if part.trains:
                ids, masks = zip(*(part.tokens(p) for p in prompts), strict=True)
                part.answers = None
                part.ids, part.masks = (self._hooks.to_device(np.concatenate(given)) for given in (ids, masks))
                continue
            part.answers = Rows(self._hooks)
            for prompt in each(prompts, "encoding prompts"):
                part.answers.append(self._answer(part, prompt, self._precision))
            self._hooks.rest(part)

    def embeddings(self, prompts: Sequence[str], precision: Any = None, *, negative: bool = False) -> Conditioning[T]:
        """One row for each, by the encoders as they are now.

        Args:
            negative: whether images are led away from these.
        """
        precision = precision or self._precision
        how = self._how(precision, negative=negative)
        known = self._known(prompts, how)
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        known |= dict(zip(missing, self._made(missing, precision, negative=negative), strict=True))
        if not self.trains:
            self._cached |= {(prompt, how): known[prompt] for prompt in missing}
            for key in list(self._cached)[: max(0, len(self._cached) - CACHED_PROMPTS)]:
                del self._cached[key]
        return below([known[prompt] for prompt in prompts], self._hooks)

    def summary(self, prompt: str) -> T:
        """[width]: the first encoder's last state at the end-of-text token, which has seen the whole prompt."""
        first = copy.copy(self.encoders[0])
        first.description = replace(first.description, layer=None, group=0)
        ids, mask = first.tokens(prompt)
        states: Any = self._hooks.encode_prompt(first, (ids, mask), self._precision).prompt_embeds
        last: T = states[0, int(mask.sum()) - 1]
        return last

    def condition(self, prompt: NDArray[np.int64], dropped: NDArray[np.bool_] | None = None) -> Conditioning[T]:
        """One row for each; text encoders that train run once for each distinct prompt of the batch.

        Args:
            dropped: [B, encoders] where zeros stand for an encoder's answer.
        """
        if not self.apart:
            return self.conditions.rows(prompt)
        distinct, inverse = np.unique(prompt, return_inverse=True)
        answers = [self._part(part, distinct) for part in self.encoders]
        answers = [self._spread(answer, inverse.reshape(-1)) for answer in answers]
        if self.erases:
            present = self.presence(prompt, dropped)
            answers = [self._zeroed(answer, present[:, k]) for k, answer in enumerate(answers)]
        return self.joined(answers, len(prompt))

    def presence(self, prompt: NDArray[np.int64], dropped: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """[B, encoders] 0 where zeros stand for an encoder's answer, else 1."""
        present = np.repeat(self.present[prompt][:, None], len(self.encoders), 1)
        return present if dropped is None else np.where(dropped, np.float32(0), present)

    def _spread(self, answer: Conditioning[T], rows: NDArray[np.int64]) -> Conditioning[T]:
        """Some of its rows, in this order."""
        lengths = None if answer.lengths is None else answer.lengths[rows]
        return answer.each(lambda tensor: self._hooks.rows(tensor, rows))._replace(lengths=lengths)

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
            next((a.layer_embeds for a in answers if a.layer_embeds is not None), None),
            next((a.lengths for a in answers if a.lengths is not None), None),
        )

    def _part(self, part: LoadedEncoder[T], distinct: NDArray[np.int64]) -> Conditioning[T]:
        if part.ids is None or part.masks is None:
            assert part.answers is not None, "set_prompts comes first"
            return part.answers.rows(distinct)
        ids, masks = (self._hooks.rows(tensor, distinct) for tensor in (part.ids, part.masks))
        return self._hooks.encode_tokens(part, ids, masks)

    def _how(self, precision: Any, *, negative: bool) -> Any:
        """What, with the words themselves, decides embeddings that are kept."""
        return (precision, negative) if any(part.description.bare_negative for part in self.encoders) else precision

    def _known(self, prompts: Sequence[str], how: Any) -> dict[str, Conditioning[T]]:
        """Those whose embeddings are held, as long as the text encoders do not change."""
        found: dict[str, Conditioning[T]] = {}
        for prompt in dict.fromkeys(prompts):
            key = prompt, how
            if key in self._row:
                found[prompt] = self.conditions[self._row[key]]
            elif key in self._cached:
                found[prompt] = self._cached[key] = self._cached.pop(key)  # the last used at the end
        return found

    def _made(self, prompts: Sequence[str], precision: Any, *, negative: bool = False) -> Iterator[Conditioning[T]]:
        """A row of each, encoder after encoder, so that no two need be there at once; of one prompt at a time, so that
        the bits do not depend on which others there are."""
        if not prompts:
            return
        answers: list[Rows[T]] = []
        self._hooks.begin_words()
        for part in self.encoders:
            answers.append(Rows(self._hooks))
            for prompt in each(prompts, "encoding prompts"):
                answers[-1].append(self._answer(part, prompt, precision, negative=negative))
            self._hooks.rest(part)
        for number, prompt in enumerate(prompts):
            found = self.joined([rows.take(number) for rows in answers], 1)
            yield found if self._says(prompt) else self._zeroed(found, np.zeros(1, np.float32))

    def _answer(
        self, part: LoadedEncoder[T], prompt: str, precision: Any, *, negative: bool = False
    ) -> Conditioning[T]:
        """One encoder's to one prompt, as far as the denoiser is to see it."""
        described = part.description
        bare = described.bare_negative and (negative or not prompt)
        ids, mask = part.tokens(prompt, bare=bare)
        found = self._hooks.encode_prompt(part, (ids, mask), precision)
        dropped, first = 0 if bare else part.dropped, described.keeps_first
        if dropped:

            def kept(tensor: Any) -> T:
                rest: T = tensor[:, first + dropped :]
                return self._hooks.concat([tensor[:, :first], rest], 1) if first else rest

            found = found.each(kept)
        if self._model.family.masks or self._model.family.lists:
            found = found._replace(lengths=mask.sum(1) - dropped)
        return found

    def _says(self, prompt: str) -> bool:
        """Whether a prompt is more than one for which zeros stand."""
        return bool(prompt) or not self._model.zeroes_empty

    def _zeroed(self, condition: Conditioning[T], present: NDArray[np.float32]) -> Conditioning[T]:
        """Rows [B] times 1 or 0."""

        def change(tensor: Any) -> Any:
            return tensor * self._hooks.to_device(present.reshape(-1, *[1] * (tensor.ndim - 1)))

        return condition.each(change)
