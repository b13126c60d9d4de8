"""Lumina Image 2.0: flow matching by a transformer that refines words and image apart, then reads them in one row; its
words are Gemma 2's, after a sentence of what it is for."""

from __future__ import annotations

from .base import Family, TextEncoder, words_mask

SYSTEM = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based "
    "on textual prompts or user prompts."
)
"""Of diffusers' pipeline."""

LUMINA_2 = Family(
    name="Lumina Image 2.0",
    pipelines=("Lumina2Pipeline",),
    backends=("torch", "mindspore"),
    absent={"paddle": "ppdiffusers 0.29 has no Lumina 2 transformer"},
    denoiser="transformer",
    inputs={
        "hidden_states": "x",
        "timestep": "t",
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "words_mask",
    },
    text_encoders=(
        TextEncoder(
            *("text_encoder", "tokenizer"),
            layer=-2,
            length=256,
            length_setting="max_sequence_length",
            lora_layers=(),
            template=f"{SYSTEM} <Prompt Start> {{}}",
            bare_negative=True,
            pads_right=True,
            fits_fp16=False,
        ),
    ),
    lora_layers=("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    masks={"words_mask": words_mask},
    time_scale=1 / 1000,
    time_falls=True,
    output_sign=-1.0,
    guidance_scale=4.0,
    pipeline={"prompt_embeds": "prompt_embeds", "prompt_attention_mask": "words_mask"},
)
