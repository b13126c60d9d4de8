"""Ten thousand photographs of 12 megapixels: how long the index takes, and how much memory streaming through them does.

    python benchmarks/many_photographs.py FOLDER

draws a few JPEGs of 4000×3000, writes COUNT copies of them into FOLDER, each with bytes of its own (a comment with its
number), opens them as a run does (`ImageFolder.open`), and streams through them twice in processes of their own: core's
part of training alone, every sample decoded, cropped to 512×512 and encoded by a stand-in made of NumPy; and updates of
the embedded model with latents not cached.

With --samples 480 on two cores of a server (nothing else running, the files in the page cache; Pillow 13.0.0):

    index    10,000 photographs in 5.8 s (7.5 s before); peak memory 48 MiB
    stream   4.2 samples a second; peak memory 286, 452, 473, 473 MiB after each quarter: 256 MiB of it are photographs
             kept at training size, and then it grows no more
    train    480 samples in 162 s, imports included; peak memory 578 MiB, PyTorch's included
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (4000, 3000)


def draw(number: int) -> bytes:
    """A JPEG of 12 megapixels: colours and shapes of several sizes, about a megabyte."""
    rng = np.random.default_rng(number)
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.float32)
    for side, strength in ((8, 60.0), (60, 30.0), (600, 12.0)):
        noise = Image.fromarray(rng.integers(0, 256, (side * 3 // 4, side, 3), np.uint8))
        picture += (np.asarray(noise.resize(SIZE, Image.Resampling.BICUBIC), np.float32) - 128) * (strength / 128)
    with tempfile.TemporaryFile() as file:
        Image.fromarray(np.clip(picture + 128, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        file.seek(0)
        return file.read()


def write_photographs(folder: Path, count: int, distinct: int) -> None:
    """`count` files with bytes of their own; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[int, bytes] = {}
    for number in range(count):
        file = folder / f"{number:05}.jpg"
        if not file.exists():
            kind = number % distinct
            data = drawn[kind] = drawn.get(kind) or draw(kind)
            comment = f"photograph {number:05}".encode()
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            file.write_bytes(data[:2] + segment + data[2:])


def peak_mib() -> int:
    """Largest resident memory of this process so far (Linux; `getrusage` would tell of its parent's as well)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def index(folder: Path) -> dict[str, Any]:
    from dreamcore.data import ImageFolder

    start = time.monotonic()
    found = ImageFolder.open(folder, setting="FOLDER")
    return {"photographs": len(found), "seconds": round(time.monotonic() - start, 1), "peak MiB": peak_mib()}


def stream(folder: Path, samples: int) -> dict[str, Any]:
    """Core's part: the samples of a run, one micro-batch after the other."""
    from dreamcore.data import Crop, ImageFolder
    from dreamcore.data.image_set import INSTANCE
    from dreamcore.diffusion.schedule import NoiseSchedule
    from dreamcore.text.prompts import PromptTable
    from dreamcore.training.batches import Batcher
    from dreamcore.training.latents import Images, Latents
    from dreamcore.training.sample_plan import Plan

    def encode(pixels: Any) -> Any:
        n, _, h, w = pixels.shape
        mean = pixels.reshape(n, 3, h // 8, 8, w // 8, 8).mean((3, 5))[:, [0, 1, 2, 0]]
        return mean, np.full_like(mean, 0.1)

    found = ImageFolder.open(folder, setting="FOLDER")
    opened = peak_mib()
    crops = [Crop(512, 512, center_crop=False, random_flip=True)] * len(found)
    plan = Plan.single(0, len(found), batch_size=4, instance_variants=0)
    schedule = NoiseSchedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})
    with tempfile.TemporaryDirectory() as scratch:
        latents = Latents(0, {(0, INSTANCE): Images(found, crops)}, encode, 0, Path(scratch))
        words = PromptTable.collect({(0, INSTANCE): [["a photo"]] * len(found)}, [], empty=False)
        batcher = Batcher(plan, schedule, latents, words)
        peaks, start = list[int](), time.monotonic()
        for update in range(samples // 4):
            batcher.update(update)
            if (update + 1) % max(1, samples // 16) == 0:
                peaks.append(peak_mib())
    rate = samples / (time.monotonic() - start)
    return {"samples": samples, "a second": round(rate, 1), "peak MiB, opened": opened, "and later": peaks}


def train(folder: Path, samples: int) -> dict[str, Any]:
    """Real updates, each sample's photograph decoded and encoded anew."""
    import dreamcore

    with tempfile.TemporaryDirectory() as output:
        start = time.monotonic()
        dreamcore.train(
            pretrained_model_name_or_path="tinyworld",
            instance_data_dir=str(folder),
            instance_prompt="a photo of a sks mug",
            cache_latents=False,
            train_batch_size=4,
            max_train_steps=samples // 4,
            output_dir=output,
            report_to="none",
        )
    return {"samples": samples, "seconds": round(time.monotonic() - start, 1), "peak MiB": peak_mib()}


PARTS = {"index": index, "stream": stream, "train": train}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--distinct", type=int, default=12, help="images drawn, of which the others are copies")
    parser.add_argument("--samples", type=int, default=400, help="samples streamed through")
    parser.add_argument("--part", choices=PARTS, help="that part alone, in this process")
    asked = parser.parse_args()
    if asked.part:
        part = PARTS[asked.part]
        print("RESULT", json.dumps(part(asked.folder) if part is index else part(asked.folder, asked.samples)))
        return
    write_photographs(asked.folder, asked.count, asked.distinct)
    for name in PARTS:
        command = [sys.executable, __file__, str(asked.folder), "--samples", str(asked.samples), "--part", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        print(name, results[0].removeprefix("RESULT ") if results else f"failed: {done.stderr[-2000:]}", flush=True)


if __name__ == "__main__":
    main()
