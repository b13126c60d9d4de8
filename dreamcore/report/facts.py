"""What a run was and what came of it, in a dozen short answers, each with what it means."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..hub.card import FRAMEWORKS
from ..io.names import BEST
from .charts import number
from .collect import RunData, is_number


@dataclass(frozen=True)
class Fact:
    """A name, a value and what that means, in words."""

    name: str
    value: str
    meaning: str = ""


def facts(data: RunData) -> list[Fact]:
    """In the order of interest; only what the run folder tells."""
    rate, seed = data.config.get("learning_rate"), data.config.get("seed")
    loss = final_loss(data)
    found: list[tuple[str, str | None, str]] = [
        ("Updates", _updates(data), "How often the model was corrected, and how often it was to be."),
        ("State", data.state, ""),
        ("Loss, mean of the last tenth", None if loss is None else number(loss), LOSS),
        (
            "Held-out loss, lowest",
            held_out_summary(data),
            "The same, on photographs that do not train: where it is lowest, the model knew them best.",
        ),
        ("Best checkpoint", f"update {data.best.update:,}" if data.best else None, _why_best(data)),
        ("Date", _date(data), "When the run began, and when it was last heard of."),
        ("Device", _device(data), ""),
        ("Memory, at most", _memory(data), "What training held at once."),
        ("Version", _version(data), ""),
        ("Base model", _base(data), ""),
        ("Method", _method(data), ""),
        ("Layers that programs find", data.lora, "Of the LoRA file, by each program that reads it."),
        ("Prior preservation", _prior(data), "Pictures of the class that keep it from all turning into the subject."),
        ("Learning rate", number(rate) if is_number(rate) else None, "How far each update goes."),
        ("Seed", str(seed) if seed is not None else None, "The same seed and settings repeat the run."),
    ]
    return [Fact(name, value, meaning) for name, value, meaning in found if value]


LOSS = (
    "How far the model is off when it guesses the noise in a picture. It hardly falls, and says little of how pictures "
    "look: judge by them."
)


def _why_best(data: RunData) -> str:
    return f"{BEST}: {data.best.words}." if data.best else ""


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


def final_loss(data: RunData) -> float | None:
    """The mean over the last tenth of the updates."""
    last = data.column("loss")[-math.ceil(len(data.metrics) / 10) :] if data.metrics else np.empty(0)
    return float(np.nanmean(last)) if np.isfinite(last).any() else None


def _date(data: RunData) -> str | None:
    if data.status is None:
        return None
    written, started = data.status.written.astimezone(), data.status.started
    if started is None:
        return f"{written:%Y-%m-%d %H:%M}"
    started = started.astimezone()
    return f"{started:%Y-%m-%d %H:%M} to {written:{'%H:%M' if written.date() == started.date() else '%Y-%m-%d %H:%M'}}"


def _device(data: RunData) -> str | None:
    status = data.status
    if status is None or not status.device:
        return None
    several = f", {status.processes} processes" if status.processes > 1 else ""
    return f"{status.device}{several}, by {FRAMEWORKS.get(status.backend or '', status.backend)}"


def _memory(data: RunData) -> str | None:
    held = data.status.memory_bytes if data.status else None
    return f"{held / 2**30:.2f} GiB" if held else None


def _version(data: RunData) -> str | None:
    return f"dreambooth {data.status.version}" if data.status and data.status.version else None


def _base(data: RunData) -> str | None:
    name = data.config.get("pretrained_model_name_or_path")
    return None if name is None else str(name)


def _method(data: RunData) -> str | None:
    if not data.config:
        return None
    method = f"LoRA, rank {data.config.get('rank', '?')}" if data.config.get("use_lora") else "full fine-tuning"
    return method + (", with text encoder" if data.config.get("train_text_encoder") else "")


def _prior(data: RunData) -> str | None:
    if not data.config:
        return None
    keeps, kept = (data.config.get(f"diff_output_preservation{part}") for part in ("", "_multiplier"))
    own = f"λ = {kept:g}, the model's own answers" if keeps and is_number(kept) else ""
    if not data.config.get("with_prior_preservation"):
        return own or "off"
    weight, images = data.config.get("prior_loss_weight"), data.config.get("num_class_images")
    said = (f"λ = {weight:g}" if is_number(weight) else "on") + (f", {images} images" if images else "")
    return f"{said}; {own}" if own else said
