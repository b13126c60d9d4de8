"""Prompts in MindSpore's tensors; what becomes of them stands in `dreamcore.words`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import NDArray

from dreamcore import words

from .network import Reader, encode

Condition = words.Condition[Tensor]
Part = words.Part[Tensor]


class Words(words.Words[Tensor]):
    """The text encoders of a model."""

    def tensor(self, array: NDArray[Any]) -> Tensor:
        return Tensor(np.ascontiguousarray(array))

    def concat(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        return tensors[0] if len(tensors) == 1 else ops.cat(list(tensors), axis)

    def rows(self, tensor: Tensor, rows: NDArray[np.int64]) -> Tensor:
        return ops.gather(tensor, self.tensor(rows), 0)

    def encode(self, part: Part, ids: Tensor, masks: Tensor) -> Condition:
        return words.Condition(*encode(part.network, Reader.of(part), ids, masks))

    def answer(self, part: Part, prompt: str, precision: Any) -> Condition:
        answer = self.encode(part, *map(self.tensor, part.tokens(prompt)))
        return answer.each(lambda t: t.astype(ms.float32))

    def summary(self, prompt: str) -> NDArray[np.float32]:
        """[width]: the first encoder's last state at the end-of-text token, which has seen the whole prompt."""
        first = self.parts[0]
        ids, masks = first.tokens(prompt)
        states = first.network(self.tensor(ids), return_dict=False)[Reader.of(first).last]
        end: NDArray[np.float32] = states[0, int(masks.sum()) - 1].asnumpy().astype(np.float32)
        return end

    def inputs(self, prompt: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """What `network.LossNetwork` takes of words for the rows [B] of a batch."""
        if not self.trains:
            return tuple(self.condition(prompt).values().values())
        found: list[Tensor] = []
        nothing = self.tensor(np.zeros(len(prompt), np.float32))  # for what an encoder does not answer
        for part in self.parts:
            pair = (part.ids, part.masks) if part.trains else (part.answers or (None, None))
            found += [nothing if tensor is None else self.rows(tensor, prompt) for tensor in pair]
        if self._model.zeroes_empty:
            found.append(self.tensor(self._present[prompt]))
        return tuple(found)
