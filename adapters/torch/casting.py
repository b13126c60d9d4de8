"""16 bits without autocasting: weights are in 16 bits already, and what comes to a network in float32 is cast where it
meets the first of them.

So timesteps and positions keep their digits until a layer multiplies with them, and within a network everything is in
16 bits: autocasting, which computes norms in float32 and casts to and fro around each, moves twice the bytes.  What
kernels add up, norms' statistics and products, they add up in float32 themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class Casting:
    """Of networks whose weights are all in one precision.

    Args:
        networks: which hold no weights of more than that.
        compiled: whether they are traced, so that hooks which do nothing cost nothing.
    """

    def __init__(self, networks: Iterable[torch.nn.Module], *, compiled: bool):
        self._needed = set[torch.nn.Module]()
        self._compiled = compiled
        layers = [layer for network in networks for layer in network.modules() if _is_first(layer)]
        hook = cast if compiled else self._noted
        self._handles = {layer: layer.register_forward_pre_hook(hook) for layer in dict.fromkeys(layers)}

    def _noted(self, layer: torch.nn.Module, given: Any) -> Any:
        changed = cast(layer, given)
        if changed is not None:
            self._needed.add(layer)
        return changed

    def settle(self) -> None:
        """After a pass: layers that have cast nothing need not be asked again, for types do not change from batch to
        batch."""
        if self._compiled or not self._handles:
            return
        for layer, handle in self._handles.items():
            if layer not in self._needed:
                handle.remove()
        self._handles = {}


def _is_first(layer: torch.nn.Module) -> bool:
    """Whether a layer multiplies with weights of its own and has no layers within."""
    return not any(layer.children()) and _type_of(layer) is not None


def _type_of(layer: torch.nn.Module) -> torch.dtype | None:
    weights = (weight for weight in layer._parameters.values() if weight is not None)
    return next((weight.dtype for weight in weights if weight.is_floating_point()), None)


def cast(layer: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What a layer is given, in its weights' type; None where it is so already, or where autocasting sees to it."""
    dtype = _type_of(layer)
    if not any(_differs(one, dtype) for one in given) or torch.is_autocast_enabled(given[0].device.type):
        return None
    return tuple(one.to(dtype) if _differs(one, dtype) else one for one in given)


def _differs(one: Any, dtype: torch.dtype | None) -> bool:
    return isinstance(one, torch.Tensor) and one.is_floating_point() and one.dtype is not dtype
