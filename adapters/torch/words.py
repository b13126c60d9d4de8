"""Prompts in PyTorch's tensors; what becomes of them stands in `dreamcore.words`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamcore import words
from dreamcore.modelfolder import ModelFolder

from .precision import autocast

Condition = words.Condition[torch.Tensor]
Part = words.Part[torch.Tensor]


class Words(words.Words[torch.Tensor]):
    """The text encoders of a model, each kept where it is until it is called for.

    Args:
        dtype: of the encoders' arithmetic.
        to_device: brings an array onto the device.
    """

    def __init__(
        self,
        model: ModelFolder,
        parts: Sequence[Part],
        device: torch.device,
        dtype: torch.dtype,
        to_device: Callable[[NDArray[Any]], torch.Tensor],
    ):
        super().__init__(model, parts, dtype)
        self._device, self._dtype, self._to_device = device, dtype, to_device

    def tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return self._to_device(array)

    def concat(self, tensors: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
        return torch.cat(list(tensors), axis)

    def rows(self, tensor: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        return tensor[self.tensor(rows)]

    def encode(self, part: Part, ids: torch.Tensor, masks: torch.Tensor) -> Condition:
        wanted = part.description
        uses_mask = getattr(part.network.config, "use_attention_mask", None)
        states = {"output_hidden_states": True} if wanted.layer is not None else {}
        out = part.network(ids, attention_mask=masks if uses_mask else None, **states)
        found = None
        if wanted.group is not None:
            found = out.last_hidden_state if wanted.layer is None else out.hidden_states[wanted.layer]
        return words.Condition(found, getattr(out, wanted.pooled) if wanted.pooled else None)

    @torch.no_grad()
    def answer(self, part: Part, prompt: str, precision: torch.dtype) -> Condition:
        if precision is torch.float16 and not part.description.fits_fp16:
            precision = torch.float32
        part.network.to(self._device)
        with autocast(self._device, precision):
            return self.encode(part, *map(self.tensor, part.tokens(prompt))).each(lambda t: t.float())

    @torch.no_grad()
    def summary(self, prompt: str) -> torch.Tensor:
        """[width]: the first encoder's last state at the end-of-text token, which has seen the whole prompt."""
        first = self.parts[0]
        ids, masks = first.tokens(prompt)
        with autocast(self._device, self._dtype):
            states = first.network.to(self._device)(self.tensor(ids)).last_hidden_state
        return states[0, int(masks.sum()) - 1].float()
