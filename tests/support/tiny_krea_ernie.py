"""Small random models of Krea 2 and ERNIE-Image, laid out on disk as the published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .tiny import loud, write_index, write_json
from .tiny_families import FLOW
from .tiny_flux_2 import write_autoencoder, write_mistral_tokenizer
from .tiny_language_models import EULER, QWEN, SHIFTED, write_qwen_tokenizer, write_qwen_vae

LAYERS = 13
"""Of Krea's text encoder: its transformer takes twelve states."""


def write_krea_2(folder: Path, *, distilled: bool = False) -> Path:
    """Krea 2: Qwen 3 VL, of which many states are words, Qwen-Image's autoencoder, one row of words and squares.

    Args:
        distilled: as Turbo says of itself.
    """
    import torch
    from diffusers import Krea2Transformer2DModel
    from transformers import Qwen3VLConfig, Qwen3VLModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(31)
        transformer = Krea2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=64,
            timestep_embed_dim=16,
            text_hidden_dim=32,
            num_text_layers=12,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=48,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 6, 6),
        )
        with torch.no_grad():  # tables that say something, as trained ones do
            for name, weight in transformer.named_parameters():
                if "scale_shift_table" in name:
                    weight.normal_(0.0, 0.3)
        loud(transformer, transformer.final_layer.linear, "txt_in", "projector")
        transformer.save_pretrained(folder / "transformer")
        write_qwen_vae(folder / "vae")
        size = write_qwen_tokenizer(folder / "tokenizer")
        turned = {"rope_type": "default", "mrope_section": [3, 3, 2], "mrope_interleaved": True}
        words = {**QWEN, "num_hidden_layers": LAYERS, "head_dim": 16, "vocab_size": size, "rope_scaling": turned}
        seen = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 1, "out_hidden_size": 32}
        seen |= {"deepstack_visual_indexes": [0]}
        Qwen3VLModel(Qwen3VLConfig(text_config=words, vision_config=seen)).save_pretrained(folder / "text_encoder")
    write_json(folder / "scheduler" / "scheduler_config.json", SHIFTED | {"shift_terminal": None})
    classes = {"transformer": "Krea2Transformer2DModel", "vae": "AutoencoderKLQwenImage", "scheduler": EULER}
    classes |= {"text_encoder": "Qwen3VLModel", "tokenizer": "Qwen2Tokenizer"}
    more = {"text_encoder_select_layers": list(range(2, LAYERS + 1)), "is_distilled": distilled, "patch_size": 2}
    write_index(folder, "Krea2Pipeline", classes, **more)
    return folder


def write_ernie_image(folder: Path) -> Path:
    """ERNIE-Image: Mistral 3, Flux.2's autoencoder, one row of words and squares; without its second language model,
    which writes prompts anew."""
    import torch
    from diffusers import ErnieImageTransformer2DModel
    from transformers import Mistral3Config, Mistral3Model, MistralConfig, PixtralVisionConfig

    tokens = write_mistral_tokenizer(folder / "tokenizer")
    seeing = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(32)
        transformer = ErnieImageTransformer2DModel(
            hidden_size=48,
            num_attention_heads=2,
            num_layers=2,
            ffn_hidden_size=96,
            in_channels=32,
            out_channels=32,
            text_in_dim=32,
            rope_axes_dim=(8, 8, 8),
        )
        with torch.no_grad():  # which begin as zeros
            for layer in (transformer.adaLN_modulation[-1], transformer.final_linear):
                layer.weight.normal_(0.0, 0.1)
        loud(transformer, transformer.final_linear, "text_proj")
        transformer.save_pretrained(folder / "transformer")
        write_autoencoder(folder / "vae")
        config = Mistral3Config(
            text_config=MistralConfig(vocab_size=tokens, head_dim=16, **QWEN),
            vision_config=PixtralVisionConfig(**seeing, image_size=28, patch_size=14, head_dim=8),
            image_token_index=tokens - 1,
        )
        Mistral3Model(config).save_pretrained(folder / "text_encoder")
    write_json(folder / "scheduler" / "scheduler_config.json", FLOW | {"shift": 3.0})
    classes = {"transformer": "ErnieImageTransformer2DModel", "vae": "AutoencoderKLFlux2", "scheduler": EULER}
    classes |= {"text_encoder": "Mistral3Model", "tokenizer": "PreTrainedTokenizerFast", "pe": "", "pe_tokenizer": ""}
    write_index(folder, "ErnieImagePipeline", classes)
    return folder


WRITERS: dict[str, Callable[..., Path]] = {"krea2": write_krea_2, "ernie-image": write_ernie_image}
"""By the names that tests use."""
