"""Blocks of frozen weights that wait on the host: each comes to the device before its turn, and is freed after it.

A block's weights are one storage on the host and one on the device.  While a block is computed with, its parameters
hold the device's; autograd, which would keep that until the backward pass, is given a note of what to fetch again.
The order of turns is learnt in the first pass, and the block whose turn is next comes while this one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dreamcore.errors import ConfigError
from dreamcore.placement.blocks import block_of, blocks_by_size

from .models import Named
from .slabs import Copying, host_slab, size_of, views
from .store import Store

HOME, STREAMED = "blocks", "blocks in turn"
"""What the store calls them on the host and on the device."""


def waiting(weights: Named, count: int) -> list[str]:
    """Names of the weights of the blocks that wait on the host.

    Raises:
        ConfigError: there are fewer blocks.
    """
    blocks = list(blocks_by_size({name: weight.shape for name, weight in weights.items()}))
    if count > len(blocks):
        raise ConfigError(f"blocks_to_swap: {count}: the denoiser has {len(blocks)} blocks; give at most that")
    chosen = set(blocks[:count])
    frozen = (n for n, w in weights.items() if isinstance(w, torch.nn.Parameter))
    return [name for name in frozen if block_of(name) in chosen]


@dataclass(frozen=True)
class Note:
    """What autograd keeps in place of a weight, or of a view of one."""

    block: str
    dtype: torch.dtype
    offset: int
    size: torch.Size
    stride: tuple[int, ...]


@dataclass
class Copy:
    """A block's weights on the device."""

    slab: torch.Tensor
    views: Sequence[torch.Tensor]
    mark: Any
    """When they are there."""


class Block:
    """The frozen weights of a part of a network."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], store: Store, copying: Copying):
        self._parameters, self._store, self._copying = parameters, store, copying
        self._slab = torch.empty(0, dtype=torch.uint8)
        self._homes: list[torch.Tensor] = []

    def bring(self) -> Copy:
        """A copy of the weights on the device, which is being made."""
        if not self._homes or self._parameters[0].data_ptr() != self._homes[0].data_ptr():
            self.settle()
        device = self._store.where("device")
        with self._copying.aside():
            slab = torch.empty(len(self._slab), dtype=torch.uint8, device=device)
            slab.copy_(self._slab, non_blocking=True)
        self._copying.owned(slab)
        self._store.keep(slab, "device", STREAMED)
        return Copy(slab, list(views(slab, self._homes)), self._copying.mark())

    def enter(self, copy: Copy) -> None:
        """Compute with the device's weights."""
        for parameter, view in zip(self._parameters, copy.views, strict=True):
            parameter.data = view

    def leave(self) -> None:
        for parameter, home in zip(self._parameters, self._homes, strict=True):
            parameter.data = home

    def settle(self) -> None:
        """Let the weights, wherever they are, lie together on the host."""
        given = [parameter.data for parameter in self._parameters]
        slab = host_slab(size_of(given), self._store.where("device"))
        self._store.keep(slab, "host", HOME)
        self._homes = list(views(slab, given))
        for parameter, home, value in zip(self._parameters, self._homes, given, strict=True):
            parameter.data = home.copy_(value)
        self._slab = slab


class Streaming:
    """The blocks of a network that wait on the host.

    Args:
        network: its weights of these names are frozen.
        weights: those that wait, by published name.
    """

    def __init__(self, network: torch.nn.Module, weights: Named, store: Store):
        self._copying = Copying(store.device)
        grouped: dict[str, list[torch.nn.Parameter]] = {}
        for name, weight in weights.items():
            grouped.setdefault(str(block_of(name)), []).append(weight)
        self._blocks = {name: Block(parameters, store, self._copying) for name, parameters in grouped.items()}
        self._there: dict[str, Copy] = {}
        self._turns: list[str] = []
        """Blocks in the order in which they were first computed with."""
        for name in self._blocks:
            layer = network.get_submodule(name)
            layer.register_forward_pre_hook(self._hook(name, self._enter))
            layer.register_forward_hook(self._hook(name, self._leave), always_call=True)

    def settle(self) -> None:
        """Let all blocks lie on the host, wherever they were moved."""
        self._there.clear()
        for block in self._blocks.values():
            block.settle()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Let autograd keep notes of these weights in place of the weights; after a failure nothing stays."""
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._note, self._fetch):
                yield
        except BaseException:
            self._there.clear()
            raise

    def end(self) -> None:
        """The pass is over: no block is on the device."""
        self._there.clear()

    @staticmethod
    def _hook(name: str, act: Any) -> Any:
        def hook(*_: Any) -> None:
            act(name)

        return hook

    def _enter(self, name: str) -> None:
        if name not in self._turns:
            self._turns.append(name)
        self._blocks[name].enter(self._turn(name))

    def _leave(self, name: str) -> None:
        self._blocks[name].leave()
        if not _going_back():
            self._there.pop(name, None)

    def _turn(self, name: str) -> Copy:
        """A block's weights, those of the block whose turn is next on their way behind them, and no others."""
        number = self._turns.index(name) + (-1 if _going_back() else 1)
        coming = self._turns[number] if 0 <= number < len(self._turns) else None
        self._there = {n: copy for n, copy in self._there.items() if n in (name, coming)}
        for one in (name, coming):
            if one is not None and one not in self._there:
                self._there[one] = self._blocks[one].bring()
        copy = self._there[name]
        self._copying.wait_for(copy.mark)
        return copy

    def _note(self, tensor: torch.Tensor) -> torch.Tensor | Note:
        if self._there:
            pointer = tensor.untyped_storage().data_ptr()
            for name, copy in self._there.items():
                if pointer == copy.slab.untyped_storage().data_ptr():
                    return Note(name, tensor.dtype, tensor.storage_offset(), tensor.size(), tensor.stride())
        return tensor

    def _fetch(self, kept: torch.Tensor | Note) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        storage = self._turn(kept.block).slab.untyped_storage()
        empty = torch.empty(0, dtype=kept.dtype, device=storage.device)
        return empty.set_(storage, kept.offset, kept.size, kept.stride)


def _going_back() -> bool:
    """Whether this is called by autograd's backward pass, as where activations are computed again."""
    going: bool = torch._C._current_graph_task_id() != -1
    return going
