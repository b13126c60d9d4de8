"""A micro-batch's passes, forward and backward, as one CUDA graph for each shape: one launch in place of thousands.

A graph reads and writes where it did when it was captured.  So what a micro-batch is given is copied into the graph's
own tensors, gradients are cleared and not freed, and where weights have moved it is captured anew.  Learning rate,
clipping, loss scale and skipped updates are the optimizer's, which runs as without graphs; dropout reads its seed from
the generator, which a replay asks.

Nothing of it ran on a card.  What it must keep to, by PyTorch's notes on CUDA graphs: some passes come before, on
another stream; within, nothing waits for the device, and memory is of the graph's pool, which graphs that leave nothing
there for each other may share.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from dreamcore.errors import ConfigError, RunError

Given = Mapping[str, Any]
WARM_UPS = 3
"""Passes before one is captured: libraries choose their kernels and take their memory in the first."""


class Recorder(Protocol):
    """What a device does about graphs."""

    def warm_up(self, body: Callable[[], None]) -> None:
        """Let something run some times before it is recorded."""
        ...

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Something as one function without Python within; whether it runs for that, too, is left open."""
        ...


class Card:
    """CUDA graphs over one pool of memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def warm_up(self, body: Callable[[], None]) -> None:
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                body()
        main.wait_stream(side)

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            body()
        self._pool = graph.pool()
        return graph.replay


def recorder(device: torch.device, ranks: int) -> Recorder:
    """What records on a device.

    Raises:
        ConfigError: none there can, or there are several processes.
    """
    if device.type != "cuda":
        raise ConfigError(f"cuda_graphs: needs a CUDA card, and this is {device}; leave it out")
    if ranks > 1:
        raise ConfigError(
            f"cuda_graphs: {ranks} processes add up gradients within the passes; leave it out, or give one process"
        )
    return Card()


class Captured(NamedTuple):
    """A graph and what it reads and writes."""

    given: list[torch.Tensor]
    errors: torch.Tensor
    places: list[int]
    replay: Callable[[], None]


class Graphs:
    """The passes of each shape that came.

    Args:
        passes: takes what a micro-batch is given, adds its gradients up, and returns its rows' errors [B].
        weights: what it reads.
        summed: whose gradients are kept from pass to pass.
        recorder: of the device.
    """

    def __init__(
        self,
        passes: Callable[[Given], torch.Tensor],
        weights: Sequence[torch.Tensor],
        summed: Sequence[torch.Tensor],
        recorder: Recorder,
    ):
        self._passes, self._weights, self._summed, self._recorder = passes, weights, summed, recorder
        self._captured: dict[Hashable, Captured] = {}

    def run(self, given: Given, seed: int) -> torch.Tensor:
        """The passes of a micro-batch, as `passes`; anything but tensors in what it is given belongs to the shape.

        Raises:
            RunError: they cannot be captured.
        """
        leaves, tree = tree_flatten(given)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        shape = str(tree), *((leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
        found = self._captured.get(shape)
        if found is None or found.places != self._places():
            found = self._captured[shape] = self._capture(leaves, tree)
            torch.manual_seed(seed)  # from where it was before the warm-up
        torch._foreach_copy_(found.given, tensors)
        found.replay()
        return found.errors.clone()

    def _capture(self, leaves: list[Any], tree: Any) -> Captured:
        own = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        given = tree_unflatten(own, tree)
        errors = torch.empty_like(given["weight"])

        def body() -> None:
            errors.copy_(self._passes(given))

        before = [None if weight.grad is None else weight.grad.clone() for weight in self._summed]
        try:
            self._recorder.warm_up(body)
            places = self._places()
            replay = self._recorder.record(body)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RunError(f"cuda_graphs: this model's passes could not be captured ({error}); leave it out") from error
        self._restore(before)
        return Captured([one for one in own if isinstance(one, torch.Tensor)], errors, places, replay)

    @torch.no_grad()
    def _restore(self, before: Sequence[torch.Tensor | None]) -> None:
        """Gradients as they were, where they are from now on; of what none came to, there is none."""
        for weight, sums in zip(self._summed, before, strict=True):
            if weight.grad is not None:
                weight.grad.zero_() if sums is None else weight.grad.copy_(sums)

    def _places(self) -> list[int]:
        sums = [weight.grad.data_ptr() for weight in self._summed if weight.grad is not None]
        return [*(weight.data_ptr() for weight in self._weights), *sums]
