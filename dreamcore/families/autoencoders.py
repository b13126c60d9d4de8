"""Autoencoders by the class that model_index.json names: what a run must know of each, whatever family it serves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AutoencoderClass:
    """What differs between autoencoders; names are those of fields of their configurations and of their weights."""

    channels: str = "latent_channels"
    """How many channels latents have."""
    levels: str = "block_out_channels"
    """A field with an entry for each time that the sides of an image are halved, and..."""
    top: int = 1
    """...as many besides."""
    frames: bool = False
    """Whether images are films of one frame to it: [N, C, 1, h, w]."""
    distribution: bool = True
    """Whether its answer is a mean and a deviation; otherwise the latents."""
    scaling: tuple[str, ...] = ("scaling_factor",)
    """Fields that say how latents are scaled: without them nobody knows what the denoiser learnt from."""
    statistics: tuple[str, str] | None = None
    """In the place of such fields, weights: mean and variance of each channel of squares of 2 × 2 latents."""


AUTOENCODERS = {
    "AutoencoderKL": AutoencoderClass(),
    "AutoencoderKLFlux2": AutoencoderClass(scaling=(), statistics=("bn.running_mean", "bn.running_var")),
    "AutoencoderKLQwenImage": AutoencoderClass(
        channels="z_dim", levels="temperal_downsample", top=0, frames=True, scaling=("latents_mean", "latents_std")
    ),
    "AutoencoderDC": AutoencoderClass(levels="encoder_block_out_channels", distribution=False),
}
