"""Train tinyworld's autoencoder on scenes far beyond what captions name, and report its error on unseen subjects.

An autoencoder that has seen eight colours shows an unseen subject in those eight.  So most of its images here have
random RGB colours and all patterns; subjects of `subjects.SUBJECTS` are never shown to it.

    python tools/tinyworld/train_autoencoder.py --out build/tinyworld/vae
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from drawn import pool, save_sheet, to_bytes, to_unit
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from dreamcore.tinyworld.subjects import SUBJECTS

WIDTHS = (24, 48, 64)
CROP = 48
"""Side of the squares that are learned from: nearly the whole thing, in little more than half of the time."""
QUIET = -6.0
"""Log variance that new latent channels begin with."""


def new_autoencoder(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        latent_channels=channels,
        norm_num_groups=8,
        layers_per_block=1,
        sample_size=64,
    )


def widened(old: AutoencoderKL, channels: int) -> AutoencoderKL:
    """The same autoencoder with more latent channels: the new ones begin near nothing and take what the old lack."""
    new, had = new_autoencoder(channels), old.config.latent_channels
    weights = {name: value.clone() for name, value in new.state_dict().items()}
    for name, value in old.state_dict().items():
        if weights[name].shape == value.shape:
            weights[name] = value
            continue
        target = weights[name].mul_(0.3)
        if name.startswith(("encoder.conv_out", "quant_conv")):  # means first, then log variances
            halves = [*range(had), *range(channels, channels + had)]
            rows = torch.tensor(halves)
            if value.dim() == 1:
                target[channels + had :] = QUIET  # else the new channels stay noise that nobody reads
            if value.dim() == 4 and value.shape[1] == 2 * had:
                target[rows] = 0.0
                target[rows[:, None], rows[None]] = value
            else:
                target[rows] = value
        elif value.dim() == 4 and value.shape[0] == had:  # post_quant_conv: latents to latents
            target[:had] = 0.0
            target[:had, :had] = value
        elif value.dim() == 1:
            target[:had] = value
        else:  # decoder.conv_in
            target[:, :had] = value
    new.load_state_dict(weights)
    return new


def recoloured(x: Tensor) -> Tensor:
    """Some images with colours exchanged and made stronger, so that no colour is out of the ordinary."""
    n = len(x)
    order = torch.stack([torch.randperm(3) if torch.rand(()) < 0.4 else torch.arange(3) for _ in range(n)])
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    strength = 1 + torch.rand(n, 1, 1, 1).square() * (torch.rand(n, 1, 1, 1) < 0.5)
    grey = x.mean(1, keepdim=True)
    return (grey + strength * (x - grey)).clamp(-1, 1)


def cropped(x: Tensor, chance: np.random.Generator) -> Tensor:
    """A square of every image, most often from the middle, where the thing is."""
    room = x.shape[-1] - CROP
    middle = chance.random() < 0.7
    corner = chance.binomial(room, 0.5, 2) if middle else chance.integers(0, room + 1, 2)
    top, left = int(corner[0]), int(corner[1])
    return x[:, :, top : top + CROP, left : left + CROP]


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def loss_of(y: Tensor, x: Tensor, kl: Tensor) -> Tensor:
    """L1 + L2; L1 of edges and of colour differences, which a mean over channels slights; a little KL per number."""
    sharp = sum(l1_loss(a, b) for a, b in zip(edges(y), edges(x), strict=True))
    hue = l1_loss(y[:, ::2] - y[:, 1:2], x[:, ::2] - x[:, 1:2])
    return l1_loss(y, x) + mse_loss(y, x) + 0.5 * sharp + 0.5 * hue + 1e-6 * kl


def train(vae: AutoencoderKL, pixels: Tensor, steps: int, batch: int, rate: float, bf16: bool) -> None:
    vae.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.08)
    chance = np.random.Generator(np.random.Philox(7))
    start, smooth = time.monotonic(), 0.0
    for step in range(steps):
        x = cropped(to_unit(pixels[torch.from_numpy(chance.integers(0, len(pixels), batch))]), chance)
        x = x.flip(-1) if chance.random() < 0.5 else x
        x = recoloured(x).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        loss = loss_of(y.float(), x, kl)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        smooth += (loss.item() - smooth) / min(step + 1, 50)
        if step % 50 == 0:
            print(f"update {step}  loss {smooth:.4f}  kl {kl.item():.2f}  {time.monotonic() - start:.0f} s", flush=True)


@torch.no_grad()
def standardise(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Give every latent channel mean 0 and deviation 1 over some images, exactly: the 1 x 1 convolutions on both
    sides of the latents take it up.  The denoiser then learns all channels alike.  Returns latents of the images."""
    n = vae.config.latent_channels
    means = torch.cat([vae.encode(to_unit(p)).latent_dist.mean for p in pixels.split(64)])
    mean, std = means.mean((0, 2, 3)), means.std((0, 2, 3))
    before, after = vae.quant_conv, vae.post_quant_conv
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= std[None, :, None, None]
    before.bias[:n] = (before.bias[:n] - mean) / std
    before.weight[:n] /= std[:, None, None, None]
    before.bias[n:] -= 2 * std.log()
    vae.register_to_config(scaling_factor=1.0)
    return torch.cat([vae.encode(to_unit(p)).latent_dist.sample() for p in pixels.split(64)])


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    return torch.cat([vae.decode(vae.encode(to_unit(p)).latent_dist.mode()).sample for p in pixels.split(32)])


def measure(vae: AutoencoderKL, pixels: Tensor, sheet: Path) -> dict[str, float]:
    """Mean absolute error in grey levels of 255, and PSNR in dB of the mean squared error."""
    made = to_bytes(reconstruct(vae, pixels))
    true = pixels.permute(0, 2, 3, 1).numpy()
    save_sheet([p for pair in zip(true[:32], made[:32], strict=True) for p in pair], 8, sheet)
    error = made.astype(np.float64) - true
    return {
        "l1": round(float(np.abs(error).mean()), 2),
        "psnr": round(float(10 * np.log10(255**2 / (error**2).mean())), 2),
    }


def subject_pixels() -> Tensor:
    drawn = [np.asarray(p) for s in SUBJECTS.values() for p in s.pictures(10, seed=31)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--init", type=Path, help="an autoencoder to go on from; it may have fewer latent channels")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--pool", type=int, default=16000)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    start = time.monotonic()
    wild, plain = pool(101, args.pool * 2 // 3, wild=True)[1], pool(102, args.pool // 3)[1]
    print(f"drawn in {time.monotonic() - start:.0f} s", flush=True)
    old = AutoencoderKL.from_pretrained(args.init).float() if args.init else None
    vae = widened(old, args.channels) if old else new_autoencoder(args.channels)
    train(vae, torch.cat([wild, plain]), args.steps, args.batch, args.learning_rate, args.bf16)
    vae.eval()
    latents = standardise(vae, plain[:1024])
    vae.save_pretrained(args.out)
    quality = {
        "unseen subjects": measure(vae, subject_pixels(), args.out / "subjects.png"),
        "ordinary scenes": measure(vae, pool(103, 256, allow_held_out=True)[1], args.out / "ordinary.png"),
        "wild scenes": measure(vae, pool(104, 256, wild=True)[1], args.out / "wild.png"),
        "seconds": round(time.monotonic() - start),
        "scaling_factor": vae.config.scaling_factor,
        "channel std": [round(v, 3) for v in latents.std((0, 2, 3)).tolist()],
    }
    (args.out / "quality.json").write_text(json.dumps(quality, indent=2) + "\n")
    print(json.dumps(quality, indent=2))


if __name__ == "__main__":
    main()
