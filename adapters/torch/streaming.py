"""Blocks of frozen weights that wait on the host: each comes to the device before its turn, and is freed after it.

A block's weights are one storage on the host and one on the device.  While a block is computed with, its parameters
hold the device's; autograd, which would keep that until the backward pass, is given a note of what to fetch again.
The order of turns is learnt in the first pass, and the block whose turn is next comes while this one is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

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
    wait: Callable[[], None]
    """Until they are there."""


class Turns(Protocol):
    """The weights of a part of a network, which are on the device for a turn."""

    def bring(self) -> Copy:
        """A copy of the weights on the device, which is being made."""
        ...

    def enter(self, copy: Copy) -> None:
        """Compute with the device's weights."""
        ...

    def leave(self) -> None:
        """The turn is over."""
        ...

    def settle(self) -> None:
        """The weights were moved."""
        ...


class Block:
    """The frozen weights of a part of a network, which wait on the host."""

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
        return Copy(slab, list(views(slab, self._homes)), partial(self._copying.wait_for, self._copying.mark()))

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


def swapped(network: torch.nn.Module, weights: Named, store: Store) -> Streaming:
    """The blocks of a network that wait on the host.

    Args:
        network: its weights of these names are frozen.
        weights: those that wait, by published name.
    """
    copying = Copying(store.device)
    grouped: dict[str, list[torch.nn.Parameter]] = {}
    for name, weight in weights.items():
        grouped.setdefault(str(block_of(name)), []).append(weight)
    blocks = {name: Block(parameters, store, copying) for name, parameters in grouped.items()}
    return Streaming(blocks, {name: network.get_submodule(name) for name in blocks})


class Streaming:
    """Blocks that are on the device for their turns.

    Args:
        blocks: by name.
        layers: which compute with them.
        long: blocks whose turn lasts while others come and go: as long as a pass.
    """

    def __init__(self, blocks: Mapping[str, Turns], layers: Mapping[str, torch.nn.Module], long: Collection[str] = ()):
        self._blocks, self._long = dict(blocks), set(long)
        self._there: dict[str, Copy] = {}
        self._turns: list[str] = []
        """Blocks in the order in which they were first computed with."""
        self._entered = set[str]()
        """Blocks that are computed with now."""
        for name, layer in layers.items():
            layer.register_forward_pre_hook(self._hook(name, self._enter))
            layer.register_forward_hook(self._hook(name, self._leave), always_call=True)
            for part in _parts(layer) if name not in self._long else ():
                part.register_forward_pre_hook(partial(self._enter_part, name))
                part.register_forward_hook(partial(self._leave_part, name), always_call=True)
        self._by_part: dict[str, torch.nn.Module] = {}
        """Blocks that are computed with for the sake of a part."""

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
        if name not in self._turns and name not in self._long:
            self._turns.append(name)
        self._compute(name)

    def _leave(self, name: str) -> None:
        self._blocks[name].leave()
        self._entered.discard(name)
        if not going_back():
            self._there.pop(name, None)

    def _enter_part(self, name: str, part: torch.nn.Module, *_: Any) -> None:
        """Where activations are computed again, that may be of a part of a block alone."""
        if going_back() and name not in self._entered:
            self._by_part[name] = part
            self._compute(name)

    def _leave_part(self, name: str, part: torch.nn.Module, *_: Any) -> None:
        if self._by_part.get(name) is part:
            del self._by_part[name]
            self._leave(name)

    def _compute(self, name: str) -> None:
        self._blocks[name].enter(self._turn(name))
        self._entered.add(name)

    def _turn(self, name: str) -> Copy:
        """A block's weights, those of the block whose turn is next on their way behind them, and no others, but for
        what stays longer."""
        coming = None
        if name not in self._long:
            coming = self._coming(name)
            stay = {name, coming, *self._long}
            self._there = {n: copy for n, copy in self._there.items() if n in stay}
        for one in (name, coming):
            if one is not None and one not in self._there:
                self._there[one] = self._blocks[one].bring()
        copy = self._there[name]
        copy.wait()
        return copy

    def _coming(self, name: str) -> str | None:
        """The block whose turn is next."""
        number = self._turns.index(name) + (-1 if going_back() else 1)
        return self._turns[number] if 0 <= number < len(self._turns) else None

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


def _parts(layer: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The layers with weights within a layer: diffusers lets some of them compute their activations again by
    themselves, and transformers all of a block's without the block."""
    for one in layer.modules():
        if one is not layer and next(one.parameters(), None) is not None:
            yield one


def going_back() -> bool:
    """Whether this is called by autograd's backward pass, as where activations are computed again."""
    going: bool = torch._C._current_graph_task_id() != -1
    return going
