"""Prompts on their way into the denoiser: which text encoder sees which tokens, and how their answers are joined.

The order of the steps stands here, once; a backend brings its tensors and runs its networks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..io.progress import each
from ..models.folder import ModelFolder
from ..models.settings import encoder_dropout, learns_words
from .conditions import Conditioning, Layout, join_prompt_embeds
from .encoder import LoadedEncoder
from .hooks import TextHooks
from .rows import Rows, below

T = TypeVar("T")
"""A backend's tensors."""
CACHED_PROMPTS = 16
"""Prompts besides those that batches number whose embeddings are kept: 8 MiB each for Flux.  Sampling asks for a
batch's and for the negative prompt's, again and again."""


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
