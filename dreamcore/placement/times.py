"""How long a run takes, predicted: the operations of its networks (`Tape.operations`), by those that a device does in a
second.

Products with matrices, convolutions and attention are counted: of the denoiser, and of text encoders that train.  What
else an update does (the optimizer, normalisations, copies) is in the shares below.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..backends.out_of_memory import CLASSES, TRAINING, VALIDATION
from ..config import TrainConfig
from .machine import Machine

CARDS = {
    "B200": 2250,
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 6000 Ada": 364,
    "RTX A6000": 155,
    "RTX A5000": 111,
    "RTX A4000": 77,
    "A40": 150,
    "A30": 165,
    "A10G": 70,
    "A10": 125,
    "V100": 112,
    "T4": 65,
    "RTX 5090": 210,
    "RTX 5080": 113,
    "RTX 5070": 62,
    "RTX 4090": 165,
    "RTX 4080": 98,
    "RTX 4070": 58,
    "RTX 4060": 30,
    "RTX 3090": 71,
    "RTX 3080": 60,
    "RTX 3070": 41,
    "RTX 3060": 25,
    "RTX 2080": 42,
}
"""10¹² operations a second of dense products in 16 bits, summed in 32, by what a card's name holds, the first that it
does: the makers' data sheets."""
LESS_IN_32_BITS = 0.5
"""Of that, in float32 with TF32."""
OF_CARD = 0.35
"""Share of that which training reaches, as reports of other trainers have it: not measured here on any card."""
OF_HOST = 1.0
"""The same on a CPU, of what NumPy's product of two matrices reaches on it (SD 1.5's blocks of half the width, forward
and backward in PyTorch 2.13 on one core, by time of the processor: 1.0 to 1.2)."""
SIDE = 1024
"""Of the matrices whose product is timed."""


@dataclass(frozen=True)
class Expected:
    """Seconds, predicted.

    Args:
        update: of one.
        classes: of the class images that are to be made.
        validation: of the images of one validation.
        operations: of an update.
        speed: operations a second.
        basis: how the speed is known, in words.
    """

    update: float
    classes: float
    validation: float
    operations: int
    speed: float
    basis: str


def operations(config: TrainConfig, one: int, words: int, images: Mapping[str, int]) -> dict[str, int]:
    """Of an update on one device, and of images made, by stage.

    Args:
        one: of the denoiser's pass over one sample.
        words: of one pass of the text encoders that train over one prompt.
        images: passes over a sample for images, by stage.
    """
    rows = config.train_batch_size * (1 + config.with_prior_preservation + config.preserves_output)
    passes = (2 if config.use_lora else 3) + int(config.gradient_checkpointing)
    own = config.train_batch_size if config.preserves_output else 0  # which the network answers by itself, too
    update = config.gradient_accumulation_steps * ((rows * passes + own) * one + rows * passes * words)
    return {TRAINING: update} | {stage: count * one for stage, count in images.items()}


def expect(counted: Mapping[str, int], machine: Machine, config: TrainConfig) -> Expected | None:
    """The times of `operations`; None where it is not known what the device does in a second."""
    known = _speed(machine, half=config.mixed_precision != "no", tf32=config.allow_tf32)
    if known is None:
        return None
    speed, basis = known
    by_all = {CLASSES: machine.processes, VALIDATION: machine.processes, TRAINING: 1}
    seconds = {stage: count / speed / by_all[stage] for stage, count in counted.items()}
    images = seconds.get(CLASSES, 0.0), seconds.get(VALIDATION, 0.0)
    return Expected(seconds[TRAINING], *images, counted[TRAINING], speed, basis)


def _speed(machine: Machine, *, half: bool, tf32: bool) -> tuple[float, str] | None:
    if machine.on_host:
        if half:
            return None  # from twice as fast to ten times slower: as processors have instructions for it
        return OF_HOST * _of_products(), "as fast as NumPy's product of two matrices here"
    found = next((speed for name, speed in CARDS.items() if name in (machine.name or "")), None)
    if found is None or not (half or tf32) or "Laptop" in str(machine.name):
        return None
    share = OF_CARD * (1.0 if half else LESS_IN_32_BITS)
    return share * found * 1e12, f"{share:.0%} of the {found} that {machine.name} does in 16 bits, unmeasured"


def _of_products() -> float:
    """Operations a second of NumPy's product of two matrices: the best of five."""
    matrix, best = np.ones((SIDE, SIDE), np.float32), float("inf")
    for _ in range(5):
        began = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best
