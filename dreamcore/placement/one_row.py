"""The passes through the transformers of Qwen-Image, whose blocks are Flux's, and of Lumina 2 and Z-Image, which read
words and image in one row after they have refined each; without numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tape import Tape, Tensor
from .transformer import Transformer


def pass_qwen_image(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's; arguments as `transformer.pass_transformer` has them."""
    heads, head = int(config.get("num_attention_heads") or 24), int(config.get("attention_head_dim") or 128)
    dim, n, channels = heads * head, height * width // 4, int(config.get("in_channels") or 64)
    net = _QwenImage(tape, heads, dim, n, tokens, True, None)
    x = tape.linear(tape.tensor(channels * n, 4), n, dim, "img_in")
    words = net._rms(tape.tensor(tokens * int(config.get("joint_attention_dim") or 3584), 4))
    y = tape.linear(words, tokens, dim, "txt_in")
    layers = int(config.get("num_layers") or 60)
    for i in range(layers):
        with tape.segment(x, y):
            x, y = net.joint(x, y, f"transformer_blocks.{i}.", dual=False, last=False)
    tape.linear(net.scaled(x), n, channels, "proj_out")


class _QwenImage(Transformer):
    def _forward(self, x: Tensor, n: int, name: str) -> Tensor:
        ours = {"ff": "img_mlp", "ff_context": "txt_mlp"}
        at, _, own = name.rpartition(".")
        return super()._forward(x, n, f"{at}.{ours[own]}")


def pass_lumina_2(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's; arguments as `transformer.pass_transformer` has them."""
    dim, step = int(config.get("hidden_size") or 2304), int(config.get("multiple_of") or 256)
    wide = int(4 * dim * float(config.get("ffn_dim_multiplier") or 1.0))
    heads = int(config.get("num_attention_heads") or 24)
    net = _OneRow(tape, heads, int(config.get("num_kv_heads") or 8), dim, -(-wide // step) * step, _LUMINA)
    depth = int(config.get("num_refiner_layers") or 2), int(config.get("num_layers") or 26)
    sizes = int(config.get("cap_feat_dim") or 1024), int(config.get("in_channels") or 16)
    net.walk(depth, sizes, height * width // int(config.get("patch_size") or 2) ** 2, tokens)


def pass_z_image(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's, whose image and words are each filled up to multiples of 32 tokens."""
    dim, heads = int(config.get("dim") or 3840), int(config.get("n_heads") or 30)
    net = _OneRow(tape, heads, heads, dim, int(dim / 3 * 8), _Z)
    depth = int(config.get("n_refiner_layers") or 2), int(config.get("n_layers") or 30)
    sizes = int(config.get("cap_feat_dim") or 2560), int(config.get("in_channels") or 16)
    n = height * width // min(config.get("all_patch_size") or [2]) ** 2
    net.walk(depth, sizes, -(-n // 32) * 32, -(-tokens // 32) * 32)


_LUMINA = ("attn.", "feed_forward.linear_1", "feed_forward.linear_3", "feed_forward.linear_2")
_Z = ("attention.", "feed_forward.w1", "feed_forward.w3", "feed_forward.w2")


@dataclass(frozen=True)
class _OneRow:
    tape: Tape
    heads: int
    kv_heads: int
    dim: int
    wide: int
    """Width between a feed-forward's products."""
    names: tuple[str, str, str, str]

    def walk(self, depth: tuple[int, int], sizes: tuple[int, int], n: int, m: int) -> None:
        """The whole pass.

        Args:
            depth: blocks of each refiner, and after them.
            sizes: width of the words, channels of the latents.
            n: tokens of the image.
            m: tokens of the words.
        """
        tape, (refiners, layers), (width, channels) = self.tape, depth, sizes
        x = tape.linear(tape.tensor(4 * channels * n, 4), n, self.dim, "x_embedder")
        y = tape.linear(self._rms(tape.tensor(width * m, 4)), m, self.dim, "caption_embedder")
        for i in range(refiners):
            y = self.block(y, m, f"context_refiner.{i}.", modulated=False)
            x = self.block(x, n, f"noise_refiner.{i}.", modulated=True)
        both = tape.cat(y, x)
        for i in range(layers):
            with tape.segment(both):
                both = self.block(both, n + m, f"layers.{i}.", modulated=True)
        tape.linear(tape.times(tape.norm(both, affine=False)), n + m, 4 * channels, "final_layer")

    def block(self, x: Tensor, n: int, at: str, *, modulated: bool) -> Tensor:
        """Attention and feed-forward, each between two normalisations."""
        tape, (attention, gate, value, back) = self.tape, self.names
        kv = self.dim // self.heads * self.kv_heads
        if modulated:  # scales and gates are made of the timestep, in at most so many numbers
            tape.weigh(4 * self.dim * min(self.dim, 1024))
        z = self._scaled(x, modulated)
        q = self._rms(tape.linear(z, n, self.dim, f"{at}{attention}to_q"))
        k = self._rms(tape.linear(z, n, kv, f"{at}{attention}to_k"))
        v = tape.linear(z, n, kv, f"{at}{attention}to_v")
        k, v = (tape.part(t, n * self.dim) if kv < self.dim else t for t in (k, v))
        out = tape.attention(tape.part(q, q.count), tape.part(k, k.count), v, self.heads, n)
        x = tape.add(x, self._scaled(tape.linear(out, n, self.dim, f"{at}{attention}to_out.0"), modulated))
        z = self._scaled(x, modulated)
        gated = tape.act(tape.linear(z, n, self.wide, at + gate))
        other = tape.linear(z, n, self.wide, at + value)
        if gated.grad:
            tape.keep(gated, other)
        made = tape.tensor(gated.count, gated.each, grad=gated.grad or other.grad)
        return tape.add(x, self._scaled(tape.linear(made, n, self.dim, at + back), modulated))

    def _scaled(self, x: Tensor, modulated: bool) -> Tensor:
        normed = self._rms(x)
        return self.tape.times(normed) if modulated else normed

    def _rms(self, x: Tensor) -> Tensor:
        return Transformer(self.tape, 0, 0, 0, 0, True, None)._rms(x)
