"""What an adapter brings to `base.BaseBackend`: how its framework moves tensors, runs networks and takes a step.

A hook is as coarse as a forward pass, a backward pass or an update; there is no layer of operators.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from ..config import TrainConfig
from ..config.common import Precision
from ..formats.weights import Arrays
from ..models.folder import ModelFolder
from ..text.conditions import Conditioning
from ..text.encoder import LoadedEncoder
from ..text.hooks import TextHooks
from .ema import EMA
from .loading import Component
from .lora import Lora
from .protocol import Batch, Float, SampleRequest

T = TypeVar("T")
"""A framework's tensors, its parameters among them."""


class Hooks(TextHooks[T]):
    """What differs from framework to framework."""

    optimizer: Any
    """What `make_optimizer` made; before that there is none."""

    # Arrays and tensors

    @abstractmethod
    def fill(self, weights: Mapping[str, T], arrays: Arrays) -> None:
        """Give weights, or what is of their shapes, what files hold under their names."""

    def shapes(self, weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Of weights, as files hold them."""
        return {name: tuple(weight.shape) for name, weight in weights.items()}

    def arrays(self, weights: Mapping[str, T]) -> Arrays:
        """Weights as files hold them."""
        return {name: self.to_host(weight) for name, weight in weights.items()}

    # Networks

    @staticmethod
    @abstractmethod
    def load_tokenizer(model: ModelFolder, name: str) -> Any:
        """The tokenizer that the model's index names."""

    @abstractmethod
    def load_component(self, model: ModelFolder, name: str, dtype: Any) -> Component:
        """A network of the model in evaluation mode, every weight accounted for and none there yet, none to be trained.

        Args:
            dtype: in which its weights will come, as `type_of` answers.
        """

    @abstractmethod
    def type_of(self, precision: Precision) -> Any:
        """The type in which weights that do not train are held in this mixed precision, as the framework calls it."""

    @abstractmethod
    def weights(self, component: str) -> Mapping[str, T]:
        """A component's weights by published name, as one file holds them."""

    @abstractmethod
    def move(self, network: Any, *, away: bool = False) -> None:
        """Bring a network onto the device, or away from it where the framework can."""

    @abstractmethod
    def set_mode(self, network: Any, *, train: bool) -> None:
        """Let a network be in train mode, or in evaluation mode."""

    @abstractmethod
    def inference(self) -> AbstractContextManager[Any]:
        """Networks run without keeping anything for gradients."""

    @abstractmethod
    def encode_pixels(self, pixels: Float) -> tuple[Float, Float]:
        """Mean and standard deviation of the autoencoder's latents, as it answers."""

    @abstractmethod
    def decode_latents(self, latents: Float) -> Float:
        """The autoencoder's images of latents, [N, 3, H, W] in [−1, 1]."""

    @abstractmethod
    def make_latents(self, request: SampleRequest, positive: Conditioning[T], negative: Conditioning[T]) -> Float:
        """Latents of images, by the library's pipeline."""

    @abstractmethod
    def apply_lora(self, file: Path, scale: float) -> None:
        """Add a LoRA file to the networks."""

    def precision(self, request: SampleRequest) -> Any:
        """The precision of text encoders while images are made; None for training's."""
        return None

    # Training

    @abstractmethod
    def place(self, config: TrainConfig) -> None:
        """See to what concerns the networks before LoRA's factors and the optimizer come."""

    @staticmethod
    @abstractmethod
    def add_lora(network: Any, component: str, lora: Lora) -> Mapping[str, T]:
        """Give factors in float32 to a network's layers; returns them by COMPONENT.LAYER.lora_A.weight and …lora_B…."""

    @staticmethod
    @abstractmethod
    def switch_lora(network: Any, *, on: bool) -> None:
        """Let a network answer with the factors that train, or without."""

    @abstractmethod
    def table(self, part: LoadedEncoder[T]) -> Float:
        """[tokens, width] of a text encoder's embeddings, on the host."""

    @abstractmethod
    def table_shape(self, part: LoadedEncoder[T]) -> tuple[int, ...]:
        """Its shape."""

    @abstractmethod
    def add_rows(self, part: LoadedEncoder[T], first: int, rows: Float) -> T:
        """Let a text encoder answer to the tokens from `first` on with rows [tokens, width] in float32, which may train
        beside its table; returns them."""

    @abstractmethod
    def put(self, tensor: T, value: T) -> None:
        """Let a tensor that trains hold these values."""

    @staticmethod
    @abstractmethod
    def require_gradients(weights: Mapping[str, T]) -> None:
        """Let weights train."""

    @staticmethod
    @abstractmethod
    def recompute(network: Any) -> None:
        """Compute a network's activations again in the backward pass (`gradient_checkpointing`)."""

    @abstractmethod
    def make_optimizer(self, parameters: Mapping[str, Mapping[str, T]], config: TrainConfig) -> Any:
        """The optimizer of parameters by component, then by COMPONENT.PARAMETER as published.

        It can `save` and `load` its state, and its `scales` tells whether updates that overflow fp16 are skipped.
        """

    @abstractmethod
    def make_ema(self, decay: float) -> EMA[Any]:
        """The EMA of the optimizer's parameters."""

    @staticmethod
    @abstractmethod
    def set_seed(seed: int) -> Any:
        """Seed what is random inside networks."""

    @abstractmethod
    def answer(self, batch: Batch) -> T:
        """The denoiser's answer, in float32."""

    @abstractmethod
    def errors(self, batch: Batch) -> T:
        """Mean squared error of each row [B], in float32."""

    def backward(self, batch: Batch) -> T:
        """`errors`, and add the gradient of Σ weight · error to those of the update."""
        return self.descend(self.errors(batch), self.to_device(batch.weight))

    def descend(self, errors: Any, weight: T) -> T:
        """Add the gradient of Σ weight · error to those of the update; returns the errors [B] without theirs."""
        self.optimizer.scaled((errors * weight).sum()).backward()
        detached: T = errors.detach()
        return detached

    @abstractmethod
    def update(self, lr: Mapping[str, float]) -> T:
        """Sum the gradients over ranks, clip, step, and drop them; returns their norm [], on the device."""
