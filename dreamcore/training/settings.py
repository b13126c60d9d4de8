"""What the settings come to for this model and these photographs: sizes, rates, rhythms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends.lora import refuse_larger_rank
from ..config import TrainConfig
from ..config.compat import SYSTEMS
from ..config.loading import without_rivals
from ..diffusion.schedule import FlowSettings, NoiseSchedule, ResolutionShift
from ..errors import ConfigError
from ..families import Family
from ..models.folder import ModelFolder
from ..models.lora_files import find_lora, rank_of
from ..runs.layout import LAYOUTS

Say = Callable[[str], None]


def image_size(config: TrainConfig, model: ModelFolder, warn: Say) -> tuple[int, int]:
    """Height and width of the training images.

    Raises:
        ConfigError: not a multiple of what the model needs.
    """
    native = model.native_resolution
    if config.height is not None and config.width is not None:
        size = config.height, config.width
    else:
        side = config.resolution or native
        size = side, side
    named = "resolution" if config.height is None else "height and width"
    for value in size:
        if value % model.size_step:
            near = max(1, round(value / model.size_step)) * model.size_step
            raise ConfigError(
                f"{named}: {value} is not a multiple of {model.size_step}, as this model needs; {near} would be"
            )
    if native not in size:
        warn(f"{named}: training at {size[1]}×{size[0]}, while this model was made for {native}×{native}")
    return size


def variants(config: TrainConfig, count: int) -> int:
    """Cached transforms of an image: `count` where something about them is random."""
    return count if config.random_flip or not config.center_crop else 1


def noise_schedule(config: TrainConfig, model: ModelFolder) -> NoiseSchedule:
    """The model's noise levels with the settings of flow matching in them.

    Raises:
        ConfigError: min-SNR together with other weights, or where it has no value.
    """
    schedule = model.schedule
    if schedule.prediction == "flow":
        scheme = config.weighting_scheme or model.family.weighting_scheme
        normal = (config.logit_mean, config.logit_std) if scheme == "logit_normal" else ()
        flow = FlowSettings(scheme, *normal)
        if scheme == "mode":
            flow = replace(flow, mode_scale=config.mode_scale)
        flow = replace(flow, precondition_outputs=config.precondition_outputs)
        native = (model.native_resolution // model.size_step) ** 2
        shift = ResolutionShift(model.config("scheduler"), native) if config.resolution_shift else None
        schedule = replace(schedule, flow=flow, shift=shift)
        if config.snr_gamma is not None and (scheme in ("sigma_sqrt", "cosmap") or flow.precondition_outputs):
            raise ConfigError(
                "snr_gamma: given together with a weighting_scheme or precondition_outputs that weigh timesteps "
                "otherwise; give one or the other"
            )
    if (bound := snr_bound(config, schedule)) is not None:
        schedule.check_min_snr(bound)
    return schedule


def snr_bound(config: TrainConfig, schedule: NoiseSchedule) -> float | None:
    """γ of min-SNR weighting; without a bound it is the weight 1/σ² of the clean latent's error, σ = b/a, as diffusers'
    EDM-style training has it (`min_snr_weight`).  Models that predict noise have it anyway; EDM's own keep theirs."""
    if schedule.prediction != "flow" and config.do_edm_style_training:
        return None if schedule.prediction in ("edm", "epsilon") else math.inf
    return config.snr_gamma


def total_updates(config: TrainConfig, updates_per_epoch: int) -> int:
    """Updates of the whole run, once `settle_length` has seen its settings."""
    return config.max_train_steps or (config.num_train_epochs or 1) * updates_per_epoch


def settle_defaults(config: TrainConfig, family: Family) -> tuple[TrainConfig, str | None]:
    """The settings with the defaults that the trainer in `like` has for the model's family, and a line that says so."""
    system = SYSTEMS.get(config.like or "")
    if system is None:
        return config, None
    taken = without_rivals(system.of_model(family.name, config.use_lora), config.given().keys())
    if not taken:
        return config, None
    listed = ", ".join(f"{name} {value}" for name, value in taken.items())
    return config.suggest(taken), f"--like {system.name}, for {family.name}: {listed}"


def settle_rank(config: TrainConfig, model: ModelFolder) -> tuple[TrainConfig, str | None]:
    """The settings with the rank of the LoRA file that training begins with, unless the user gives one, and a line that
    says so.

    Raises:
        ConfigError: the file cannot be read, or has a larger rank than the user gives.
    """
    if not config.use_lora or config.init_lora is None:
        return config, None
    file = find_lora("init_lora", config.init_lora)
    rank = rank_of(file, model)
    if "rank" in config.given() and "rank" not in config.suggested:
        refuse_larger_rank(file, rank, config.rank)
        return config, None
    return config.suggest({"rank": rank}), f"rank {rank}, as {file} has it"


def settle_length(
    config: TrainConfig, family: Family, earlier: Mapping[str, Any] | None
) -> tuple[TrainConfig, str | None]:
    """The settings with a length, and what is said where none is given: the usual one of the family is taken, or, to go
    on with a run, its own.

    Args:
        earlier: the settings of the run that is gone on with.
    """
    if config.max_train_steps is not None or config.num_train_epochs is not None:
        return config, None
    method, usual = ("LoRA", family.lora_updates) if config.use_lora else ("full fine-tuning", family.updates)
    taken, said = {"max_train_steps": usual}, f"{usual} updates, usual for {method} of {family.name}"
    for name, unit in (("num_train_epochs", "epochs"), ("max_train_steps", "updates")):
        if earlier and earlier.get(name) is not None:
            taken, said = {name: earlier[name]}, f"{earlier[name]} {unit} in all, as the run that this goes on with"
    return config.model_copy(update=taken), f"{said}; max_train_steps or num_train_epochs changes it"


def decided(config: TrainConfig, backend: str) -> str:
    """What a run is decided by, and by whom: a line for the backend and for each setting that is not at its default."""
    lines = [f"backend {backend}, {'as given' if config.backend else 'the one that is installed'}"]
    for name, value in sorted(config.given().items()):
        chosen = "by a preset or another trainer's defaults" if name in config.suggested else "as given"
        lines.append(f"{name} {value!r}, {config.reasons.get(name, chosen)}")
    return "\n".join(lines)


def settings_to_write(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that act, with folders as absolute paths: the configuration file that repeats the run anywhere.

    Whose defaults they are besides (`like`) is of no more use: each has its value.
    """
    settings = dict(settings)
    for name in ("resume_from_checkpoint", "reset_optimizer", "overwrite_output_dir", "like"):
        settings.pop(name, None)
    if LAYOUTS[settings.get("layout", "dreambooth")].dated:  # the same again is another run there
        settings["output_dir"] = str(Path(settings["output_dir"]).parent)
    for name, value in settings.items():
        settings[name] = _absolute(name, value)
    for concept in settings.get("concepts", ()):
        concept |= {name: _absolute(name, value) for name, value in concept.items()}
    return settings


def _absolute(name: str, value: Any) -> Any:
    """A setting's value; where it names a folder or file that is there, by its absolute path."""
    files = ("dataset_name", "tokenizer_name", "original_config", "validation_images", "init_lora")
    is_path = name.endswith(("_dir", "_name_or_path")) or name in files
    if is_path and isinstance(value, list):
        return [_absolute(name, one) for one in value]
    if value is None or not is_path or name == "logging_dir" or not Path(str(value)).expanduser().exists():
        return value
    return str(Path(str(value)).expanduser().resolve())
