"""The pass through the transformer of Flux.2, without numbers: wider words, gated activations, and single blocks whose
projections are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tape import Tape, Tensor
from .transformer import Transformer


def pass_flux_2(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's; arguments as `transformer.pass_transformer` has them."""
    heads, head = int(config.get("num_attention_heads") or 48), int(config.get("attention_head_dim") or 128)
    dim, n = heads * head, height * width // 4
    net = _Flux2(tape, heads, dim, n, tokens, True, None, float(config.get("mlp_ratio") or 3.0))
    channels = int(config.get("in_channels") or 128)
    x = tape.linear(tape.tensor(channels * n, 4), n, dim, "x_embedder")
    words = tape.tensor(tokens * int(config.get("joint_attention_dim") or 15360), 4)
    y = tape.linear(words, tokens, dim, "context_embedder")
    for i in range(int(config.get("num_layers") or 8)):
        with tape.segment(x, y):
            x, y = net.joint(x, y, f"transformer_blocks.{i}.", dual=False, last=False)
    both = tape.cat(y, x)
    for i in range(int(config.get("num_single_layers") or 48)):
        with tape.segment(both):
            both = net.fused(both, f"single_transformer_blocks.{i}.attn.")
    tape.linear(net.scaled(tape.part(both, n * dim)), n, channels, "proj_out")


@dataclass(frozen=True)
class _Flux2(Transformer):
    wider: float
    """Of the feed-forward layers."""

    def fused(self, both: Tensor, at: str) -> Tensor:
        """A block of image and words in one, in two products with matrices."""
        tape, n, wide = self.tape, self.n + self.m, int(self.dim * self.wider)
        made = tape.linear(self.scaled(both), n, 3 * self.dim + 2 * wide, f"{at}to_qkv_mlp_proj")
        q, k, v = (tape.view(made, n * self.dim) for _ in range(3))
        out = tape.attention(self._turned(self._rms(q)), self._turned(self._rms(k)), v, self.heads, n)
        gated = tape.gated(tape.view(made, 2 * n * wide))
        answer = tape.linear(tape.cat(out, gated), n, self.dim, f"{at}to_out")
        return tape.add(both, tape.times(answer))

    def _rms(self, x: Tensor) -> Tensor:
        """PyTorch's own, which on a CPU is two products."""
        return self.tape.times(self.tape.norm(x, affine=False))

    def _forward(self, x: Tensor, n: int, name: str) -> Tensor:
        tape, wide = self.tape, int(self.dim * self.wider)
        made = tape.gated(tape.linear(self.scaled(x), n, 2 * wide, f"{name}.linear_in"))
        return tape.add(x, tape.times(tape.linear(made, n, self.dim, f"{name}.linear_out")))
