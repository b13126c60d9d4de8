"""Settings that several commands share: which model, on which backend and device."""

from __future__ import annotations

from typing import Literal

from .base import Settings, setting

Precision = Literal["no", "fp16", "bf16"]
Quantization = Literal["nf4", "int8", "fp8"]
SDVersion = Literal["1.5", "2.0", "2.0-v", "2.1", "2.1-v"]
WeightingScheme = Literal["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"]
Like = Literal["colossalai", "structured-lora", "mindone-sd2", "mindone", "ppdiffusers", "diffusers", "kohya"]
Scheduler = Literal["ddim", "pndm", "dpmsolver", "dpmsolver++", "euler", "unipc", "ddpm"]


class SourceSettings(Settings):
    """Which model is loaded, and from where."""

    GROUP = "model"

    like: Like | None = setting(None, may_change=True)
    """Take names, defaults and output layout as another trainer has them; a name that only one of them has says so by
    itself.  `dreambooth configs` lists them, docs/moving.md says what each name means."""
    pretrained_model_name_or_path: str = setting(may_change=True, example="stable-diffusion-v1-5/stable-diffusion-v1-5")
    """Model: a folder, one file (.safetensors), or an id on the Hugging Face Hub; the folder in diffusers layout, the
    file in the original one, HF_ENDPOINT for a mirror of the Hub; `tinyworld` is the embedded miniature."""
    revision: str | None = setting(None, may_change=True, example="main")
    """Branch, tag or commit of the model on the Hub."""
    variant: str | None = setting(None, may_change=True, example="fp16")
    """Variant of the weight files, such as fp16."""
    pretrained_vae_model_name_or_path: str | None = setting(None, may_change=True, example="stabilityai/sd-vae-ft-mse")
    """Folder or Hub id of an autoencoder, or one file with it, to use in place of the model's own."""
    pretrained_unet_name_or_path: str | None = setting(None, may_change=True, example="other-model/unet")
    """Folder of a denoiser (configuration and weights), or one file with it, to use in place of the model's own."""
    tokenizer_name: str | None = setting(None, may_change=True, example="other-model/tokenizer")
    """Folder of a tokenizer to use in place of the model's first."""
    pretrained_text_encoder_4_name_or_path: str | None = setting(None, may_change=True, example="models/llama-3.1-8b")
    """Folder or Hub id of the language model that HiDream is published without; meta-llama's Llama 3.1 by default."""
    pretrained_tokenizer_4_name_or_path: str | None = setting(None, may_change=True, example="models/llama-3.1-8b")
    """The same of its tokenizer; by default where the language model is."""
    original_config: str | None = setting(None, may_change=True, example="v1-inference.yaml")
    """What describes a model in one file where its shapes do not: a YAML file in the original layout (SD 1 and 2), or
    the folder, in diffusers layout, of a model that is built alike."""
    sd_version: SDVersion | None = setting(None, may_change=True)
    """Which Stable Diffusion 1 or 2 one file holds, where nothing else says it; v is v-prediction."""
    allow_pickle: bool = setting(False, may_change=True)
    """Read a model in one pickled file (.ckpt, .pt, .bin): tensors alone are taken, and nothing in it is run."""
    cache_dir: str | None = setting(None, may_change=True, example="~/models")
    """Folder for what is fetched from the Hub; the default is its own cache."""
    drop_t5: bool = setting(False)
    """Leave the large T5 text encoder out, where the family can do without (SD3): zeros stand for its words."""
    text_encoder_out_layers: list[int] | None = setting(None, min_length=1, example=[9, 18, 27])
    """Hidden states of the language model that make up a prompt's words, where the family has them side by side
    (Flux.2); the family's own by default."""


class DeviceSettings(Settings):
    """What computes, where, and with numbers of which precision."""

    GROUP = "device"

    backend: str | None = setting(None, may_change=True, example="torch")
    """torch, paddle or mindspore; may be left out where only one is installed."""
    device: str | None = setting(None, may_change=True, example="cuda:1")
    """Device in the backend's words (cpu, cuda, cuda:1 ...); the default is its accelerator, if it has one."""
    mixed_precision: Precision = setting("no", example="bf16")
    """Precision of the networks' arithmetic; trained weights and the loss stay in float32."""
    allow_tf32: bool = setting(False)
    """Compute float32 products in TensorFloat-32, of 10 bits, on NVIDIA GPUs that have it: several times faster."""
    enable_vae_slicing: bool = setting(False, may_change=True)
    """Let the autoencoder decode one image after the other: less memory where several are made at a time."""
    enable_vae_tiling: bool = setting(False, may_change=True)
    """Let the autoencoder decode large images tile by tile: less memory, and edges that may just show."""
    quantize_base: Quantization | None = setting(None)
    """Keep the frozen weights of the denoiser, under LoRA's factors, in 8 bits (int8, fp8: E4M3) or 4 (nf4, as QLoRA);
    images are made with them too.  What is trained, and its file, are as ever."""
    quantize_text_encoders: Quantization | None = setting(None)
    """The same for the text encoders that do not train."""
    amp_level: Literal["O1", "O2"] | None = setting(None)
    """How far mixed precision goes on paddle: O1 (the default) casts what gains from it, O2 nearly everything."""
    mode: Literal["graph", "pynative"] | None = setting(None, may_change=True)
    """MindSpore: compile the step (graph; the default on Ascend) or run operator by operator (pynative; on a CPU)."""
    jit_level: Literal["O0", "O1"] = setting("O1", may_change=True)
    """MindSpore: how far graph mode optimises: operator by operator, or with fused operators."""


class ModelSettings(DeviceSettings, SourceSettings):
    """Which model is loaded, by what, onto which device."""
