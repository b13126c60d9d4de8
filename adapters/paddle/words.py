"""Prompts in Paddle's tensors; what becomes of them stands in `dreamcore.words`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from dreamcore import words
from dreamcore.modelfolder import ModelFolder

Condition = words.Condition[paddle.Tensor]
Part = words.Part[paddle.Tensor]


class Words(words.Words[paddle.Tensor]):
    """The text encoders of a model.

    Args:
        autocast: a context of the arithmetic of encoders that do, or do not, fit fp16.
        ready: brings a network onto the device.
    """

    def __init__(
        self,
        model: ModelFolder,
        parts: Sequence[Part],
        autocast: Callable[[bool], Any],
        ready: Callable[[Any], None],
    ):
        super().__init__(model, parts)
        self._autocast, self._ready = autocast, ready

    def tensor(self, array: NDArray[Any]) -> paddle.Tensor:
        return paddle.to_tensor(array)

    def concat(self, tensors: Sequence[paddle.Tensor], axis: int) -> paddle.Tensor:
        return paddle.concat(list(tensors), axis)

    def rows(self, tensor: paddle.Tensor, rows: NDArray[np.int64]) -> paddle.Tensor:
        return tensor.index_select(paddle.to_tensor(rows))

    def encode(self, part: Part, ids: paddle.Tensor, masks: paddle.Tensor) -> Condition:
        wanted = part.description
        uses_mask = getattr(part.network.config, "use_attention_mask", None)
        out = part.network(
            ids,
            attention_mask=masks if uses_mask else None,
            output_hidden_states=wanted.layer is not None,
            return_dict=True,
        )
        found = None
        if wanted.group is not None:
            found = out.last_hidden_state if wanted.layer is None else out.hidden_states[wanted.layer]
        return words.Condition(found, getattr(out, wanted.pooled) if wanted.pooled else None)

    @paddle.no_grad()
    def answer(self, part: Part, prompt: str, precision: Any) -> Condition:
        self._ready(part.network)
        with self._autocast(part.description.fits_fp16):
            return self.encode(part, *map(self.tensor, part.tokens(prompt))).each(lambda t: t.cast("float32"))

    @paddle.no_grad()
    def summary(self, prompt: str) -> NDArray[np.float32]:
        """[width]: the first encoder's last state at the end-of-text token, which has seen the whole prompt."""
        first = self.parts[0]
        ids, masks = first.tokens(prompt)
        self._ready(first.network)
        with self._autocast(first.description.fits_fp16):
            states = first.network(self.tensor(ids), return_dict=True).last_hidden_state
        end: NDArray[np.float32] = states[0, int(masks.sum()) - 1].cast("float32").numpy()
        return end
