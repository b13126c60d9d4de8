"""A finished LoRA as files: diffusers' own, and one in the names that ComfyUI and A1111's web UI look for."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..backends.lora import TrainedLora
from ..config import TrainConfig
from ..config.optimizers import OPTIMIZERS, name_of
from ..config.output import SavePrecision
from ..errors import ConfigError, RunError
from ..formats.kohya_lora import PIPELINES, kohya_arrays, lycoris_arrays
from ..formats.lora import save_published, write_lora
from ..formats.lora_header import LoraFacts, lora_header
from ..formats.lora_layouts import PER_BLOCK
from ..formats.lora_raw import pairs_of, products_of
from ..formats.lora_readers import layers_found
from ..formats.tensors import Tensors
from ..hub.card import instance_prompts
from ..hub.selection import last_samples
from ..io.names import LORA_FILE, lora_name
from ..models.folder import ModelFolder

if TYPE_CHECKING:
    from .setup import Prepared

_PLAIN = "dreambooth convert {} plain.safetensors --to kohya (or diffusers) makes plain LoRA of the same product"
_INSTEAD = {
    "DoRA": "dreambooth convert merge MODEL_FOLDER --lora {} --model MODEL makes a model with it",
    "LoHa": _PLAIN,
    "LoKr": _PLAIN,
}
"""Kind of factors -> what programs that do not read it can be given."""
SIDE = 256
"""Longest side of a header's picture, in pixels."""


@dataclass(frozen=True)
class Reader:
    """How much of a LoRA file a program finds."""

    name: str
    found: int
    of: int

    def __str__(self) -> str:
        return f"{self.name} {self.found} of {self.of}"


@dataclass(frozen=True)
class WrittenLora:
    """What was written."""

    readers: list[Reader]
    problem: str = ""
    """Why there is no file in kohya's names."""
    kind: str = ""
    """What it is other than plain LoRA, which some programs do not read: DoRA, LoHa or LoKr."""

    @property
    def in_words(self) -> str:
        """For the log and the report."""
        return ", ".join(map(str, self.readers))


def write_lora_files(
    trained: TrainedLora,
    model: ModelFolder,
    folder: Path,
    name: str,
    precision: SavePrecision = "fp32",
    header: Mapping[str, str] | None = None,
) -> WrittenLora:
    """Write what a LoRA run has trained, and count what other programs will find of it.

    Args:
        name: of the file in kohya's names; of models that have none there, it is not written.
        header: what the files say of themselves.
    """
    scale, pipeline, kind = trained.scale, model.index["_class_name"], trained.kind
    save_published(trained.factors, scale, folder, precision, header)
    per_block = model.config("unet").get("layers_per_block", PER_BLOCK) if "unet" in model.components else PER_BLOCK
    try:
        arrays = kohya_arrays(pairs_of(trained.factors, scale), pipeline, per_block)
        arrays |= lycoris_arrays(products_of(trained.factors, scale), pipeline, per_block)
    except ConfigError as error:
        return WrittenLora([], str(error).removeprefix("kohya: "), kind)
    write_lora(folder / name, arrays, precision, header)
    theirs = layers_found(arrays, pipeline, trained.layers)
    ours = layers_found(Tensors(folder / LORA_FILE), pipeline, trained.layers)
    found = theirs | {reader: counts for reader, counts in ours.items() if reader == "diffusers"}
    return WrittenLora([Reader(reader, *counts) for reader, counts in found.items()], kind=kind)


def tell_readers(written: WrittenLora, folder: Path, say: Callable[[str], None]) -> None:
    """Say how many layers other programs will find in the files of a finished run.

    Raises:
        RunError: one of them would leave some out; the files are there, and whole.
    """
    if written.problem:
        say(f"no {lora_name(folder)}, as ComfyUI and A1111 would look for: {written.problem}")
        return
    say(f"layers that are found in {lora_name(folder)}, and by diffusers in {LORA_FILE}: {written.in_words}")
    short = [str(reader) for reader in written.readers if reader.found < max(reader.of, 1)]
    if short and written.kind:
        say(f"{', '.join(short)}: not all of {written.kind} is read there; {_INSTEAD[written.kind].format(folder)}")
    elif short:
        raise RunError(
            f"{folder}: of the LoRA's layers, {', '.join(short)} would be found, and the others left out; the files "
            "are whole, and `dreambooth generate` reads all of them; for these programs, train other lora_layers"
        )


def header_of(p: Prepared, trained: TrainedLora, updates: int) -> dict[str, str] | None:
    """What the files of a run that has finished after so many updates say of it; None where they are to say nothing."""
    said = p.resolved.header
    if said is None:
        return None
    model, base = p.data.model, p.config.pretrained_model_name_or_path
    local = Path(base).expanduser()
    rank = trained.rank * (2 if p.config.lora_method == "pissa" else 1)
    facts = LoraFacts(
        pipeline=model.index["_class_name"],
        rank=rank,
        alpha=trained.scale * rank if trained.rslora else trained.alpha * (rank // trained.rank),
        title=said.title or Path(lora_name(p.folder)).stem,
        date=_now(),
        resolution=(p.data.crop.width, p.data.crop.height),
        v2=_is_second(model),
        prediction=model.schedule.prediction,
        base_model=local.resolve().name if local.exists() else base,
        trigger=", ".join(instance_prompts(p.resolved.settings)),
        author=said.author or "",
        variant=_variant(model),
        training={
            **_training(p, updates),
            "network_args": _algorithm(trained, p.config),
            "training_comment": said.comment,
        },
        module="lycoris.kohya" if trained.kind else "",
        thumbnail=_thumbnail(p.folder, updates),
        base_path=str(local.resolve()) if local.exists() else "",
        tag_frequency=_captions(p) if said.private else {},
        private=said.private,
    )
    return lora_header(facts)


def _algorithm(trained: TrainedLora, config: TrainConfig) -> dict[str, str] | None:
    """LyCORIS's settings of other factors than plain LoRA's, as its trainer notes them."""
    if not trained.kind:
        return None
    factor = {"factor": str(config.lokr_factor or -1)} if trained.kind == "LoKr" else {}
    return {"algo": config.lora_method, **({"dora_wd": "True"} if config.use_dora else {}), **factor}


def _now() -> str:
    """The time in ISO 8601; what SOURCE_DATE_EPOCH says, where builds are to be the same again."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _is_second(model: ModelFolder) -> bool:
    """Whether it is Stable Diffusion 2, whose words are wider than 1's."""
    return model.index["_class_name"] == "StableDiffusionPipeline" and (
        model.config("unet").get("cross_attention_dim") == 1024
    )


def _variant(model: ModelFolder) -> str:
    """Which of its family a transformer is."""
    pipeline = model.index["_class_name"]
    if pipeline not in PIPELINES or "transformer" not in model.components:
        return ""
    config = model.config("transformer")
    if pipeline == "FluxPipeline":
        return "dev" if config.get("guidance_embeds") else "schnell"
    size = {24: "medium", 38: "large"}.get(config.get("num_layers", 0), "")
    return f"5-{size}" if size and config.get("qk_norm") else size


def _training(p: Prepared, updates: int) -> dict[str, Any]:
    """How it was trained, by kohya's names; what says where something lies, or what a caption says, is not among it."""
    config, rates, plan = p.config, p.resolved.rates, p.batcher.plan
    denoiser, *encoders = rates.base
    return {
        "steps": updates,
        "epoch": -(-updates // plan.updates_per_epoch),
        "seed": config.seed,
        "learning_rate": rates.base[denoiser],
        "unet_lr": rates.base[denoiser],
        "text_encoder_lr": rates.base[encoders[0]] if encoders else None,
        "optimizer": OPTIMIZERS[name_of(config)].published,
        "lr_scheduler": rates.schedule,
        "lr_warmup_steps": rates.shape.get("warmup"),
        "num_train_images": sum(share.instances * share.repeats for share in plan.shares),
        "num_reg_images": sum(share.classes for share in plan.shares),
        "batch_size_per_device": config.train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "gradient_checkpointing": config.gradient_checkpointing,
        "mixed_precision": config.mixed_precision,
        "max_grad_norm": config.max_grad_norm,
        "min_snr_gamma": config.snr_gamma,
        "noise_offset": config.noise_offset or None,
        "prior_loss_weight": p.batcher.weighting.prior_loss_weight if plan.classes else None,
    }


def _captions(p: Prepared) -> dict[str, Counter[str]]:
    """Folder of photographs -> their words -> how often."""
    found: dict[str, Counter[str]] = {}
    for subject in p.data.subjects:
        name = Path(subject.concept.source[1]).name
        found.setdefault(name, Counter()).update(words[0] for words in subject.prompts)
    return found


def _thumbnail(folder: Path, updates: int) -> bytes | None:
    """The first image of the last validation, small, as a JPEG; None where there is none."""
    samples = last_samples(folder, updates)
    if not samples:
        return None
    buffer = io.BytesIO()
    with Image.open(folder / samples[0]) as image:
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
