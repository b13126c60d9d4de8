"""Training loops of the families whose words are a language model's, as `torch_loops` has those of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from . import torch_loops
from .torch_loops import FlowMatching, Row, pixels_of


class Lumina2(FlowMatching):
    """Time grows from noise to image, and so does what the transformer answers."""

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        length = self.settings.get("max_sequence_length", 256)
        words, mask, _, _ = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=length
        )
        answer: Tensor = self.denoiser(noisy, 1 - times / 1000, words, mask).sample
        return -answer

    @property
    def shape(self) -> tuple[int, int, int]:
        side = self.size // 4  # which its pipeline does not ask of the autoencoder
        return self.pipeline.vae.config.latent_channels, side, side


class QwenImage(FlowMatching):
    """Films of one frame, packed latents."""

    @property
    def shape(self) -> tuple[int, int, int]:
        side = self.size // self.pipeline.vae_scale_factor
        return self.pipeline.vae.config.z_dim, side, side

    def _stacked(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        config = self.pipeline.vae.config
        with torch.no_grad():
            pixels = torch.from_numpy(np.stack([pixels_of(r.picture, self.size)[0] for r in rows]))
            posterior = self.pipeline.vae.encode(pixels[:, :, None]).latent_dist
            drawn = posterior.mean + posterior.std * torch.from_numpy(np.stack([r.posterior for r in rows]))[:, :, None]
            mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
        noise = torch.from_numpy(np.stack([r.noise for r in rows]))
        return ((drawn - mean) / std)[:, :, 0], noise, torch.tensor([r.timestep for r in rows])

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        words, mask = self.pipeline.encode_prompt(prompts, max_sequence_length=512)
        b, c, h, w = noisy.shape
        packed = self.denoiser(
            self.pipeline._pack_latents(noisy[:, :, None], b, c, h, w),
            words,
            mask,
            times / 1000,
            [(1, h // 2, w // 2)] * b,
        ).sample
        factor = self.pipeline.vae_scale_factor
        unpacked: Tensor = self.pipeline._unpack_latents(packed, h * factor, w * factor, factor)
        return unpacked[:, :, 0]


class ZImage(FlowMatching):
    """Lists in and out; time and answer as Lumina 2 has them."""

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        words, _ = self.pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        answers = self.denoiser(list(noisy[:, :, None]), (1000 - times) / 1000, words).sample
        return -torch.stack(answers)[:, :, 0]


torch_loops.PIPELINES |= {Lumina2: "Lumina2Pipeline", QwenImage: "QwenImagePipeline", ZImage: "ZImagePipeline"}
