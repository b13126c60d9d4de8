"""What the denoiser is conditioned on, and how the answers of text encoders become it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..families import Family

T = TypeVar("T")
"""A backend's tensors."""


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
