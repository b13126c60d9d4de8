"""What a plan asks of the photographs, and how backends go about memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """What a plan asks of the photographs.

    Args:
        height: of the largest training image, in pixels.
        width: of it.
        prompts: different ones, whose embeddings are kept.
        variants: encoded images that are kept.
        class_images: how many have to be made.
        held_out: whether photographs are held out.
        references: reference images beside each photograph: 0 or 1.
    """

    height: int
    width: int
    prompts: int = 1
    variants: int = 0
    class_images: int = 0
    held_out: bool = False
    references: int = 0


@dataclass(frozen=True)
class Ways:
    """How a backend goes about memory.

    Args:
        parks: whether what has changed leaves the device while it is not used; what has not goes on every backend, for
            its files bring it back.
        copies: of a weight in float32, on its way from the file into the host's memory; to a device there is one more.
        sums: whether gradients are gathered in vectors, a copy of them.
    """

    parks: bool = False
    copies: int = 1
    sums: bool = False


WAYS = {"torch": Ways(parks=True, copies=0), "paddle": Ways(parks=True), "mindspore": Ways(sums=True)}
