"""The layers of the original UNet, SD 3 and Flux, as programs that run these have them, from the published ones.

For `lora_readers.py` alone: it shares nothing with the tables that files are written by, so that it can judge them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count

_RESNET = {
    "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"
}  # fmt: skip
_UNET = """
conv_in input_blocks.0.0, conv_out out.2, time_embedding.linear_1 time_embed.0, time_embedding.linear_2 time_embed.2,
add_embedding.linear_1 label_emb.0.0, add_embedding.linear_2 label_emb.0.2
"""
_MMDIT = """
transformer_blocks.*.attn.to_q joint_blocks.*.x_block.attn.qkv,
transformer_blocks.*.attn.to_out.0 joint_blocks.*.x_block.attn.proj,
transformer_blocks.*.attn2.to_q joint_blocks.*.x_block.attn2.qkv,
transformer_blocks.*.attn2.to_out.0 joint_blocks.*.x_block.attn2.proj,
transformer_blocks.*.attn.add_q_proj joint_blocks.*.context_block.attn.qkv,
transformer_blocks.*.attn.to_add_out joint_blocks.*.context_block.attn.proj,
transformer_blocks.*.ff.net.0.proj joint_blocks.*.x_block.mlp.fc1,
transformer_blocks.*.ff.net.2 joint_blocks.*.x_block.mlp.fc2,
transformer_blocks.*.ff_context.net.0.proj joint_blocks.*.context_block.mlp.fc1,
transformer_blocks.*.ff_context.net.2 joint_blocks.*.context_block.mlp.fc2,
transformer_blocks.*.norm1.linear joint_blocks.*.x_block.adaLN_modulation.1,
transformer_blocks.*.norm1_context.linear joint_blocks.*.context_block.adaLN_modulation.1,
context_embedder context_embedder, pos_embed.proj x_embedder.proj, proj_out final_layer.linear,
norm_out.linear final_layer.adaLN_modulation.1,
time_text_embed.timestep_embedder.linear_1 t_embedder.mlp.0,
time_text_embed.timestep_embedder.linear_2 t_embedder.mlp.2,
time_text_embed.text_embedder.linear_1 y_embedder.mlp.0, time_text_embed.text_embedder.linear_2 y_embedder.mlp.2
"""
_FLUX = """
transformer_blocks.*.attn.to_q double_blocks.*.img_attn.qkv,
transformer_blocks.*.attn.to_out.0 double_blocks.*.img_attn.proj,
transformer_blocks.*.attn.add_q_proj double_blocks.*.txt_attn.qkv,
transformer_blocks.*.attn.to_add_out double_blocks.*.txt_attn.proj,
transformer_blocks.*.ff.net.0.proj double_blocks.*.img_mlp.0, transformer_blocks.*.ff.net.2 double_blocks.*.img_mlp.2,
transformer_blocks.*.ff_context.net.0.proj double_blocks.*.txt_mlp.0,
transformer_blocks.*.ff_context.net.2 double_blocks.*.txt_mlp.2,
transformer_blocks.*.norm1.linear double_blocks.*.img_mod.lin,
transformer_blocks.*.norm1_context.linear double_blocks.*.txt_mod.lin,
single_transformer_blocks.*.attn.to_q single_blocks.*.linear1,
single_transformer_blocks.*.proj_out single_blocks.*.linear2,
single_transformer_blocks.*.norm.linear single_blocks.*.modulation.lin,
x_embedder img_in, context_embedder txt_in, proj_out final_layer.linear, norm_out.linear final_layer.adaLN_modulation.1,
time_text_embed.timestep_embedder.linear_1 time_in.in_layer,
time_text_embed.timestep_embedder.linear_2 time_in.out_layer,
time_text_embed.text_embedder.linear_1 vector_in.in_layer, time_text_embed.text_embedder.linear_2 vector_in.out_layer,
time_text_embed.guidance_embedder.linear_1 guidance_in.in_layer,
time_text_embed.guidance_embedder.linear_2 guidance_in.out_layer
"""
"""Published layer, and the original model's layer in which its weight lies; * is any number."""


def per_block(layers: Iterable[str]) -> int | None:
    """Residual blocks of a UNet's first level; None: there is no UNet."""
    numbers = [int(m[1]) for name in layers if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name))]
    return max(numbers) + 1 if numbers else None


def original_unet(layers: set[str]) -> dict[str, str]:
    """Published layer -> the original UNet's, whose blocks are counted as `openaimodel.py` makes them."""
    found = {name: theirs for name, theirs in _pairs(_UNET) if name in layers}

    def take(published: str, original: str, attends: bool) -> bool:
        inside = [name for name in layers if name.startswith(published)]
        for name in inside:
            rest = name.removeprefix(published)
            found[name] = original + (rest if attends else _RESNET.get(rest, rest))
        return bool(inside)

    block = 1
    for level in count():
        here = f"down_blocks.{level}"
        for layer in count():
            if not take(f"{here}.resnets.{layer}.", f"input_blocks.{block}.0.", attends=False):
                break
            take(f"{here}.attentions.{layer}.", f"input_blocks.{block}.1.", attends=True)
            block += 1
        if f"{here}.downsamplers.0.conv" not in layers:
            break
        found[f"{here}.downsamplers.0.conv"] = f"input_blocks.{block}.0.op"
        block += 1
    take("mid_block.resnets.0.", "middle_block.0.", attends=False)
    take("mid_block.attentions.0.", "middle_block.1.", attends=True)
    take("mid_block.resnets.1.", "middle_block.2.", attends=False)
    block = 0
    for level in count():
        here, part = f"up_blocks.{level}", 1
        for layer in count():
            if not take(f"{here}.resnets.{layer}.", f"output_blocks.{block}.0.", attends=False):
                break
            part = 1 + take(f"{here}.attentions.{layer}.", f"output_blocks.{block}.1.", attends=True)
            block += 1
        if f"{here}.upsamplers.0.conv" not in layers:
            break
        found[f"{here}.upsamplers.0.conv"] = f"output_blocks.{block - 1}.{part}.conv"
    return found


def original_transformer(layers: set[str], *, flux: bool) -> dict[str, str]:
    """Published layer -> the original SD 3's or Flux's in which its weight lies; of fused ones only the first."""
    patterns = _pairs(_FLUX if flux else _MMDIT)
    found: dict[str, str] = {}
    for published, original in patterns:
        pattern = re.compile(re.escape(published).replace(r"\*", r"(\d+)"))
        for name in layers:
            if match := pattern.fullmatch(name):
                found[name] = original.replace("*", match[1] if match.groups() else "*")
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(old, new) for old, new in (line.split() for line in text.split(",") if line.strip())]
