"""Write the embedded model: a finished run, or the averaged weights of one of its checkpoints, in float16.

python tools/tinyworld/publish.py --run build/tinyworld/run [--checkpoint 1500]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamcore.models.locate import embedded_model

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
OTHER = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    *(f"{part}/config.json" for part in WEIGHTS),
)
LIMIT = 16 * 10**6


def averaged(checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    """A checkpoint's moving averages by component; empty where there is no checkpoint."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in load_file(checkpoint / "ema.safetensors").items():
        part, rest = name.split(".", 1)
        parts.setdefault(part, {})[rest] = value
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--checkpoint", type=int)
    parser.add_argument("--base", type=Path, help="where what a checkpoint lacks comes from; the default is the run")
    parser.add_argument("--out", type=Path, default=embedded_model())
    args = parser.parse_args()
    if args.base and not args.checkpoint:
        parser.error("--base: a finished run lacks nothing; give it with --checkpoint")
    base = args.base or args.run
    parts = averaged(args.run / f"checkpoint-{args.checkpoint}") if args.checkpoint else {}
    for name in OTHER:
        (args.out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / name, args.out / name)
    for part, file in WEIGHTS.items():
        tensors = parts.get(part) or load_file(base / part / file)
        if part == "text_encoder":
            assert all(name.startswith("text_model.") for name in tensors), "published names carry the prefix"
        half = {name: value.to(torch.float16).contiguous() for name, value in tensors.items()}
        save_file(half, args.out / part / file, metadata={"format": "pt"})
        (args.out / part / file).chmod(0o644)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    assert size <= LIMIT, f"{size} bytes are more than {LIMIT}"
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
