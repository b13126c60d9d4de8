"""DreamBooth's training loops of the other families, from diffusers' modules and the published objectives.

They share nothing with the library but the numbers drawn at random: prompts are embedded by diffusers' pipelines,
noise is added by its schedulers, images are cut by Pillow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import compute_loss_weighting_for_sd3
from peft import LoraConfig
from PIL import Image
from torch import Tensor

CLIP_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]
InitialDown = Callable[[str, int, int], np.ndarray]


@dataclass
class Row:
    """One row of a batch, as it was drawn."""

    picture: Path
    prompt: str
    posterior: np.ndarray
    noise: np.ndarray
    timestep: int
    reference: Path | None = None
    reference_posterior: np.ndarray | None = None


class Loop:
    """A pipeline in training.

    Args:
        size: side of the training images.
        settings: under the library's names; `rank` trains LoRA factors.
        initial_down: first value of a down matrix, from COMPONENT.LAYER, rank and fan_in.
    """

    def __init__(self, model: Path, size: int, settings: dict[str, Any], initial_down: InitialDown):
        self.size, self.settings = size, settings
        index = json.loads((model / "model_index.json").read_text())
        absent = {name: None for name, value in index.items() if value == [None, None] or name in self.absent}
        self.pipeline = getattr(diffusers, PIPELINES[type(self)]).from_pretrained(model, **absent)
        self.pipeline.set_progress_bar_config(disable=True)
        self.denoiser = getattr(self.pipeline, self.denoiser_name)
        components = {self.denoiser_name: self.denoiser}
        if settings.get("train_text_encoder"):
            components |= {n: getattr(self.pipeline, n) for n in ("text_encoder", "text_encoder_2")[: self.clips]}
        vae = [self.pipeline.vae] if hasattr(self.pipeline, "vae") else []
        for network in (*vae, self.denoiser, *self.encoders()):
            network.eval().requires_grad_(False)
        groups = []
        for name, network in components.items():
            if settings.get("use_lora"):
                self._add_factors(name, network, initial_down)
            else:
                network.requires_grad_(True)
            rate = settings["learning_rate"]
            decay = 1e-2
            if name.startswith("text"):
                rate = settings.get("text_encoder_lr", rate)
                decay = settings.get("adam_weight_decay_text_encoder", decay)
            groups.append({"params": [p for p in network.parameters() if p.requires_grad], "lr": rate})
            groups[-1]["weight_decay"] = decay
        self.optimizer = torch.optim.AdamW(groups, foreach=False)
        self.weights = [p for group in groups for p in group["params"]]

    absent: tuple[str, ...] = ()
    """Components that the pipeline does not load."""
    denoiser_name = "unet"
    clips = 2
    lora_layers = ("to_q", "to_k", "to_v", "to_out.0")

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, h, w] of a latent."""
        side = self.size // self.pipeline.vae_scale_factor
        return self.pipeline.vae.config.latent_channels, side, side

    def encoders(self) -> list[Any]:
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        return [e for n in names if (e := getattr(self.pipeline, n, None)) is not None]

    def update(self, rows: Sequence[Row]) -> dict[str, float]:
        """One update on instance rows and as many class rows: what it measured."""
        losses = self.losses(rows)
        instance, prior = (part.mean() for part in losses.chunk(2))
        scale = self.settings["prior_loss_weight"]
        loss = instance + scale * prior
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {
            "loss": loss.item(),
            "loss_instance": instance.item(),
            "loss_prior": prior.item(),
            "grad_norm": norm.item(),
        }

    def timestep(self, stream: np.random.Generator) -> int:
        """The draw of a timestep: a place in the scheduler's table."""
        return int(stream.integers(1000))

    def losses(self, rows: Sequence[Row]) -> Tensor:
        """[B]."""
        raise NotImplementedError

    def _stacked(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and noise, each [B, C, h, w], and timesteps [B]."""
        with torch.no_grad():
            pixels = torch.from_numpy(np.stack([pixels_of(r.picture, self.size)[0] for r in rows]))
            posterior = self.pipeline.vae.encode(pixels).latent_dist
            drawn = posterior.mean + posterior.std * torch.from_numpy(np.stack([r.posterior for r in rows]))
        noise = torch.from_numpy(np.stack([r.noise for r in rows]))
        return self.scaled(drawn), noise, torch.tensor([r.timestep for r in rows])

    def scaled(self, drawn: Tensor) -> Tensor:
        """Latents as the denoiser knows them."""
        config = self.pipeline.vae.config
        if config.get("latents_mean") is not None:
            mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std))
            return (drawn - mean) * config.scaling_factor / std
        return (drawn - (config.get("shift_factor") or 0.0)) * config.scaling_factor

    def _add_factors(self, component: str, network: Any, initial_down: InitialDown) -> None:
        rank = self.settings["rank"]
        bert = type(network).__name__ == "BertModel"
        layers = ["query", "key", "value", "attention.output.dense"] if bert else CLIP_LAYERS
        if component == self.denoiser_name:
            layers = self.settings.get("lora_layers") or list(self.lora_layers)
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers))
        with torch.no_grad():
            for name, layer in network.named_modules():
                if hasattr(layer, "lora_A"):
                    down = layer.lora_A["default"].weight
                    clip = name.startswith("encoder.") and not bert
                    prefix = "text_model." if clip else ""  # transformers 5 leaves it out
                    down.copy_(torch.from_numpy(initial_down(f"{component}.{prefix}{name}", rank, down.shape[1])))


def pixels_of(picture: Path, size: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """[3, size, size] in [−1, 1] of the middle of an image, and its height, width, and the crop's top and left."""
    image = Image.open(picture).convert("RGB")
    width, height = image.size
    scale = size / min(width, height)
    scaled = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
    part = np.asarray(scaled.crop((left, top, left + size, top + size)), np.float32)
    return part.transpose(2, 0, 1) / 127.5 - 1, (height, width, top, left)


class StableDiffusion(Loop):
    """Noise prediction, on the words that the pipeline makes of prompts, whatever text encoder it has."""

    clips = 1

    def losses(self, rows: Sequence[Row]) -> Tensor:
        latents, noise, timesteps = self._stacked(rows)
        words, _ = self.pipeline.encode_prompt([r.prompt for r in rows], "cpu", 1, False)
        noisy = DDPMScheduler.from_config(self.pipeline.scheduler.config).add_noise(latents, noise, timesteps)
        return (self.denoiser(noisy, timesteps, words).sample - noise).square().mean((1, 2, 3))


class StableDiffusionXL(Loop):
    """Noise prediction with size and crop conditioning (2307.01952); EDM's preconditioning where its scheduler asks."""

    def losses(self, rows: Sequence[Row]) -> Tensor:
        latents, noise, timesteps = self._stacked(rows)
        words, _, pooled, _ = self.pipeline.encode_prompt([r.prompt for r in rows], do_classifier_free_guidance=False)
        ids = [(*pixels_of(r.picture, self.size)[1], self.size, self.size) for r in rows]
        told = {"text_embeds": pooled, "time_ids": torch.tensor(ids, dtype=torch.float32)}
        config = self.pipeline.scheduler.config
        if not config["_class_name"].startswith("EDM"):
            scheduler = DDPMScheduler.from_config(config)
            noisy = scheduler.add_noise(latents, noise, timesteps)
            answer = self.denoiser(noisy, timesteps, words, added_cond_kwargs=told).sample
            return (answer - noise).square().mean((1, 2, 3))
        scheduler = EDMEulerScheduler.from_config(config)
        sigma = scheduler.sigmas[timesteps].view(-1, 1, 1, 1)
        noisy = latents + sigma * noise
        inputs = scheduler.precondition_inputs(noisy, sigma)
        answer = self.denoiser(inputs, scheduler.timesteps[timesteps], words, added_cond_kwargs=told).sample
        return (scheduler.precondition_outputs(noisy, answer, sigma) - latents).square().mean((1, 2, 3))


class FlowMatching(Loop):
    """Flow matching (2403.03206): x = (1 − σ)·z + σ·ε, answered by ε − z; timesteps as diffusers' scripts draw them."""

    denoiser_name = "transformer"
    scheme = "none"

    def timestep(self, stream: np.random.Generator) -> int:
        scheme = self.settings.get("weighting_scheme", self.scheme)
        if scheme == "logit_normal":
            mean, deviation = self.settings.get("logit_mean", 0.0), self.settings.get("logit_std", 1.0)
            u = 1 / (1 + math.exp(-(mean + deviation * stream.standard_normal())))
        else:
            u = stream.random()
        if scheme == "mode":
            u = 1 - u - self.settings.get("mode_scale", 1.29) * (math.cos(math.pi * u / 2) ** 2 - 1 + u)
        return int(u * 1000)

    def losses(self, rows: Sequence[Row]) -> Tensor:
        latents, noise, timesteps = self._stacked(rows)
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.pipeline.scheduler.config)
        sigma, times = scheduler.sigmas[timesteps], scheduler.timesteps[timesteps]
        if self.settings.get("resolution_shift"):
            tokens = (latents.shape[2] // 2) * (latents.shape[3] // 2)
            sizes = {k: scheduler.config[k] for k in ("base_shift", "max_shift")}
            mu = calculate_shift(
                tokens, scheduler.config["base_image_seq_len"], scheduler.config["max_image_seq_len"], **sizes
            )
            sigma = scheduler.time_shift(mu, 1.0, sigma)
            times = sigma * 1000
        s = sigma.view(-1, 1, 1, 1)
        answer = self.answer((1 - s) * latents + s * noise, times, [r.prompt for r in rows])
        squared = (answer - (noise - latents)).square()
        if self.settings.get("precondition_outputs"):
            noisy = (1 - s) * latents + s * noise
            squared = (noisy - s * answer - latents).square()
        scheme = self.settings.get("weighting_scheme", self.scheme)
        return (compute_loss_weighting_for_sd3(scheme, s) * squared).mean((1, 2, 3))

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        """The denoiser's, [B, C, h, w]."""
        raise NotImplementedError


class StableDiffusion3(FlowMatching):
    """Logit-normal timesteps by default."""

    scheme = "logit_normal"

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        words, _, pooled, _ = self.pipeline.encode_prompt(
            prompts,
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=self.settings.get("max_sequence_length", 256),
        )
        return self.denoiser(noisy, words, pooled, times).sample


class Flux(FlowMatching):
    """On packed latents, told the strength of guidance."""

    clips = 1

    def answer(self, noisy: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
        words, pooled, word_ids = self.pipeline.encode_prompt(prompts, max_sequence_length=512)
        b, _, h, w = noisy.shape
        tokens, ids = self.tokens(noisy)
        told = None
        if self.denoiser.config.guidance_embeds:
            told = torch.full((b,), self.settings.get("guidance_scale", 3.5))
        packed = self.denoiser(
            hidden_states=tokens,
            timestep=times / 1000,
            guidance=told,
            pooled_projections=pooled,
            encoder_hidden_states=words,
            txt_ids=word_ids,
            img_ids=ids,
        ).sample[:, : h * w // 4]
        factor = self.pipeline.vae_scale_factor
        return self.pipeline._unpack_latents(packed, h * factor, w * factor, factor)

    def tokens(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """What the denoiser sees of latents, and where."""
        b, c, h, w = noisy.shape
        ids = self.pipeline._prepare_latent_image_ids(b, h // 2, w // 2, "cpu", torch.float32)
        return self.pipeline._pack_latents(noisy, b, c, h, w), ids


class DeepFloydIF(Loop):
    """Pixels; the first half of what the UNet answers is its noise (diffusers' examples/dreambooth)."""

    lora_layers = (*Loop.lora_layers, "add_k_proj", "add_v_proj")

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def losses(self, rows: Sequence[Row]) -> Tensor:
        pixels = torch.from_numpy(np.stack([pixels_of(r.picture, self.size)[0] for r in rows]))
        noise, timesteps = torch.from_numpy(np.stack([r.noise for r in rows])), torch.tensor([r.timestep for r in rows])
        noisy = DDPMScheduler.from_config(self.pipeline.scheduler.config).add_noise(pixels, noise, timesteps)
        length, told = self.settings.get("tokenizer_max_length", 77), {}
        tokens = self.pipeline.tokenizer(
            [r.prompt for r in rows], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        mask = tokens.attention_mask if self.settings.get("text_encoder_use_attention_mask", True) else None
        with torch.no_grad():
            words = self.pipeline.text_encoder(tokens.input_ids, attention_mask=mask)[0]
        if self.denoiser.config.in_channels == 6:
            noisy, told = torch.cat([noisy, noisy], 1), {"class_labels": timesteps}
        answer, _ = self.denoiser(noisy, timesteps, words, **told).sample.chunk(2, dim=1)
        return (answer - noise).square().mean((1, 2, 3))


class DeepFloydIF2(DeepFloydIF):
    """Stage 2."""


PIPELINES: dict[type[Loop], str] = {
    DeepFloydIF: "IFPipeline",
    DeepFloydIF2: "IFSuperResolutionPipeline",
    StableDiffusion: "StableDiffusionPipeline",
    StableDiffusionXL: "StableDiffusionXLPipeline",
    StableDiffusion3: "StableDiffusion3Pipeline",
    Flux: "FluxPipeline",
}
