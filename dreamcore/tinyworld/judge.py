"""The judge: a small convolutional network that says what an image shows, and how like a subject it is.

It is not the model it judges: it was trained on drawn scenes alone (`tools/tinyworld/train_judge.py`), blurred, noised
and discoloured a little so that it also reads generated images.  Here it runs in NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from .vocabulary import CLASSES, COLOURS, PATTERNS, PLACES

Float = NDArray[np.float32]

WEIGHTS = Path(__file__).parent / "judge.safetensors"
THRESHOLD = Path(__file__).parent / "judge.json"
STRIDES = (2, 2, 1, 2, 1, 2)
"""Strides of the 3 x 3 convolutions, each followed by a ReLU."""
HEADS = {"kind": CLASSES, "colour": tuple(COLOURS), "pattern": PATTERNS, "place": PLACES}
CHUNK = 64
"""Images looked at together, to bound memory."""


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in each of N images."""

    kind: list[str]
    colour: list[str]
    """Nearest named body colour."""
    pattern: list[str]
    place: list[str]
    embedding: Float
    """[N, D] of unit length: the thing's identity (class, colours, pattern), whatever the place, size and light."""


def _convolve(x: Float, weight: Float, bias: Float, stride: int) -> Float:
    """3 x 3 convolution with a border of zeros: x [N, H, W, C], weight [3, 3, C, O], then ReLU."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
    columns = windows.transpose(0, 1, 2, 4, 5, 3)
    flat = columns.reshape(-1, weight.shape[0] * weight.shape[1] * weight.shape[2])
    out = flat @ weight.reshape(-1, weight.shape[3]) + bias
    shaped: Float = np.maximum(out, 0).reshape(*columns.shape[:3], -1)
    return shaped


@cache
def _weights() -> dict[str, Float]:
    return {name: value.astype(np.float32) for name, value in load_file(WEIGHTS).items()}


def _forward(pictures: NDArray[np.uint8]) -> dict[str, Float]:
    w = _weights()
    x = pictures.astype(np.float32) / 127.5 - 1
    for i, stride in enumerate(STRIDES):
        x = _convolve(x, w[f"conv.{i}.weight"], w[f"conv.{i}.bias"], stride)
    pooled = np.concatenate([x.mean((1, 2)), x.max((1, 2))], 1)
    hidden = np.maximum(pooled @ w["hidden.weight"] + w["hidden.bias"], 0)
    return {head: hidden @ w[f"{head}.weight"] + w[f"{head}.bias"] for head in (*HEADS, "embedding")}


def look(pictures: NDArray[np.uint8]) -> Verdict:
    """Judge images, uint8 [N, 64, 64, 3]."""
    chunks = [_forward(pictures[i : i + CHUNK]) for i in range(0, len(pictures), CHUNK)]
    out = {head: np.concatenate([chunk[head] for chunk in chunks]) for head in chunks[0]}
    names = {head: [options[i] for i in out[head].argmax(1)] for head, options in HEADS.items()}
    embedding = out["embedding"] / np.linalg.norm(out["embedding"], axis=1, keepdims=True)
    return Verdict(**names, embedding=embedding)


def subject_scores(references: NDArray[np.uint8], pictures: NDArray[np.uint8]) -> Float:
    """How like the subject of the reference images each image's thing is: [N], 1 is the same.

    The mean cosine between the embeddings, as CLIP-I and DINO scores are (arXiv 2208.12242, section 4.1).
    """
    likeness = look(pictures).embedding @ look(references).embedding.T
    return np.asarray(likeness.mean(1), np.float32)


def threshold() -> float:
    """The subject score from which on an image shows the subject; frozen before any model was judged."""
    return float(json.loads(THRESHOLD.read_text())["threshold"])


def shows_subject(references: NDArray[np.uint8], pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each image shows the subject of the reference images."""
    return subject_scores(references, pictures) >= threshold()


def agreement(seen: Sequence[str], asked: Sequence[str]) -> float:
    """Share of images that show what was asked for."""
    return sum(a == b for a, b in zip(seen, asked, strict=True)) / len(asked)
