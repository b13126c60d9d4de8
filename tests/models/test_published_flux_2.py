"""Folders with the configurations of the published Flux.2 models: sizes as diffusers' convert_flux2_to_diffusers.py has
them for the transformer and the autoencoder, as Qwen 3 4B and Mistral Small 3.2 publish them for the text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dreamcore.models.folder import ModelFolder
from dreamcore.models.settings import guidance, model_facts

from ..support.tiny import write_json

TRANSFORMER = {"patch_size": 1, "in_channels": 128, "attention_head_dim": 128, "timestep_guidance_channels": 256}
TRANSFORMER |= {"mlp_ratio": 3.0, "axes_dims_rope": [32, 32, 32, 32], "rope_theta": 2000, "eps": 1e-6}
KLEIN = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}
DEV = {"num_layers": 8, "num_single_layers": 48, "num_attention_heads": 48, "joint_attention_dim": 15360}
QWEN_3 = {"hidden_size": 2560, "num_hidden_layers": 36, "max_position_embeddings": 40960, "vocab_size": 151936}
MISTRAL = {"hidden_size": 5120, "num_hidden_layers": 40, "max_position_embeddings": 131072, "vocab_size": 131072}
VAE = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 32, "patch_size": [2, 2], "batch_norm_eps": 1e-4}
SCHEDULER = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}
SCHEDULER |= {"_class_name": "FlowMatchEulerDiscreteScheduler", "time_shift_type": "exponential"}


def described(folder: Path, index: dict[str, Any], transformer: dict[str, Any], words: dict[str, Any]) -> ModelFolder:
    """A folder whose files of weights hold nothing but the autoencoder's statistics."""
    index = {"_diffusers_version": "0.42.1", **index, "scheduler": ["diffusers", SCHEDULER["_class_name"]]}
    index |= {"transformer": ["diffusers", "Flux2Transformer2DModel"], "vae": ["diffusers", "AutoencoderKLFlux2"]}
    write_json(folder / "model_index.json", index)
    for name, config in {"transformer": TRANSFORMER | transformer, "vae": VAE, "text_encoder": words}.items():
        write_json(folder / name / "config.json", config)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(folder / "tokenizer" / "tokenizer_config.json", {"model_max_length": 131072})
    statistics = {"bn.running_mean": np.zeros(128, np.float32), "bn.running_var": np.ones(128, np.float32)}
    save_file({"x": np.zeros(1, np.float32)}, folder / "text_encoder" / "model.safetensors")
    for name, tensors in {"vae": statistics, "transformer": {"x": np.zeros(1, np.float32)}}.items():
        save_file(tensors, folder / name / "diffusion_pytorch_model.safetensors")
    return ModelFolder.open(str(folder))


def check(model: ModelFolder) -> None:
    assert (model.native_resolution, model.size_step) == (1024, 16)
    assert (model.latent_channels, model.latent_factor, model.token_side) == (32, 8, 2)
    assert model.schedule.prediction == "flow"
    np.testing.assert_allclose(model.schedule.network_times(np.array([0, 500])), [1.0, 0.5])
    assert [encoder.length for encoder in model.text_encoders] == [512]
    model.check_layers()


@pytest.mark.parametrize("distilled", [True, False])
def test_klein_4b(distilled: bool, tmp_path: Path) -> None:
    index = {"_class_name": "Flux2KleinPipeline", "is_distilled": distilled}
    index |= {"text_encoder": ["transformers", "Qwen3ForCausalLM"], "tokenizer": ["transformers", "Qwen2TokenizerFast"]}
    model = described(tmp_path, index, KLEIN | {"guidance_embeds": False}, QWEN_3)
    check(model)
    facts = model_facts(model)
    assert facts.classifier_free is not distilled
    assert not facts.embeds_guidance and not facts.trains_words
    assert guidance(None, model) == (1.0 if distilled else 4.0)
    assert guidance(2.5, model) == 2.5


def test_dev(tmp_path: Path) -> None:
    """Whose text encoder describes the part for words within."""
    index = {"_class_name": "Flux2Pipeline", "tokenizer": ["transformers", "PixtralProcessor"]}
    index |= {"text_encoder": ["transformers", "Mistral3ForConditionalGeneration"]}
    vision = {"hidden_size": 1024, "num_hidden_layers": 24}
    model = described(
        tmp_path, index, DEV | {"guidance_embeds": True}, {"text_config": MISTRAL, "vision_config": vision}
    )
    check(model)
    assert model_facts(model).embeds_guidance
    assert not model_facts(model).classifier_free
