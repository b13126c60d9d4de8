"""SANA (2410.10629): flow matching by a transformer of linear attention on latents of 32 × 32 pixels, by the words of
Gemma 2, which reads them after an instruction."""

from __future__ import annotations

from .base import Family, TextEncoder, words_mask
from .encoders import LANGUAGE_MODEL

INSTRUCTION = "\n".join(
    (
        "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for "
        "image generation. Evaluate the level of detail in the user prompt:",
        "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial "
        "relationships to create vivid and concrete scenes.",
        "- If the prompt is already detailed, refine and enhance the existing details slightly without "
        "overcomplicating.",
        "Here are examples of how to transform or refine prompts:",
        "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping "
        "peacefully on a warm sunny windowsill, surrounded by pots of blooming red flowers.",
        "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street "
        "lamps, a diverse crowd of people in colorful clothing, and a double-decker bus passing by towering glass "
        "skyscrapers.",
        "Please generate only the enhanced description for the prompt below and avoid including any additional "
        "commentary or evaluations:",
        "User Prompt: ",
    )
)
"""As the model was trained (`chi_prompt` of its configurations) and as its pipeline has it: its words are left out but
for what they have done to the prompt's."""

SANA = Family(
    name="SANA",
    pipelines=("SanaPipeline",),
    backends=("torch", "mindspore"),
    absent={"paddle": "ppdiffusers 0.29 has no SANA transformer"},
    denoiser="transformer",
    inputs={
        "hidden_states": "x",
        "timestep": "t",
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "words",
    },
    text_encoders=(
        TextEncoder(
            *("text_encoder", "tokenizer"),
            kind=LANGUAGE_MODEL,
            lora_layers=(),
            length=300,
            length_setting="max_sequence_length",
            fits_fp16=False,
            template=f"{INSTRUCTION}{{}}",
            bare_negative=True,
            lowers=True,
            keeps_first=1,
            drops=lambda tokens: tokens - 2,
            pads_right=True,
        ),
    ),
    lora_layers=("to_k", "to_q", "to_v"),
    masks={"words": words_mask},
    sample_size=32,
    guidance_scale=4.5,
    pipeline={"prompt_embeds": "prompt_embeds", "prompt_attention_mask": "words"},
    pipeline_options={"use_resolution_binning": False, "negative_prompt": None},
)
