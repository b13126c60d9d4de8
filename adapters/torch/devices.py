"""The devices that PyTorch finds here, in words, for `dreambooth doctor`."""

from __future__ import annotations

import torch


def devices() -> list[str]:
    """Each device under the name that `--device` takes, with its model and memory where PyTorch knows them."""
    found = ["cpu"]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} ({card.name}, {card.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found
