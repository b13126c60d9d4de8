"""What settings come to for a model: those that nobody gave, and those that cannot act."""

from __future__ import annotations

from ..config import TrainConfig
from ..config.common import ModelSettings, Scheduler
from ..config.used import Context, ModelFacts, refuse_idle
from ..errors import ConfigError
from ..families import FamilyInputs, TextEncoder
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


def guidance(given: float | None, model: ModelFolder) -> float:
    """The strength of images' guidance: the one given, else the family's."""
    return model.family.guidance_scale if given is None else given


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
        classifier_free=family.classifier_free,
        optional_encoder=any(encoder.optional for encoder in family.text_encoders),
        long_words=any(map(_says_length, family.text_encoders)),
        trains_words=any(encoder.lora_layers for encoder in model.text_encoders),
        masks_words=any(encoder.sees_padding is not None for encoder in model.text_encoders),
        autoencoder=family.vae is not None,
        upscales=family.upscales,
        class_labels="class_labels" in family.inputs,
    )


def _says_length(encoder: TextEncoder) -> bool:
    """Whether `max_sequence_length` says how many words it sees."""
    return encoder.length_setting == "max_sequence_length"
