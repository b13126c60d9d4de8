"""Many tensors in one storage, so that they cross between host and device together; on the host locked in memory where
the device is a card, for only such memory is copied while something else is computed."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch

from dreamcore.backends.bucketing import IN_FLIGHT

ALIGNED = 64
"""Bytes; a multiple of what any type and any vector instruction wants."""


def size_of(tensors: Sequence[torch.Tensor], dtype: torch.dtype | None = None) -> int:
    """Bytes of a slab for tensors.

    Args:
        dtype: in which they will lie there, their own where none is given.
    """
    return sum(_bytes(tensor, dtype) for tensor in tensors)


def views(
    slab: torch.Tensor, tensors: Sequence[torch.Tensor], dtype: torch.dtype | None = None
) -> Iterator[torch.Tensor]:
    """Where each of the tensors lies in a slab: of its shape and layout, and of this type."""
    start = 0
    for tensor in tensors:
        kind = dtype or tensor.dtype
        flat = slab[start : start + tensor.numel() * kind.itemsize].view(kind)
        yield flat.as_strided(tensor.shape, tensor.stride()) if tensor.numel() else flat.view(tensor.shape)
        start += _bytes(tensor, dtype)


def host_slab(size: int, device: torch.device) -> torch.Tensor:
    """Memory of the host [size], bytes, for copies to and from a device.

    Locked by `cudaHostRegister`: PyTorch's own locked memory is rounded up to a power of two.
    """
    slab = torch.empty(size, dtype=torch.uint8)
    if device.type == "cuda" and size:
        torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(slab.data_ptr(), size, 0))
        weakref.finalize(slab.untyped_storage(), _unlock, slab.data_ptr()).atexit = False
    return slab


class Copying:
    """What copies between host and device go through: on a card a stream of their own.

    Nothing of it was measured on a card.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._flying = deque[tuple[torch.cuda.Event, int]]()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Copies from here on begin once what was asked of the device before is done, and nothing waits for them."""
        if self._side is not None:
            self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side) if self._side is not None else nullcontext():
            yield

    def lent(self, tensor: torch.Tensor) -> None:
        """A tensor of the main stream is read aside: its memory is not given away before."""
        if self._side is not None:
            tensor.record_stream(self._side)

    def hold_back(self, size: int) -> None:
        """After copies of so many bytes: let the host wait while more than `IN_FLIGHT` are on their way, for what is
        computed faster than it is copied would gather on the device."""
        if self._side is None:
            return
        self._flying.append((self._side.record_event(), size))
        while sum(size for _, size in self._flying) > IN_FLIGHT:
            self._flying.popleft()[0].synchronize()

    def owned(self, tensor: torch.Tensor) -> None:
        """A tensor that was made aside is used by the main stream."""
        if self._side is not None:
            tensor.record_stream(torch.cuda.current_stream(self._device))

    def mark(self) -> torch.cuda.Event | None:
        """A point behind the copies so far."""
        return None if self._side is None else self._side.record_event()

    def wait_for(self, mark: torch.cuda.Event | None = None) -> None:
        """Let the device's further work begin behind a mark, or behind all copies; the host does not wait."""
        if self._side is not None:
            main = torch.cuda.current_stream(self._device)
            main.wait_event(mark) if mark is not None else main.wait_stream(self._side)

    def finish(self) -> None:
        """Let the host wait for all copies."""
        if self._side is not None:
            self._side.synchronize()
            self._flying.clear()


def _bytes(tensor: torch.Tensor, dtype: torch.dtype | None) -> int:
    return -(-tensor.numel() * (dtype or tensor.dtype).itemsize // ALIGNED) * ALIGNED


def _unlock(pointer: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(pointer)
