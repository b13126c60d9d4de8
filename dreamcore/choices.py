"""What the settings come to for this model and these photographs: sizes, rates, rhythms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import TrainConfig
from .errors import ConfigError
from .lr import learning_rate
from .modelfolder import ModelFolder

Say = Callable[[str], None]


def image_size(config: TrainConfig, model: ModelFolder, warn: Say) -> tuple[int, int]:
    """Height and width of the training images.

    Raises:
        ConfigError: not a multiple of the model's factor.
    """
    native = model.native_resolution
    if config.height is not None and config.width is not None:
        size = config.height, config.width
    else:
        side = config.resolution or native
        size = side, side
    named = "resolution" if config.height is None else "height and width"
    for value in size:
        if value % model.latent_factor:
            near = max(1, round(value / model.latent_factor)) * model.latent_factor
            raise ConfigError(
                f"{named}: {value} is not a multiple of {model.latent_factor}, as this model needs; {near} would be"
            )
    if native not in size:
        warn(f"{named}: training at {size[1]}×{size[0]}, while this model was made for {native}×{native}")
    return size


def variants(config: TrainConfig, count: Callable[[], int]) -> int:
    """Cached transforms of an image; `count` reads the setting, which matters only where something is random."""
    return count() if config.random_flip or not config.center_crop else 1


@dataclass(frozen=True)
class Rates:
    """The learning rate of each component at any update."""

    base: Mapping[str, float]
    schedule: str
    total: int
    shape: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: TrainConfig, components: list[str], samples_per_update: int, total: int) -> Rates:
        """`components`: the denoiser, then the text encoders that train."""
        base = config.learning_rate or (1e-4 if config.use_lora else 5e-6)
        rates = {components[0]: base}
        for encoder in components[1:]:
            rates[encoder] = config.text_encoder_lr or base
        if config.scale_lr:
            rates = {name: rate * samples_per_update for name, rate in rates.items()}
        kind = config.lr_scheduler
        shape: dict[str, Any] = {}
        if kind != "constant":
            shape["warmup"] = config.lr_warmup_steps
        if kind == "cosine_with_restarts":
            shape["num_cycles"] = config.lr_num_cycles
        if kind == "polynomial":
            shape["power"] = config.lr_power
        return cls(rates, kind, total, shape)

    def at(self, update: int) -> dict[str, float]:
        """Learning rates of an update, counted from 0."""
        return {n: learning_rate(b, self.schedule, update, self.total, **self.shape) for n, b in self.base.items()}


def total_updates(config: TrainConfig, updates_per_epoch: int) -> int:
    """Updates of the whole run."""
    return config.max_train_steps or config.num_train_epochs * updates_per_epoch


def checked_length(length: int, longest: int) -> int:
    """Tokens that prompts are padded or cut to: `tokenizer_max_length`, of at most the tokenizer's own.

    Raises:
        ConfigError: it is more.
    """
    if length > longest:
        raise ConfigError(f"tokenizer_max_length: {length} is more than the {longest} tokens that this model takes")
    return length


def settings_to_write(config: TrainConfig) -> dict[str, Any]:
    """The resolved settings, with folders as absolute paths: the configuration file that repeats the run anywhere."""
    settings = config.resolved()
    for name in ("resume_from_checkpoint", "reset_optimizer", "overwrite_output_dir"):
        settings.pop(name, None)
    for name, value in settings.items():
        settings[name] = _absolute(name, value)
    for concept in settings.get("concepts", ()):
        concept |= {name: _absolute(name, value) for name, value in concept.items()}
    return settings


def _absolute(name: str, value: Any) -> Any:
    """A setting's value; where it names a folder or file that is there, by its absolute path."""
    is_path = name.endswith("_dir") or name in ("pretrained_model_name_or_path", "dataset_name")
    if value is None or not is_path or name == "logging_dir" or not Path(str(value)).expanduser().exists():
        return value
    return str(Path(str(value)).expanduser().resolve())


@dataclass(frozen=True)
class Rhythm:
    """How often, in updates, things are done besides updating."""

    logging: int
    checkpointing: int
    checkpoints_kept: int | None
    validation: int | None
    """None where there is nothing to validate."""

    @classmethod
    def from_config(cls, config: TrainConfig, updates_per_epoch: int, *, validates: bool) -> Rhythm:
        validation = None
        if validates and config.validation_epochs is not None:
            validation = config.validation_epochs * updates_per_epoch
        elif validates:
            validation = config.validation_steps
        return cls(config.logging_steps, config.checkpointing_steps, config.checkpoints_total_limit, validation)
