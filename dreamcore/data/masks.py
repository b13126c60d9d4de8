"""Masks: where in a photograph the subject is.

A mask is NAME-mask.png beside the photograph (white: subject, black: the rest, greys between), or else the
photograph's own alpha channel.  It serves a crop that keeps the subject inside, and a loss weighted by place.

Training asks `ImageFolder.sample` for image and mask together and hands `latent_weights` of the mask to
the backend as `Batch.mask`; latents that are cached need their masks cached beside them, under the same key.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from ..errors import ConfigError
from .decode import decode_bytes

Box = tuple[int, int, int, int]


def read_mask(data: bytes, file: Path, photo: Path, size: tuple[int, int]) -> Image.Image:
    """The mask of a photograph, mode L, of the photograph's upright `size` (W, H).

    Args:
        data: contents of the mask's file.
        file: the mask's file; `photo` itself where its alpha channel is the mask.
        photo: for messages.
        size: the photograph's.

    Raises:
        ConfigError: as `decode`; or its proportions are not the photograph's, or it marks nothing.
    """
    image = decode_bytes(data, file, keep_alpha=True).image
    if file == photo:
        mask = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
    else:
        mask = image.convert("L")
        if image.mode == "RGBA":
            mask = ImageChops.multiply(mask, image.getchannel("A"))
    if mask.size != size:
        require_proportions("mask", mask.size, file, photo, size)
        mask = mask.resize(size, Image.Resampling.BILINEAR)
    if subject_box(mask) is None:
        raise ConfigError(f"{file}: the mask marks nothing; make the subject white (or opaque) in it")
    return mask


def require_proportions(what: str, own: tuple[int, int], file: Path, photo: Path, size: tuple[int, int]) -> None:
    """Refuse an image of other proportions than the photograph that it lies beside; sizes are (W, H)."""
    if abs(own[0] * size[1] - own[1] * size[0]) > max(*own, *size):
        raise ConfigError(
            f"{file}: a {what} of {own[0]}×{own[1]} for a photograph of {size[0]}×{size[1]} ({photo.name}); "
            "expected the same size or at least the same proportions"
        )


def subject_box(mask: Image.Image) -> Box | None:
    """(left, top, right, bottom) around the mask's pixels of at least 1/2; None where there are none."""
    return mask.point([0] * 128 + [255] * 128).getbbox()


def scaled_box(box: Box, size: tuple[int, int], scaled: tuple[int, int]) -> Box:
    """A box of an image of `size` in the same image at size `scaled`, rounded outwards."""
    fx, fy = scaled[0] / size[0], scaled[1] / size[1]
    right, bottom = (int(np.ceil(v - 1e-9)) for v in (box[2] * fx, box[3] * fy))
    return int(box[0] * fx), int(box[1] * fy), min(right, scaled[0]), min(bottom, scaled[1])


def latent_weights(mask: NDArray[np.float32], shape: tuple[int, int], outside_weight: float) -> NDArray[np.float32]:
    """[1, h, w] weights of a latent's squared errors: 1 on the subject, `outside_weight` elsewhere, scaled to mean 1.

    Mean 1 keeps the size of the loss, and so the learning rate's meaning, whatever the subject's share of the image.
    A crop without any weight (no subject in it, and `outside_weight` 0) teaches nothing: all zero.

    Args:
        mask: [H, W] in [0, 1].
        shape: (h, w) of the latent; H and W are multiples of it, and each latent pixel takes the mean of its field.
        outside: weight of the rest, at least 0.
    """
    h, w = shape
    fields = mask.reshape(h, mask.shape[0] // h, w, mask.shape[1] // w).mean((1, 3))
    weights = outside_weight + (1 - outside_weight) * fields
    mean = float(weights.mean())
    scaled: NDArray[np.float32] = (weights / mean if mean > 0 else weights)[None].astype(np.float32)
    return scaled
