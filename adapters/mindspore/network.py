"""The loss as one network, which MindSpore differentiates and, in graph mode, compiles."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

LAYERS = re.compile(r"(^|\.)(resnets|attentions|layers?)\.\d+$")
"""Cells of a UNet and of a text encoder that keep nothing but their inputs when they are recomputed."""


class LossNetwork(nn.Cell):
    """The denoiser's squared error, with the text encoder before it where that trains."""

    def __init__(self, denoiser: nn.Cell, text_encoder: nn.Cell | None, *, uses_mask: bool):
        super().__init__()
        self.denoiser, self.text_encoder = denoiser, text_encoder
        self.uses_mask = uses_mask

    def construct(
        self, x: Tensor, t: Tensor, target: Tensor, weight: Tensor, words: Tensor, attention: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum [] and mean squared error of each row [B], in float32.

        Args:
            x: [B, C, h, w] noisy latents.
            t: [B] timesteps.
            target: [B, C, h, w].
            weight: [B], the loss scale in it.
            words: [B, tokens, width] embeddings, or token ids [B, tokens] where the text encoder trains.
            attention: [B, tokens] attention mask of the ids.
            mask: [B, 1, h, w] weights of the squared error's elements, or [1, 1, 1, 1].
        """
        if self.text_encoder is not None:
            words = encode(self.text_encoder, words, attention, self.uses_mask)
        answer = self.denoiser(x, t, words)[0]
        squared = ops.square(answer.astype(ms.float32) - target) * mask
        errors = squared.reshape(squared.shape[0], -1).mean(1)
        return (errors * weight).sum(), errors


def encode(text_encoder: nn.Cell, ids: Tensor, attention: Tensor, uses_mask: bool) -> Tensor:
    """Embeddings [B, tokens, width] of token ids [B, tokens]."""
    return text_encoder(ids, attention_mask=attention if uses_mask else None)[0]


def recompute(network: nn.Cell) -> None:
    """Compute the activations within residual, attention and encoder layers again in the backward pass.

    mindone's own switch asks its cells for a method that MindSpore 2.7 does not have.
    """
    for name, cell in network.cells_and_names():
        if LAYERS.search(name):
            cell.recompute()


def gradient_function(network: LossNetwork, weights: ms.ParameterTuple, compile: Callable[[Any], Any]) -> Any:
    """A function of the network's inputs that returns ((loss, errors), gradients)."""
    differentiated = ms.value_and_grad(network, None, weights, has_aux=True)

    def run(*inputs: Tensor) -> Any:
        return differentiated(*inputs)

    return compile(run)
