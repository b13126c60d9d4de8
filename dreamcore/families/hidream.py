"""HiDream I1 (2505.22705): flow matching by a transformer with experts on two CLIPs' pooled words, T5's words and all
hidden states of Llama 3.1; it answers with the way from noise to image."""

from __future__ import annotations

from typing import Any

from .base import Family, TextEncoder
from .encoders import LANGUAGE_MODEL, T5

LENGTH: dict[str, Any] = {"length": 128, "length_setting": "max_sequence_length"}
LLAMA = "meta-llama/Meta-Llama-3.1-8B-Instruct"

HIDREAM = Family(
    name="HiDream I1",
    pipelines=("HiDreamImagePipeline",),
    backends=("torch",),
    absent={
        "paddle": "ppdiffusers 0.29 has no HiDream transformer",
        "mindspore": "the LlamaModel of mindone 0.5.0 answers without hidden states",
    },
    denoiser="transformer",
    inputs={
        "hidden_states": "x",
        "timesteps": "t",
        "encoder_hidden_states_t5": "prompt_embeds",
        "encoder_hidden_states_llama3": "layer_embeds",
        "pooled_embeds": "pooled_prompt_embeds",
    },
    text_encoders=(
        TextEncoder("text_encoder", "tokenizer", group=None, pooled="text_embeds", lora_layers=(), **LENGTH),
        TextEncoder("text_encoder_2", "tokenizer_2", group=None, pooled="text_embeds", lora_layers=(), **LENGTH),
        TextEncoder(
            *("text_encoder_3", "tokenizer_3"),
            kind=T5,
            lora_layers=(),
            sees_padding=False,
            fits_fp16=False,
            **LENGTH,
        ),
        TextEncoder(
            *("text_encoder_4", "tokenizer_4"),
            group=None,
            kind=LANGUAGE_MODEL,
            lora_layers=(),
            stacks=True,
            elsewhere=LLAMA,
            **LENGTH,
        ),
    ),
    lora_layers=("to_k", "to_q", "to_v", "to_out"),
    output_sign=-1.0,
    shift=3.0,
    built_with={"force_inference_output": True},
    guidance_scale=5.0,
    lora_updates=1000,
    pipeline={
        "prompt_embeds_t5": "prompt_embeds",
        "prompt_embeds_llama3": "layer_embeds",
        "pooled_prompt_embeds": "pooled_prompt_embeds",
    },
)
