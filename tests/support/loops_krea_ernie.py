"""Training loops of Krea 2 and ERNIE-Image, as those of `torch_loops`."""

from __future__ import annotations

import torch
from torch import Tensor

from .loops_language_models import QwenImage
from .torch_loops import PIPELINES, FlowMatching


class Krea2(QwenImage):
    """As diffusers' script of LoRA has it."""

    lora_layers = (
        *("img_in", "final_layer.linear", "to_q", "to_k", "to_v", "to_out.0", "to_gate", "ff.up", "ff.down"),
        *("text_fusion.projector", "txt_in.linear_1", "txt_in.linear_2"),
        *("time_embed.linear_1", "time_embed.linear_2", "time_mod_proj"),
    )

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        length = self.settings.get("max_sequence_length", 512)
        with torch.no_grad():
            words, mask = self.pipeline.encode_prompt(prompts, max_sequence_length=length)
        b, c, h, w = noisy.shape
        packed = self.denoiser(
            self.pipeline._pack_latents(noisy[:, :, None], b, c, h, w),
            words,
            times / 1000,
            self.pipeline.prepare_position_ids(words.shape[1], h // 2, w // 2, "cpu"),
            mask,
        ).sample
        factor = self.pipeline.vae_scale_factor
        unpacked: Tensor = self.pipeline._unpack_latents(packed, h * factor, w * factor)
        return unpacked[:, :, 0]


class ErnieImage(FlowMatching):
    """On squares in their places, normalised as its pipeline undoes it; the objective is flow matching's."""

    lora_layers = ("to_q", "to_k", "to_v", "to_out.0")

    @property
    def shape(self) -> tuple[int, int, int]:
        side = 2 * self.size // self.pipeline.vae_scale_factor  # which counts squares
        return self.pipeline.vae.config.latent_channels, side, side

    def scaled(self, drawn: Tensor) -> Tensor:
        normal = self.pipeline.vae.bn
        mean, deviation = (t.view(1, -1, 1, 1) for t in (normal.running_mean, torch.sqrt(normal.running_var + 1e-5)))
        made: Tensor = self.pipeline._unpatchify_latents((self.pipeline._patchify_latents(drawn) - mean) / deviation)
        return made

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        words, counts = self.pipeline._pad_text(
            self.pipeline.encode_prompt(prompts, "cpu"), "cpu", torch.float32, self.denoiser.config.text_in_dim
        )
        squares = self.denoiser(self.pipeline._patchify_latents(noisy), times, words, counts).sample
        made: Tensor = self.pipeline._unpatchify_latents(squares)
        return made


PIPELINES |= {Krea2: "Krea2Pipeline", ErnieImage: "ErnieImagePipeline"}
