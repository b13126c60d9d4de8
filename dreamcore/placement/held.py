"""What stages of a run have alike: each adds what lies there, on the device or the host."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ..backends.optimizers import rule_for
from ..backends.quantization import quantised
from ..config.optimizers import OPTIMIZERS, name_of
from ..formats.weights import READ_AHEAD
from ..text.rows import ON_DEVICE
from .facts import QUANTISING, Facts
from .plan import Place, Stage
from .shards import gathered

HELD_BACK = 64 * 2**20
"""Bytes that networks without weights take, and that the C library keeps of what loading has freed: 46 to 60 MiB as
measured of SD 1.5 (PyTorch 2.13, glibc 2.36)."""
ORIGINALS = "originals of what trains"
"""What networks compute with are copies then."""


@dataclass(frozen=True)
class Held(Facts):
    """Items of stages."""

    def _networks(self, stage: Stage, here: set[str], aside: set[str] | None = None) -> None:
        """The weights of components where they are computed with, and of those that are put aside on the host."""
        aside = aside or set()
        for name, part in self.parts.items():
            if name in here or name in aside:
                size, kind = self._weights(name)
                waits, turns = self._swapped if name == self.model.family.denoiser else (0, 0)
                place: Place = self.here if name in here else "host"
                if self._kept < 1 and name in self.at_work:
                    size, kind = round(size * self._kept), f"{kind}, one share"
                stage.add(f"{name}: weights, {kind}", place, size - waits, part.basis)
                stage.add(f"{name}: weights of blocks that wait, {kind}", "host", waits, part.basis)
                stage.add(f"{name}: blocks in turn", place, turns, part.basis)
        stage.add("LoRA factors", self.here, (self.factors + self._numbers(frozen=True)) * 4)
        self._originals(stage)
        if self.config.use_ema:
            kept = 1.0 if self.config.use_lora else self._kept
            self._split(stage, "moving average", round(self.parameters * 4 * kept))

    def _originals(self, stage: Stage) -> None:
        """In float32, of the copies that train; on the device they are these themselves where these are so too."""
        if self._beside:
            stage.add("copies of what trains, 16 bits", self.here, self.parameters * 2)
        if not self._offloads:
            return
        hosted = round(self.parameters * self.config.offload_optim_frac)
        stage.add(f"{ORIGINALS}, 32 bits", "host", hosted * 4)
        if self.half and not self.config.use_lora:
            stage.add(f"{ORIGINALS}, 32 bits", self.here, (self.parameters - hosted) * 4)
        stage.add("gradients, then weights, on their way", "host", hosted * self._leaf)

    def _split(self, stage: Stage, what: str, size: int) -> None:
        """What goes with the originals: as much of it is on the host."""
        hosted = round(size * self.config.offload_optim_frac) if self._offloads else 0
        stage.add(what, "host", hosted)
        stage.add(what, self.here, size - hosted)

    def _embeddings(self, stage: Stage) -> None:
        """Those of the run's prompts: on the device up to a budget, then in the host's memory."""
        on_device = min(self.embeddings, ON_DEVICE)
        stage.add("prompt embeddings", self.here, on_device)
        stage.add("prompt embeddings beyond their budget", "host", self.embeddings - on_device)

    def _gathered(self, stage: Stage) -> None:
        """What comes from other processes for a pass, in the precision of the arithmetic."""
        if self._kept == 1.0:
            return
        for name in self.at_work:
            held = 2 if self.half and name in self.trained else self._held(name)
            size = gathered(self.parts[name].shapes) * held
            stage.add(f"{name}: blocks gathered for their turns", self.here, size)

    def _made_whole(self, stage: Stage, names: Collection[str]) -> None:
        """A quantised weight while it is computed with: it, and what it is made of on the way."""
        sizes = [
            self._remade(name) * math.prod(shape)
            for name in names
            for weight, shape in self.parts[name].shapes.items()
            if quantised(weight, shape)
        ]
        stage.add("a weight made whole to compute with", self.here, max(sizes, default=0), "predicted")

    def _images_made(self, stage: Stage, count: int, guidance: float | None) -> None:
        """A batch of images: the denoiser's pass, or the autoencoder's."""
        making = count * self._guided(guidance) * self._pass_alone.alone + self._casts
        self._made_whole(stage, self.at_work)
        self._gathered(stage)
        at_once = 1 if self.config.enable_vae_slicing else count
        stage.add("images in the making", self.here, max(making, at_once * self._decoding), "predicted")

    def _average(self, stage: Stage) -> None:
        changes_places = self.config.use_ema and self.backend == "torch"
        if (self.config.use_ema and not changes_places) or rule_for(self.config).averages:
            self._split(stage, "weights laid aside while their average is in their place", self.parameters * 4)

    def _resting(self, stage: Stage, *, vae: bool) -> None:
        """What lies there from the first update on."""
        self._networks(stage, set(self.at_work) | (self._autoencoder if vae else set()))
        self._embeddings(stage)
        stage.add("latents", "host", self.latents)
        stage.add("what loading has left", "host", HELD_BACK, "predicted")
        name = OPTIMIZERS[name_of(self.config)].published
        self._split(stage, f"{name}'s state", self._optimizer_state)

    def _reading(self, names: Collection[str]) -> int:
        """Bytes that reading these components adds at its worst: of a mapped file the pages that are not yet given
        back and copies of a weight; of one that is read whole, as read and as cut into arrays."""
        most, copies = 0, self.ways.copies + int(not self.machine.on_host)
        for name in names:
            part = self.parts[name]
            largest = max((math.prod(shape) for shape in part.shapes.values()), default=0) * 4
            mapped = part.kind == "safetensors" or (part.kind == "bin" and self.backend == "torch")
            whole = 0 if mapped else 2 * part.file_bytes
            whole += min(QUANTISING, 4 * largest) if name in self._quantised else 0
            most = max(most, min(part.file_bytes, READ_AHEAD) + copies * largest + whole)
        return most
