"""An update of this library on MindSpore, of a plain loop over mindone's networks, and of this library on PyTorch.

    python -m benchmarks.compare_mindone --model MODEL [--torch .../bin/python]

All three train the same UNet (`--model`, a folder in diffusers' layout) in full on batches of the same shape, on one
thread, on the CPU.  The plain loop is written as mindone's examples are: `value_and_grad`, `clip_by_global_norm`,
`nn.AdamWeightDecay`; it stands on the same replacements of operators that MindSpore's CPU backend lacks, without which
it does not run.  Its latents and its words' states are given; with `--encode` it makes them in each update, as
mindone's script does.  Updates of the two take turns in one process; PyTorch's are measured in a process of its own.
Printed are seconds by the clock, the median of the updates, and seconds of the processor, which a busy machine spoils
less, and the median of what a turn's two updates are to each other.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dreamcore.backends.protocol import Batch
from dreamcore.backends.registry import load_backend
from dreamcore.config import TrainConfig
from dreamcore.models.folder import ModelFolder

PROMPT = "a photo of sks dog"
RATE = 1e-5
Measured = dict[str, tuple[float, ...]]


def main() -> None:
    asked = _arguments()
    batch = _batch(asked)
    if asked.as_torch:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(_measure({"dreambooth on PyTorch": _ours("torch", asked, batch)[0]}, asked)))
        return
    update, backend = _ours("mindspore", asked, batch)
    measured = _measure(
        {"a plain mindone loop": _plain(asked, batch, backend), "dreambooth on MindSpore": update}, asked
    )
    if asked.torch:
        command = [str(asked.torch), "-m", "benchmarks.compare_mindone", *sys.argv[1:], "--as_torch"]
        measured |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{'an update, in seconds':28} by the clock  of the processor  ratios")
    for name, (clock, processor, *ratios) in measured.items():
        print(f"{name:28} {clock:12.3f}  {processor:16.3f}  {'  '.join(f'{ratio:.2f}' for ratio in ratios)}".rstrip())


def _batch(asked: argparse.Namespace) -> Batch:
    draw = np.random.default_rng(0)
    rows = asked.train_batch_size
    shape = (2, rows, 4, asked.latent_size, asked.latent_size)
    x, target = draw.standard_normal(shape, np.float32)
    times = np.linspace(3, 900, rows, dtype=np.float32)
    return Batch(x, target, times, np.zeros(rows, np.int64), np.full(rows, 1 / rows, np.float32))


def _ours(name: str, asked: argparse.Namespace, batch: Batch) -> tuple[Callable[[], Any], Any]:
    """An update, waited for; and the backend."""
    given = {"pretrained_model_name_or_path": str(asked.model), "instance_data_dir": ".", "instance_prompt": PROMPT}
    config = TrainConfig.from_mapping(given | {"output_dir": "unused", "device": "cpu", "backend": name})
    backend = load_backend(name, ModelFolder.open(str(asked.model)), config)
    backend.prepare_training(config)
    backend.set_prompts([PROMPT])

    def update() -> None:
        backend.train_step([batch], {"unet": RATE})
        backend.metrics()

    return update, backend


def _plain(asked: argparse.Namespace, batch: Batch, backend: Any) -> Callable[[], Any]:
    """An update as mindone's examples make it; the device, the replacements and the words' embedding are ours."""
    import mindspore as ms
    from mindone.diffusers import UNet2DConditionModel
    from mindspore import nn, ops

    unet = UNet2DConditionModel.from_pretrained(str(asked.model), subfolder="unet")
    unet.set_train(True)
    optimizer = nn.AdamWeightDecay(unet.trainable_params(), learning_rate=RATE)
    words = ops.tile(backend.text.conditions[0].prompt_embeds, (asked.train_batch_size, 1, 1))

    def forward(x: Any, t: Any, target: Any, states: Any) -> Any:
        return ops.mse_loss(unet(x, t, states)[0], target)

    gradients_of = ms.value_and_grad(forward, None, optimizer.parameters)

    encode = _encoding(asked, backend) if asked.encode else lambda: (ms.Tensor(batch.x), words)

    def update() -> None:
        x, states = encode()
        loss, gradients = gradients_of(x, ms.Tensor(batch.t), ms.Tensor(batch.target), states)
        optimizer(ops.clip_by_global_norm(gradients, 1.0))
        loss.asnumpy()

    return update


def _encoding(asked: argparse.Namespace, backend: Any) -> Callable[[], tuple[Any, Any]]:
    """What makes noisy latents of images, and states of words, as mindone's script does in each update."""
    import mindspore as ms
    from mindone.diffusers import AutoencoderKL
    from mindone.transformers import CLIPTextModel

    vae = AutoencoderKL.from_pretrained(str(asked.model), subfolder="vae")
    reader = CLIPTextModel.from_pretrained(str(asked.model), subfolder="text_encoder")
    side, rows = asked.latent_size * backend.model.latent_factor, asked.train_batch_size
    draw = np.random.default_rng(1)
    pixels = ms.Tensor(draw.uniform(-1, 1, (rows, 3, side, side)).astype(np.float32))
    noise = ms.Tensor(draw.standard_normal((rows, 4, asked.latent_size, asked.latent_size), np.float32))
    tokens = ms.Tensor(np.repeat(backend.text.encoders[0].tokens(PROMPT)[0], rows, 0))

    def encode() -> tuple[Any, Any]:
        latents = vae.diag_gauss_dist.sample(vae.encode(pixels)[0])
        return latents * 0.18215 + noise, reader(tokens)[0]

    return encode


def _measure(updates: dict[str, Callable[[], Any]], asked: argparse.Namespace) -> Measured:
    """The median seconds by the clock and of the processor, of updates that take turns, and beside the first ones."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in updates}
    for turn in range(asked.updates + 3):  # the first ones warm up
        for name, update in list(updates.items())[:: 1 if turn % 2 else -1]:
            before, started = _processor(), time.perf_counter()
            update()
            if turn >= 3:
                seen[name].append((time.perf_counter() - started, _processor() - before))
    medians = {name: [statistics.median(kind) for kind in zip(*taken, strict=True)] for name, taken in seen.items()}
    first, *others = seen
    for name in others:
        pairs = list(zip(seen[first], seen[name], strict=True))
        medians[name] += [statistics.median(own[kind] / their[kind] for their, own in pairs) for kind in (0, 1)]
    return {name: tuple(values) for name, values in medians.items()}


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model's folder in diffusers' layout")
    parser.add_argument("--torch", type=Path, help="Python of an environment with the PyTorch backend")
    parser.add_argument("--train_batch_size", type=int, default=2)
    parser.add_argument("--latent_size", type=int, default=8, help="height and width of the latents")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--encode", action="store_true", help="let the plain loop encode images and words every time")
    parser.add_argument("--as_torch", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
