"""Encoded images kept on disk for later runs, under names that are the hash of everything that they came from.

So an entry is used again exactly when nothing changed, needs no bookkeeping to go stale, and can be written by two runs
at once: both write the same bytes, each in one rename.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..backends.protocol import World
from ..data import WHITE, Colour, Crop, Photo
from ..data.crop import Place
from ..io.files import explain_disk_errors, usable_folder, write_atomically
from ..io.hashing import remembered_sha256
from ..models.folder import ModelFolder
from .sharing import Sharing

Float = NDArray[np.float32]
FORMAT = 1
"""Raised whenever decoding, scaling or encoding changes its results."""


_NUMBERED = re.compile(r" \([a-z]+:\d+\)")
"""Which of several like devices it is: "NVIDIA H100 (cuda:1)"."""


class LatentCache:
    """A folder of encoded images.

    Args:
        folder: created when first needed.
        encoder: what encodes: weights, configuration, backend and device (`encoder_identity`).
    """

    def __init__(self, folder: Path, encoder: str):
        self._folder, self._encoder = folder, encoder
        self.hits = 0
        """Images that were found."""

    def check(self) -> None:
        """Raise ConfigError where the folder cannot be made or written."""
        usable_folder(self._folder, "latent_cache_dir")

    def shared_with(self, world: World) -> Sharing:
        """The ranks that see this folder; every rank calls it."""
        with explain_disk_errors(f"writing latents to {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
        return Sharing.of(self._folder, world)

    def key(
        self,
        photo: Photo,
        crop: Crop,
        place: Place,
        outside_weight: float | None,
        background: Colour = WHITE,
    ) -> str:
        """The name of what a photograph gives, over `background`, cropped at `place` and with its mask weighed."""
        origin: dict[str, Any] = {
            "format": FORMAT,
            "encoder": self._encoder,
            "image": photo.content(),
            "size": [crop.height, crop.width],
            "place": [int(place[0]), int(place[1]), bool(place[2])],
        }
        if crop.interpolation != "lanczos":
            origin["interpolation"] = crop.interpolation
        if background != WHITE:
            origin["background"] = list(background)
        if photo.reference is not None:
            origin["reference"] = photo.reference_sha256
        if outside_weight is not None:
            mask = None if photo.mask is None else photo.mask_sha256 or photo.content()
            origin["mask"] = [mask, outside_weight]
        return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> Float | None:
        """The planes kept under a key; None where there are none, or none that can be read."""
        try:
            planes: Float = load(self._file(key).read_bytes())[key]
        except (OSError, SafetensorError, KeyError):
            return None
        self.hits += 1
        return planes

    def put(self, key: str, planes: Float) -> None:
        """Keep planes, [P, h, w]."""
        file = self._file(key)
        with explain_disk_errors(f"writing latents to {self._folder}"):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, save({key: np.ascontiguousarray(planes)}))

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"


def encoder_identity(model: ModelFolder, backend: str, device: str) -> str:
    """Names the autoencoder and where it runs; its last bits differ from one backend or device to another."""
    vae = model.family.vae
    if vae is None:
        return "pixels"
    files = [remembered_sha256(file) for file in model.weight_files(vae)]
    kind = _NUMBERED.sub("", device)
    return json.dumps([files, model.config(vae), backend, kind], sort_keys=True)
