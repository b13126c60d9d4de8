"""Training loops of Flux.2 and Flux Kontext, as those of `torch_loops`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from . import torch_loops
from .torch_loops import PIPELINES, FlowMatching, Row


class Referring(FlowMatching):
    """Rows with reference images by themselves, before those without."""

    beside: Tensor | None = None
    """[B, C, h, w] the references' latents."""

    def losses(self, rows: Sequence[Row]) -> Tensor:
        referring = [row for row in rows if row.reference is not None]
        if not referring:
            return super().losses(rows)
        self.beside = self._stacked(
            [replace(r, picture=r.reference, posterior=r.reference_posterior) for r in referring]
        )[0]
        first = super().losses(referring)
        self.beside = None
        return torch.cat([first, super().losses([row for row in rows if row.reference is None])])


class Kontext(Referring, torch_loops.Flux):
    """With a reference image, as `FluxKontextPipeline.__call__` has it, or from words alone."""

    def tokens(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        tokens, ids = super().tokens(noisy)
        if self.beside is None:
            return tokens, ids
        more, theirs = super().tokens(self.beside)
        theirs[..., 0] = 1
        return torch.cat([tokens, more], 1), torch.cat([ids, theirs], 0)


class Klein(Referring):
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
        tokens, ids, told = self.pipeline._pack_latents(squares), self.pipeline._prepare_latent_ids(squares), None
        count, places = tokens.shape[1], ids
        if self.beside is not None:
            beside = self.pipeline._patchify_latents(self.beside)
            tokens = torch.cat([tokens, self.pipeline._pack_latents(beside)], 1)
            theirs = self.pipeline._prepare_image_ids([beside[:1]])
            places = torch.cat([ids, theirs.repeat(len(noisy), 1, 1)], 1)
        if self.denoiser.config.guidance_embeds:
            told = torch.full((len(noisy),), self.settings.get("guidance_scale", 3.5))
        packed = self.denoiser(
            hidden_states=tokens,
            timestep=times / 1000,
            guidance=told,
            encoder_hidden_states=words,
            txt_ids=word_ids,
            img_ids=places,
        ).sample[:, :count]
        made: Tensor = self.pipeline._unpatchify_latents(self.pipeline._unpack_latents_with_ids(packed, ids))
        return made


class Dev(Klein):
    """Told a strength of guidance; the part for words stands for the processor, which asks for torchvision."""

    absent = ("tokenizer",)

    def __init__(self, model: Path, *args: Any):
        super().__init__(model, *args)
        self.pipeline.tokenizer = AutoTokenizer.from_pretrained(model / "tokenizer")


PIPELINES |= {Kontext: "FluxKontextPipeline", Klein: "Flux2KleinPipeline", Dev: "Flux2Pipeline"}
