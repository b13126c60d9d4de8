"""Qwen-Image: flow matching by a transformer on squares of 2 × 2 latents, told the image's size; its words are Qwen
2.5 VL's, behind an instruction that it does not see."""

from __future__ import annotations

from .base import Family, Rows, TextEncoder, words_mask

PATCH = 2
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
INSTRUCTION = 34
"""Tokens of the template before the prompt, as diffusers' pipeline counts them."""


def image_shapes(rows: Rows) -> list[list[tuple[int, int, int]]]:
    """Of each row the frames, rows and columns of its squares."""
    height, width = (side // PATCH for side in rows.latent)
    return [[(1, height, width)]] * len(rows.records)


QWEN_IMAGE = Family(
    name="Qwen-Image",
    pipelines=("QwenImagePipeline",),
    backends=("torch",),
    absent={
        "paddle": "ppdiffusers 0.29 has no Qwen-Image transformer",
        "mindspore": "mindone 0.5's QwenImageTransformer2DModel sees padding as words and passes no gradients through "
        "apply_rotary_emb_qwen",
    },
    denoiser="transformer",
    inputs={
        "hidden_states": "x",
        "timestep": "t",
        "encoder_hidden_states": "prompt_embeds",
        "encoder_hidden_states_mask": "words_mask",
        "img_shapes": "image_shapes",
    },
    text_encoders=(
        TextEncoder(
            *("text_encoder", "tokenizer"),
            length=512,
            length_setting="max_sequence_length",
            lora_layers=(),
            template=TEMPLATE,
            drops=lambda _: INSTRUCTION,
            trims=True,
            fits_fp16=False,
        ),
    ),
    lora_layers=("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    extra={"image_shapes": image_shapes},
    masks={"words_mask": words_mask},
    patch=PATCH,
    time_scale=1 / 1000,
    guidance_scale=4.0,
    pipeline={"prompt_embeds": "prompt_embeds", "prompt_embeds_mask": "words_mask"},
    guidance_argument="true_cfg_scale",
)
