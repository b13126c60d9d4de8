"""Encoders in NumPy against transformers' own modules and image processors, of the same random weights and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from dreamcore.adapters.torch.perceptual import open_lpips
from dreamcore.errors import ConfigError
from dreamcore.evaluation import Subject, open_judge, score
from dreamcore.evaluation.embedded import EmbeddedJudge
from dreamcore.evaluation.encoders import read_encoder
from dreamcore.evaluation.preprocessing import Preprocessing

from ..support.tiny import write_tokenizer

SIZES = ((64, 64), (300, 200), (201, 333), (500, 512))
PICTURES = [np.random.default_rng(n).integers(0, 256, (*size, 3)).astype(np.uint8) for n, size in enumerate(SIZES)]
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
PROMPTS = ["a photo of a sks dog", "sks cat's picture, ON the snow: a Zebra with more words than there is room for", ""]
PROCESSORS: dict[str, Any] = {
    "vit": transformers.ViTImageProcessorPil,
    "clip": transformers.CLIPImageProcessorPil,
    "dinov2": lambda: BitImageProcessorPil(size={"shortest_edge": 256}),
}


def _saved(folder: Path, kind: str, *, safe: bool = True) -> Any:
    """A random model in the folder with its processor; biases and norms are random, too, so that each counts."""
    torch.manual_seed(0)
    if kind == "vit":
        config = transformers.ViTConfig(**SMALL, intermediate_size=48, patch_size=16)
        model = transformers.ViTModel(config, add_pooling_layer=False)
    elif kind == "dinov2":
        model = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, image_size=266, patch_size=14))
    else:
        words = write_tokenizer(folder)
        text = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        text |= {"vocab_size": len(words), "max_position_embeddings": 20}
        text |= {f"{mark}os_token_id": words[f"<|{name}oftext|>"] for mark, name in (("b", "start"), ("e", "end"))}
        vision = {**SMALL, "intermediate_size": 48, "patch_size": 32}
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    PROCESSORS[kind]().save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model.eval()


def _pixels(kind: str) -> torch.Tensor:
    return torch.from_numpy(PROCESSORS[kind]()(PICTURES, return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_dino(tmp_path: Path, kind: str) -> None:
    """DINOv2's positions are brought from 19 x 19 to 16 x 16, as those of its published weights are."""
    model = _saved(tmp_path, kind)
    with torch.no_grad():
        expected = model(_pixels(kind)).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(read_encoder(tmp_path, "here").images(PICTURES), expected, atol=1e-5)


@pytest.mark.parametrize("safe", [True, False])
def test_clip(tmp_path: Path, safe: bool) -> None:
    """Also of a pickled file, which is what some repositories have."""
    model = _saved(tmp_path, "clip", safe=safe)
    tokens = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    ids = tokens(PROMPTS, padding="max_length", truncation=True, max_length=20, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        images = model.visual_projection(model.vision_model(_pixels("clip")).pooler_output).numpy()
        words = model.text_projection(model.text_model(ids).pooler_output).numpy()
    encoder = read_encoder(tmp_path, "here")
    np.testing.assert_allclose(encoder.images(PICTURES), images, atol=1e-5)
    np.testing.assert_allclose(encoder.words(PROMPTS), words, atol=1e-5)
    cosines = torch.nn.functional.cosine_similarity(torch.tensor(images[:3]), torch.tensor(words)).numpy()
    judge = open_judge([str(tmp_path)])
    np.testing.assert_allclose(judge.follows(PICTURES[:3], PROMPTS)["CLIP-T"], cosines, atol=1e-5)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_preprocessing(tmp_path: Path, kind: str) -> None:
    processor = PROCESSORS[kind]()
    processor.save_pretrained(tmp_path)
    ours = Preprocessing.read(tmp_path, square=kind == "vit")
    for picture in PICTURES:
        theirs = processor([picture], return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(ours(picture), theirs, atol=1e-6)


@pytest.mark.parametrize(("kind", "size"), [("vit", 40), ("clip", 40)])
def test_preprocessing_of_old_files(tmp_path: Path, kind: str, size: int) -> None:
    """One number for the size, as DINO's and CLIP's published files have it, means what the classes make of it."""
    said = {"size": size, "crop_size": 36, "resample": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    said |= {"do_resize": True, "do_center_crop": True, "do_normalize": True} if kind == "clip" else {}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    cls = transformers.ViTImageProcessorPil if kind == "vit" else transformers.CLIPImageProcessorPil
    if kind == "vit":
        del said["crop_size"]
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    processor = cls.from_pretrained(tmp_path)
    ours = Preprocessing.read(tmp_path, square=kind == "vit")
    theirs = processor([PICTURES[1]], return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours(PICTURES[1]), theirs, atol=1e-6)


def test_what_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"judge: .*no config.json there"):
        open_judge([str(tmp_path)])
    _saved(tmp_path / "vit", "vit")
    (tmp_path / "vit" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds no weights \(model.safetensors or pytorch_model.bin\)"):
        open_judge([str(tmp_path / "vit")])
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ConfigError, match="model_type is resnet; judges are of clip, vit, dinov2"):
        open_judge([str(tmp_path / "vit")])


def test_lpips_is_asked_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name, whose distance is the mean of differences: pictures come to it in [-1, 1]; and only with
    AlexNet's weights on this machine."""
    package = tmp_path / "lpips.py"
    package.write_text(
        "import torch\n"
        "class LPIPS(torch.nn.Module):\n"
        "    def __init__(self, net, verbose):\n"
        "        super().__init__()\n"
        "    def forward(self, one, other):\n"
        "        return (one - other).abs().mean(1, keepdim=True).mean((2, 3), keepdim=True)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert open_lpips() is None
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(b"")
    apart = open_lpips()
    assert apart is not None
    one, other = (np.full((8, 6, 3), value, np.uint8) for value in (0, 51))
    assert apart(one, other) == pytest.approx(51 / 127.5)
    some = [one, other, one, PICTURES[0][:8, :6]]
    found = score(EmbeddedJudge(), Subject("it", some, ["a", "a", "b", "c"], [one]), apart)
    assert found.measures["DIV"].value == pytest.approx(51 / 127.5), "pairs of one prompt alone"
