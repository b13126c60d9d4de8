"""What settings of placement contradict: an update that begins before all gradients are there knows not their norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .optimizers import name_of


def misplaced(config: Any) -> Iterator[str]:
    """What is wrong with a training configuration, a line each."""
    yield from _too_early(config)
    yield from _apart(config)
    yield from _shared_out(config)
    yield from _captured(config)
    if config.blocks_to_swap and config.quantize_base is not None:
        yield (
            "blocks_to_swap: given together with quantize_base, whose weights stay where they were made small; "
            "give one or the other"
        )
    if config.blocks_to_swap and config.compile:
        yield "blocks_to_swap: given together with compile, which wants weights where they are; give one or the other"


def _too_early(config: Any) -> Iterator[str]:
    """Of updates while gradients arrive."""
    if config.fused_backward_pass and config.max_grad_norm > 0:
        yield (
            f"fused_backward_pass: given together with max_grad_norm {config.max_grad_norm:g}, for which the norm of "
            "all gradients must be known before the first weight moves; give max_grad_norm 0, which turns clipping off"
        )
    if config.fused_backward_pass and config.gradient_accumulation_steps > 1:
        yield (
            "fused_backward_pass: given together with gradient_accumulation_steps, which keeps gradients until the "
            "last micro-batch; give one or the other"
        )
    if config.fused_backward_pass and config.mixed_precision == "fp16":
        yield (
            "fused_backward_pass: given together with mixed_precision fp16, whose overflow shows only once all "
            "gradients are there; give bf16 or no"
        )
    if config.fused_backward_pass and (name := name_of(config)) != "adamw":
        yield f"fused_backward_pass: optimizer {name} updates all weights together; give optimizer adamw"


def _captured(config: Any) -> Iterator[str]:
    """Of passes that are replayed: where Python has something to do within them."""
    wanting = {
        f"placement {config.placement}": (config.placement != "cuda", "fetches weights"),
        "blocks_to_swap": (config.blocks_to_swap, "fetches weights"),
        f"shard {config.shard}": (config.shard != "none", "gathers weights or gradients"),
        "fused_backward_pass": (config.fused_backward_pass, "updates weights"),
        "train_text_encoder": (config.train_text_encoder, "looks which words there are"),
        "train_text_encoder_ti": (config.train_text_encoder_ti, "looks which words there are"),
        "lora_dropout and gradient_checkpointing": (
            config.use_lora and config.lora_dropout and config.gradient_checkpointing,
            "sets the generator back",
        ),
    }
    for name, (given, why) in wanting.items():
        if config.cuda_graphs and given:
            yield f"cuda_graphs: given together with {name}, which {why} within the passes; give one or the other"


ALL_AT_ONCE = {
    "prodigy": "needs all weights at once for its step size",
    "adamw_schedulefree": "judges weights that only their keeper knows",
    "adamw8bit": "keeps a state that is not shared out here",
}
"""Optimizers whose state one rank has no use for a share of -> why."""


def _shared_out(config: Any) -> Iterator[str]:
    """Of an optimizer's state that is shared out over processes."""
    if config.shard == "none":
        return
    if config.shard == "full":
        yield from _shared_out_whole(config)
    if (name := name_of(config)) in ALL_AT_ONCE:
        yield f"shard: optimizer {name} {ALL_AT_ONCE[name]}; give optimizer adamw, or leave shard out"
    if config.placement != "cuda":
        yield (
            f"shard: given together with placement {config.placement}, which keeps the state on the host; give one or "
            "the other"
        )
    if config.fused_backward_pass:
        yield (
            "shard: given together with fused_backward_pass, which updates where gradients are made; give one or the "
            "other"
        )


def _shared_out_whole(config: Any) -> Iterator[str]:
    """Of weights that are shared out over processes."""
    if config.compile:
        yield (
            "shard: full given together with compile, which wants weights where they are; give one or the other, or "
            "shard optimizer"
        )
    if config.blocks_to_swap:
        yield "shard: full given together with blocks_to_swap, which keeps blocks on the host; give one or the other"
    if config.quantize_base is not None:
        yield (
            "shard: full given together with quantize_base, whose weights stay where they were made small; give one or "
            "the other, or shard optimizer"
        )
    if config.train_text_encoder_ti:
        yield (
            "shard: full given together with train_text_encoder_ti, whose new words lie in a table that is shared out; "
            "give shard optimizer"
        )
    if not config.use_lora and _looks_in_more(config):
        yield (
            f"prior_generation_precision: {config.prior_generation_precision}, while shard full with mixed_precision "
            f"{config.mixed_precision} computes with weights in that; leave it out"
        )


def _looks_in_more(config: Any) -> bool:
    """Whether class images are made in float32, while training is not."""
    halves = config.mixed_precision != "no" and config.with_prior_preservation
    return bool(halves and config.prior_generation_precision in ("no", "fp32"))


def _apart(config: Any) -> Iterator[str]:
    """Of an optimizer that lies in two places."""
    name = name_of(config)
    if config.placement != "cuda" and name == "adamw8bit":
        yield (
            f"placement: {config.placement} keeps the optimizer's state on the host, where bitsandbytes' AdamW does "
            "not run; give optimizer adamw, or leave placement out"
        )
    if config.placement == "cpu" and config.offload_optim_frac < 1 and name != "adamw":
        yield (
            f"offload_optim_frac: optimizer {name} updates all weights together, which may not lie in two places; "
            "give 1, or optimizer adamw"
        )
    if config.placement != "cuda" and config.train_text_encoder_ti and name != "adamw":
        yield (
            f"placement: {config.placement} leaves new words on the device, and optimizer {name} updates all weights "
            "together, which may not lie in two places; give optimizer adamw, or leave placement out"
        )
    if config.placement != "cuda" and not config.use_lora and _looks_in_more(config):
        yield (
            f"prior_generation_precision: {config.prior_generation_precision}, while placement {config.placement} with "
            f"mixed_precision {config.mixed_precision} computes with weights in that; leave it out"
        )
