"""The passes through the transformers of Krea 2 and ERNIE-Image, which read words and image in one row, without
numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tape import Tape, Tensor
from .transformer import Transformer


def pass_krea_2(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's; arguments as `transformer.pass_transformer` has them."""
    heads, kv = int(config.get("num_attention_heads") or 48), int(config.get("num_key_value_heads") or 12)
    dim, channels = heads * int(config.get("attention_head_dim") or 128), int(config.get("in_channels") or 64)
    n, states = height * width // 4, int(config.get("num_text_layers") or 12)
    told = tape.tensor(int(config.get("timestep_embed_dim") or 256))
    told = tape.linear(tape.act(tape.linear(told, 1, dim, "time_embed.linear_1")), 1, dim, "time_embed.linear_2")
    told = tape.linear(tape.act(told), 1, 6 * dim, "time_mod_proj")
    net = _Krea(tape, heads, kv, dim, int(config.get("intermediate_size") or 16384), told)
    own, own_wide = int(config.get("text_hidden_dim") or 2560), int(config.get("text_intermediate_size") or 6912)
    own_heads, own_kv = (int(config.get(f"text_num_{kind}_heads") or 20) for kind in ("attention", "key_value"))
    text, y = _Krea(tape, own_heads, own_kv, own, own_wide, None), tape.tensor(tokens * states * own, 4)
    for i in range(int(config.get("num_layerwise_text_blocks") or 2)):
        y = text.block(y, tokens * states, f"text_fusion.layerwise_blocks.{i}.")
    y = tape.linear(y, tokens * own, 1, "text_fusion.projector")
    for i in range(int(config.get("num_refiner_text_blocks") or 2)):
        y = text.block(y, tokens, f"text_fusion.refiner_blocks.{i}.")
    y = tape.act(tape.linear(_normed(tape, y), tokens, dim, "txt_in.linear_1"))
    y = tape.linear(y, tokens, dim, "txt_in.linear_2")
    x = tape.cat(y, tape.linear(tape.tensor(n * channels, 4), n, dim, "img_in"))
    for i in range(int(config.get("num_layers") or 28)):
        with tape.segment(x):
            x = net.block(x, n + tokens, f"transformer_blocks.{i}.")
    tape.linear(net.scaled(tape.view(x, n * dim)), n, channels, "final_layer.linear")


@dataclass(frozen=True)
class _Krea:
    tape: Tape
    heads: int
    kv_heads: int
    dim: int
    wide: int
    told: Tensor | None
    """What blocks are modulated by; None where they are not."""

    def block(self, x: Tensor, n: int, at: str) -> Tensor:
        """Attention, its answer gated, and a gated product."""
        tape, kv = self.tape, self.dim // self.heads * self.kv_heads
        z = self.scaled(x)
        q, k = tape.linear(z, n, self.dim, f"{at}attn.to_q"), tape.linear(z, n, kv, f"{at}attn.to_k")
        v = tape.linear(z, n, kv, f"{at}attn.to_v")
        gate = tape.linear(z, n, self.dim, f"{at}attn.to_gate")
        q, k = (tape.part(_normed(tape, t), n * self.dim) for t in (q, k))
        if kv < self.dim:
            v = tape.part(v, n * self.dim)
        out, gate = tape.attention(q, k, v, self.heads, n), tape.part(gate, gate.count)
        if out.grad or gate.grad:
            tape.keep(out, gate)
        x = self.added(x, tape.linear(tape.add(out, gate), n, self.dim, f"{at}attn.to_out.0"))
        z = self.scaled(x)
        return self.added(x, _gated(tape, z, n, self.wide, self.dim, (f"{at}ff.gate", f"{at}ff.up", f"{at}ff.down")))

    def scaled(self, x: Tensor) -> Tensor:
        normed = _normed(self.tape, x)
        return normed if self.told is None else self.tape.times(normed, by_weight=self.told.grad)

    def added(self, x: Tensor, y: Tensor) -> Tensor:
        return self.tape.add(x, y if self.told is None else self.tape.times(y, by_weight=self.told.grad))


def _normed(tape: Tape, x: Tensor) -> Tensor:
    """PyTorch's RMS normalisation on a CPU: its weight is a product of its own."""
    return tape.times(tape.norm(x))


def _gated(tape: Tape, x: Tensor, n: int, wide: int, dim: int, names: tuple[str, str, str]) -> Tensor:
    """down(act(gate(x)) · up(x)) of n tokens."""
    gate, up, down = names
    opened, made = tape.act(tape.linear(x, n, wide, gate)), tape.linear(x, n, wide, up)
    if opened.grad or made.grad:
        tape.keep(opened, made)
    return tape.linear(tape.tensor(n * wide, made.each, grad=opened.grad or made.grad), n, dim, down)


def pass_ernie_image(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's, whose scales, shifts and gates are spread over all tokens; arguments as above."""
    dim, heads = int(config.get("hidden_size") or 3072), int(config.get("num_attention_heads") or 24)
    wide, channels = int(config.get("ffn_hidden_size") or 8192), int(config.get("in_channels") or 128)
    n = height * width // 4
    x = tape.conv(tape.tensor(n * channels, 4), n, dim, channels)
    y = tape.linear(tape.tensor(tokens * int(config.get("text_in_dim") or 2560), 4), tokens, dim, "text_proj")
    told = tape.linear(tape.act(tape.linear(tape.tensor(dim), 1, dim, "linear_1")), 1, dim, "time_embedding.linear_2")
    told = tape.linear(tape.act(told), 1, 6 * dim, "adaLN_modulation.1")
    s = n + tokens
    spread = [tape.tensor(s * dim, told.each, grad=told.grad) for _ in range(6)]
    net, x = _Ernie(tape, heads, dim, wide, s, spread), tape.cat(x, y)
    for i in range(int(config.get("num_layers") or 24)):
        with tape.segment(x):
            x = net.block(x, f"layers.{i}.")
    tape.linear(tape.times(tape.norm(x, affine=False)), s, channels, "final_linear")


@dataclass(frozen=True)
class _Ernie:
    tape: Tape
    heads: int
    dim: int
    wide: int
    n: int
    spread: list[Tensor]

    def block(self, x: Tensor, at: str) -> Tensor:
        tape, n, (_, _, first, _, _, second) = self.tape, self.n, self.spread
        z, own = self._scaled(x), f"{at}self_attention."
        q, k = (_normed(tape, tape.linear(z, n, self.dim, f"{own}{name}")) for name in ("to_q", "to_k"))
        v = tape.linear(z, n, self.dim, f"{own}to_v")
        for turned in (q, k):
            if turned.grad:  # cosines and sines of each block's own
                tape.keep(*(tape.tensor(n * self.dim // self.heads) for _ in range(2)))
        q, k = tape.part(q, q.count), tape.part(k, k.count)
        out = tape.attention(q, k, v, self.heads, n)
        x = self._added(x, tape.linear(out, n, self.dim, f"{own}to_out.0"), first)
        names = f"{at}mlp.gate_proj", f"{at}mlp.up_proj", f"{at}mlp.linear_fc2"
        return self._added(x, _gated(tape, self._scaled(x), n, self.wide, self.dim, names), second)

    def _scaled(self, x: Tensor) -> Tensor:
        """Normalised, times 1 + scale, of which each has its own sum, in float32."""
        normed = Transformer(self.tape, 0, 0, 0, 0, True, None)._rms(x)
        if normed.grad:
            self.tape.keep(self.tape.tensor(x.count, 4))
        made = self.tape.times(normed, by_weight=self.spread[0].grad)
        return self.tape.tensor(x.count, x.each, grad=made.grad)

    def _added(self, x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
        if y.grad:
            self.tape.keep(gate)
        return self.tape.add(x, self.tape.times(y, by_weight=gate.grad))
