"""What ppdiffusers calls and Paddle lacks on a CPU: attention under the name that GPU builds have it by (SD3)."""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle.nn import functional


def attention(
    query: paddle.Tensor,
    key: paddle.Tensor,
    value: paddle.Tensor,
    attn_mask: paddle.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> paddle.Tensor:
    """Scaled dot-product attention (1706.03762, equation 1) of [B, tokens, heads, width] each."""
    assert not dropout_p and not is_causal, "the networks that are trained here ask for neither"
    q, k, v = (t.transpose([0, 2, 1, 3]) for t in (query, key, value))
    scores = paddle.matmul(q * (scale or 1 / math.sqrt(q.shape[-1])), k, transpose_y=True)
    if attn_mask is not None:
        scores = scores + attn_mask.cast(scores.dtype)
    return paddle.matmul(functional.softmax(scores, axis=-1), v).transpose([0, 2, 1, 3])


def install() -> None:
    """Lend Paddle what it lacks."""
    if not hasattr(functional, "scaled_dot_product_attention_"):
        functional.scaled_dot_product_attention_ = attention
