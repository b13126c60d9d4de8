"""Prompts on their way into the denoiser: tokens, and the text encoders' embeddings, as the family joins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import paddle
from numpy.typing import NDArray

from dreamcore.choices import words_length
from dreamcore.config import TrainConfig
from dreamcore.families import TextEncoder
from dreamcore.modelfolder import ModelFolder


class Condition(NamedTuple):
    """What words tell the denoiser, or one text encoder of them."""

    words: paddle.Tensor | None
    """[B, tokens, width]."""
    pooled: paddle.Tensor | None
    """[B, width]."""

    def values(self) -> dict[str, paddle.Tensor]:
        """By the names of the family's description."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def each(self, change: Callable[[paddle.Tensor], paddle.Tensor]) -> Condition:
        """With both changed."""
        return Condition(*(None if t is None else change(t) for t in self))

    def rows(self, rows: NDArray[np.int64]) -> Condition:
        """Some of the rows."""
        return self.each(lambda t: t.index_select(paddle.to_tensor(rows)))


def join(conditions: Sequence[Condition]) -> Condition:
    """The rows of several."""
    words, pooled = ([t for t in part if t is not None] for part in zip(*conditions, strict=True))
    return Condition(paddle.concat(words) if words else None, paddle.concat(pooled) if pooled else None)


NOTHING = Condition(None, None)


@dataclass
class Part:
    """One text encoder at work."""

    description: TextEncoder
    tokenizer: Any
    network: Any
    max_length: int = 0
    trains: bool = False
    """Whether the network's weights, among them LoRA's, change from update to update."""
    ids: paddle.Tensor | None = None
    """[prompts, length] of the prompts that batches number; masks alike."""
    masks: paddle.Tensor | None = None
    answers: Condition = NOTHING
    """To those prompts, where the network does not train."""

    def __post_init__(self) -> None:
        self.max_length = self.description.length or int(self.tokenizer.model_max_length)

    def set_length(self, config: TrainConfig) -> None:
        """Pad and cut as the settings say."""
        self.max_length = words_length(config, self.description, int(self.tokenizer.model_max_length))

    def tokens(self, prompt: str) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Token ids and attention mask, each [1, length]; padded with the tokenizer's own token, as its model was
        trained (end-of-text for SD 1, "!" for SD 2)."""
        tokens = self.tokenizer([prompt], padding="max_length", max_length=self.max_length, truncation=True)
        ids = np.array(tokens["input_ids"], np.int64)
        words = len(self.tokenizer([prompt], max_length=self.max_length, truncation=True)["input_ids"][0])
        return paddle.to_tensor(ids), paddle.to_tensor((np.arange(ids.shape[1]) < words).astype(np.int64)[None])

    def encode(self, ids: paddle.Tensor, masks: paddle.Tensor) -> Condition:
        """The words and the pooled embedding that the family's description asks for."""
        wanted = self.description
        uses_mask = getattr(self.network.config, "use_attention_mask", None)
        out = self.network(
            ids,
            attention_mask=masks if uses_mask else None,
            output_hidden_states=wanted.layer is not None,
            return_dict=True,
        )
        words = None
        if wanted.group is not None:
            words = out.last_hidden_state if wanted.layer is None else out.hidden_states[wanted.layer]
        return Condition(words, getattr(out, wanted.pooled) if wanted.pooled else None)


class Words:
    """The text encoders of a model; embeddings are float32.

    Args:
        autocast: a context of the encoders' arithmetic.
        ready: brings a network onto the device.
    """

    def __init__(
        self,
        model: ModelFolder,
        parts: Sequence[Part],
        autocast: Callable[[], Any],
        ready: Callable[[Any], None],
    ):
        self.parts = list(parts)
        self._model, self._autocast, self._ready = model, autocast, ready
        self._kept: dict[str, Condition] = {}
        self._absent = model.absent_words
        self._present = np.ones(0, np.float32)
        self.conditions = Condition(None, None)
        """Of the prompts that batches number, where no text encoder trains."""

    @property
    def trains(self) -> bool:
        """Whether some encoder does."""
        return any(part.trains for part in self.parts)

    def prepare(self, config: TrainConfig) -> list[Part]:
        """Take the lengths that the settings ask for; returns the encoders that are to train."""
        for part in self.parts:
            part.set_length(config)
            part.trains = bool(part.description.lora_layers) and config.train_text_encoder
        if self._absent and config.max_sequence_length is not None:
            self._absent = dict.fromkeys(self._absent, config.max_sequence_length)
        return [part for part in self.parts if part.trains]

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """The prompts that `condition` numbers: tokens where an encoder trains, its answers otherwise."""
        if not self.trains:
            self.conditions = join([self.embedding(p) for p in prompts])
            return
        self._present = np.array([not (self._model.zeroes_empty and not p) for p in prompts], np.float32)
        for part in self.parts:
            if part.trains:
                ids, masks = zip(*(part.tokens(p) for p in prompts), strict=True)
                part.ids, part.masks = paddle.concat(ids), paddle.concat(masks)
            else:
                part.answers = join([self._answer(part, p) for p in prompts])

    @paddle.no_grad()
    def embedding(self, prompt: str) -> Condition:
        """One row; kept as long as the text encoders do not change.  Embedded one prompt at a time, so that the bits do
        not depend on which others there are."""
        if prompt in self._kept:
            return self._kept[prompt]
        found = self._joined([self._answer(part, prompt) for part in self.parts])
        if self._model.zeroes_empty and not prompt:
            found = found.each(paddle.zeros_like)
        if not self.trains:
            self._kept[prompt] = found
        return found

    @paddle.no_grad()
    def summary(self, prompt: str) -> NDArray[np.float32]:
        """[width]: the first encoder's last state at the end-of-text token, which has seen the whole prompt."""
        first = self.parts[0]
        ids, masks = first.tokens(prompt)
        self._ready(first.network)
        with self._autocast():
            states = first.network(ids, return_dict=True).last_hidden_state
        end: NDArray[np.float32] = states[0, int(masks.sum()) - 1].cast("float32").numpy()
        return end

    def condition(self, prompt: NDArray[np.int64]) -> Condition:
        """One row for each; text encoders that train run once for each distinct prompt of the batch."""
        if not self.trains:
            return self.conditions.rows(prompt)
        distinct, inverse = np.unique(prompt, return_inverse=True)
        rows = paddle.to_tensor(distinct)
        found = self._joined(
            [
                part.encode(part.ids.index_select(rows), part.masks.index_select(rows))
                if part.ids is not None and part.masks is not None
                else part.answers.rows(distinct)
                for part in self.parts
            ]
        )
        if self._model.zeroes_empty:
            present = paddle.to_tensor(self._present[distinct])
            found = found.each(lambda t: t * present.reshape([-1, *[1] * (t.ndim - 1)]))
        return found.rows(inverse.reshape(-1))

    def forget(self) -> None:
        """Embed anew: the encoders' weights are others now."""
        self._kept.clear()

    @paddle.no_grad()
    def _answer(self, part: Part, prompt: str) -> Condition:
        self._ready(part.network)
        with self._autocast():
            return part.encode(*part.tokens(prompt)).each(lambda t: t.cast("float32"))

    def _joined(self, answers: Sequence[Condition]) -> Condition:
        """Groups of words one after the other, those within a group side by side; pooled ones side by side."""
        groups: dict[int, list[paddle.Tensor]] = {}
        for part, answer in zip(self.parts, answers, strict=True):
            if answer.words is not None:
                assert part.description.group is not None
                groups.setdefault(part.description.group, []).append(answer.words)
        width, rows = self._model.words_width, groups[min(groups)][0].shape[0]
        for number, length in self._absent.items():
            groups[number] = [paddle.zeros([rows, length, width or 0])]
        words = [paddle.concat(groups[number], -1) for number in sorted(groups)]
        if width is not None:
            words = [paddle.concat([w, paddle.zeros([*w.shape[:2], width - w.shape[2]], w.dtype)], -1) for w in words]
        pooled = [answer.pooled for answer in answers if answer.pooled is not None]
        return Condition(paddle.concat(words, 1), paddle.concat(pooled, -1) if pooled else None)
