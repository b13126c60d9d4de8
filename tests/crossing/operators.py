"""Calls of the operators that MindSpore's CPU backend is lent (`adapters/mindspore/cpu_shim.py`), by name.

Each is a function of a namespace, PyTorch's or the shim's, and of tensors, which are differentiated; with the tensors'
shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Shapes = tuple[tuple[int, ...], ...]
IMAGE, KERNEL = (2, 3, 9, 8), (5, 3, 3, 3)

OPERATORS: dict[str, tuple[Shapes, Callable[..., Any]]] = {
    "arange": ((), lambda f: f.arange(5)),
    "arange of three": ((), lambda f: f.arange(2, 11, 3)),
    "full": ((), lambda f: f.full([2, 3], 3.5)),
    "ones_like": (((3, 4),), lambda f, x: f.ones_like(x) * x),
    "tril": (((2, 3, 4),), lambda f, x: f.tril(x)),
    "tril below": (((5, 4),), lambda f, x: f.tril(x, diagonal=-2)),
    "norm": (((3, 4),), lambda f, x: f.norm(x, dim=-1, keepdim=True)),
    "stack": (((3, 4), (3, 4)), lambda f, x, y: f.stack([x, y])),
    "stack last": (((3, 4), (3, 4)), lambda f, x, y: f.stack([x, y], dim=-1)),
    "unbind": (((3, 4, 2),), lambda f, x: f.unbind(x, -1)[0] * 2 + f.unbind(x, -1)[1]),
    "unbind first": (((2, 3),), lambda f, x: f.unbind(x)[0] * f.unbind(x)[1]),
    "outer": (((3,), (4,)), lambda f, x, y: f.outer(x, y)),
    "einsum": (((2, 3, 4, 5, 6, 7),), lambda f, x: f.einsum("nhwpqc->nchpwq", x)),
    "repeat_interleave": (((3, 4),), lambda f, x: f.repeat_interleave(x, 2, dim=1, output_size=8)),
    "embedding": (((7, 5),), lambda f, w: f.embedding(rows(f), w)),
    "embedding with padding": (((7, 5),), lambda f, w: f.embedding(rows(f), w, padding_idx=2)),
    "scaled_dot_product_attention": (
        ((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4)),
        lambda f, q, k, v: f.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False),
    ),
    "scaled_dot_product_attention masked": (
        ((2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)),
        lambda f, q, k, v: f.scaled_dot_product_attention(q, k, v, attn_mask=f.tril(f.full([5, 5], 1.0)) > 0),
    ),
    "pad": ((IMAGE,), lambda f, x: f.pad(x, (0, 1, 0, 1))),
    "pad with a value": ((IMAGE,), lambda f, x: f.pad(x, (1, 2, 0, 1), mode="constant", value=0.5)),
    "pad by reflection": ((IMAGE,), lambda f, x: f.pad(x, (1, 2, 1, 1), mode="reflect")),
    "gelu": (((4, 50),), lambda f, x: f.gelu(x * 2)),
    "gelu by tanh": (((4, 50),), lambda f, x: f.gelu(x * 2, approximate="tanh")),
    "layer_norm": (((3, 5, 8),), lambda f, x: f.layer_norm(x, (8,))),
    "layer_norm with weights": (
        ((3, 5, 8), (5, 8), (5, 8)),
        lambda f, x, w, b: f.layer_norm(x, (5, 8), w, b, eps=1e-3),
    ),
    "exp": (((4, 50),), lambda f, x: f.exp(x)),
    "avg_pool2d": (((2, 3, 8, 6),), lambda f, x: f.avg_pool2d(x, 2)),
    "interpolate": (((2, 3, 4, 5),), lambda f, x: f.interpolate(x, (9, 8), mode="bilinear", align_corners=True)),
    "conv2d 3x3": ((IMAGE, KERNEL, (5,)), lambda f, x, w, b: f.conv2d(x, w, b, stride=1, padding=1)),
    "conv2d 1x1": ((IMAGE, (5, 3, 1, 1), (5,)), lambda f, x, w, b: f.conv2d(x, w, b)),
    "conv2d with a stride": ((IMAGE, KERNEL, (5,)), lambda f, x, w, b: f.conv2d(x, w, b, stride=2, padding=0)),
    "conv2d without bias, uneven": (
        (IMAGE, (4, 3, 3, 2)),
        lambda f, x, w: f.conv2d(x, w, None, stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    ),
}


def rows(f: Any) -> Any:
    """[3, 2] rows of a table, some of them twice."""
    return f.stack([f.arange(3), f.arange(1, 4)], -1)


def inputs(shapes: Shapes) -> list[np.ndarray]:
    """The numbers that a call takes."""
    draw = np.random.default_rng(len(shapes))
    return [draw.standard_normal(shape, np.float32) for shape in shapes]


def direction(shape: Any) -> np.ndarray:
    """Numbers that values are multiplied with before they are summed and differentiated."""
    return np.random.default_rng(7).standard_normal(tuple(shape), np.float32)
