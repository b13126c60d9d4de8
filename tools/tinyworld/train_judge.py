"""Train the judge on drawn scenes, write its weights and freeze the subject score's threshold.

Two kinds of batches at once: scenes that words describe teach class, colour, pattern and place; families of things
that differ in one trait teach the embedding (InfoNCE: two views of a thing attract, all other things repel).

    python tools/tinyworld/train_judge.py
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from drawn import pool, to_unit
from identities import MEMBERS, draw_families
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dreamcore.tinyworld import judge
from dreamcore.tinyworld.scenes import Scene
from dreamcore.tinyworld.vocabulary import CLASSES, COLOURS, PATTERNS, PLACES

WIDTHS = (16, 32, 32, 64, 64, 96)
HIDDEN, EMBEDDING = 128, 48
TEMPERATURE = 0.08
IGNORED = -100


class Network(nn.Module):
    """The judge with batch normalisation, which `exported` folds away."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, *WIDTHS)
        self.conv = nn.ModuleList(
            nn.Conv2d(i, o, 3, s, 1, bias=False) for i, o, s in zip(sizes, WIDTHS, judge.STRIDES, strict=False)
        )
        self.norm = nn.ModuleList(nn.BatchNorm2d(o) for o in WIDTHS)
        self.hidden = nn.Linear(2 * WIDTHS[-1], HIDDEN)
        self.heads = nn.ModuleDict({name: nn.Linear(HIDDEN, len(options)) for name, options in judge.HEADS.items()})
        self.heads["embedding"] = nn.Linear(HIDDEN, EMBEDDING)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = F.relu(norm(conv(x)))
        hidden = F.relu(self.hidden(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)))
        return {name: head(hidden) for name, head in self.heads.items()}

    def exported(self) -> dict[str, np.ndarray]:
        """float16 weights in the layout of `judge.look`."""
        out = {}
        for i, (conv, norm) in enumerate(zip(self.conv, self.norm, strict=True)):
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            out[f"conv.{i}.weight"] = (conv.weight * gain[:, None, None, None]).permute(2, 3, 1, 0)
            out[f"conv.{i}.bias"] = norm.bias - norm.running_mean * gain
        for name, layer in (("hidden", self.hidden), *self.heads.items()):
            out[f"{name}.weight"], out[f"{name}.bias"] = layer.weight.T, layer.bias
        return {name: np.ascontiguousarray(value.detach().numpy().astype(np.float16)) for name, value in out.items()}


def labels(scenes: list[Scene]) -> Tensor:
    """[N, 4] class, colour, pattern, place; IGNORED where words have no name for it."""

    def index(options: tuple[str, ...], name: str | None) -> int:
        return options.index(name) if name in options else IGNORED

    rows = [
        (index(CLASSES, s.kind), index(tuple(COLOURS), s.colour), index(PATTERNS, s.pattern), index(PLACES, s.place))
        for s in scenes
    ]
    return torch.tensor(rows)


def roughened(x: Tensor) -> Tensor:
    """Images as a generator might make them: mirrored, shifted, soft, noisy, a little discoloured."""
    n = len(x)
    x = torch.where((torch.rand(n, 1, 1, 1) < 0.5), x.flip(-1), x)
    dy, dx = (int(v) for v in torch.randint(-2, 3, (2,)))
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")[:, :, 2 + dy : 66 + dy, 2 + dx : 66 + dx]
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, torch.rand(n, 1, 1, 1).square())
    low = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.2, low, x)
    x = x * (1 + 0.07 * torch.randn(n, 1, 1, 1)) + 0.04 * torch.randn(n, 3, 1, 1)
    grain = torch.rand(n, 1, 1, 1).square() * 0.12
    patches = F.interpolate(torch.randn(n, 3, 16, 16), scale_factor=4, mode="bilinear")
    return (x + grain * torch.randn_like(x) + grain * patches).clamp(-1, 1)


def identity_loss(embedding: Tensor) -> Tensor:
    """InfoNCE over things [M, 2 views, D]."""
    a, b = F.normalize(embedding, dim=-1).unbind(1)
    logits = a @ b.T / TEMPERATURE
    target = torch.arange(len(a))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train(net: Network, steps: int, scale: float) -> None:
    torch.manual_seed(0)
    start = time.monotonic()
    scenes, pixels = pool(201, int(14000 * scale))
    truth = labels(scenes)
    wild_scenes, wild_pixels = pool(202, int(5000 * scale), wild=True)
    truth, pixels = torch.cat([truth, labels(wild_scenes)]), torch.cat([pixels, wild_pixels])
    families = draw_families(203, int(1500 * scale), 3)[1]
    print(f"drawn in {time.monotonic() - start:.0f} s", flush=True)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    net.train().to(memory_format=torch.channels_last)
    for step in range(steps):
        rows = torch.randint(len(pixels), (112,))
        chosen = families[torch.randint(len(families), (20,))]
        views = chosen[:, :, torch.randperm(chosen.shape[2])[:2]]
        x = torch.cat([pixels[rows], views.flatten(0, 2)])
        out = net(roughened(to_unit(x)).contiguous(memory_format=torch.channels_last))
        words = sum(
            F.cross_entropy(out[name][:112], truth[rows, i], ignore_index=IGNORED) for i, name in enumerate(judge.HEADS)
        )
        identity = identity_loss(out["embedding"][112:].unflatten(0, (20 * MEMBERS, 2)))
        optimizer.zero_grad()
        (words + identity).backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            seconds = time.monotonic() - start
            print(
                f"update {step}  words {words.item():.3f}  identity {identity.item():.3f}  {seconds:.0f} s", flush=True
            )


def accuracy(pixels: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Share right of each head, by the exported weights in NumPy."""
    seen = judge.look(pixels.permute(0, 2, 3, 1).numpy())
    return {
        name: round(judge.agreement(getattr(seen, name), [getattr(s, name) for s in scenes]), 4) for name in judge.HEADS
    }


def calibrate(count: int) -> dict[str, float]:
    """The threshold at which as many positives are missed as the hardest negatives are taken, on roughened drawings.

    Five clean images of each thing are the references.  Positives: the same thing; negatives: its relatives, which
    differ in one trait, and ordinary scenes of its class.
    """
    torch.manual_seed(1)
    families, pictures = draw_families(301, count, 7)
    ordinary, pixels = pool(302, 2000)
    positive, near, far = [], [], []
    for members, views in zip(families, pictures, strict=True):
        references = views[0, :5].permute(0, 2, 3, 1).numpy()
        same = [p for p, s in zip(pixels, ordinary, strict=True) if s.kind == members[0].kind][:8]
        group = torch.cat([views[0, 5:], views[1:, 5], torch.stack(same)])
        rough = ((roughened(to_unit(group)) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        scores = judge.subject_scores(references, rough)
        positive += list(scores[:2])
        near += list(scores[2:6])
        far += list(scores[6:])
    levels = np.linspace(0, 1, 1001)
    missed = np.array([(np.array(positive) < v).mean() for v in levels])
    taken = np.array([(np.array(near) >= v).mean() for v in levels])
    best = int(np.abs(missed - taken).argmin())
    return {
        "threshold": round(float(levels[best]), 3),
        "positives recognised": round(float(1 - missed[best]), 4),
        "one-trait relatives taken for the subject": round(float(taken[best]), 4),
        "class scenes taken for the subject": round(float((np.array(far) >= levels[best]).mean()), 4),
        "things": count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--scale", type=float, default=1.0, help="of the drawn data; below 1 for a trial")
    args = parser.parse_args()
    net = Network()
    train(net, args.steps, args.scale)
    net.eval()
    save_file(net.exported(), judge.WEIGHTS)
    judge._weights.cache_clear()
    scenes, pixels = pool(204, 2000, allow_held_out=True)
    report: dict[str, object] = dict(calibrate(max(20, int(300 * args.scale))))
    report["accuracy on fresh scenes"] = accuracy(pixels, scenes)
    rough = ((roughened(to_unit(pixels)) + 1) * 127.5).round().byte()
    report["accuracy on roughened scenes"] = accuracy(rough, scenes)
    judge.THRESHOLD.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
