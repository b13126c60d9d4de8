"""`dreambooth identifiers` on every backend, beside CLIP's text encoder in NumPy."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.registry import load_backend
from dreamcore.cli.main import main
from dreamcore.commands import identifiers
from dreamcore.config import GenerateConfig
from dreamcore.formats.clip_vocabulary import SIZE, write_clip_tokenizer
from dreamcore.models.folder import ModelFolder
from dreamcore.text.rare_tokens import rare_words
from dreamcore.text.tokenizer import Tokenizer
from dreamcore.tinyworld.vocabulary import RARE_WORDS

from ..support import needs

pytestmark = needs.backend
Float = np.ndarray


def answer(model: Path, prompt: str) -> Float:
    """[W] CLIP's text encoder (2103.00020, section 2.4) at the end mark, in NumPy."""
    weights = load_file(model / "text_encoder" / "model.safetensors")
    w = {name.removeprefix("text_model."): value.astype(np.float32) for name, value in weights.items()}
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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The backends that are loaded; what is found is kept in an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loaded: list[str] = []

    def load(name: str, *more: Any) -> Any:
        loaded.append(name)
        return load_backend(name, *more)

    monkeypatch.setattr(identifiers, "load_backend", load)
    return loaded


def with_public_vocabulary(model: Path, folder: Path) -> Path:
    """A model with CLIP's whole vocabulary and random embeddings of it."""
    shutil.copytree(model, folder)
    shutil.rmtree(folder / "tokenizer")
    write_clip_tokenizer(folder / "tokenizer")
    encoder = folder / "text_encoder"
    weights, config = load_file(encoder / "model.safetensors"), json.loads((encoder / "config.json").read_text())
    name = next(name for name in weights if name.endswith("token_embedding.weight"))
    width = weights[name].shape[1]
    weights[name] = np.random.default_rng(0).normal(size=(SIZE, width)).astype(np.float32)
    config |= {"vocab_size": SIZE, "bos_token_id": SIZE - 2, "eos_token_id": SIZE - 1}
    (encoder / "config.json").write_text(json.dumps(config))
    save_file(weights, encoder / "model.safetensors", {"format": "pt"})
    return folder


def found(flags: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `dreambooth identifiers` prints as JSON."""
    assert main(["identifiers", *flags, "--device", "cpu", "--json"]) == 0
    answered: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return answered


def check_distances(words: list[dict[str, Any]], model: Path, class_word: str) -> None:
    """Assert that they are those of the NumPy encoder, the least first."""
    class_answer = answer(model, f"a photo of {class_word}")
    for one in words:
        own = answer(model, f"a photo of {one['word']} {class_word}")
        cosine = own @ class_answer / np.linalg.norm(own) / np.linalg.norm(class_answer)
        assert one["distance"] == pytest.approx(1 - cosine, abs=1e-5)
    assert [one["distance"] for one in words] == sorted(one["distance"] for one in words)


def test_words_of_the_embedded_model_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    """`on`, `in` and `mug`, which are rare in its vocabulary too, are not among them."""
    grid = tmp_path / "made" / "grid.png"
    flags = ["--model", "tinyworld", "--class", "mug", "--num_identifiers", "2"]
    two = found([*flags, "--grid", str(grid), "--num_inference_steps", "2"], capsys)
    everything = found(["--model", "tinyworld", "--class", "mug"], capsys)
    assert {one["word"] for one in everything} == {word for word in RARE_WORDS if len(word) <= 3}
    assert two == everything[:2] and len(asked) == 1, "the second search asks no model"
    check_distances(everything, ModelFolder.open("tinyworld").path, "mug")
    sheet = np.asarray(Image.open(grid))
    side = sheet.shape[0]
    assert sheet.shape == (side, side + 4 + side, 3) and (sheet[:, side : side + 4] == 255).all()
    assert (sheet[:, :side] != sheet[:, side + 4 :]).any(), "one image of each word"
    assert main(["identifiers", *flags, "--device", "cpu"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [one["word"] for one in two]


def test_what_was_found_is_kept(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    """With CLIP's own vocabulary, for the model wherever it lies."""
    model = with_public_vocabulary(tiny_model, tmp_path / "model")
    flags = ["--class", "dog", "--num_candidates", "6", "--model"]
    first = found([*flags, str(model)], capsys)
    assert {one["word"] for one in first} == {word for word, _ in rare_words(clip(model), 6)}
    check_distances(first, model, "dog")
    assert found([*flags, str(model.rename(tmp_path / "moved")), "--num_identifiers", "2"], capsys) == first[:2]
    assert len(asked) == 1


def clip(model: Path) -> Tokenizer:
    """The model's tokenizer."""
    tokenizer = Tokenizer.open(ModelFolder.open(str(model)))
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def test_settings_of_pictures_that_nobody_asked_for_are_refused(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identifiers, "load_backend", None)
    assert main(["identifiers", "--model", str(tiny_model), "--seed", "3", "--batch_size", "4"]) == 2
    assert capsys.readouterr().err == "dreambooth: error: seed=3: acts only with grid; give grid, or remove it\n"
