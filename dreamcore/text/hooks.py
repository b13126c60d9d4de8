"""What a backend brings to its text encoders."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

from .conditions import Conditioning
from .encoder import LoadedEncoder, Tokens
from .rows import Tensors

T = TypeVar("T")
"""A backend's tensors."""


class TextHooks(Tensors[T]):
    """What a backend brings to its text encoders."""

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
