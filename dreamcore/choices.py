"""What the settings come to for this model and these photographs: sizes, rates, rhythms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .config import TrainConfig
from .config.common import ModelSettings, Scheduler
from .config.used import Context, ModelFacts, refuse_idle
from .diffusion import FlowSettings, NoiseSchedule, ResolutionShift
from .errors import ConfigError
from .families import Family, FamilyInputs, TextEncoder
from .hub import may_be_fetched
from .lr import learning_rate
from .modelfolder import ModelFolder

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


def sampler(given: Scheduler | None, model: ModelFolder, setting: str, usual: Scheduler | None = None) -> Scheduler:
    """The sampler to make pictures with: the one given, else `usual` where it fits, else the model's first.

    Raises:
        ConfigError: one that does not know the model's noise levels.
    """
    known = model.schedule.samplers
    if given is None:
        return usual if usual in known else known[0]
    if given not in known:
        raise ConfigError(f"{setting}: {given} does not fit the noise levels of this model; use {' or '.join(known)}")
    return given


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
    if config.snr_gamma is not None:
        schedule.check_min_snr(config.snr_gamma)
    return schedule


def family_inputs(config: TrainConfig, model: ModelFolder) -> FamilyInputs:
    """What the family's denoiser receives besides timesteps and words."""
    lengths = [encoder.length for encoder in model.family.text_encoders if encoder.length]
    tokens = config.max_sequence_length or max(lengths) if lengths else 0
    told = config.guidance_scale if model.config(model.family.denoiser).get("guidance_embeds") else None
    return FamilyInputs(model.family, tokens, told, model.token_side**2)


def guidance(given: float | None, model: ModelFolder) -> float:
    """The strength of pictures' guidance: the one given, else the family's."""
    return model.family.guidance_scale if given is None else given


def weight_decays(config: TrainConfig, components: Sequence[str]) -> dict[str, float]:
    """AdamW's decay of each component: the denoiser, then the text encoders that train."""
    decays = dict.fromkeys(components, config.adam_weight_decay)
    for encoder in components[1:]:
        other = config.adam_weight_decay_text_encoder
        decays[encoder] = decays[encoder] if other is None else other
    return decays


def total_updates(config: TrainConfig, updates_per_epoch: int) -> int:
    """Updates of the whole run, once `settle_length` has seen its settings."""
    return config.max_train_steps or (config.num_train_epochs or 1) * updates_per_epoch


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


def warm_up_too_long(rates: Rates) -> str | None:
    """What is said of a learning rate that never gets to its full height."""
    warmup = rates.shape.get("warmup", 0)
    if warmup < rates.total:
        return None
    highest = rates.at(rates.total - 1)[next(iter(rates.base))]
    return (
        f"lr_warmup_steps: {warmup} is not less than the {rates.total} updates of this run, so the learning rate ends "
        f"at {highest:.2g} and never gets to {next(iter(rates.base.values())):.2g}; give fewer"
    )


def refuse_before_fetching(config: ModelSettings, backend: str) -> None:
    """Refuse settings that cannot act before a model's gigabytes come from the Hub; what depends on the model waits.

    Raises:
        ConfigError: as `refuse_idle`.
    """
    if may_be_fetched(config.pretrained_model_name_or_path):
        refuse_idle(config, Context(backend))


def model_facts(model: ModelFolder) -> ModelFacts:
    """What decides which settings act on a model."""
    family = model.family
    return ModelFacts(
        flow=model.schedule.prediction == "flow",
        weighting_scheme=family.weighting_scheme,
        told_guidance=bool(model.config(family.denoiser).get("guidance_embeds")),
        classifier_free=family.classifier_free,
        optional_encoder=any(encoder.optional for encoder in family.text_encoders),
        long_words=any(encoder.length for encoder in family.text_encoders),
    )


def words_length(config: TrainConfig, encoder: TextEncoder, window: int) -> int:
    """Tokens that a text encoder's prompts are padded to and cut at.

    Args:
        window: tokens that its tokenizer allows.

    Raises:
        ConfigError: more than those.
    """
    setting = "max_sequence_length" if encoder.length else "tokenizer_max_length"
    length = getattr(config, setting)
    return (encoder.length or window) if length is None else checked_length(length, window, setting)


def checked_length(length: int, longest: int, setting: str = "tokenizer_max_length") -> int:
    """Tokens that prompts are padded or cut to, of at most the tokenizer's own; `setting` is who asks.

    Raises:
        ConfigError: it is more.
    """
    if length > longest:
        raise ConfigError(f"{setting}: {length} is more than the {longest} tokens that this model takes")
    return length


def settings_to_write(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that act, with folders as absolute paths: the configuration file that repeats the run anywhere."""
    settings = dict(settings)
    for name in ("resume_from_checkpoint", "reset_optimizer", "overwrite_output_dir"):
        settings.pop(name, None)
    for name, value in settings.items():
        settings[name] = _absolute(name, value)
    for concept in settings.get("concepts", ()):
        concept |= {name: _absolute(name, value) for name, value in concept.items()}
    return settings


def _absolute(name: str, value: Any) -> Any:
    """A setting's value; where it names a folder or file that is there, by its absolute path."""
    is_path = name.endswith(("_dir", "model_name_or_path")) or name == "dataset_name"
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

    @property
    def checkpoints_in_training(self) -> int | None:
        """Checkpoints kept while the run trains: the newest in any case."""
        return None if self.checkpoints_kept is None else max(1, self.checkpoints_kept)

    @classmethod
    def from_config(cls, config: TrainConfig, updates_per_epoch: int, *, validates: bool) -> Rhythm:
        validation = None
        if validates and config.validation_epochs is not None:
            validation = config.validation_epochs * updates_per_epoch
        elif validates:
            validation = config.validation_steps
        return cls(config.logging_steps, config.checkpointing_steps, config.checkpoints_total_limit, validation)
