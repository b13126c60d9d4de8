"""The border between core and the frameworks: numbers, strings, paths and NumPy arrays cross it, nothing else.

The border is the step, not the tensor operation.  Core decides what the network sees and what it must answer; a
backend runs the network, sums, steps and keeps the weights.  A batch carries x = a·z + b·ε and y = c·z + d·ε already
formed (64 KiB a row for Stable Diffusion): forming them here once leaves the backends without any diffusion
arithmetic, and with bit-identical inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..config import TrainConfig
    from ..config.common import Scheduler
    from ..formats.embeddings import Embeddings
    from .lora import TrainedLora

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """One micro-batch of B rows, all of one shape."""

    x: Float
    """[B, C, h, w] noisy latents, as the network receives them; of some families tokens, [B, tokens, width], or
    [B, 2C, h, w], the noisy latents twice."""
    target: Float
    """[B, C, h, w] or [B, tokens, width] what the network must answer; channels that it answers besides count for
    nothing."""
    t: Float
    """[B] timesteps, as the network receives them."""
    prompt: NDArray[np.int64]
    """[B] indices into the prompts of `set_prompts`."""
    weight: Float
    """[B] weights; the loss is Σ weight · mean((f(x, t, prompt) − target)²), summed over micro-batches and devices."""
    seed: int = 0
    """Seeds what is random inside the network (LoRA dropout)."""
    mask: Float | None = None
    """[B, 1, h, w] weights of the squared error's elements; [B, tokens, width] beside tokens."""
    extra: Mapping[str, NDArray[Any] | list[Any]] = field(default_factory=dict)
    """Inputs that only some families have, under the names of their description (`Family.extra`)."""
    dropped: NDArray[np.bool_] | None = None
    """[B, encoders] where zeros stand for a text encoder's answer; None: nowhere."""
    preserved: Batch | None = None
    """The last rows as a batch of their own, where what the network must answer to them, beside zeros in `target`, is
    what it answers by itself: without LoRA's factors, and without a gradient."""


@dataclass(frozen=True)
class StepResult:
    """What one update measured, copied to the host by `metrics`."""

    errors: Float
    """Mean squared error of each row of this device's micro-batches, in order, unweighted."""
    grad_norm: float
    """Euclidean norm of the whole gradient over all trained weights and devices, before clipping."""
    skipped: bool = False
    """The update was not applied (fp16 overflow)."""
    rate_factor: float | None = None
    """What the optimizer multiplies the next learning rate by, where it finds that itself (Prodigy)."""


def cut_results(numbers: Float, rows: Sequence[int], *, scales: bool, rated: bool = False) -> list[StepResult]:
    """Results of updates from what one copy to the host brought.

    Args:
        numbers: of each update in turn its rows' errors, its gradient's norm, and, where it is `rated`, a factor.
        rows: of each update.
        scales: whether there is a loss scale, whose overflows are skipped.
        rated: whether the optimizer finds a factor of the learning rate.
    """
    results = []
    for part in np.split(numbers, np.cumsum([n + 1 + rated for n in rows])[:-1]):
        factor = float(part[-1]) if rated else None
        errors, norm = part[: -1 - rated].copy(), float(part[-1 - rated])
        results.append(StepResult(errors, norm, scales and not np.isfinite(norm), factor))
    return results


class World(Protocol):
    """The devices of a run; one process each."""

    @property
    def rank(self) -> int: ...

    @property
    def local_rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def asks_every(self) -> int:
        """Updates from one question whether to stop to the next: more than 1 where `gather` waits for the devices."""
        ...

    def gather(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Arrays of one shape from all ranks, in order, on every rank."""
        ...

    def broadcast(self, value: str) -> str:
        """Rank 0's string on every rank."""
        ...

    def barrier(self) -> None:
        """Wait for all ranks."""
        ...


@dataclass(frozen=True)
class Solo:
    """The world of a single process."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    asks_every: int = 1

    def gather(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [values]

    def broadcast(self, value: str) -> str:
        return value

    def barrier(self) -> None:
        return None


@dataclass(frozen=True)
class SampleRequest:
    """Images to make: one for each prompt, all of one size."""

    prompts: Sequence[str]
    noise: Float
    """[N, C, h, w] first noise of unit variance."""
    seeds: Sequence[int]
    """Seeds of samplers that draw more noise on the way, one for each image."""
    steps: int
    guidance_scale: float
    scheduler: Scheduler
    negative_prompt: str = ""
    for_training: bool = False
    """A class image, whose precision has a setting of its own."""
    images: Float | None = None
    """[N, 3, h, w] in [−1, 1] what models that upscale start from; what others see as a reference."""
    noise_level: int = 250
    """Timestep whose noise is added to these images."""
    learned_variance: bool = True
    """Whether a variance that the network answers with is one that it was trained for: its noise alone is here."""


class Backend(Protocol):
    """A framework at work on one model.  Weights that train live in float32, others in the type of `mixed_precision`
    where the framework can; they come when they are needed.  `train_step` leaves its results on the device."""

    world: World
    on_device: bool
    """Whether networks are computed in a memory that is not the host's."""

    def tokenize(self, prompts: Sequence[str], encoder: int = 0) -> list[list[str]]:
        """Each prompt's tokens for a text encoder, without padding or cutting, without begin and end marks."""
        ...

    def tokenizer_window(self, encoder: int = 0) -> int:
        """Tokens of a prompt that a text encoder sees, without begin and end marks."""
        ...

    def embed(self, prompts: Sequence[str]) -> Float:
        """[N, W] the first text encoder's answer at each prompt's end mark, which has seen all of it."""
        ...

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """The prompts that batches refer to; embedded once and for all, unless the text encoder trains."""
        ...

    def encode_images(self, pixels: Float) -> tuple[Float, Float]:
        """Mean and standard deviation, each [N, C, h, w], of the latents of [N, 3, H, W] pixels in [−1, 1], shifted and
        scaled (`LatentSpace`)."""
        ...

    def prepare_training(self, config: TrainConfig) -> list[str]:
        """Choose and prepare the weights that train, and the optimizer; reads the settings that it honours.

        Returns:
            The components that train, the denoiser first; `train_step` takes a learning rate for each.
        """
        ...

    def offload(self) -> None:
        """Move what training does not use off the device, from which it comes back when it is called for, and what
        training uses onto it."""
        ...

    def stage(self, batches: Sequence[Batch]) -> None:
        """Begin to copy to the device what a coming `train_step` will be given; called while another is at work, by
        another thread."""
        ...

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        """One update: forward, backward, sum over ranks, clip, step; `lr` by component ("unet", "text_encoder")."""
        ...

    def metrics(self) -> list[StepResult]:
        """Results of the updates since the last call: the one copy to the host."""
        ...

    def loss(self, batch: Batch) -> Float:
        """Mean squared error of each row, without an update."""
        ...

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        """Images [N, H, W, 3]."""
        ...

    def load_lora(self, file: Path, scale: float) -> None:
        """Add a LoRA file to the loaded model, for sampling, beside those that are there."""
        ...

    def export(self, folder: Path, *, averaged: bool) -> None:
        """Write the trained weights as they are published: component folders, or a LoRA file.

        `averaged` asks for their EMA, where the run keeps one.
        """
        ...

    def trained_lora(self, *, averaged: bool) -> TrainedLora | None:
        """What a LoRA run has trained, of which `export` writes a file; None where whole networks train."""
        ...

    def load_words(self, found: Embeddings) -> None:
        """Let prompts hold new words, for sampling."""
        ...

    def new_words(self, *, averaged: bool) -> Embeddings | None:
        """The embeddings of new words that a run has trained; None where there are none."""
        ...

    def whole_state(self) -> AbstractContextManager[None]:
        """Within, rank 0 may `save_state`.  Where ranks keep different parts of it, all come here at the same time, and
        the others give theirs and leave when rank 0 does."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write what continuing needs beyond `export`: `checkpoint.OPTIMIZER_FILE`, for LoRA the raw factors, and new
        words' embeddings."""
        ...

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        """Continue from a folder that `export` and `save_state` wrote, on this backend or another.

        `reset_optimizer` leaves the optimizer's state, which may be another optimizer's, where it is.
        """
        ...

    def rewrite_weights(self, files: Sequence[Path], folder: Path) -> None:
        """Write weights of another form (.bin, a variant) into `folder` as plain safetensors."""
        ...

    def peak_memory(self) -> int | None:
        """Bytes of the device's memory held at most since the last call; None where there is none but the host's."""
        ...

    def device_name(self) -> str:
        """The device in words, for the log."""
        ...
