"""The pass through SANA's transformer, whose attention is linear and whose feed-forward convolves; without numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tape import Tape, Tensor
from .transformer import Transformer


def pass_sana(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's; arguments as `transformer.pass_transformer` has them."""
    heads, head = int(config.get("num_attention_heads") or 70), int(config.get("attention_head_dim") or 32)
    cross = int(config.get("num_cross_attention_heads") or 20), int(config.get("cross_attention_head_dim") or 112)
    side, channels = int(config.get("patch_size") or 1), int(config.get("in_channels") or 32)
    n, dim = height * width // side**2, heads * head
    wide = int(float(config.get("mlp_ratio") or 2.5) * dim)
    net = Transformer(tape, heads, dim, n, tokens, True, config.get("qk_norm"))
    x = tape.conv(tape.tensor(channels * height * width, 4), n, dim, side**2 * channels)
    words = tape.tensor(tokens * int(config.get("caption_channels") or 2304), 4)
    words = tape.act(tape.linear(words, tokens, dim, "caption_projection.linear_1"))
    y = net._rms(tape.linear(words, tokens, dim, "caption_projection.linear_2"))
    for i in range(int(config.get("num_layers") or 20)):
        with tape.segment(x, y):
            x = _block(net, x, y, f"transformer_blocks.{i}.", cross, wide)
    tape.linear(net.scaled(x), n, side**2 * channels, "proj_out")


def _block(net: Transformer, x: Tensor, y: Tensor, at: str, cross: tuple[int, int], wide: int) -> Tensor:
    """Linear attention, attention to the words, and two convolutions around one of each channel by itself.

    Args:
        cross: heads, and the width of each, of the attention to the words.
        wide: channels of a half between the convolutions.
    """
    tape, n, m, dim = net.tape, net.n, net.m, net.dim
    z = net.scaled(x)
    q, k, v = (tape.linear(z, n, dim, f"{at}attn1.to_{name}") for name in "qkv")
    if net.qk_norm:
        q, k = net._rms(q), net._rms(k)
    positive = [tape.tensor(n * dim, grad=t.grad) for t in (q, k)]  # of which ReLU keeps its answers
    parts = [t if t.each == 4 else tape.tensor(n * dim, 4) for t in positive]
    out = tape.tensor(n * dim, 4, grad=q.grad or k.grad or v.grad)
    if out.grad:
        tape.keep(*positive, *parts, tape.tensor(n * dim, 4), out)
    tape.operations += 4 * (n * dim + n * net.heads) * (dim // net.heads)  # with a row of ones beneath the values
    answer = tape.tensor(n * dim, grad=out.grad)
    x = tape.add(x, tape.times(tape.linear(answer, n, dim, f"{at}attn1.to_out.0")))
    heads, inner = cross[0], cross[0] * cross[1]
    q, k, v = (
        tape.linear(t, c, inner, f"{at}attn2.to_{name}") for t, c, name in ((x, n, "q"), (y, m, "k"), (y, m, "v"))
    )
    x = tape.add(x, tape.linear(tape.attention(q, k, v, heads, n), n, dim, f"{at}attn2.to_out.0"))
    both = tape.conv(tape.act(tape.conv(net.scaled(x), n, 2 * wide, dim)), n, 2 * wide, 9)
    half, gate = tape.view(both, n * wide), tape.act(tape.view(both, n * wide))
    if both.grad:
        tape.keep(half, gate)
    made = tape.tensor(n * wide, grad=both.grad)
    return tape.add(x, tape.times(tape.conv(made, n, dim, wide)))
