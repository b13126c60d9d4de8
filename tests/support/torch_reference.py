"""A DreamBooth training loop from diffusers', transformers' and peft's own parts, as their examples write it.

It shares nothing with the library but the numbers drawn at random: it encodes the images, forms noisy latents and
targets with `DDPMScheduler`, weighs, accumulates, clips and steps by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import compute_snr
from peft import LoraConfig
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

InitialDown = Callable[[str, int, int], np.ndarray]
"""First value [rank, fan_in] of a down matrix, from COMPONENT.LAYER, rank and fan_in."""


@dataclass
class MicroBatch:
    """What was drawn for one micro-batch of N rows: instances first, then as many class rows, if there are any, then as
    many whose target is the model's own answer, if there are any."""

    pixels: np.ndarray
    """[N, 3, H, W] in [−1, 1]."""
    posterior: np.ndarray
    """[N, C, h, w] standard normal, for the draw from the autoencoder's posterior."""
    noise: np.ndarray
    """[N, C, h, w]."""
    timesteps: np.ndarray
    """[N] whole numbers."""
    prompts: list[str]


@dataclass
class Options:
    """Settings under diffusers' names."""

    learning_rate: float
    updates: int
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 0
    train_text_encoder: bool = False
    text_encoder_lr: float | None = None
    with_prior_preservation: bool = False
    prior_loss_weight: float = 1.0
    diff_output_preservation: bool = False
    diff_output_preservation_multiplier: float = 1.0
    snr_gamma: float | None = None
    max_grad_norm: float = 1.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    rank: int | None = None
    """LoRA's rank; None trains the weights themselves."""
    lora_alpha: float | None = None
    """None means the rank."""
    targets: dict[str, list[str]] = field(default_factory=dict)
    """By component, the endings of the layers that get factors."""


class Reference:
    """The models of a folder in diffusers' layout, in training."""

    def __init__(self, model: Path, options: Options, initial_down: InitialDown | None = None):
        self.options = options
        self.scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
        self.tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
        self.vae = AutoencoderKL.from_pretrained(model, subfolder="vae").eval()
        self.text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder")
        self.unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
        trained: dict[str, torch.nn.Module] = {"unet": self.unet}
        if options.train_text_encoder:
            trained["text_encoder"] = self.text_encoder
        for module in (self.vae, self.text_encoder, self.unet):
            module.requires_grad_(any(module is m for m in trained.values()) and options.rank is None)
        if options.rank is not None:
            for name, module in trained.items():
                self._add_lora(name, module, initial_down)
        for module in trained.values():
            module.train()
        groups = [[p for p in module.parameters() if p.requires_grad] for module in trained.values()]
        self.parameters = list(chain(*groups))
        rates = (options.learning_rate, options.text_encoder_lr or options.learning_rate)
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=False)],
            betas=(options.adam_beta1, options.adam_beta2),
            weight_decay=options.adam_weight_decay,
            eps=options.adam_epsilon,
            fused=False,
            foreach=False,
        )
        self.lr_scheduler = get_scheduler(
            options.lr_scheduler,
            self.optimizer,
            num_warmup_steps=options.lr_warmup_steps,
            num_training_steps=options.updates,
        )

    def update(self, micro_batches: Sequence[MicroBatch]) -> dict[str, float]:
        """One update: losses, gradient norm before clipping, and the learning rate that it took."""
        names = ["loss_instance"]
        names += ["loss_prior"] if self.options.with_prior_preservation else []
        names += ["loss_preservation"] if self.options.diff_output_preservation else []
        weights = {
            "loss_instance": 1.0,
            "loss_prior": self.options.prior_loss_weight,
            "loss_preservation": self.options.diff_output_preservation_multiplier,
        }
        parts = dict.fromkeys(names, 0.0)
        for batch in micro_batches:
            losses = dict(zip(names, self._losses(batch).chunk(len(names)), strict=True))
            torch.stack([weights[n] * losses[n].mean() / len(micro_batches) for n in names]).sum().backward()
            parts = {n: parts[n] + losses[n].mean().item() / len(micro_batches) for n in names}
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.options.max_grad_norm or float("inf"))
        rate = self.lr_scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        loss = sum(weights[n] * parts[n] for n in names)
        return {"loss": loss, "grad_norm": norm.item(), "lr": rate} | (parts if len(parts) > 1 else {})

    def _losses(self, batch: MicroBatch) -> Tensor:
        """[N] of the rows."""
        timesteps = torch.from_numpy(batch.timesteps)
        noise = torch.from_numpy(batch.noise)
        with torch.no_grad():
            posterior = self.vae.encode(torch.from_numpy(batch.pixels)).latent_dist
            latents = posterior.mean + posterior.std * torch.from_numpy(batch.posterior)
            latents = latents * self.vae.config.scaling_factor
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(latents, noise, timesteps)
        else:
            target = noise.clone()
        tokens = self.tokenizer(
            batch.prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        )
        if self.options.diff_output_preservation:
            adapted = [self.unet, *([self.text_encoder] if self.options.train_text_encoder else [])]
            kept = len(noisy) // (3 if self.options.with_prior_preservation else 2)
            for network in adapted:
                network.disable_adapters()
            with torch.no_grad():
                words = self.text_encoder(tokens.input_ids[-kept:])[0]
                target[-kept:] = self.unet(noisy[-kept:], timesteps[-kept:], words).sample
            for network in adapted:
                network.enable_adapters()
        with torch.set_grad_enabled(self.options.train_text_encoder):
            words = self.text_encoder(tokens.input_ids)[0]
        answer = self.unet(noisy, timesteps, words).sample
        return functional.mse_loss(answer, target, reduction="none").mean(dim=(1, 2, 3)) * self._weights(timesteps)

    def _weights(self, timesteps: Tensor) -> Tensor:
        """Min-SNR weights (2303.09556): min(SNR, γ)/SNR for noise, min(SNR, γ)/(SNR + 1) for v."""
        if self.options.snr_gamma is None:
            return torch.ones(len(timesteps))
        snr = compute_snr(self.scheduler, timesteps)
        is_v = self.scheduler.config.prediction_type == "v_prediction"
        return snr.clamp(max=self.options.snr_gamma) / (snr + 1 if is_v else snr)

    def _add_lora(self, component: str, module: Any, initial_down: InitialDown | None) -> None:
        rank = self.options.rank
        assert rank is not None
        assert initial_down is not None
        targets = self.options.targets[component]
        module.add_adapter(LoraConfig(r=rank, lora_alpha=self.options.lora_alpha or rank, target_modules=targets))
        with torch.no_grad():
            for name, layer in module.named_modules():
                if hasattr(layer, "lora_A"):
                    down = layer.lora_A["default"].weight
                    prefix = "text_model." if name.startswith("encoder.") else ""  # transformers 5 leaves it out
                    first = initial_down(f"{component}.{prefix}{name}", rank, down.shape[1])
                    down.copy_(torch.from_numpy(first))
                    assert not layer.lora_B["default"].weight.any()
