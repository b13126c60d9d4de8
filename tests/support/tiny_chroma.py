"""A small random Chroma, laid out on disk as the published ones: one T5, Flux's blocks without modulations."""

from __future__ import annotations

from pathlib import Path

from .tiny import write_index, write_json, write_vae
from .tiny_families import FLOW, PLAIN_VAE, write_t5


def write_chroma(folder: Path, *, beta: bool = False) -> Path:
    """Chroma.

    Args:
        beta: steps of Beta quantiles, as the published schedule says, which ask for SciPy.
    """
    import torch
    from diffusers import ChromaTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(23)
        transformer = ChromaTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            axes_dims_rope=(4, 6, 6),
            approximator_num_channels=16,
            approximator_hidden_dim=32,
            approximator_layers=1,
        )
        with torch.no_grad():  # answers of about the noise's size
            transformer.proj_out.weight *= 0.4
        transformer.save_pretrained(folder / "transformer")
        write_vae(folder / "vae", 16, scaling_factor=0.3611, shift_factor=0.1159, **PLAIN_VAE)
        write_t5(folder / "text_encoder", folder / "tokenizer", 48)
    more = {"shift": 1.0, "use_dynamic_shifting": False, "use_beta_sigmas": beta}
    write_json(folder / "scheduler" / "scheduler_config.json", FLOW | more)
    parts = {"feature_extractor": "", "image_encoder": "", "scheduler": str(FLOW["_class_name"])}
    parts |= {"text_encoder": "T5EncoderModel", "tokenizer": "T5TokenizerFast"}
    parts |= {"transformer": "ChromaTransformer2DModel", "vae": "AutoencoderKL"}
    write_index(folder, "ChromaPipeline", parts)
    return folder
