"""The pass through a UNet with cross-attention (diffusers' UNet2DConditionModel), without numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tape import Tape, Tensor


def pass_unet(tape: Tape, config: Mapping[str, Any], height: int, width: int, tokens: int) -> None:
    """One sample's.

    Args:
        config: the network's own configuration.
        height: of the latent.
        width: of the latent.
        tokens: of the words.
    """
    unet = _UNet(tape, config, tokens)
    channels, layers = unet.channels, unet.per_block("layers_per_block", 2)
    down, up = (list(config.get(f"{way}_block_types") or ()) for way in ("down", "up"))
    area, before = height * width, channels[0]
    given = int(config.get("in_channels") or 4)
    x = tape.conv(tape.tensor(given * area), area, before, 9 * given)
    skips = [(x, before, tape.place)]
    for i, c in enumerate(channels):
        for _ in range(layers[i]):
            x, before = unet.layer(x, before, c, area, i, down[i]), c
            skips.append((x, c, tape.place))
        if i + 1 < len(channels):
            x, area = unet.halved(x, c, area, down[i]), area // 4
            skips.append((x, c, tape.place))
    tape.held = sum(skip.bytes for skip, *_ in skips)
    x = unet.resnet(x, before, before, area, recomputed=False)
    x = unet.attention(x, before, area, len(channels) - 1, config.get("mid_block_type") or "UNetMidBlock2DCrossAttn")
    x = unet.resnet(x, before, before, area)
    for i, c in enumerate(reversed(channels)):
        level = len(channels) - 1 - i
        for _ in range(layers[level] + 1):
            skip, more, place = skips.pop()
            both = tape.cat(x, skip)
            tape.skipped(place, skip, both)
            x, before = unet.layer(both, before + more, c, area, level, up[i]), c
        if level:
            x, area = unet.doubled(x, c, area, up[i]), area * 4
    tape.conv(tape.act(tape.norm(x)), area, int(config.get("out_channels") or 4), 9 * before)


class _UNet:
    def __init__(self, tape: Tape, config: Mapping[str, Any], tokens: int):
        self.tape, self.config = tape, config
        self.channels = [int(c) for c in config.get("block_out_channels") or (320, 640, 1280, 1280)]
        self.depth = self.per_block("transformer_layers_per_block", 1)
        heads = "num_attention_heads" if config.get("num_attention_heads") else "attention_head_dim"
        self.heads = self.per_block(heads, 8)
        cross = config.get("cross_attention_dim") or 768
        self.tokens = tokens
        self.words = tape.tensor(tokens * int(cross if isinstance(cross, int) else cross[0]), 4)
        self.scales = config.get("resnet_time_scale_shift") == "scale_shift"

    def per_block(self, name: str, usual: int) -> list[int]:
        """A setting for each level, of which files may have one number for all."""
        value = self.config.get(name)
        value = usual if value is None else value
        return [value] * len(self.channels) if isinstance(value, int) else [int(v) for v in value]

    def layer(self, x: Tensor, given: int, c: int, area: int, level: int, block: str) -> Tensor:
        """A ResNet, and attention where blocks of this class have it."""
        return self.attention(self.resnet(x, given, c, area), c, area, level, block)

    def halved(self, x: Tensor, c: int, area: int, block: str) -> Tensor:
        if "Resnet" in block or "Simple" in block:
            return self.resnet(x, c, c, area, to=area // 4, recomputed=False)
        return self.tape.conv(x, area // 4, c, 9 * c)

    def doubled(self, x: Tensor, c: int, area: int, block: str) -> Tensor:
        if "Resnet" in block or "Simple" in block:
            return self.resnet(x, c, c, area, to=area * 4, recomputed=False)
        return self.tape.conv(self.tape.part(x, c * area * 4), area * 4, c, 9 * c)

    def resnet(
        self, x: Tensor, given: int, c: int, area: int, *, to: int | None = None, recomputed: bool = True
    ) -> Tensor:
        """A ResNet from `given` to `c` channels, which may scale its image to another area on the way."""
        if not recomputed:
            return self._resnet(x, given, c, area, to or area)
        with self.tape.segment(x):
            return self._resnet(x, given, c, area, to or area)

    def _resnet(self, x: Tensor, given: int, c: int, area: int, to: int) -> Tensor:
        tape = self.tape
        y = tape.act(tape.norm(x))
        if to != area:
            x, y = (tape.scaled(part, given * to, pools=to < area) for part in (x, y))
        y = tape.conv(y, to, c, 9 * given)
        time = tape.tensor(c, grad=tape.trains)
        y = tape.times(tape.norm(y)) if self.scales else tape.norm(tape.add(y, time))
        y = tape.conv(tape.act(y), to, c, 9 * c)
        return tape.add(tape.conv(x, to, c, given) if given != c else x, y)

    def attention(self, x: Tensor, c: int, area: int, level: int, block: str) -> Tensor:
        """What blocks of a class have of it."""
        if "Simple" in block:
            return self._joint(x, c, area, c // self.heads[level])
        return self._transformer(x, c, area, level) if "CrossAttn" in block else x

    def _joint(self, x: Tensor, c: int, area: int, heads: int) -> Tensor:
        """DeepFloyd IF's attention: words and image at once."""
        tape, z = self.tape, self.tape.norm(x)
        q, k, v = (tape.linear(z, area, c, name) for name in ("to_q", "to_k", "to_v"))
        words = [tape.linear(self.words, self.tokens, c, name) for name in ("add_k_proj", "add_v_proj")]
        k, v = (tape.cat(word, part) for word, part in zip(words, (k, v), strict=True))
        return tape.add(x, tape.linear(tape.attention(q, k, v, heads, area), area, c, "to_out.0"))

    def _transformer(self, x: Tensor, c: int, area: int, level: int) -> Tensor:
        tape, count = self.tape, c * area
        linear = bool(self.config.get("use_linear_projection"))
        y = tape.norm(x)
        y = tape.linear(y, area, c, "proj_in") if linear else tape.part(tape.conv(y, area, c, c), count)
        for _ in range(self.depth[level]):
            with tape.segment(y):
                y = self._block(y, c, area, self.heads[level])
        y = tape.linear(y, area, c, "proj_out") if linear else tape.conv(tape.part(y, count), area, c, c)
        return tape.add(x, y)

    def _block(self, y: Tensor, c: int, area: int, heads: int) -> Tensor:
        tape = self.tape
        for number, words in ((1, None), (2, self.words)):
            name, z = f"attn{number}", tape.norm(y)
            source, n = (z, area) if words is None else (words, self.tokens)
            q = tape.linear(z, area, c, f"{name}.to_q")
            k, v = (tape.linear(source, n, c, f"{name}.to_{part}") for part in "kv")
            y = tape.add(tape.linear(tape.attention(q, k, v, heads, area), area, c, f"{name}.to_out.0"), y)
        z = tape.gated(tape.linear(tape.norm(y), area, 8 * c, "ff.net.0.proj"))
        return tape.add(tape.linear(z, area, c, "ff.net.2"), y)
