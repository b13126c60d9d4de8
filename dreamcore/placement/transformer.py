"""The pass through the transformers of Stable Diffusion 3, Flux and Chroma, without numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .tape import Tape, Tensor


def pass_transformer(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's.

    Args:
        config: the network's own configuration.
        height: of the latent.
        width: of the latent.
        tokens: of the words.
    """
    chroma = config.get("_class_name") == "ChromaTransformer2DModel"
    flux = chroma or config.get("_class_name") == "FluxTransformer2DModel"
    side = 2 if flux else int(config.get("patch_size") or 2)
    heads, head = int(config.get("num_attention_heads") or 18), int(config.get("attention_head_dim") or 64)
    net = Transformer(
        tape, heads, heads * head, height * width // side**2, tokens, flux, config.get("qk_norm"), masked=chroma
    )
    dim, layers = heads * head, int(config.get("num_layers") or (19 if flux else 18))
    given = tape.tensor(int(config.get("in_channels") or 64) * (net.n if flux else height * width), 4)
    x = tape.linear(given, net.n, dim, "x_embedder") if flux else tape.conv(given, net.n, dim, given.count // net.n)
    words = tape.tensor(tokens * int(config.get("joint_attention_dim") or 4096), 4)
    y = tape.linear(words, tokens, dim, "context_embedder")
    dual = {int(i) for i in config.get("dual_attention_layers") or ()}
    for i in range(layers):
        with tape.segment(x, y):
            x, y = net.joint(x, y, f"transformer_blocks.{i}.", dual=i in dual, last=not flux and i + 1 == layers)
    for i in range(int(config.get("num_single_layers") or 38) if flux else 0):
        with tape.segment(x, y):
            x, y = net.single(x, y, f"single_transformer_blocks.{i}.")
    tape.linear(net.scaled(x), net.n, int(config.get("in_channels") or 64), "proj_out")


@dataclass(frozen=True)
class Transformer:
    """One of them, being passed."""

    tape: Tape
    heads: int
    dim: int
    n: int
    """Tokens of the image."""
    m: int
    """Tokens of the words."""
    flux: bool
    qk_norm: Any
    masked: bool = field(default=False, kw_only=True)
    """Whether each block makes a mask for its attention, of every token for every token."""

    def scaled(self, x: Tensor) -> Tensor:
        """Normalised, times (1 + scale), plus shift."""
        return self.tape.times(self.tape.norm(x, affine=False))

    def joint(self, x: Tensor, y: Tensor, at: str, *, dual: bool, last: bool) -> tuple[Tensor, Tensor]:
        """A block of image and words, of which the last gives no words on."""
        tape, n, m = self.tape, self.n, self.m
        normed = tape.norm(x, affine=False)
        tape.weigh((9 if dual else 6) * self.dim**2)  # its scales, shifts and gates are made of the timestep
        z, words = tape.times(normed), self.scaled(y)
        mine = self._projected(z, n, at, ("attn.to_q", "attn.to_k", "attn.to_v"))
        theirs = self._projected(words, m, at, ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"))
        q, k, v = (tape.cat(a, b) for a, b in zip(theirs, mine, strict=True))
        if self.flux:
            q, k = (self._turned(t) for t in (q, k))
        out = self._masked(tape.attention(q, k, v, self.heads, n + m))
        cut = tape.view if self.flux else tape.part  # where it lies, or copied
        image = cut(out, n * self.dim)
        x = tape.add(x, tape.times(tape.linear(image, n, self.dim, f"{at}attn.to_out.0")))
        if dual:
            q, k, v = self._projected(tape.times(normed), n, at, ("attn2.to_q", "attn2.to_k", "attn2.to_v"))
            own = tape.attention(q, k, v, self.heads, n)
            x = tape.add(x, tape.times(tape.linear(own, n, self.dim, f"{at}attn2.to_out.0")))
        x = self._forward(x, n, f"{at}ff")
        if last:
            return x, y
        text = tape.linear(cut(out, m * self.dim), m, self.dim, f"{at}attn.to_add_out")
        return x, self._forward(tape.add(y, tape.times(text)), m, f"{at}ff_context")

    def single(self, x: Tensor, y: Tensor, at: str) -> tuple[Tensor, Tensor]:
        """Flux's block of image and words in one."""
        tape, n = self.tape, self.n + self.m
        both = tape.cat(y, x)
        z = self.scaled(both)
        wide = tape.act(tape.linear(z, n, 4 * self.dim, f"{at}proj_mlp"))
        q, k, v = self._projected(z, n, at, ("attn.to_q", "attn.to_k", "attn.to_v"))
        out = self._masked(tape.attention(self._turned(q), self._turned(k), v, self.heads, n))
        both = tape.add(both, tape.times(tape.linear(tape.cat(out, wide), n, self.dim, f"{at}proj_out")))
        return tape.part(both, self.n * self.dim), tape.part(both, self.m * self.dim)

    def _projected(self, z: Tensor, n: int, at: str, names: tuple[str, ...]) -> list[Tensor]:
        """Queries, keys and values; queries and keys normalised where the model does so."""
        q, k, v = (self.tape.linear(z, n, self.dim, at + name) for name in names)
        return [self._rms(q), self._rms(k), v] if self.flux or self.qk_norm else [q, k, v]

    def _masked(self, out: Tensor) -> Tensor:
        if self.masked and out.grad:
            self.tape.keep(self.tape.tensor((self.n + self.m) ** 2))
        return out

    def _rms(self, x: Tensor) -> Tensor:
        """x / √mean x², of a copy in float32, times weights: in plain products, as diffusers and a CPU have it."""
        tape, copy = self.tape, x if x.each == 4 else self.tape.tensor(x.count, 4, grad=x.grad)
        if x.grad:
            tape.keep(copy, x)
        answer = tape.times(tape.tensor(x.count, 4, grad=x.grad))
        return tape.tensor(x.count, x.each, grad=answer.grad)

    def _turned(self, x: Tensor) -> Tensor:
        """Turned by its position; nothing is kept, for angles do not train."""
        return self.tape.part(x, x.count)

    def _forward(self, x: Tensor, n: int, name: str) -> Tensor:
        tape = self.tape
        wide = tape.act(tape.linear(self.scaled(x), n, 4 * self.dim, f"{name}.net.0.proj"))
        return tape.add(x, tape.times(tape.linear(wide, n, self.dim, f"{name}.net.2")))
