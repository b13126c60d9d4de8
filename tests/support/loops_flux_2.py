"""Training loops of Flux.2 and Flux Kontext, as those of `torch_loops`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from . import torch_loops
from .torch_loops import PIPELINES, FlowMatching


class Kontext(torch_loops.Flux):
    """From words alone."""


class Klein(FlowMatching):
    """On squares of latents, normalised by the autoencoder's own statistics."""

    lora_layers = (
        *("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj"),
        *(f"single_transformer_blocks.{i}.attn.to_out" for i in range(2)),
    )

    def scaled(self, drawn: Tensor) -> Tensor:
        normal = self.pipeline.vae.bn
        deviation = torch.sqrt(normal.running_var + self.pipeline.vae.config.batch_norm_eps)
        squares = self.pipeline._patchify_latents(drawn)
        squares = (squares - normal.running_mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)
        made: Tensor = self.pipeline._unpatchify_latents(squares)
        return made

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        length, layers = self.settings["max_sequence_length"], self.settings.get("text_encoder_out_layers")
        chosen: dict[str, Any] = {"text_encoder_out_layers": tuple(layers)} if layers else {}
        with torch.no_grad():
            words, word_ids = self.pipeline.encode_prompt(prompts, "cpu", max_sequence_length=length, **chosen)
        squares = self.pipeline._patchify_latents(noisy)
        ids, told = self.pipeline._prepare_latent_ids(squares), None
        if self.denoiser.config.guidance_embeds:
            told = torch.full((len(noisy),), self.settings.get("guidance_scale", 3.5))
        packed = self.denoiser(
            hidden_states=self.pipeline._pack_latents(squares),
            timestep=times / 1000,
            guidance=told,
            encoder_hidden_states=words,
            txt_ids=word_ids,
            img_ids=ids,
        ).sample
        made: Tensor = self.pipeline._unpatchify_latents(self.pipeline._unpack_latents_with_ids(packed, ids))
        return made


class Dev(Klein):
    """Told a strength of guidance; the part for words stands for the processor, which asks for torchvision."""

    absent = ("tokenizer",)

    def __init__(self, model: Path, *args: Any):
        super().__init__(model, *args)
        self.pipeline.tokenizer = AutoTokenizer.from_pretrained(model / "tokenizer")


PIPELINES |= {Kontext: "FluxKontextPipeline", Klein: "Flux2KleinPipeline", Dev: "Flux2Pipeline"}
