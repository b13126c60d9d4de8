"""The training loops of SANA, Chroma and HiDream, as diffusers' scripts have them (examples/dreambooth,
train_dreambooth_lora_sana.py and train_dreambooth_lora_hidream.py); it has none for Chroma."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from .torch_loops import PIPELINES, FlowMatching, Row, pixels_of


class Sana(FlowMatching):
    """On latents without a distribution, by the words that the pipeline makes of a prompt after its own instruction."""

    lora_layers = ("to_k", "to_q", "to_v")

    def _stacked(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            pixels = torch.from_numpy(np.stack([pixels_of(r.picture, self.size)[0] for r in rows]))
            latents = self.pipeline.vae.encode(pixels).latent * self.pipeline.vae.config.scaling_factor
        noise = torch.from_numpy(np.stack([r.noise for r in rows]))
        return latents, noise, torch.tensor([r.timestep for r in rows])

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        words, mask = (torch.cat(found) for found in zip(*map(self.words, prompts), strict=True))
        return self.denoiser(noisy, words, times, encoder_attention_mask=mask).sample

    @cache  # noqa: B019  # as long as the loop
    def words(self, prompt: str) -> tuple[Tensor, Tensor]:
        """A prompt's, each [1, tokens, ...], and their mask."""
        with torch.no_grad():
            words, mask, _, _ = self.pipeline.encode_prompt(
                prompt,
                do_classifier_free_guidance=False,
                max_sequence_length=self.settings.get("max_sequence_length", 300),
                complex_human_instruction=instruction(self.pipeline),
            )
        return words, mask


def instruction(pipeline: object) -> list[str]:
    """The lines that the pipeline puts before a prompt unless its caller has others."""
    return list(inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default)


class Chroma(FlowMatching):
    """On packed latents; the pipeline makes the mask."""

    lora_layers = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    )

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        with torch.no_grad():
            words, word_ids, mask, *_ = self.pipeline.encode_prompt(
                prompts,
                do_classifier_free_guidance=False,
                max_sequence_length=self.settings.get("max_sequence_length", 512),
            )
        b, c, h, w = noisy.shape
        packed = self.denoiser(
            hidden_states=self.pipeline._pack_latents(noisy, b, c, h, w),
            timestep=times / 1000,
            encoder_hidden_states=words,
            txt_ids=word_ids,
            img_ids=self.pipeline._prepare_latent_image_ids(b, h // 2, w // 2, "cpu", torch.float32),
            attention_mask=self.pipeline._prepare_attention_mask(b, h * w // 4, words.dtype, mask),
        ).sample
        factor = self.pipeline.vae_scale_factor
        return self.pipeline._unpack_latents(packed, h * factor, w * factor, factor)


class HiDream(FlowMatching):
    """With gradients through its experts, which the script leaves out."""

    lora_layers = ("to_k", "to_q", "to_v", "to_out")

    def losses(self, rows: Sequence[Row]) -> Tensor:
        self.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        for layer in self.denoiser.modules():
            layer.training = type(layer).__name__ in ("MOEFeedForwardSwiGLU", "MoEGate")
        return super().losses(rows)

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        length = self.settings.get("max_sequence_length", 128)
        with torch.no_grad():
            words, _, layers, _, pooled, _ = self.pipeline.encode_prompt(
                prompts, do_classifier_free_guidance=False, max_sequence_length=length
            )
        answer: Tensor = self.denoiser(
            hidden_states=noisy,
            timesteps=times,
            encoder_hidden_states_t5=words,
            encoder_hidden_states_llama3=layers,
            pooled_embeds=pooled,
        ).sample
        return -answer


PIPELINES |= {Sana: "SanaPipeline", Chroma: "ChromaPipeline", HiDream: "HiDreamImagePipeline"}
