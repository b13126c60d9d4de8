"""Prompts on their way into the denoiser: tokens, and the text encoder's embeddings of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .precision import autocast

ToDevice = Callable[[NDArray[Any]], torch.Tensor]


class Words:
    """A tokenizer and its text encoder.

    Args:
        encoder: kept where it is until it is called for.
        dtype: of the encoder's arithmetic; embeddings are float32.
    """

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device, dtype: torch.dtype):
        self.tokenizer, self.encoder = tokenizer, encoder
        self.max_length = int(tokenizer.model_max_length)
        self.trains = False
        """Whether the encoder's weights, among them LoRA's, change from update to update."""
        self._device, self._dtype = device, dtype
        self._kept: dict[tuple[str, torch.dtype], torch.Tensor] = {}
        self._conditions = self._masks = torch.empty(0)

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """The prompts that `condition` numbers."""
        if self.trains:
            self._conditions = torch.cat([self._ids(p)[0] for p in prompts]).to(self._device)
            self._masks = torch.cat([self._ids(p)[1] for p in prompts]).to(self._device)
        else:
            self._conditions = torch.cat([self.embedding(p) for p in prompts])

    @torch.no_grad()
    def embedding(self, prompt: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[1, tokens, width]; kept as long as the text encoder does not change.  Embedded one prompt at a time, so
        that the bits do not depend on which others there are."""
        dtype = dtype or self._dtype
        if (prompt, dtype) in self._kept:
            return self._kept[prompt, dtype]
        self.encoder.to(self._device)
        ids, masks = self._ids(prompt)
        with autocast(self._device, dtype):
            embedding = self._encode(ids.to(self._device), masks.to(self._device)).float()
        if not self.trains:
            self._kept[prompt, dtype] = embedding
        return embedding

    def summary(self, prompt: str) -> torch.Tensor:
        """[width]: the embedding at the end-of-text token, which has seen the whole prompt."""
        end = int(self._ids(prompt)[1].sum()) - 1
        return self.embedding(prompt)[0, end]

    def condition(self, prompt: NDArray[np.int64], to_device: ToDevice) -> torch.Tensor:
        """[B, tokens, width]; a text encoder that trains runs once for each distinct prompt of the batch."""
        if not self.trains:
            return self._conditions[to_device(prompt)]
        distinct, inverse = np.unique(prompt, return_inverse=True)
        rows = to_device(distinct)
        return self._encode(self._conditions[rows], self._masks[rows])[to_device(inverse)]

    def forget(self) -> None:
        """Embed anew: the encoder's weights are others now."""
        self._kept.clear()

    def _ids(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, each [1, length]; padded with the tokenizer's own token, as its model was
        trained (end-of-text for SD 1, "!" for SD 2)."""
        out = self.tokenizer(
            prompt, padding="max_length", max_length=self.max_length, truncation=True, return_tensors="pt"
        )
        return out.input_ids, out.attention_mask

    def _encode(self, ids: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        uses_mask = getattr(self.encoder.config, "use_attention_mask", None)
        return self.encoder(ids, attention_mask=masks if uses_mask else None)[0]
