"""Which weights are kept in fewer bits, how large they are, and where that is refused: read from headers alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.quantization import NF4, methods, quantised, stored_bytes
from dreamcore.config import GenerateConfig, TrainConfig
from dreamcore.config.used import Context, refuse_idle
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.models.settings import model_facts

from ..support.quantized import normal_floats
from ..support.runs import configuration

KEPT = """
unet: conv_in.weight conv_out.weight time_embedding.linear_1.weight add_embedding.linear_2.weight
unet: down_blocks.0.resnets.0.norm1.weight down_blocks.0.resnets.0.conv1.bias
transformer: x_embedder.weight context_embedder.weight proj_out.weight norm_out.linear.weight
transformer: time_text_embed.timestep_embedder.linear_1.weight pos_embed.proj.weight cap_embedder.1.weight
transformer: caption_projection.48.linear.weight distilled_guidance_layer.layers.4.linear_1.weight
transformer: single_stream_blocks.3.block.ff_i.gate.weight
text_encoder: text_model.embeddings.token_embedding.weight shared.weight model.embed_tokens.weight
text_encoder: encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight text_projection.weight lm_head.weight
"""
FEWER = """
unet: down_blocks.0.resnets.0.conv1.weight mid_block.resnets.1.time_emb_proj.weight up_blocks.1.upsamplers.0.conv.weight
unet: down_blocks.1.attentions.0.transformer_blocks.3.attn2.to_out.0.weight mid_block.attentions.0.proj_in.weight
transformer: transformer_blocks.0.norm1.linear.weight single_transformer_blocks.37.proj_mlp.weight
text_encoder: text_model.encoder.layers.11.mlp.fc1.weight encoder.block.23.layer.1.DenseReluDense.wi_0.weight
text_encoder: model.layers.3.self_attn.q_proj.weight
"""


def names(lines: str) -> list[str]:
    return [name for line in lines.split("\n") if line for name in line.split()[1:]]


def shape_of(name: str) -> tuple[int, ...]:
    if "norm1.w" in name or name.endswith("bias"):
        return (64,)
    return (64, 32, 3, 3) if "conv" in name else (64, 32)


@pytest.mark.parametrize("name", names(KEPT))
def test_what_stays_as_it_is(name: str) -> None:
    assert not quantised(name, shape_of(name))


@pytest.mark.parametrize("name", names(FEWER))
def test_what_has_fewer_bits(name: str) -> None:
    assert quantised(name, shape_of(name))


def test_the_table_of_normal_floats_is_the_papers() -> None:
    np.testing.assert_allclose(NF4, normal_floats(), atol=2e-7)


def test_bytes_by_hand() -> None:
    """Of SDXL's widest layer, 10240 × 1280; the paper's bits: 4 + 8 / 64 + 32 / (64 · 256) = 4.127 a number."""
    count = 10240 * 1280
    assert stored_bytes((10240, 1280), "int8") == stored_bytes((10240, 1280), "fp8") == count + 4 * 10240
    assert stored_bytes((10240, 1280), "nf4") == count // 2 + count // 64 + 4 * count // (64 * 256) + 4
    assert math.isclose(8 * stored_bytes((10240, 1280), "nf4") / count, 4.127, abs_tol=1e-3)
    assert stored_bytes((3, 50), "nf4") == 3 * 32 + 3 + 4 + 4, "blocks are whole"


def test_of_text_encoders_those_that_rest(family_models: Any) -> None:
    """Stable Diffusion 3's T5 never trains; CLIP's may."""
    folder = family_models("sd3")
    model = ModelFolder.open(str(folder))

    def chosen(**settings: Any) -> dict[str, str]:
        return dict(methods(configuration(folder, Path("photos"), Path("out"), use_lora=True, **settings), model))

    assert chosen() == {}
    assert chosen(quantize_base="nf4") == {"transformer": "nf4"}
    assert chosen(quantize_text_encoders="int8") == dict.fromkeys(
        ("text_encoder", "text_encoder_2", "text_encoder_3"), "int8"
    )
    assert chosen(quantize_text_encoders="int8", train_text_encoder=True) == {"text_encoder_3": "int8"}
    sampling = GenerateConfig.from_mapping(
        {"pretrained_model_name_or_path": str(folder), "prompt": "a dog", "quantize_base": "fp8"}
    )
    assert methods(sampling, model) == {"transformer": "fp8"}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"quantize_base": "nf4"}, "torch", "quantize_base='nf4': acts only with use_lora; give use_lora"),
    (
        {"quantize_base": "nf4", "use_lora": True},
        "paddle",
        "quantize_base='nf4': acts only on torch; give backend torch",
    ),
    (
        {"quantize_base": "int8", "use_lora": True},
        "mindspore",
        "acts only on torch; give backend torch, or mixed_prec",
    ),
    ({"quantize_text_encoders": "fp8"}, "mindspore", "quantize_text_encoders='fp8': acts only on torch; give backend"),
    (
        {"quantize_text_encoders": "nf4", "train_text_encoder": True},
        "torch",
        "quantize_text_encoders='nf4': acts only on text encoders that do not train; leave train_text_encoder and",
    ),
    (
        {"quantize_text_encoders": "nf4", "train_text_encoder_ti": True},
        "torch",
        "quantize_text_encoders='nf4': acts only on text encoders that do not train; leave train_text_encoder and",
    ),
]


@pytest.mark.parametrize(("settings", "backend", "words"), REFUSED)
def test_refused_before_a_framework_is_there(
    settings: dict[str, Any], backend: str, words: str, tiny_model: Path
) -> None:
    config: TrainConfig = configuration(tiny_model, Path("photos"), Path("out"), **settings)
    with pytest.raises(ConfigError) as caught:
        refuse_idle(config, Context(backend, model_facts(ModelFolder.open(str(tiny_model)))))
    assert words in str(caught.value)


def test_other_bits_are_refused_by_name(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="^quantize_base: .*'nf4', 'int8' or 'fp8'; received 'int4'$"):
        configuration(tiny_model, Path("photos"), Path("out"), use_lora=True, quantize_base="int4")
