"""The pass through HiDream's transformer, of image and words, then of both in one row, by experts; without numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tape import Tape, Tensor
from .transformer import Transformer


def pass_hidream(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's; arguments as `transformer.pass_transformer` has them, `tokens` of T5's words: of Llama's, each
    block sees as many, and its last ones besides."""
    heads, head = int(config.get("num_attention_heads") or 20), int(config.get("attention_head_dim") or 128)
    side, channels = int(config.get("patch_size") or 2), int(config.get("in_channels") or 16)
    experts = int(config.get("num_activated_experts") or 2)
    n, dim, doubles = height * width // side**2, heads * head, int(config.get("num_layers") or 16)
    singles = int(config.get("num_single_layers") or 32)
    net = _HiDream(tape, heads, dim, n, 3 * tokens, experts)
    x = tape.linear(tape.tensor(channels * side**2 * n, 4), n, dim, "x_embedder.proj")
    llama, t5 = (int(config["caption_channels"][i]) for i in (1, 0))
    words = [
        tape.linear(tape.tensor(tokens * llama, 4), tokens, dim, f"p.{i}.linear") for i in range(doubles + singles)
    ]
    y = tape.cat(tape.linear(tape.tensor(tokens * t5, 4), tokens, dim, "p.linear"), words[-1])
    for i in range(doubles):
        with tape.segment(x, y):
            x, text = net.double(x, tape.cat(y, words[i]), f"double_stream_blocks.{i}.block.")
            y = tape.view(text, 2 * tokens * dim)
    both = tape.cat(x, y)
    for i in range(doubles, doubles + singles):
        with tape.segment(both):
            whole = net.single(tape.cat(both, words[i]), f"single_stream_blocks.{i - doubles}.block.")
            both = tape.view(whole, (n + 2 * tokens) * dim)
    tape.linear(net.plain.scaled(tape.part(both, n * dim)), n, channels * side**2, "final_layer.linear")


@dataclass(frozen=True)
class _HiDream:
    tape: Tape
    heads: int
    dim: int
    n: int
    """Tokens of the image."""
    m: int
    """Tokens of the words that a block sees."""
    experts: int
    """At work on a token."""

    @property
    def plain(self) -> Transformer:
        return Transformer(self.tape, self.heads, self.dim, self.n, self.m, True, None)

    def double(self, x: Tensor, y: Tensor, at: str) -> tuple[Tensor, Tensor]:
        tape, n, m, net = self.tape, self.n, self.m, self.plain
        tape.weigh(12 * self.dim**2)  # its scales, shifts and gates are made of the timestep
        names = [("attn1.to_q", "attn1.to_k", "attn1.to_v"), ("attn1.to_q_t", "attn1.to_k_t", "attn1.to_v_t")]
        mine, theirs = net._projected(net.scaled(x), n, at, names[0]), net._projected(net.scaled(y), m, at, names[1])
        q, k, v = (tape.cat(a, b) for a, b in zip(mine, theirs, strict=True))
        out = tape.attention(q, k, v, self.heads, n + m)
        image, text = tape.part(out, n * self.dim), tape.part(out, m * self.dim)
        x = tape.add(x, tape.times(tape.linear(image, n, self.dim, f"{at}attn1.to_out")))
        y = tape.add(y, tape.times(tape.linear(text, m, self.dim, f"{at}attn1.to_out_t")))
        x = tape.add(x, tape.times(self.by_experts(net.scaled(x), n, f"{at}ff_i.")))
        return x, tape.add(y, tape.times(self.gated(net.scaled(y), m, 4 * self.dim, f"{at}ff_t.")))

    def single(self, both: Tensor, at: str) -> Tensor:
        tape, net, n = self.tape, self.plain, self.n + self.m
        tape.weigh(6 * self.dim**2)
        q, k, v = net._projected(net.scaled(both), n, at, ("attn1.to_q", "attn1.to_k", "attn1.to_v"))
        out = tape.linear(tape.attention(q, k, v, self.heads, n), n, self.dim, f"{at}attn1.to_out")
        both = tape.add(both, tape.times(out))
        return tape.add(both, tape.times(self.by_experts(net.scaled(both), n, f"{at}ff_i.")))

    def by_experts(self, z: Tensor, n: int, at: str) -> Tensor:
        """Of an expert of half the width that sees every token, and of those that are chosen for it."""
        rows = self.experts * n
        chosen = self.gated(self.tape.part(z, rows * self.dim), rows, 4 * self.dim, f"{at}experts.")
        weighed = self.tape.times(self.tape.part(chosen, chosen.count), by_weight=z.grad)
        return self.tape.add(self.gated(z, n, 2 * self.dim, f"{at}shared_experts."), weighed)

    def gated(self, z: Tensor, n: int, hidden: int, at: str) -> Tensor:
        tape, wide = self.tape, -(-int(2 * hidden / 3) // 256) * 256
        gate, value = tape.act(tape.linear(z, n, wide, f"{at}w1")), tape.linear(z, n, wide, f"{at}w3")
        if gate.grad or value.grad:
            tape.keep(gate, value)
        made = tape.tensor(n * wide, grad=gate.grad or value.grad)
        return tape.linear(made, n, self.dim, f"{at}w2")
