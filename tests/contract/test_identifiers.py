"""`dreambooth identifiers` on every backend, beside CLIP's text encoder in NumPy."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.registry import load_backend
from dreamcore.cli.main import main
from dreamcore.commands import identifiers
from dreamcore.config import GenerateConfig
from dreamcore.models.folder import ModelFolder
from dreamcore.text.tokenizer import Tokenizer

from ..support import needs

pytestmark = needs.backend
Float = np.ndarray


def answer(model: Path, prompt: str) -> Float:
    """[W] CLIP's text encoder (2103.00020, section 2.4) at the end mark, in NumPy."""
    w = {k.removeprefix("text_model."): v for k, v in load_file(model / "text_encoder" / "model.safetensors").items()}
    config = json.loads((model / "text_encoder" / "config.json").read_text())
    vocabulary = json.loads((model / "tokenizer" / "vocab.json").read_text())
    words = Tokenizer.open(ModelFolder.open(str(model))).tokenize(prompt)
    ids = [vocabulary[t] for t in ("<|startoftext|>", *words, "<|endoftext|>")]
    x = w["embeddings.token_embedding.weight"][ids] + w["embeddings.position_embedding.weight"][: len(ids)]
    heads = config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layers.{layer}."
        y = _norm(x, w, name + "layer_norm1")
        q, k, v = (_split(_linear(y, w, f"{name}self_attn.{part}_proj"), heads) for part in "qkv")
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -np.inf)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (share / share.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(x.shape)
        x = x + _linear(mixed, w, name + "self_attn.out_proj")
        y = _linear(_norm(x, w, name + "layer_norm2"), w, name + "mlp.fc1")
        x = x + _linear(y / (1 + np.exp(-1.702 * y)), w, name + "mlp.fc2")  # quick GELU
    return np.asarray(_norm(x, w, "final_layer_norm")[-1])


def _split(x: Float, heads: int) -> Float:
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _linear(x: Float, w: dict[str, Float], name: str) -> Float:
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])


def _norm(x: Float, w: dict[str, Float], name: str) -> Float:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])


def test_embeddings_are_those_of_the_end_mark(tiny_model: Path) -> None:
    given = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "x", "device": "cpu"}
    config = GenerateConfig.from_mapping(given)
    backend = load_backend(installed_backends()[0], ModelFolder.open(str(tiny_model)), config)
    prompts = ["a photo of dog", "a photo of sks dog in snow", ""]
    for prompt, ours in zip(prompts, backend.embed(prompts), strict=True):
        np.testing.assert_allclose(ours, answer(tiny_model, prompt), atol=2e-5)


def test_words_come_by_their_distance_and_are_drawn(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "made" / "grid.png"
    flags = ["--model", str(tiny_model), "--class", "dog", "--num_identifiers", "2", "--device", "cpu", "--json"]
    assert main(["identifiers", *flags, "--grid", str(grid), "--num_inference_steps", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2
    class_answer = answer(tiny_model, "a photo of dog")
    for one in found:
        own = answer(tiny_model, f"a photo of {one['word']} dog")
        cosine = own @ class_answer / np.linalg.norm(own) / np.linalg.norm(class_answer)
        assert one["distance"] == pytest.approx(1 - cosine, abs=1e-5)
    assert found[0]["distance"] <= found[1]["distance"]
    sheet = np.asarray(Image.open(grid))
    assert sheet.shape == (32, 32 + 4 + 32, 3) and (sheet[:, 32:36] == 255).all()
    assert (sheet[:, :32] != sheet[:, 36:]).any(), "one image of each word"
    assert main(["identifiers", *flags[:-1]]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [one["word"] for one in found]


def test_settings_of_pictures_that_nobody_asked_for_are_refused(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identifiers, "load_backend", None)
    assert main(["identifiers", "--model", str(tiny_model), "--seed", "3", "--batch_size", "4"]) == 2
    assert capsys.readouterr().err == "dreambooth: error: seed=3: acts only with grid; give grid, or remove it\n"
