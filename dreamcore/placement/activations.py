"""Bytes of activations: of training, of images in the making, of the autoencoder.

All are predicted: counted from the networks' configurations by `tape`, times constants that say what is alive at once.
Which of these were measured, and where, stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..models.folder import ModelFolder
from .flux_2 import pass_flux_2
from .hidream import pass_hidream
from .krea_ernie import pass_ernie_image, pass_krea_2
from .one_row import pass_lumina_2, pass_qwen_image, pass_z_image
from .sana import pass_sana
from .tape import Tape
from .transformer import pass_transformer
from .unet import pass_unet

BACKWARD = 3
"""Tensors of a block's largest size alive in its backward pass beside what is kept: a gradient and the next one, as
counted of UNets on tensors without memory (PyTorch 2.13; SD 1.5 and SDXL, LoRA and full), and what a convolution copies
into an order of its own (measured on a CPU; on no GPU)."""
FORWARD = 4
"""Tensors of the largest size alive at once in a pass that keeps nothing: a layer's input and answer, and what goes
around it."""
PLANES, PLANES_ON_CPU = 3, 5
"""Planes of an image at full size in float32, times channels, that the autoencoder holds: a layer's input, its
normalisation and its activation (decoding 512² so takes 0.81 GB; derived, not measured on a GPU); on a CPU, whose
convolutions copy both sides into an order of their own, as measured (PyTorch 2.13, oneDNN: 0.16 GiB at 256²)."""


WALKS = {
    "ErnieImageTransformer2DModel": pass_ernie_image,
    "Flux2Transformer2DModel": pass_flux_2,
    "HiDreamImageTransformer2DModel": pass_hidream,
    "Krea2Transformer2DModel": pass_krea_2,
    "Lumina2Transformer2DModel": pass_lumina_2,
    "QwenImageTransformer2DModel": pass_qwen_image,
    "SanaTransformer2DModel": pass_sana,
    "ZImageTransformer2DModel": pass_z_image,
}
"""By a transformer's class, the pass through it; others are Stable Diffusion 3's or Flux.1's."""


@dataclass(frozen=True)
class Arithmetic:
    """In what numbers a network computes.

    Args:
        half: whether products are computed in 16 bits.
        norms: whether normalisations answer in float32 then, as CUDA's autocasting has it.
    """

    half: bool
    norms: bool = True

    @property
    def each(self) -> int:
        return 2 if self.half else 4


@dataclass(frozen=True)
class Pass:
    """A denoiser's pass; in bytes but for `operations`."""

    kept: int
    """When the backward pass takes most: of the pass up to there, with the block that is computed again."""
    backward: int
    """Besides, while gradients are computed there."""
    gradients: int
    """Of weights, that have come by then."""
    whole: int
    """Of a weight while it is computed with, there."""
    reordered: int
    """Of a convolution's weight in an order of its own, there."""
    alone: int
    """Of a pass of one sample without gradients."""
    operations: int
    """Of that, forward."""

    def backwards(self) -> int:
        """Bytes of the backward pass when it takes most."""
        return self.kept + self.backward + self.gradients + self.whole + self.reordered


@dataclass(frozen=True)
class Costs:
    """What the backward pass holds beside activations.

    Args:
        gradients: bytes of all weights' that gather as it goes on.
        whole: bytes that a weight takes besides while it is computed with, for each of its numbers.
        reordered: the same, of a convolution's weight in an order of its own.
    """

    gradients: int = 0
    whole: int = 0
    reordered: int = 0


def denoiser_pass(
    model: ModelFolder,
    size: tuple[int, int],
    tokens: int,
    arithmetic: Arithmetic,
    *,
    trains: bool = False,
    factors: tuple[str, ...] = (),
    rank: int = 0,
    beside: int = 0,
    recomputes: bool = False,
    rows: int = 1,
    costs: Costs | None = None,
) -> Pass:
    """Of samples that are passed at once.

    Args:
        size: (h, w) of the latent.
        tokens: of the words.
        trains: whether the denoiser's own weights do.
        factors: endings of the names of its layers that have LoRA factors.
        rank, beside: what those keep (`Tape`).
        rows: how many samples.
    """
    config = model.config(model.family.denoiser)
    norms = 4 if arithmetic.norms or not arithmetic.half else None
    own: dict[str, Any] = {"trains": trains, "factors": factors, "rank": rank, "beside": beside}
    tape = Tape(compute=arithmetic.each, norms=norms, recomputes=recomputes, **own)
    name = model.class_name(model.family.denoiser)
    walk = WALKS.get(name, pass_unet if model.family.denoiser == "unet" else pass_transformer)
    try:
        walk(tape, {"_class_name": name} | config, *size, tokens)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        file = model.folder(model.family.denoiser) / "config.json"
        raise ConfigError(f"{file}: no plan of a {name} like this can be made: {error!r}") from None
    return max(_pieces(tape, rows, costs or Costs()), key=Pass.backwards)


def _pieces(tape: Tape, rows: int, costs: Costs) -> Iterator[Pass]:
    """The pass as it is in each piece's backward pass, the last of which comes first."""
    pieces, come = tape.pieces(), 0
    every, alone = sum(piece.trained for piece in pieces), tape.held + FORWARD * tape.largest
    for piece in reversed(pieces):
        come += piece.trained
        yield Pass(
            kept=rows * (piece.kept + piece.waiting),
            backward=rows * BACKWARD * piece.largest,
            gradients=costs.gradients * come // every if every else costs.gradients,
            whole=costs.whole * piece.weight,
            reordered=costs.reordered * piece.kernel,
            alone=alone,
            operations=tape.operations,
        )


def encoder_kept(width: int, layers: int, tokens: int, arithmetic: Arithmetic) -> int:
    """Bytes that a CLIP text encoder that trains keeps of one prompt: its layers' inputs, projections and activations,
    20 numbers for each of a token's."""
    return 20 * width * layers * tokens * arithmetic.each


def decoding(model: ModelFolder, height: int, width: int, *, on_cpu: bool) -> int:
    """Bytes of decoding one image, in float32; none where there is no autoencoder."""
    channels = _channels(model)
    return (PLANES_ON_CPU if on_cpu else PLANES) * max(channels[:2]) * height * width * 4


def encoding(model: ModelFolder, height: int, width: int, *, on_cpu: bool) -> int:
    """Bytes of encoding one image, in float32; none where there is no autoencoder."""
    return (PLANES_ON_CPU if on_cpu else PLANES) * _channels(model)[0] * height * width * 4


def _channels(model: ModelFolder) -> list[int]:
    if model.family.vae is None:
        return [0]
    config = model.config(model.family.vae)
    widths = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    return [int(c) for c in widths or (int(config["base_dim"]) * int(m) for m in config["dim_mult"])]
