"""LPIPS (1801.03924) by its own package, of AlexNet's weights, as the paper measures how pictures differ."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

Distance = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
WEIGHTS = "alexnet-owt-*.pth"
"""torchvision's file; the layers' own weights come with the package."""


def open_lpips() -> Distance | None:
    """What tells how far two pictures of one size, uint8 [H, W, 3], lie apart; None where the package or AlexNet's
    weights are not on this machine: nothing is fetched."""
    if find_spec("lpips") is None or not any(Path(torch.hub.get_dir(), "checkpoints").glob(WEIGHTS)):
        return None
    import lpips

    network = lpips.LPIPS(net="alex", verbose=False).eval()

    def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
        planes = (torch.from_numpy(p.transpose(2, 0, 1)[None] / np.float32(127.5) - 1) for p in (one, other))
        with torch.no_grad():
            return float(network(*planes))

    return distance
