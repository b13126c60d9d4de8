"""What settings come to for a model: those that nobody gave, and those that cannot act."""

from __future__ import annotations

from ..config import TrainConfig
from ..config.common import ModelSettings, Scheduler
from ..config.used import Context, ModelFacts, refuse_idle
from ..errors import ConfigError
from ..families import FamilyInputs, TextEncoder
from ..families.base import short_names
from ..families.encoders import T5
from ..hub.client import may_be_fetched
from .folder import ModelFolder


def sampler(given: Scheduler | None, model: ModelFolder, setting: str, usual: Scheduler | None = None) -> Scheduler:
    """The sampler to make images with: the one given, else `usual` where it fits, else the model's first.

    Raises:
        ConfigError: one that does not know the model's noise levels.
    """
    known = model.schedule.samplers
    if given is None:
        return usual if usual in known else known[0]
    if given not in known:
        raise ConfigError(f"{setting}: {given} does not fit the noise levels of this model; use {' or '.join(known)}")
    return given


def family_inputs(config: TrainConfig, model: ModelFolder) -> FamilyInputs:
    """What the family's denoiser receives besides timesteps and words."""
    lengths = [e.length for e in model.family.text_encoders if e.length and _says_length(e)]
    tokens = config.max_sequence_length or max(lengths) if lengths else 0
    guidance = config.guidance_scale if model.config(model.family.denoiser).get("guidance_embeds") else None
    return FamilyInputs(model.family, tokens, guidance, model.token_side**2)


def encoder_dropout(config: TrainConfig, model: ModelFolder) -> tuple[float, ...]:
    """How often each text encoder's words are dropped by themselves; nothing where there is one alone."""
    names = short_names(model.text_encoders)
    return tuple(getattr(config, f"{name}_dropout_rate", 0.0) for name in names) if len(names) > 1 else ()


def learns_words(config: TrainConfig, encoder: TextEncoder) -> bool:
    """Whether new words train in a text encoder."""
    return bool(encoder.kind.table) and config.train_text_encoder_ti and (encoder.kind is not T5 or config.enable_t5_ti)


def guidance(given: float | None, model: ModelFolder) -> float:
    """The strength of images' guidance: the one given, else the family's, or 1 for models that take none."""
    if given is not None:
        return given
    return 1.0 if model.family.classifier_free and not model.classifier_free else model.family.guidance_scale


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
        embeds_guidance=bool(model.config(family.denoiser).get("guidance_embeds")),
        classifier_free=model.classifier_free,
        unguided=family.unguided,
        optional_encoder=any(encoder.optional for encoder in family.text_encoders),
        long_words=any(map(_says_length, family.text_encoders)),
        trains_words=any(encoder.lora_layers for encoder in model.text_encoders),
        frozen_words=any(not encoder.lora_layers for encoder in model.text_encoders),
        encoders=short_names(model.text_encoders),
        learns_words=any(encoder.kind.table for encoder in model.text_encoders),
        masks_words=any(encoder.sees_padding is not None for encoder in model.text_encoders),
        stacked_layers=any(encoder.layers for encoder in model.text_encoders),
        words_elsewhere=any(encoder.elsewhere for encoder in family.text_encoders),
        autoencoder=family.vae is not None,
        upscales=family.upscales,
        refers=family.reference_time is not None,
        class_labels="class_labels" in family.inputs,
    )


def _says_length(encoder: TextEncoder) -> bool:
    """Whether `max_sequence_length` says how many words it sees."""
    return encoder.length_setting == "max_sequence_length"
