"""A Stable Diffusion of a few hundred thousand random weights, laid out on disk as a published one, and images.

`python -m tests.support.tiny FOLDER` writes FOLDER/model and FOLDER/photos.  Frameworks are imported where they
are used only, so that tests which need images alone can import this module anywhere.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORDS = (
    *("a", "an", "the", "of", "in", "on", "photo", "picture", "sks", "dog", "cat", "toy"),
    *("person", "car", "teapot", "red", "green", "blue", "snow", "grass"),
)
WINDOW = 77
FACTOR = 4
"""Pixels a latent is wide; the native resolution is 8 latents, 32 pixels."""


def write_tiny_model(
    folder: str | Path,
    *,
    prediction_type: str = "epsilon",
    zero_snr: bool = False,
    seed: int = 0,
    sd2: bool = False,
    safety_checker: bool = False,
) -> Path:
    """Write a random Stable Diffusion in diffusers' layout; the same arguments give the same bytes.

    Args:
        folder: where to; created, with its parents.
        prediction_type: `epsilon` or `v_prediction`, for the scheduler's configuration.
        zero_snr: a schedule rescaled to zero terminal SNR.
        seed: of the weights.
        sd2: Stable Diffusion 2's differences: padding token "!", GELU, linear projections, heads by their width.
        safety_checker: a safety checker (which passes everything) and its feature extractor too.
    """
    import torch

    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _write_unet(folder / "unet", sd2)
        write_vae(folder / "vae")
        vocabulary = write_tokenizer(folder / "tokenizer", sd2)
        write_clip(folder / "text_encoder", vocabulary, sd2)
        if safety_checker:
            _write_safety_checker(folder)
    scheduler = write_scheduler(folder / "scheduler", prediction_type, zero_snr)
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": ["transformers", "CLIPImageProcessor"] if safety_checker else [None, None],
            "requires_safety_checker": safety_checker,
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"] if safety_checker else [None, None],
            "scheduler": ["diffusers", scheduler],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return folder


def _write_unet(folder: Path, sd2: bool) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=[2, 4] if sd2 else 4,
        use_linear_projection=sd2,
    )
    with torch.no_grad():  # answers of about the noise's size, that listen to the words
        unet.conv_out.weight *= 3.0
        for name, weight in unet.named_parameters():
            if "attn2.to_v" in name or "attn2.to_out.0.weight" in name:
                weight *= 2.0
    unet.save_pretrained(folder)


def write_vae(folder: Path, channels: int = 4, **more: Any) -> None:
    """Write an autoencoder of `FACTOR`."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        sample_size=8 * FACTOR,
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        latent_channels=channels,
        **more,
    )
    with torch.no_grad():  # latents of about unit variance once scaled, and a narrow posterior, as published ones have
        last = vae.quant_conv if vae.quant_conv is not None else vae.encoder.conv_out
        first = vae.post_quant_conv if vae.post_quant_conv is not None else vae.decoder.conv_in
        last.weight[:channels] *= 6.0 / vae.config.scaling_factor
        last.weight[channels:] *= 0.2
        last.bias[channels:] = -2.0
        first.weight *= vae.config.scaling_factor / 2
        vae.decoder.conv_out.weight *= 2.0
    vae.save_pretrained(folder)


def write_clip(folder: Path, vocabulary: dict[str, int], sd2: bool, *, projects: bool = False, **sizes: int) -> None:
    """Write a text encoder; `projects` gives it the projection that CLIPTextModelWithProjection has."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"max_position_embeddings": WINDOW}
        | sizes,
        hidden_act="gelu" if sd2 else "quick_gelu",
        bos_token_id=0,  # as the published models say, against their own tokenizer; 2 makes pooling look for the end
        eos_token_id=2,
        pad_token_id=1,
    )
    encoder = (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)
    with torch.no_grad():  # token embeddings of the size of a trained model's, so that words matter
        encoder.get_input_embeddings().weight.normal_(0.0, 0.5)
    encoder.save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    # transformers 5 leaves the prefix out, and published files have it
    tensors = {
        k if k.startswith(("text_model.", "text_projection.")) else f"text_model.{k}": v.contiguous()
        for k, v in tensors.items()
    }
    save_file(tensors, file, metadata={"format": "pt"})


def write_tokenizer(folder: Path, sd2: bool = False) -> dict[str, int]:
    """Write CLIP's tokenizer with 512 byte tokens and a few whole words; returns the vocabulary."""
    letters = _byte_letters()
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        for _ in range(len(word) - 1):  # every word is built from its left end
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
    names = [*letters, *(c + "</w>" for c in letters), *dict.fromkeys(a + b for a, b in merges)]
    vocabulary = {name: i for i, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in merges)]) + "\n", "utf-8")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "!" if sd2 else "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": WINDOW, "do_lower_case": True}
    write_json(folder / "tokenizer_config.json", {**settings, "add_prefix_space": False, "errors": "replace"} | special)
    return vocabulary


def in_one_file(folder: Path) -> None:
    """Bring a tokenizer's two files into the one that transformers 5 writes in their place."""
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    numbers = json.loads(vocabulary.read_text("utf-8"))
    marks = [name for name in numbers if name.startswith("<|")]
    more = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model = {
        "type": "BPE",
        "unk_token": "<|endoftext|>",
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "</w>",
        "vocab": numbers,
        "merges": [line.split() for line in merges.read_text("utf-8").splitlines()[1:]],
    }
    added = [{"id": numbers[name], "content": name, **more} for name in marks]
    write_json(folder / "tokenizer.json", {"version": "1.0", "added_tokens": added, "model": model})
    vocabulary.unlink()
    merges.unlink()


def _byte_letters() -> list[str]:
    """The printable letter of each byte (GPT-2's `bytes_to_unicode`), "!" first as in CLIP's vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def write_scheduler(folder: Path, prediction_type: str = "epsilon", zero_snr: bool = False) -> str:
    """Write a scheduler's configuration; returns its class."""
    name = "DDIMScheduler" if zero_snr else "PNDMScheduler"
    values: dict[str, Any] = {
        "_class_name": name,
        "_diffusers_version": "0.42.1",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "trained_betas": None,
    }
    more = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if zero_snr else {"skip_prk_steps": True}
    write_json(folder / "scheduler_config.json", values | more)
    return name


def _write_safety_checker(folder: Path) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": 16, "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
    write_json(
        folder / "feature_extractor" / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": 32},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": 32, "width": 32},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "do_convert_rgb": True,
        },
    )


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, and its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_index(folder: Path, pipeline: str, components: Mapping[str, str], **more: Any) -> None:
    """Write model_index.json.

    Args:
        components: the class of each; none for one that is null.
        more: further entries.
    """

    def entry(name: str, cls: str) -> list[str | None]:
        library = "transformers" if name.startswith(("text_encoder", "tokenizer")) else "diffusers"
        return [library, cls] if cls else [None, None]

    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.1", **more}
    write_json(folder / "model_index.json", index | {name: entry(name, cls) for name, cls in components.items()})


def loud(network: Any, last: Any, *words: str) -> None:
    """Give a network answers of about the noise's size, that listen to the words.

    Args:
        last: the layer that answers.
        words: parts of the names of weights that read them.
    """
    import torch

    with torch.no_grad():
        last.weight *= 3.0
        for name, weight in network.named_parameters():
            if any(part in name for part in words):
                weight *= 2.0


def draw_photos(folder: str | Path, count: int = 5, size: int = 48, seed: int = 0) -> Path:
    """Draw `count` images, each unlike the others, as 00.png, 01.png ...; widths are `size`, heights vary."""
    from PIL import Image, ImageDraw

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    for i in range(count):
        height = size + (i % 3) * size // 4
        top, bottom = ([draw.randrange(256) for _ in range(3)] for _ in range(2))
        picture = Image.new("RGB", (size, height))
        pen = ImageDraw.Draw(picture)
        for row in range(height):
            mix = row / height
            pen.line([(0, row), (size, row)], tuple(round(a + (b - a) * mix) for a, b in zip(top, bottom, strict=True)))
        colour = tuple(draw.randrange(256) for _ in range(3))
        x, y, r, sides = draw.uniform(0.3, 0.7) * size, draw.uniform(0.3, 0.7) * height, size * 0.28, 3 + i % 5
        corners = [2 * math.pi * k / sides + i for k in range(sides)]
        pen.polygon([(x + r * math.cos(w), y + r * math.sin(w)) for w in corners], fill=colour, outline="black")
        pen.ellipse([x - r / 3, y - r / 3, x + r / 3, y + r / 3], fill="white")
        picture.save(folder / f"{i:02d}.png")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.support.tiny FOLDER")
    target = Path(sys.argv[1])
    print(write_tiny_model(target / "model"))
    print(draw_photos(target / "photos"))
