"""What a LoRA file says of itself in its header: kohya's fields (`ss_*`), SAI's ModelSpec (`modelspec.*`), peft's.

A1111's web UI and Forge show the first and tell the base model by them; ComfyUI's model browsers, InvokeAI and
SwarmUI show the second; diffusers builds its LoraConfig from the third.

Sources: kohya-ss/sd-scripts `train_network.py` and `library/sai_model_spec.py`; Stability-AI/ModelSpec 1.0.1; the
web UI's `extensions-builtin/Lora/{network,ui_edit_user_metadata}.py`; diffusers' `utils/peft_utils.py`.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath, PureWindowsPath

from ..errors import ConfigError
from .weights import PREFIX

ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers notes peft's settings in a file's header, as JSON with names COMPONENT.SETTING."""
_IMPLEMENTATIONS = {
    "StableDiffusionXLPipeline": "https://github.com/Stability-AI/generative-models",
    "FluxPipeline": "https://github.com/black-forest-labs/flux",
}
"""Pipeline -> what its ModelSpec names as its implementation; diffusers for others, as kohya's trainer has it."""
_MODULES = {"StableDiffusion3Pipeline": "networks.lora_sd3", "FluxPipeline": "networks.lora_flux"}
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
"""First bytes of a picture's file -> its MIME type."""
_SPEC_VERSION = "1.0.1"


@dataclass(frozen=True)
class LoraFacts:
    """What is known of a LoRA.

    Args:
        pipeline: the class in model_index.json.
        rank: of the factors.
        alpha: by which they count, over the rank.
        title: the file's name without its ending.
        date: when it was made, ISO 8601, such as 2026-11-28T14:00:00.
        resolution: width and height of the training's images.
        v2: whether the base is Stable Diffusion 2, whose pipeline's class is that of 1.
        prediction: epsilon, v_prediction or flow, as the model's schedule says.
        base_model: its name: the Hub's, or a folder's or file's.
        trigger: the words that call what was trained, such as "a photo of sks dog".
        description, author, license, tags: the ModelSpec's.
        variant: of SD 3 and Flux: medium, 5-large, dev, schnell, …, where it is known.
        training: further facts by kohya's names without `ss_`: steps, epoch, seed, unet_lr, text_encoder_lr, optimizer,
            lr_scheduler, num_train_images, num_reg_images, batch_size_per_device, gradient_accumulation_steps,
            mixed_precision, min_snr_gamma, noise_offset, prior_loss_weight, …; None is left out.
        thumbnail: a PNG, JPEG or WebP picture.
        base_path: where the base model lies on this machine; private.
        tag_frequency: folder -> caption -> how often; private.
        private: whether the header may hold what is marked as private.
        module: kohya's name of the module that makes such factors; "": the one of plain LoRA.
    """

    pipeline: str
    rank: int
    alpha: float
    title: str
    date: str
    resolution: tuple[int, int]
    v2: bool = False
    prediction: str = "epsilon"
    base_model: str = ""
    trigger: str = ""
    description: str = ""
    author: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    variant: str = ""
    training: Mapping[str, object] = field(default_factory=dict)
    thumbnail: bytes | None = None
    base_path: str = ""
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    private: bool = False
    module: str = ""


def lora_header(facts: LoraFacts) -> dict[str, str]:
    """The header's fields, for `lora.write_lora`, which adds the hashes of what it writes.

    Raises:
        ConfigError: a thumbnail that is no picture of these forms, or a date that is none.
    """
    try:
        datetime.fromisoformat(facts.date)
    except ValueError:
        raise ConfigError(f"date: {facts.date}: expected one of ISO 8601, such as 2026-11-28T14:00:00") from None
    fields = {**_kohya(facts), **_model_spec(facts)}
    return {name: value for name, value in fields.items() if value != ""}


def _kohya(facts: LoraFacts) -> dict[str, str]:
    width, height = facts.resolution
    fields = {
        "ss_v2": str(facts.v2),
        "ss_base_model_version": _base_version(facts),
        "ss_network_module": facts.module or _MODULES.get(facts.pipeline, "networks.lora"),
        "ss_network_dim": str(facts.rank),
        "ss_network_alpha": _number(facts.alpha),
        "ss_output_name": facts.title,
        "ss_resolution": f"({width}, {height})",
        "ss_sd_model_name": facts.base_path if facts.private and facts.base_path else _public(facts.base_model),
    }
    fields |= {f"ss_{name}": _text(value) for name, value in facts.training.items() if value is not None}
    if facts.private and facts.tag_frequency:
        fields["ss_tag_frequency"] = json.dumps(facts.tag_frequency, ensure_ascii=False)
    return fields


def _model_spec(facts: LoraFacts) -> dict[str, str]:
    width, height = facts.resolution
    predictions = {"epsilon": "epsilon", "v_prediction": "v"}  # flow has no name there
    spec = {
        "sai_model_spec": _SPEC_VERSION,
        "architecture": f"{_architecture(facts)}/lora",
        "implementation": _IMPLEMENTATIONS.get(facts.pipeline, "diffusers"),
        "title": facts.title,
        "resolution": f"{width}x{height}",
        "description": facts.description,
        "author": facts.author,
        "date": facts.date,
        "license": facts.license,
        "tags": ", ".join(facts.tags),
        "trigger_phrase": facts.trigger,
        "usage_hint": facts.trigger and f"Use it with: {facts.trigger}",
        "prediction_type": predictions.get(facts.prediction, ""),
        "thumbnail": "" if facts.thumbnail is None else _data_url(facts.thumbnail),
    }
    return {f"modelspec.{name}": value for name, value in spec.items()}


def _base_version(facts: LoraFacts) -> str:
    """kohya's `ss_base_model_version`."""
    known = {
        "StableDiffusionPipeline": f"sd_v{2 if facts.v2 else 1}{'_v' if facts.prediction == 'v_prediction' else ''}",
        "StableDiffusionXLPipeline": "sdxl_base_v1-0",
        "StableDiffusion3Pipeline": f"sd3_{facts.variant}".removesuffix("_"),
        "FluxPipeline": "flux1",
    }
    return known.get(facts.pipeline, facts.pipeline)


def _architecture(facts: LoraFacts) -> str:
    """The ModelSpec's, without what comes behind the /."""
    v2 = "stable-diffusion-v2-768-v" if facts.prediction == "v_prediction" else "stable-diffusion-v2-512"
    known = {
        "StableDiffusionPipeline": v2 if facts.v2 else "stable-diffusion-v1",
        "StableDiffusionXLPipeline": "stable-diffusion-xl-v1-base",
        "StableDiffusion3Pipeline": f"stable-diffusion-3-{facts.variant}".removesuffix("-"),
        "FluxPipeline": f"flux-1-{facts.variant or 'dev'}",
    }
    return known.get(facts.pipeline, facts.pipeline)


def _public(name: str) -> str:
    """A model's name without the folders around it, unless it is the Hub's, OWNER/NAME."""
    parts = PurePath(PureWindowsPath(name).as_posix()).parts
    if len(parts) == 2 and "\\" not in name and not name.startswith((".", "~", "/")):
        return name
    return parts[-1] if parts else ""


def _data_url(picture: bytes) -> str:
    kind = next((kind for first, kind in _PICTURES.items() if picture.startswith(first)), None)
    if kind is None:
        raise ConfigError("thumbnail: no PNG, JPEG or WebP picture")
    return f"data:{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _text(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return _number(value) if isinstance(value, float) else str(value)


def adapter_metadata(ranks: Mapping[tuple[str, str], int], scale: float, *, dora: bool = False) -> dict[str, str]:
    """peft's settings as diffusers notes them, of factors with scale = alpha/rank folded into the up matrices.

    `r` and `lora_alpha` are the true ones.  `alpha_pattern` says of every layer that its alpha is its rank, so that
    peft applies the strength no second time; without it diffusers 0.35 and later would.

    Args:
        ranks: by component and layer as published.
        dora: whether layers have a magnitude.
    """
    said: dict[str, object] = {}
    for component in sorted({component for component, _ in ranks}):
        own = {layer.removeprefix(PREFIX): rank for (c, layer), rank in ranks.items() if c == component}
        rank = Counter(own.values()).most_common(1)[0][0]
        others = {f"^{layer}": r for layer, r in sorted(own.items()) if r != rank}
        alpha = rank * scale
        settings = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": round(alpha) if abs(alpha - round(alpha)) < 1e-6 else alpha,
            "target_modules": sorted(own),
            "rank_pattern": others,
            "alpha_pattern": others if scale == 1 else {**others, ".*": rank},
            **({"use_dora": True} if dora else {}),
        }
        said |= {f"{component}.{name}": value for name, value in settings.items()}
    return {ADAPTER_METADATA: json.dumps(said, indent=2, sort_keys=True)} if said else {}
