"""Functions of `mindspore.mint` that diffusion models need and MindSpore's CPU backend lacks.

mindone is written with `mindspore.mint`, many of whose kernels exist on Ascend only ("The kernel Conv2DExt
unregistered").  `install` puts compositions of `mindspore.ops` with CPU kernels and CPU gradients in their places.  It
comes before mindone's import, for mindone copies some names, and does nothing on any other device: there the same
training code runs on the native kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import mindspore as ms
from mindspore import Tensor, mint, ops


def arange(start: float = 0, end: float | None = None, step: float = 1, *, dtype: Any = None) -> Tensor:
    """[n] numbers from `start` (0 where only one is given) to before `end`."""
    return ops.arange(start, end, step, dtype=dtype)


def full(size: Sequence[int], fill_value: float, *, dtype: Any = None) -> Tensor:
    """A tensor of one number."""
    return ops.full(tuple(size), fill_value, dtype=ms.float32 if dtype is None else dtype)


def ones_like(input: Tensor, *, dtype: Any = None) -> Tensor:
    """A tensor of ones, as large as another."""
    return ops.ones(input.shape, input.dtype if dtype is None else dtype)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangles of [..., n, m], up to a diagonal; zero, or false, above it."""
    rows, columns = (ops.arange(side) for side in input.shape[-2:])
    kept = ops.expand_dims(columns, 0) - ops.expand_dims(rows, 1) <= diagonal
    return ops.logical_and(input, kept) if input.dtype == ms.bool_ else input * kept.astype(input.dtype)


def norm(input: Tensor, p: float = 2, *, dim: int, keepdim: bool = False) -> Tensor:
    """Lengths of the vectors along a dimension."""
    assert p == 2, "no pipeline asks for another length"
    return ops.sqrt(ops.square(input).sum(dim, keepdims=keepdim))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new dimension."""
    return ops.stack(tensors, dim)


def exp(input: Tensor) -> Tensor:
    """eˣ, in float64: the CPU's own is right to the fifth digit, and a timestep of 1000 multiplies what is wrong."""
    return ops.exp(input.astype(ms.float64)).astype(input.dtype)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along a dimension, without it."""
    return tuple(ops.squeeze(part, dim) for part in ops.split(input, 1, dim))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """[n, m] products of each of [n] and each of [m]."""
    return ops.expand_dims(input, 1) * ops.expand_dims(vec2, 0)


def einsum(equation: str, operand: Tensor) -> Tensor:
    """One tensor's dimensions in another order."""
    before, after = equation.replace(" ", "").split("->")
    return ops.transpose(operand, tuple(before.index(name) for name in after))


def repeat_interleave(input: Tensor, repeats: int, dim: int, **_: Any) -> Tensor:
    """Each slice along a dimension `repeats` times, one after the other."""
    return ops.repeat_interleave(input, repeats, dim)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows [..., width] of a table [rows, width], of which that of the padding token does not train."""
    rows = ops.gather(weight, input, 0)
    if padding_idx is None:
        return rows
    return ops.where(ops.expand_dims(input == padding_idx, -1), ops.stop_gradient(rows), rows)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any
) -> Tensor:
    """Attention (arXiv 1706.03762, equation 1) of [B, heads, tokens, width] each; a mask is true where a query sees a
    key, or what is added to the products."""
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) * query.shape[-1] ** -0.5
    if attn_mask is not None and attn_mask.dtype == ms.bool_:
        scores = ops.where(attn_mask, scores, ops.full_like(scores, -1e38))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return ops.matmul(ops.softmax(scores, -1), value)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the last dimensions, the last one first in `pad`."""
    if mode == "constant":
        return ops.pad(input, tuple(pad), mode, 0.0 if value is None else value)
    return ops.pad(input, tuple(pad), mode)


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """GELU, exact or with tanh (arXiv 1606.08415)."""
    if approximate == "tanh":
        # (1 + tanh u)/2 is sigmoid(2u), which the CPU computes to the last digit, and tanh to the fourth
        return input * ops.sigmoid(1.5957691216057308 * (input + 0.044715 * input * input * input))
    return 0.5 * input * (1.0 + ops.erf(input * 0.7071067811865476))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last dimensions, `normalized_shape` in size."""
    gain = ops.ones(tuple(normalized_shape), input.dtype) if weight is None else weight
    shift = ops.zeros(tuple(normalized_shape), input.dtype) if bias is None else bias
    return _layer_norm(input.ndim - len(normalized_shape), eps)(input, gain, shift)[0]


@cache
def _layer_norm(axis: int, eps: float) -> Any:
    return ops.LayerNorm(axis, axis, eps)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution [N, I, H, W] × [O, I / groups, k, l]."""
    outputs, _, *kernel = weight.shape
    result = _conv2d(outputs, tuple(kernel), _two(stride), _two(padding), _two(dilation), groups)(input, weight)
    return result if bias is None else ops.bias_add(result, bias)


@cache
def _conv2d(
    outputs: int,
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Any:
    (h, w) = padding
    return ops.Conv2D(outputs, kernel, pad_mode="pad", pad=(h, h, w, w), stride=stride, dilation=dilation, group=groups)


def avg_pool2d(input: Tensor, kernel_size: int) -> Tensor:
    """Means of squares side by side, which divide the image [N, C, H, W]."""
    n, c, h, w = input.shape
    return input.reshape(n, c, h // kernel_size, kernel_size, w // kernel_size, kernel_size).mean((3, 5))


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """An image [N, C, H, W] in another size."""
    if mode == "bilinear":
        return ops.interpolate(input, size=tuple(size), mode=mode, align_corners=bool(align_corners))
    return _interpolate(input, size, scale_factor, mode, align_corners)


_interpolate = mint.nn.functional.interpolate


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _conv2d_cell(self: Any, input: Tensor) -> Tensor:
    return conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def _avg_pool2d_cell(self: Any, input: Tensor) -> Tensor:
    assert self.kernel_size == self.stride and not self.padding, "no family's pooling overlaps"
    return avg_pool2d(input, self.kernel_size)


def _nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    found = ops.nonzero(input)
    return tuple(found[:, axis] for axis in range(input.ndim)) if as_tuple else found


def _unique(input: Tensor) -> Tensor:
    return ops.unique(input)[0]


def _randn(*size: int, **_: Any) -> Tensor:
    return ops.randn(*size)


def _layer_norm_cell(self: Any, input: Tensor) -> Tensor:
    return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


def _embedding_cell(self: Any, input: Tensor) -> Tensor:
    return embedding(input, self.weight, self.padding_idx)


def _split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    return ops.split(tensor, split_size_or_sections, dim)


def _gated(self: Any, hidden_states: Tensor) -> Tensor:
    both = self.proj(hidden_states)
    states, gate = ops.split(both, both.shape[-1] // 2, -1)
    return states * self.gelu(gate)


def install() -> bool:
    """Put the functions in their places if the device target is the CPU; returns whether it is."""
    if ms.get_context("device_target") != "CPU":
        return False
    mint.arange, mint.full, mint.stack, mint.unbind = arange, full, stack, unbind
    mint.outer, mint.einsum, mint.split = outer, einsum, _split  # the last for the compiler alone
    mint.randn, mint.exp, mint.unique = _randn, exp, _unique
    mint.ones_like, mint.tril, mint.norm = ones_like, tril, norm
    Tensor.repeat_interleave, Tensor.nonzero = repeat_interleave, _nonzero
    functional = mint.nn.functional
    functional.pad, functional.gelu, functional.layer_norm, functional.conv2d = pad, gelu, layer_norm, conv2d
    functional.interpolate = interpolate
    mint.nn.Conv2d.construct = _conv2d_cell
    mint.nn.AvgPool2d.construct = _avg_pool2d_cell
    mint.nn.LayerNorm.construct = _layer_norm_cell
    mint.nn.Embedding.construct = _embedding_cell
    return True


def install_in_mindone(dispatch: Any, activations: Any, processors: Any) -> None:
    """Let mindone's newer transformers, whose attention is Ascend's in fp16 on any device, have a CPU's in float32; and
    its gated layers do without `Tensor.chunk`, which the CPU's compiler lacks; and its attention have masks.

    Args:
        dispatch: `mindone.diffusers.models.attention_dispatch`, which looks its function up at each call.
        activations: `mindone.diffusers.models.activations`.
        processors: `mindone.diffusers.models.attention_processor`.
    """
    if ms.get_context("device_target") == "CPU":
        dispatch.scaled_dot_product_attention = scaled_dot_product_attention
        activations.GEGLU.construct = _gated
        plain = processors.Attention.math_attention_op

        def math_attention_op(self: Any, query: Any, key: Any, value: Any, attn_mask: Any = None) -> Any:
            if attn_mask is None:
                return plain(self, query, key, value)
            return scaled_dot_product_attention(query, key, value, attn_mask)

        processors.Attention.math_attention_op = math_attention_op
