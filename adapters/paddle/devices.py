"""The devices that Paddle finds here, in words, for `dreambooth doctor`."""

from __future__ import annotations

import paddle


def devices() -> list[str]:
    """Each device under the name that `--device` takes, with its model and memory where Paddle knows them."""
    found = ["cpu"]
    if paddle.device.is_compiled_with_cuda():
        for index in range(paddle.device.cuda.device_count()):
            card = paddle.device.cuda.get_device_properties(index)
            found.append(f"gpu:{index} ({card.name}, {card.total_memory / 2**30:.0f} GiB)")
    return found
