"""DeepFloyd IF (github.com/deep-floyd/IF), stages 1 and 2: pixels of 64 × 64, and of 256 × 256 after an image of the
first; words by T5, a UNet that answers with a variance besides.  Trained as diffusers' examples/dreambooth has it."""

from __future__ import annotations

from dataclasses import replace

from .base import Family, TextEncoder

STAGE_1 = Family(
    name="DeepFloyd IF stage 1",
    pipelines=("IFPipeline",),
    backends=("torch", "paddle", "mindspore"),
    denoiser="unet",
    inputs={"sample": "x", "timestep": "t", "encoder_hidden_states": "prompt_embeds"},
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", lora_layers=(), length=77, sees_padding=False, fits_fp16=False),
    ),
    lora_layers=("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"),
    vae=None,
    sample_size=64,
    updates=150,
    lora_updates=1200,
    guidance_scale=7.0,
)
STAGE_2 = replace(
    STAGE_1,
    name="DeepFloyd IF stage 2",
    pipelines=("IFSuperResolutionPipeline",),
    inputs={**STAGE_1.inputs, "class_labels": "t"},
    upscales=True,
    sample_size=256,
    updates=2000,
    lora_updates=2000,
    guidance_scale=4.0,
)
"""Its UNet sees a low-resolution image beside the noisy one, and is told how noisy that is: in training it is the noisy
image itself, and its timestep."""
