"""Settings that several commands share: which model, on which backend and device."""

from __future__ import annotations

from typing import Literal

from .base import Settings, setting

Precision = Literal["no", "fp16", "bf16"]
SDVersion = Literal["1.5", "2.0", "2.0-v", "2.1", "2.1-v"]
WeightingScheme = Literal["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"]
Like = Literal["colossalai", "structured-lora", "mindone-sd2", "mindone", "ppdiffusers", "diffusers", "kohya"]
Scheduler = Literal["ddim", "pndm", "dpmsolver", "dpmsolver++", "euler", "unipc", "ddpm"]


class ModelSettings(Settings):
    """Which model is loaded, by what, onto which device."""

    like: Like | None = setting(None, may_change=True)
    """Take names, defaults and output layout as another trainer has them; a name that only one of them has says so by
    itself.  `dreambooth configs` lists them, docs/moving.md says what each name means."""
    pretrained_model_name_or_path: str = setting(may_change=True)
    """Folder in diffusers layout, a model in one file (.safetensors, original layout), or a model's id on the Hugging
    Face Hub (its mirror: HF_ENDPOINT); `tinyworld` is the embedded miniature."""
    revision: str | None = setting(None, may_change=True)
    """Branch, tag or commit of the model on the Hub."""
    variant: str | None = setting(None, may_change=True)
    """Variant of the weight files, such as fp16."""
    pretrained_vae_model_name_or_path: str | None = setting(None, may_change=True)
    """Folder or Hub id of an autoencoder, or one file with it, to use in place of the model's own."""
    pretrained_unet_name_or_path: str | None = setting(None, may_change=True)
    """Folder of a denoiser (configuration and weights), or one file with it, to use in place of the model's own."""
    tokenizer_name: str | None = setting(None, may_change=True)
    """Folder of a tokenizer to use in place of the model's first."""
    original_config: str | None = setting(None, may_change=True)
    """What describes a model in one file where its shapes do not: a YAML file in the original layout (SD 1 and 2), or
    the folder, in diffusers layout, of a model that is built alike."""
    sd_version: SDVersion | None = setting(None, may_change=True)
    """Which Stable Diffusion 1 or 2 one file holds, where nothing else says it; v is v-prediction."""
    allow_pickle: bool = setting(False, may_change=True)
    """Read a model in one pickled file (.ckpt, .pt, .bin): tensors alone are taken, and nothing in it is run."""
    cache_dir: str | None = setting(None, may_change=True)
    """Folder for what is fetched from the Hub; the default is its own cache."""
    drop_t5: bool = setting(False)
    """Leave the large T5 text encoder out, where the family can do without (SD3): zeros stand for its words."""
    backend: str | None = setting(None, may_change=True)
    """torch, paddle or mindspore; may be left out where only one is installed."""
    device: str | None = setting(None, may_change=True)
    """Device in the backend's words (cpu, cuda, cuda:1 ...); the default is its accelerator, if it has one."""
    mixed_precision: Precision = setting("no")
    """Precision of the networks' arithmetic; trained weights and the loss stay in float32."""
    allow_tf32: bool = setting(False)
    """Compute float32 products in TensorFloat-32, of 10 bits, on NVIDIA GPUs that have it: several times faster."""
    amp_level: Literal["O1", "O2"] | None = setting(None)
    """How far mixed precision goes on paddle: O1 (the default) casts what gains from it, O2 nearly everything."""
    mode: Literal["graph", "pynative"] | None = setting(None, may_change=True)
    """MindSpore: compile the step (graph; the default on Ascend) or run operator by operator (pynative; on a CPU)."""
    jit_level: Literal["O0", "O1"] = setting("O1", may_change=True)
    """MindSpore: how far graph mode optimises: operator by operator, or with fused operators."""
