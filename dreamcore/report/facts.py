"""What a run was and what came of it, in a dozen short answers."""

from __future__ import annotations

import math

import numpy as np

from .charts import number
from .collect import RunData, is_number


def facts(data: RunData) -> list[tuple[str, str]]:
    """(name, value), in the order of interest; only what the run folder tells."""
    config, rate = data.config, data.config.get("learning_rate")
    found: list[tuple[str, str | None]] = [
        ("Updates", _updates(data)),
        ("State", data.state),
        ("Loss, mean of the last tenth", _final_loss(data)),
        ("Held-out loss, lowest", held_out_summary(data)),
        ("Method", _method(data)),
        ("Layers that programs find", data.lora),
        ("Prior preservation", _prior(data)),
        ("Learning rate", number(rate) if is_number(rate) else None),
        ("Seed", str(config["seed"]) if "seed" in config else None),
        ("Model", str(config["pretrained_model_name_or_path"]) if "pretrained_model_name_or_path" in config else None),
    ]
    return [(name, value) for name, value in found if value]


def lowest_held_out(data: RunData) -> tuple[int, float] | None:
    """(update, loss) where the held-out loss is lowest, the first such."""
    return min(data.held_out, key=lambda pair: pair[1]) if data.held_out else None


def held_out_summary(data: RunData) -> str | None:
    lowest = lowest_held_out(data)
    return f"{number(lowest[1])} at update {lowest[0]:,}" if lowest else None


def _updates(data: RunData) -> str | None:
    total = data.config.get("max_train_steps")
    if not data.metrics:
        return None
    return f"{data.updates:,} of {total:,}" if isinstance(total, int) else f"{data.updates:,}"


def _final_loss(data: RunData) -> str | None:
    last = data.column("loss")[-math.ceil(len(data.metrics) / 10) :] if data.metrics else np.empty(0)
    return number(float(np.nanmean(last))) if np.isfinite(last).any() else None


def _method(data: RunData) -> str | None:
    if not data.config:
        return None
    method = f"LoRA, rank {data.config.get('rank', '?')}" if data.config.get("use_lora") else "full fine-tuning"
    return method + (", with text encoder" if data.config.get("train_text_encoder") else "")


def _prior(data: RunData) -> str | None:
    if not data.config:
        return None
    if not data.config.get("with_prior_preservation"):
        return "off"
    weight, images = data.config.get("prior_loss_weight"), data.config.get("num_class_images")
    return (f"λ = {weight:g}" if is_number(weight) else "on") + (f", {images} images" if images else "")
