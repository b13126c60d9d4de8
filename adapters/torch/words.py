"""Prompts on their way into the denoiser: tokens, and the text encoders' embeddings, as the family joins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dreamcore.choices import words_length
from dreamcore.config import TrainConfig
from dreamcore.families import TextEncoder
from dreamcore.modelfolder import ModelFolder

from .precision import autocast

ToDevice = Callable[[NDArray[Any]], torch.Tensor]


class Condition(NamedTuple):
    """What the denoiser is told by words."""

    words: torch.Tensor
    """[B, tokens, width]."""
    pooled: torch.Tensor | None
    """[B, width]."""

    def values(self) -> dict[str, torch.Tensor]:
        """By the names of the family's description."""
        return {"words": self.words} | ({} if self.pooled is None else {"pooled": self.pooled})

    def rows(self, rows: torch.Tensor) -> Condition:
        """Some of the rows."""
        return Condition(self.words[rows], None if self.pooled is None else self.pooled[rows])


def join(conditions: Sequence[Condition]) -> Condition:
    """The rows of several."""
    pooled = [c.pooled for c in conditions if c.pooled is not None]
    return Condition(torch.cat([c.words for c in conditions]), torch.cat(pooled) if pooled else None)


class Answer(NamedTuple):
    """What one text encoder makes of prompts."""

    words: torch.Tensor | None
    """[P, tokens, width]."""
    pooled: torch.Tensor | None
    """[P, width]."""


NOTHING = Answer(None, None)


@dataclass
class Part:
    """One text encoder at work; its network is kept where it is until it is called for."""

    description: TextEncoder
    tokenizer: Any
    network: Any
    max_length: int = 0
    trains: bool = False
    """Whether the network's weights, among them LoRA's, change from update to update."""
    ids: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """[prompts, length] of the prompts that batches number; masks alike."""
    masks: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    answers: Answer = NOTHING
    """To those prompts, where the network does not train."""

    def __post_init__(self) -> None:
        self.max_length = self.description.length or int(self.tokenizer.model_max_length)

    def set_length(self, config: TrainConfig) -> None:
        """Pad and cut as the settings say."""
        self.max_length = words_length(config, self.description, int(self.tokenizer.model_max_length))

    def tokens(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, each [1, length]; padded with the tokenizer's own token, as its model was
        trained (end-of-text for SD 1, "!" for SD 2)."""
        out = self.tokenizer(
            prompt, padding="max_length", max_length=self.max_length, truncation=True, return_tensors="pt"
        )
        return out.input_ids, out.attention_mask

    def encode(self, ids: torch.Tensor, masks: torch.Tensor) -> Answer:
        """The words and the pooled embedding that the family's description asks for."""
        wanted = self.description
        uses_mask = getattr(self.network.config, "use_attention_mask", None)
        states = {"output_hidden_states": True} if wanted.layer is not None else {}
        out = self.network(ids, attention_mask=masks if uses_mask else None, **states)
        words = None
        if wanted.group is not None:
            words = out.last_hidden_state if wanted.layer is None else out.hidden_states[wanted.layer]
        return Answer(words, getattr(out, wanted.pooled) if wanted.pooled else None)


class Words:
    """The text encoders of a model; embeddings are float32.

    Args:
        dtype: of the encoders' arithmetic.
    """

    def __init__(self, model: ModelFolder, parts: Sequence[Part], device: torch.device, dtype: torch.dtype):
        self.parts = list(parts)
        self._model, self._device, self._dtype = model, device, dtype
        self._kept: dict[tuple[str, torch.dtype], Condition] = {}
        self._absent = model.absent_words
        self._present = torch.empty(0)
        self._conditions: Condition | None = None

    @property
    def trains(self) -> bool:
        """Whether some encoder does."""
        return any(part.trains for part in self.parts)

    def prepare(self, config: TrainConfig) -> list[Part]:
        """Take the lengths that the settings ask for; returns the encoders that are to train."""
        for part in self.parts:
            part.set_length(config)
        if self._absent and config.max_sequence_length is not None:
            self._absent = dict.fromkeys(self._absent, config.max_sequence_length)
        for part in self.parts:
            part.trains = bool(part.description.lora_layers) and config.train_text_encoder
        return [part for part in self.parts if part.trains]

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """The prompts that `condition` numbers: tokens where an encoder trains, its answers otherwise."""
        if not self.trains:
            self._conditions = join([self.embedding(p) for p in prompts])
            return
        empty = [self._model.zeroes_empty and not prompt for prompt in prompts]
        self._present = torch.tensor([0.0 if e else 1.0 for e in empty], device=self._device)
        for part in self.parts:
            if part.trains:
                ids, masks = zip(*(part.tokens(p) for p in prompts), strict=True)
                part.ids, part.masks = torch.cat(ids).to(self._device), torch.cat(masks).to(self._device)
            else:
                answers = [self._answer(part, p, self._dtype) for p in prompts]
                words, pooled = [a.words for a in answers], [a.pooled for a in answers]
                part.answers = Answer(_cat(words), _cat(pooled))

    @torch.no_grad()
    def embedding(self, prompt: str, dtype: torch.dtype | None = None) -> Condition:
        """One row; kept as long as the text encoders do not change.  Embedded one prompt at a time, so that the bits do
        not depend on which others there are."""
        dtype = dtype or self._dtype
        if (prompt, dtype) in self._kept:
            return self._kept[prompt, dtype]
        found = self._joined([self._answer(part, prompt, dtype) for part in self.parts])
        if self._model.zeroes_empty and not prompt:
            found = Condition(*(None if t is None else torch.zeros_like(t) for t in found))
        if not self.trains:
            self._kept[prompt, dtype] = found
        return found

    def summary(self, prompt: str) -> torch.Tensor:
        """[width]: the first encoder's last state at the end-of-text token, which has seen the whole prompt."""
        first = self.parts[0]
        ids, masks = first.tokens(prompt)
        with torch.no_grad(), autocast(self._device, self._dtype):
            states = first.network.to(self._device)(ids.to(self._device)).last_hidden_state
        return states[0, int(masks.sum()) - 1].float()

    def condition(self, prompt: NDArray[np.int64], to_device: ToDevice) -> Condition:
        """One row for each; text encoders that train run once for each distinct prompt of the batch."""
        if not self.trains:
            assert self._conditions is not None, "set_prompts comes first"
            return self._conditions.rows(to_device(prompt))
        distinct, inverse = np.unique(prompt, return_inverse=True)
        rows = to_device(distinct)
        answers = []
        for part in self.parts:
            if part.trains:
                answers.append(part.encode(part.ids[rows], part.masks[rows]))
            else:
                answers.append(Answer(*(None if t is None else t[rows] for t in part.answers)))
        found = self._joined(answers)
        if self._model.zeroes_empty:
            present = self._present[rows]
            pooled = None if found.pooled is None else found.pooled * present[:, None]
            found = Condition(found.words * present[:, None, None], pooled)
        return found.rows(to_device(inverse))

    def forget(self) -> None:
        """Embed anew: the encoders' weights are others now."""
        self._kept.clear()

    @torch.no_grad()
    def _answer(self, part: Part, prompt: str, dtype: torch.dtype) -> Answer:
        ids, masks = part.tokens(prompt)
        if dtype is torch.float16 and not part.description.fits_fp16:
            dtype = torch.float32
        part.network.to(self._device)
        with autocast(self._device, dtype):
            answer = part.encode(ids.to(self._device), masks.to(self._device))
        return Answer(*(None if t is None else t.float() for t in answer))

    def _joined(self, answers: Sequence[Answer]) -> Condition:
        """Groups of words one after the other, those within a group side by side; pooled ones side by side."""
        groups: dict[int, list[torch.Tensor]] = {}
        for part, answer in zip(self.parts, answers, strict=True):
            if answer.words is not None:
                assert part.description.group is not None
                groups.setdefault(part.description.group, []).append(answer.words)
        width, rows = self._model.words_width, next(len(w) for w in groups[min(groups)])
        for number, length in self._absent.items():
            groups[number] = [torch.zeros(rows, length, width or 0, device=self._device)]
        words = [torch.cat(groups[number], -1) for number in sorted(groups)]
        if width is not None:
            words = [torch.nn.functional.pad(w, (0, width - w.shape[-1])) for w in words]
        pooled = [answer.pooled for answer in answers if answer.pooled is not None]
        return Condition(torch.cat(words, 1), torch.cat(pooled, -1) if pooled else None)


def _cat(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    found = [t for t in tensors if t is not None]
    return torch.cat(found) if found else None
