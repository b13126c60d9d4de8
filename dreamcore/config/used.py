"""When each setting acts: one table, read before any framework is imported.

A setting that is not named here always acts.  One that was given and cannot act is refused by name, unless its value is
what the run does anyway: `--lr_warmup_steps 0` beside a constant rate is simply fine.  Whatever a preset suggests is.
`tests/contract/test_settings_are_used.py` holds the table against what runs read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ..errors import ConfigError
from ..io.names import ONE_FILE as MODEL_FILES
from ..io.names import PICKLES
from .base import Settings, shown
from .generate import GenerateConfig
from .identifiers import IdentifiersConfig
from .optimizers import ADAMW, OF_SOME, RATED, RATES, reading
from .selecting import scores
from .train import TrainConfig
from .when import OURS, Context, ModelFacts, Use, When, beside, of_model, on

__all__ = ["USED_IF", "Context", "ModelFacts", "acting", "conditions", "elsewhere", "idle", "refuse_idle"]


def _schedule(*names: str) -> When:
    words = f"with lr_scheduler {' or '.join(names)}"
    return When(lambda c, _: c.lr_scheduler in names, words, f"give lr_scheduler {names[0]}, or remove it")


def _method(*names: str) -> When:
    words = f"with lora_method {' or '.join(names)}"
    return When(lambda c, _: c.lora_method in names, words, f"give lora_method {names[0]}, or remove it")


def _scheme(config: Any, context: Context) -> str | None:
    """The weighting scheme of flow matching; None where it is not known."""
    return config.weighting_scheme or (context.model.weighting_scheme if context.model else None)


def _weighted(scheme: str) -> When:
    words = f"with weighting_scheme {scheme}"
    return When(lambda c, r: _scheme(c, r) in (None, scheme), words, f"give weighting_scheme {scheme}, or remove it")


def _place(name: str, place: str) -> When:
    words = f"where a prompt, caption or template has a place for it, {{{place}}}"
    return When(lambda _, r: r.places is None or name in r.places, words, f"write {{{place}}} there, or remove it")


def _precisions(config: Any) -> Collection[Any]:
    """How `prior_generation_precision` says the run's own precision."""
    return ("no", "fp32") if config.mixed_precision == "no" else (config.mixed_precision,)


CAPTIONS = When(lambda c, _: c.captioned, "with captions", "give use_captions, or remove it")
DATASET = When(lambda c, _: any(s.source[0] == "dataset_name" for s in c.subjects()), "with dataset_name", "remove it")
PLACED = _place("identifier", "identifier")
NAMED = replace(
    PLACED,
    holds=lambda c, r: scores(c) or PLACED.holds(c, r),
    words=f"{PLACED.words}, or where pictures are scored: no judge is told it",
)
FOLDER = When(
    lambda c, _: any(s.source[0] == "instance_data_dir" or s.validation_data_dir for s in c.subjects()),
    "on folders of photographs, not on dataset_name",
)
COLUMNS = When(
    lambda c, _: c.caption_source in ("auto", "metadata") or DATASET.holds(c, Context()),
    "where captions come from metadata or a dataset",
    "give caption_source metadata, or remove it",
)
RANDOM = When(
    lambda c, _: c.random_flip or not c.center_crop,
    "where photographs are cropped or flipped at random",
    "leave out center_crop, give random_flip, or remove it",
)
SPARING = replace(
    on("torch"), remedy="use that backend, give gradient_checkpointing or use_lora in its place, or remove it"
)
SHARDS = When(
    lambda _, r: r.backend in (None, "torch", "paddle") or r.backend not in OURS,
    "on torch and paddle",
    "use one of these, or remove it; on MindSpore mindone's own scripts have ZeRO",
    of="backend",
)
SHARES_ALL = When(
    lambda c, r: c.shard != "full" or r.backend in (None, "torch") or r.backend not in OURS,
    "with optimizer on paddle, and full on torch",
    "give shard optimizer, or use --backend torch",
)
PUSH = beside("push_to_hub")
VALIDATION_IMAGES = beside("validation_prompt")
CLASSES = beside("with_prior_preservation")
PRIOR = When(
    lambda c, _: c.heeds_class_prompt,
    "with with_prior_preservation or diff_output_preservation",
    "give with_prior_preservation, or remove it",
)
PRESERVES = When(
    lambda c, _: c.use_lora,
    "with use_lora, whose factors can be switched off (a model that trains whole would need a second copy of itself)",
    "give use_lora, give with_prior_preservation in its place, or remove it",
)
VALIDATION = When(
    lambda c, _: (
        c.validation_prompt is not None or c.validation_share > 0 or any(s.validation_data_dir for s in c.subjects())
    ),
    "where something is validated",
    "give validation_prompt, or remove it",
)
MEASURED = When(
    lambda c, _: scores(c) or c.validation_share > 0 or any(s.validation_data_dir for s in c.subjects()),
    "where something is measured along the way",
    "give evaluate_steps, or hold photographs out (validation_share), or remove it",
)
HELD_OUT = When(
    lambda c, _: (
        c.best_by != "validation_loss" or c.validation_share > 0 or any(s.validation_data_dir for s in c.subjects())
    ),
    "where photographs are held out",
    "give validation_share or validation_data_dir, or remove it",
)
SAMPLING = When(
    lambda c, _: c.validation_prompt is not None or c.with_prior_preservation,
    "where images are made",
    "give validation_prompt or with_prior_preservation, or remove it",
)
FULL = When(lambda c, _: not c.use_lora, "without use_lora", "remove it")
HEADER = When(lambda c, _: c.lora_metadata != "none", "without lora_metadata none")
ENDS = When(lambda c, _: not c.skip_final_inference, "without skip_final_inference")
LORA, EMA, CACHE, NEW_WORDS = (
    beside(name) for name in ("use_lora", "use_ema", "cache_latents", "train_text_encoder_ti")
)
TEXT_ENCODER = When(
    lambda c, _: c.train_text_encoder or c.train_text_encoder_ti,
    "with train_text_encoder or train_text_encoder_ti",
    "give train_text_encoder, or remove it",
)
FLOW = of_model(lambda m: m.flow, "on models of flow matching (Stable Diffusion 3, Flux and newer)")
UPSCALED = of_model(lambda m: m.upscales, "on models that upscale images (DeepFloyd IF stage 2)")
REFERS = of_model(lambda m: m.refers, "on models that see reference images (Flux Kontext, Flux.2)")
STARTS = of_model(
    lambda m: m.upscales or m.refers,
    "on models that upscale images (DeepFloyd IF stage 2) or see reference images (Flux Kontext, Flux.2)",
)
WORDED = of_model(lambda m: m.classifier_free, "on models that are guided by negative words")
HALF = When(lambda c, _: c.mixed_precision != "no", "with mixed_precision", "give mixed_precision, or remove it")
COMPILED = When(
    lambda c, _: c.mode == "graph" or (c.mode is None and not (c.device or "").lower().startswith("cpu")),
    "in graph mode",
)


def _guided(setting: str) -> When:
    def guides(config: Any, context: Context) -> bool:
        scale = getattr(config, setting)
        return scale is None or scale > (context.model.unguided if context.model else 0)

    return When(guides, f"with {setting} above 1 (Z-Image: 0)", f"raise {setting}, or remove it")


ONE_FILE = When(lambda c, _: str(c.pretrained_model_name_or_path).endswith(MODEL_FILES), "on a model that is one file")
PARTS = ("pretrained_model_name_or_path", "pretrained_unet_name_or_path", "pretrained_vae_model_name_or_path")
PICKLED = When(
    lambda c, _: any(str(getattr(c, name)).endswith(PICKLES) for name in PARTS), "on a model that is pickled"
)
KEEPS = When(
    lambda _, r: r.backend in (None, "torch") or r.backend not in OURS,
    "on torch",
    "give backend torch, or mixed_precision (on paddle with amp_level O2), which halves frozen weights, or remove it",
    of="backend",
)
FROZEN = When(
    lambda c, r: not c.train_text_encoder_ti and (not c.train_text_encoder or r.model is None or r.model.frozen_words),
    "on text encoders that do not train",
    "leave train_text_encoder and train_text_encoder_ti out, or remove it",
)
ELSEWHERE = of_model(lambda m: m.words_elsewhere, "on models published without a language model (HiDream)")
AUTOENCODER = of_model(lambda m: m.autoencoder, "on models with an autoencoder")
MODEL: dict[str, Use] = {
    "original_config": Use(ONE_FILE),
    "sd_version": Use(ONE_FILE),
    "allow_pickle": Use(PICKLED),
    "pretrained_vae_model_name_or_path": Use(AUTOENCODER),
    "pretrained_text_encoder_4_name_or_path": Use(ELSEWHERE),
    "pretrained_tokenizer_4_name_or_path": Use(ELSEWHERE),
    "enable_vae_slicing": Use(AUTOENCODER),
    "enable_vae_tiling": Use(AUTOENCODER),
    "text_encoder_out_layers": Use(
        of_model(lambda m: m.stacked_layers, "on models whose words are several hidden states (Flux.2)")
    ),
    "drop_t5": Use(of_model(lambda m: m.optional_encoder, "on models with a T5 that they can do without (SD 3)")),
    "allow_tf32": Use(on("torch")),
    "quantize_base": Use(KEEPS),
    "quantize_text_encoders": Use(KEEPS),
    # O1 is what the others' autocasting does; operator by operator is how they run
    "amp_level": Use(on("paddle"), HALF, same=lambda c: ("O1",)),
    "mode": Use(on("mindspore"), same=lambda c: ("pynative",)),
    "jit_level": Use(on("mindspore"), COMPILED),
}
TRAIN: dict[str, Use] = {
    **MODEL,
    "image_column": Use(DATASET),
    "cond_image_column": Use(DATASET, REFERS),
    "repeats": Use(When(lambda c, _: c.concepts is None, "without concepts", "put it into each of them")),
    "sub_folders": Use(FOLDER),
    "caption_source": Use(CAPTIONS, FOLDER),
    "caption_column": Use(CAPTIONS, COLUMNS),
    "missing_caption": Use(CAPTIONS),
    "caption_template": Use(CAPTIONS),
    "identifier": Use(NAMED),
    "class_word": Use(_place("class_word", "class")),
    "shuffle_tags": Use(CAPTIONS),
    "keep_tags": Use(CAPTIONS, beside("shuffle_tags")),
    "caption_variants": Use(CAPTIONS, beside("shuffle_tags")),
    "resolution": Use(When(lambda c, _: c.height is None, "without height and width"), same=lambda c: (c.height,)),
    "outside_weight": Use(beside("masked_loss")),
    "bucket_shapes": Use(beside("aspect_ratio_buckets")),
    "bucket_step": Use(
        beside("aspect_ratio_buckets"), When(lambda c, _: c.bucket_shapes is None, "without bucket_shapes")
    ),
    "instance_variants": Use(RANDOM, same=lambda c: (1,)),
    "class_variants": Use(CLASSES, RANDOM, same=lambda c: (1,)),
    "vae_batch_size": Use(CACHE, AUTOENCODER),
    "vae_precision": Use(AUTOENCODER, on("torch")),
    "cache_memory_gb": Use(CACHE),
    "latent_cache_dir": Use(CACHE),
    "prior_loss_weight": Use(CLASSES),
    "class_data_dir": Use(CLASSES),
    "class_prompt": Use(PRIOR),
    "diff_output_preservation": Use(PRESERVES),
    "diff_output_preservation_multiplier": Use(PRESERVES, beside("diff_output_preservation")),
    "num_class_images": Use(CLASSES),
    "sample_batch_size": Use(SAMPLING),
    "prior_num_inference_steps": Use(CLASSES),
    "prior_guidance_scale": Use(CLASSES),
    "prior_generation_precision": Use(CLASSES, on("torch"), same=_precisions),
    "quantize_base": Use(KEEPS, LORA),
    "quantize_text_encoders": Use(KEEPS, FROZEN),
    "rank": Use(LORA),
    "lora_alpha": Use(LORA),
    "init_lora": Use(LORA),
    "lora_dropout": Use(LORA, _method("lora", "pissa")),
    "lora_layers": Use(LORA),
    "lora_blocks": Use(LORA),
    "lora_method": Use(LORA),
    "use_dora": Use(LORA, _method("lora")),
    "use_rslora": Use(LORA),
    "lokr_factor": Use(LORA, _method("lokr")),
    "do_edm_style_training": Use(of_model(lambda m: not m.flow, "on models without flow matching")),
    "channels_last": Use(on("torch")),
    "compile": Use(on("torch")),
    "cuda_graphs": Use(on("torch")),
    "placement": Use(SPARING),
    "offload_optim_frac": Use(
        SPARING, When(lambda c, _: c.placement == "cpu", "with placement cpu", "give placement cpu, or remove it")
    ),
    "blocks_to_swap": Use(SPARING, LORA),
    "fused_backward_pass": Use(SPARING),
    "shard": Use(SHARDS, SHARES_ALL),
    "ddp_comm_hook": Use(on("torch")),
    "ema_decay": Use(EMA),
    "weighting_scheme": Use(FLOW, same=lambda c: ("none",)),
    "logit_mean": Use(FLOW, _weighted("logit_normal")),
    "logit_std": Use(FLOW, _weighted("logit_normal")),
    "mode_scale": Use(FLOW, _weighted("mode")),
    "precondition_outputs": Use(FLOW),
    "vae_encode_mode": Use(AUTOENCODER),
    "resolution_shift": Use(FLOW),
    "guidance_scale": Use(of_model(lambda m: m.embeds_guidance, "on models that are told it in training (Flux.1 dev)")),
    "max_sequence_length": Use(
        of_model(lambda m: m.long_words, "on models that read long prompts (Stable Diffusion 3, Flux and newer)")
    ),
    "text_encoder_use_attention_mask": Use(
        of_model(lambda m: m.masks_words, "on models whose T5 can (DeepFloyd IF)"), same=lambda c: (False,)
    ),
    "class_labels_conditioning": Use(
        of_model(lambda m: m.class_labels, "on models that are told class labels (DeepFloyd IF stage 2)")
    ),
    "train_text_encoder_ti": Use(of_model(lambda m: m.learns_words, "on models with CLIP, BERT or T5")),
    **{
        name: Use(NEW_WORDS)
        for name in ("token_abstraction", "initializer_concept", "train_text_encoder_ti_frac", "train_transformer_frac")
    },
    "num_new_tokens_per_abstraction": Use(
        NEW_WORDS, When(lambda c, _: c.initializer_concept is None, "without initializer_concept, whose tokens count")
    ),
    "enable_t5_ti": Use(NEW_WORDS, of_model(lambda m: "t5" in m.encoders, "on models with a T5")),
    "train_text_encoder": Use(of_model(lambda m: m.trains_words, "on models with another text encoder than T5")),
    "learning_rate": Use(RATED),
    "text_encoder_lr": Use(TEXT_ENCODER, RATED, RATES, same=lambda c: (c.learning_rate,)),
    "scale_lr": Use(RATED),
    "lr_scheduler": Use(RATED),
    "adam_weight_decay_text_encoder": Use(TEXT_ENCODER, same=lambda c: (c.adam_weight_decay,)),
    **{
        f"{name}_dropout_rate": Use(
            of_model(
                lambda m, name=name: len(m.encoders) > 1 and name in m.encoders,  # type: ignore[misc]
                f"on models with several text encoders, {words} among them",
            )
        )
        for name, words in (("clip_l", "CLIP"), ("clip_g", "a second CLIP"), ("t5", "T5"))
    },
    "lr_warmup_steps": Use(
        When(
            lambda c, _: c.lr_scheduler != "constant",
            "with another lr_scheduler than constant",
            "give lr_scheduler constant_with_warmup, or remove it",
        )
    ),
    "lr_num_cycles": Use(_schedule("cosine_with_restarts")),
    "lr_power": Use(_schedule("polynomial")),
    "use_8bit_adam": Use(on("torch"), ADAMW, same=lambda c: (c.optimizer == "adamw8bit",)),
    **{name: Use(reading(name)) for name in sorted(OF_SOME)},
    "adafactor_warmup_init": Use(reading("adafactor_warmup_init"), beside("adafactor_relative_step")),
    "validation_negative_prompt": Use(VALIDATION_IMAGES, WORDED, _guided("validation_guidance_scale")),
    "num_validation_images": Use(
        VALIDATION_IMAGES,
        When(
            lambda c, r: c.validation_images is None or r.model is None or r.model.refers,
            "without validation_images, or where those are references",
        ),
    ),
    "validation_images": Use(VALIDATION_IMAGES, STARTS),
    "validation_num_inference_steps": Use(VALIDATION_IMAGES),
    "validation_guidance_scale": Use(VALIDATION_IMAGES),
    "validation_scheduler": Use(VALIDATION_IMAGES),
    "evaluate_steps": Use(VALIDATION_IMAGES),
    "judge": Use(VALIDATION_IMAGES, beside("evaluate_steps")),
    "best_by": Use(MEASURED, HELD_OUT),
    "stop_when": Use(MEASURED),
    "validation_steps": Use(VALIDATION, When(lambda c, _: c.validation_epochs is None, "without validation_epochs")),
    "validation_epochs": Use(VALIDATION),
    "final_validation_prompt": Use(VALIDATION_IMAGES, ENDS),
    "skip_final_inference": Use(VALIDATION),
    "checkpointing_steps": Use(When(lambda c, _: c.checkpointing_epochs is None, "without checkpointing_epochs")),
    "skip_save_text_encoder": Use(FULL),
    "save_precision": Use(
        When(lambda c, _: c.export_format == "diffusers", "with export_format diffusers", "give that, or remove it")
    ),
    "lora_metadata": Use(LORA),
    **{name: Use(LORA, HEADER) for name in ("metadata_title", "metadata_author", "training_comment")},
    "hub_model_id": Use(PUSH),
    "hub_private_repo": Use(PUSH),
    "reset_optimizer": Use(beside("resume_from_checkpoint")),
}
USED_IF: dict[type[Settings], dict[str, Use]] = {
    TrainConfig: TRAIN,
    GenerateConfig: {
        **MODEL,
        "negative_prompt": Use(WORDED, _guided("guidance_scale")),
        "image": Use(STARTS),
        "noise_level": Use(UPSCALED),
        "lora_scale": Use(beside("lora")),
    },
    IdentifiersConfig: {
        **MODEL,
        **{n: Use(beside("grid")) for n in ("num_inference_steps", "seed", "batch_size")},
        "quantize_base": Use(KEEPS, beside("grid")),
    },
}
"""By configuration, the settings that do not always act."""


def _table(cls: type[Settings]) -> dict[str, Use]:
    return next((USED_IF[base] for base in cls.__mro__ if base in USED_IF), {})


def conditions(cls: type[Settings], name: str) -> str:
    """When a setting acts, in words after "acts only"; empty where it always does."""
    uses = _table(cls)
    return " and ".join(when.words for when in uses[name].conditions) if name in uses else ""


def elsewhere(cls: type[Settings], context: Context) -> dict[str, str]:
    """The settings that cannot act on this backend or model whatever the other settings are, each with where it can."""
    of_others = ((n, when) for n, use in _table(cls).items() for when in use.conditions if when.of != "settings")
    return {name: when.words for name, when in of_others if not when.holds(None, context)}


def idle(config: Settings, context: Context) -> dict[str, When]:
    """The settings that cannot act, each with the first of its conditions that does not hold."""
    table = _table(type(config))
    first = {n: next((w for w in use.conditions if not w.holds(config, context)), None) for n, use in table.items()}
    return {name: when for name, when in first.items() if when is not None}


def refuse_idle(config: Settings, context: Context, only: Collection[str] | None = None) -> None:
    """Refuse settings that were given, mean something, and cannot act.

    Args:
        only: the settings to look at.

    Raises:
        ConfigError: naming all of them, each with what it would need.
    """
    refused, table, given = [], _table(type(config)), config.given()
    for name, when in idle(config, context).items():
        if name not in given or name in config.suggested or (only is not None and name not in only):
            continue
        value = given[name]
        if value not in (None, type(config).model_fields[name].default, *table[name].same(config)):
            refused.append(f"{name}={shown(value)}: acts only {when.words}; {when.remedy}")
    if refused:
        raise ConfigError("\n".join(refused))


def acting(config: Settings, context: Context) -> dict[str, Any]:
    """The settings that act and have a value: with them a configuration file makes the same run again."""
    without = idle(config, context)
    dumped = config.model_dump(mode="json")
    return {name: value for name, value in dumped.items() if name not in without and value is not None}
