"""Published encoders of images and words, read from folders as `transformers` writes them and run in NumPy.

What a picture's embedding is:

    DINO (2104.14294), a ViT; DINOv2 (2304.07193)     the class token after the last LayerNorm
    CLIP (2103.00020)                                 W_v LayerNorm(class token);  of words W_t LayerNorm(end's token)

NumPy, because the same figure is to come from every backend, also where no `transformers` is installed: ViT-S/16 takes
0.34 s a picture on one core and ViT-B/32 0.24 s, less than it takes to make one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..formats.tensors import as_float
from ..formats.torch_pickle import read_torch_pickle
from ..formats.weight_files import choose_weights
from ..formats.weights import read_weights
from ..io.hashing import remembered_sha256
from ..io.progress import progress
from ..models.fields import read_json
from ..text.tokenizer import Tokenizer, read_bpe
from .metrics import Embeddings
from .preprocessing import Preprocessing
from .transformer import ACTIVATIONS, Float, Transformer, layer_norm, patches, resized

CONFIG = "config.json"
CHUNK = 4
"""Pictures, or prompts, that go through the layers together: as many as a processor's cache has room for."""
_DINO_ATTENTION = {
    **{name[0]: f"attention.attention.{name}" for name in ("query", "key", "value")},
    "out": "attention.output.dense",
}
_CLIP_ATTENTION = {name: f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")}
LAYERS: dict[str, dict[str, str]] = {
    "clip": _CLIP_ATTENTION | {"norm1": "layer_norm1", "norm2": "layer_norm2", "up": "mlp.fc1", "down": "mlp.fc2"},
    "vit": _DINO_ATTENTION
    | {"norm1": "layernorm_before", "norm2": "layernorm_after", "up": "intermediate.dense", "down": "output.dense"},
    "dinov2": _DINO_ATTENTION | {"norm1": "norm1", "norm2": "norm2", "up": "mlp.fc1", "down": "mlp.fc2"},
}
"""`model_type` -> what `Transformer` calls a layer's parts -> what their weights are called in files."""
NORM_EPS = {"clip": 1e-5, "vit": 1e-12, "dinov2": 1e-6}
"""Where a configuration leaves it out: the defaults of their classes in `transformers`."""
WRAPPERS = ("vit.", "dinov2.", "dino.")
"""What weights' names begin with in files of models that hold an encoder and something besides."""


class Weights:
    """A file's arrays by name, in float32; one that is missing is refused by name."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], file: Path):
        begin = re.compile("|".join(f"^{re.escape(wrapper)}" for wrapper in WRAPPERS))
        self._arrays, self._file = {begin.sub("", name): value for name, value in arrays.items()}, file

    def __getitem__(self, name: str) -> Float:
        if name not in self._arrays:
            raise ConfigError(f"{self._file}: lacks {name}; give the whole folder that the encoder was published as")
        return np.ascontiguousarray(self._arrays[name], np.float32)

    def get(self, name: str) -> Float | None:
        return self[name] if name in self._arrays else None

    def layers(self, kind: str, prefix: str, count: int) -> Iterator[dict[str, Float]]:
        """Each layer's arrays as `Transformer` calls them."""
        for number in range(count):
            layer = dict[str, Float]()
            for ours, theirs in LAYERS[kind].items():
                layer[f"{ours}.weight"] = self[f"{prefix}.{number}.{theirs}.weight"]
                if (bias := self.get(f"{prefix}.{number}.{theirs}.bias")) is not None:
                    layer[f"{ours}.bias"] = bias
            if kind == "dinov2":
                for which in (1, 2):
                    layer[f"scale{which}"] = self[f"{prefix}.{number}.layer_scale{which}.lambda1"]
            yield layer


@dataclass(frozen=True)
class ImageTower:
    """Pixels -> embeddings."""

    transformer: Transformer
    kernel: Float
    """[D, 3, side, side]."""
    bias: Float | None
    first: Float
    """[D] the class token."""
    positions: Float
    """[1 + side², D], the class token's first."""
    before: tuple[Float, Float] | None
    """Weight and bias of a LayerNorm before the layers (CLIP's)."""
    after: tuple[Float, Float]
    projection: Float | None
    """[width, D] (CLIP's)."""

    def __call__(self, pixels: Float) -> Embeddings:
        """[N, width] of prepared pictures [N, 3, H, W]."""
        side, eps = self.kernel.shape[-1], self.transformer.eps
        rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
        x = patches(pixels, self.kernel, self.bias)
        x = np.concatenate([np.broadcast_to(self.first, (len(x), 1, x.shape[2])), x], 1)
        x = x + np.concatenate([self.positions[:1], resized(self.positions[1:], rows, columns)])
        if self.before is not None:
            x = layer_norm(x, *self.before, eps)
        pooled = layer_norm(self.transformer(x)[:, 0], *self.after, eps)
        return pooled if self.projection is None else np.asarray(pooled @ self.projection.T, np.float32)


@dataclass(frozen=True)
class WordTower:
    """Prompts -> embeddings in the space of CLIP's pictures."""

    transformer: Transformer
    tokenizer: Tokenizer
    table: Float
    positions: Float
    after: tuple[Float, Float]
    projection: Float

    def __call__(self, prompts: Sequence[str]) -> Embeddings:
        """[N, width]; words past the encoder's window are not seen, as `transformers` truncates."""
        begin, end = (self.tokenizer.vocabulary[f"<|{mark}oftext|>"] for mark in ("start", "end"))
        known, most = self.tokenizer.vocabulary, len(self.positions) - 2
        rows = [[known.get(token, end) for token in self.tokenizer.tokenize(prompt)][:most] for prompt in prompts]
        longest = max(map(len, rows))
        # What follows the first end mark is seen by no earlier token, and so needs no mask.
        ids = np.array([[begin, *row, *[end] * (longest - len(row) + 1)] for row in rows])
        x = self.transformer(self.table[ids] + self.positions[: ids.shape[1]], causal=True)
        ends = x[np.arange(len(rows)), [1 + len(row) for row in rows]]
        return np.asarray(layer_norm(ends, *self.after, self.transformer.eps) @ self.projection.T, np.float32)


@dataclass(frozen=True)
class Encoder:
    """One published encoder."""

    kind: str
    """`model_type` of its configuration: vit, dinov2 or clip."""
    source: str
    """Where it came from, and its weights' SHA-256."""
    prepare: Preprocessing
    see: ImageTower
    read: WordTower | None
    """CLIP's alone."""

    def images(self, pictures: Sequence[NDArray[np.uint8]]) -> Embeddings:
        """[N, width] of pictures [H, W, 3] of any sizes."""
        return _chunks(pictures, lambda some: self.see(np.stack([self.prepare(picture) for picture in some])))

    def words(self, prompts: Sequence[str]) -> Embeddings:
        """[N, width] of CLIP."""
        assert self.read is not None
        each = list(dict.fromkeys(prompts))
        return _chunks(each, self.read)[[each.index(prompt) for prompt in prompts]]


def _chunks(items: Sequence[Any], encode: Callable[[Sequence[Any]], Embeddings]) -> Embeddings:
    parts = []
    with progress("judging", len(items)) as step:
        for start in range(0, len(items), CHUNK):
            parts.append(encode(items[start : start + CHUNK]))
            step(len(parts[-1]))
    return np.concatenate(parts)


def read_encoder(folder: Path, source: str) -> Encoder:
    """The encoder in a folder: config.json, preprocessor_config.json, weights, and CLIP's tokenizer.

    Args:
        source: what it was asked for by.

    Raises:
        ConfigError: a file is missing or damaged, or it is an encoder of another kind.
    """
    config, file = read_json(folder / CONFIG), folder / CONFIG
    kind = str(config.get("model_type"))
    if kind not in LAYERS:
        raise ConfigError(f"{file}: model_type is {kind}; judges are of {', '.join(LAYERS)}: DINO, CLIP, DINOv2")
    if config.get("use_swiglu_ffn"):
        raise ConfigError(f"{file}: use_swiglu_ffn (DINOv2 giant) is not built here; take small, base or large")
    prepare = Preprocessing.read(folder, square=kind == "vit")
    weights, digest = _weights(folder)
    try:
        see = _clip_images(config, weights) if kind == "clip" else _dino(kind, config, weights)
        read = _clip_words(config, weights, folder) if kind == "clip" else None
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file}: does not describe a {kind}: {error!r}") from None
    return Encoder(kind, f"{source}, sha256 {digest}", prepare, see, read)


def _weights(folder: Path) -> tuple[Weights, str]:
    """A folder's weights, and their files' SHA-256; a pickle is read for its tensors alone."""
    names = choose_weights([file.name for file in folder.iterdir()], None)
    if not names:
        raise ConfigError(f"{folder}: holds no weights (model.safetensors or pytorch_model.bin)")
    arrays = dict[str, NDArray[Any]]()
    for file in (folder / name for name in names):
        if file.suffix == ".bin":
            arrays |= {name: as_float(entry) for name, entry in read_torch_pickle(file).entries().items()}
        else:
            arrays |= read_weights([file])
    return Weights(arrays, folder / names[0]), " ".join(remembered_sha256(folder / name) for name in names)


def _transformer(kind: str, config: Mapping[str, Any], weights: Weights, prefix: str, act: str) -> Transformer:
    named = str(config.get("hidden_act", act))
    if named not in ACTIVATIONS:
        raise ValueError(f"hidden_act {named}; known are {', '.join(ACTIVATIONS)}")
    layers = tuple(weights.layers(kind, prefix, int(config["num_hidden_layers"])))
    eps = float(config.get("layer_norm_eps", NORM_EPS[kind]))
    return Transformer(layers, int(config["num_attention_heads"]), eps, ACTIVATIONS[named])


def _dino(kind: str, config: Mapping[str, Any], weights: Weights) -> ImageTower:
    said = {"num_hidden_layers": 12, "num_attention_heads": 12, **config}
    return ImageTower(
        _transformer(kind, said, weights, "encoder.layer", "gelu"),
        weights["embeddings.patch_embeddings.projection.weight"],
        weights["embeddings.patch_embeddings.projection.bias"],
        weights["embeddings.cls_token"].reshape(-1),
        weights["embeddings.position_embeddings"][0],
        None,
        (weights["layernorm.weight"], weights["layernorm.bias"]),
        None,
    )


def _clip_images(config: Mapping[str, Any], weights: Weights) -> ImageTower:
    said = {"num_hidden_layers": 12, "num_attention_heads": 12, **(config.get("vision_config") or {})}
    at = "vision_model"
    return ImageTower(
        _transformer("clip", said, weights, f"{at}.encoder.layers", "quick_gelu"),
        weights[f"{at}.embeddings.patch_embedding.weight"],
        None,
        weights[f"{at}.embeddings.class_embedding"],
        weights[f"{at}.embeddings.position_embedding.weight"],
        (weights[f"{at}.pre_layrnorm.weight"], weights[f"{at}.pre_layrnorm.bias"]),
        (weights[f"{at}.post_layernorm.weight"], weights[f"{at}.post_layernorm.bias"]),
        weights["visual_projection.weight"],
    )


def _clip_words(config: Mapping[str, Any], weights: Weights, folder: Path) -> WordTower:
    said = {"num_hidden_layers": 12, "num_attention_heads": 8, **(config.get("text_config") or {})}
    at = "text_model"
    positions = weights[f"{at}.embeddings.position_embedding.weight"]
    return WordTower(
        _transformer("clip", said, weights, f"{at}.encoder.layers", "quick_gelu"),
        Tokenizer(*read_bpe(folder), len(positions) - 2),
        weights[f"{at}.embeddings.token_embedding.weight"],
        positions,
        (weights[f"{at}.final_layer_norm.weight"], weights[f"{at}.final_layer_norm.bias"]),
        weights["text_projection.weight"],
    )
