"""A backend that computes nothing: runs in milliseconds, without a framework, for tests of what runs leave on disk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from dreamcore.backends import installed
from dreamcore.backends.lora import TrainedLora, layer_shapes
from dreamcore.backends.protocol import Batch, SampleRequest, Solo, StepResult
from dreamcore.config import TrainConfig
from dreamcore.formats.lora import save_published
from dreamcore.formats.tensors import Tensors
from dreamcore.io.names import OPTIMIZER_FILE
from dreamcore.models.folder import ModelFolder
from dreamcore.models.locate import embedded_model

NAME = "stub"
SECONDS = "DREAMBOOTH_STUB_SECONDS"
"""Environment variable: how long an update takes at the least."""
LOSSES = "DREAMBOOTH_STUB_LOSSES"
"""Environment variable: the loss on held-out photographs after 0, 1, 2 ... updates, with commas; else it is 1."""
LORA_LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
"""The one layer that LoRA trains."""


def install() -> None:
    """Make it the only backend there is, for the rest of this process."""
    installed.entry_points = lambda: {NAME: f"{__name__}:load"}


def write_model(folder: Path) -> Path:
    """The embedded model with weights of a few bytes."""
    shutil.copytree(embedded_model(), folder, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    for file in embedded_model().glob("*/*.safetensors"):
        save_file({"weight": np.arange(4, dtype=np.float32)}, folder / file.parent.name / file.name)
    return folder


def load(model: ModelFolder, settings: Any) -> StubBackend:
    """As an adapter's `load`."""
    return StubBackend(model)


class StubBackend:
    """`dreamcore.backends.protocol.Backend`: its one weight counts the updates."""

    on_device = False

    def __init__(self, model: ModelFolder) -> None:
        self.model, self.world = model, Solo()
        self.updates = 0
        self._rows: list[int] = []

    def tokenize(self, prompts: Sequence[str], encoder: int = 0) -> list[list[str]]:
        return [prompt.split() for prompt in prompts]

    def tokenizer_window(self, encoder: int = 0) -> int:
        return 75

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(prompts), 4), np.float32)

    def set_prompts(self, prompts: Sequence[str]) -> None:
        return None

    def encode_images(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        factor = self.model.latent_factor
        small = pixels[:, :1, ::factor, ::factor].repeat(self.model.latent_channels, axis=1)
        return small, np.zeros_like(small)

    def prepare_training(self, config: TrainConfig) -> list[str]:
        self.config = config
        return [self.model.family.denoiser]

    def offload(self) -> None:
        return None

    def stage(self, batches: Sequence[Batch]) -> None:
        return None

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        self.updates += 1
        time.sleep(float(os.environ.get(SECONDS, "0")))
        self._rows.append(sum(len(batch.weight) for batch in micro_batches))

    def metrics(self) -> list[StepResult]:
        results = [StepResult(np.ones(n, np.float32), 1.0) for n in self._rows]
        self._rows.clear()
        return results

    def loss(self, batch: Batch) -> NDArray[np.float32]:
        losses = os.environ.get(LOSSES, "").split(",")
        loss = float(losses[self.updates] or 1) if self.updates < len(losses) else 1.0
        return np.full(len(batch.weight), loss, np.float32)

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        grey = [seed % 256 for seed in request.seeds]
        side = self.model.native_resolution
        return np.array(grey, np.uint8).reshape(-1, 1, 1, 1).repeat(side, 1).repeat(side, 2).repeat(3, 3)

    def load_lora(self, file: Path, scale: float) -> None:
        return None

    def export(self, folder: Path, *, averaged: bool) -> None:
        if (trained := self.trained_lora(averaged=averaged)) is not None:
            save_published(trained.factors, trained.alpha / trained.rank, folder)
            return
        name = self.model.family.denoiser
        (folder / name).mkdir()
        shutil.copyfile(self.model.folder(name) / "config.json", folder / name / "config.json")
        weights = {"weight": np.full(4, self.updates, np.float32)}
        save_file(weights, folder / name / "diffusion_pytorch_model.safetensors")

    def trained_lora(self, *, averaged: bool) -> TrainedLora | None:
        if not self.config.use_lora:
            return None
        rank = self.config.rank
        layers = layer_shapes(Tensors(next((embedded_model() / "unet").glob("*.safetensors"))).shapes)
        factors = {f"{LORA_LAYER}.lora_A.weight": np.full((rank, 4), self.updates, np.float32)}
        factors |= {f"{LORA_LAYER}.lora_B.weight": np.full((4, rank), 1 / 3, np.float32)}
        return TrainedLora(factors, rank, self.config.lora_alpha or rank, {"unet": layers})

    def whole_state(self) -> AbstractContextManager[None]:
        return nullcontext()

    def save_state(self, folder: Path) -> None:
        save_file({"updates": np.array([self.updates])}, folder / OPTIMIZER_FILE)

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        self.updates = int(load_file(folder / OPTIMIZER_FILE)["updates"][0])

    def rewrite_weights(self, files: Sequence[Path], folder: Path) -> None:
        raise AssertionError("the stub's model is safetensors")

    def peak_memory(self) -> int | None:
        return None

    def device_name(self) -> str:
        return "no device"
