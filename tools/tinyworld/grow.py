"""Give a trained denoiser twice the blocks of a level, so that it still computes what it did: the new ones pass on.

python tools/tinyworld/grow.py --model dreamcore/tinyworld/model --out build/tinyworld/grown

A new block's last convolution, or an attention's last projection, is nought; where the way up takes a level's second
skip, its shortcut lets the first half through.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

UP = re.compile(r"(up_blocks\.\d+\.(?:resnets|attentions)\.)1(\..*)")


def grown(old: UNet2DConditionModel) -> UNet2DConditionModel:
    """A denoiser of two layers a block from one of one layer: equal outputs.

    The way down gets a second block a level, and its skip; the way up a second between the two that there are, which
    takes the skip that the second took, of the level's first block.
    """
    assert old.config["layers_per_block"] == 1, "one layer a block is what can be grown"
    told = {name: value for name, value in old.config.items() if name != "_name_or_path"}  # where it lay here
    new = UNet2DConditionModel.from_config({**told, "layers_per_block": 2})
    weights = {UP.sub(r"\g<1>2\2", name): value for name, value in old.state_dict().items()}
    for name, value in new.state_dict().items():
        if name not in weights:
            weights[name] = _passing(name, value)
    new.load_state_dict(weights)
    return new


def _passing(name: str, value: Tensor) -> Tensor:
    """What a new block begins with, so that it passes on what it is given."""
    if ".conv_shortcut.weight" in name:  # [out, out + skip, 1, 1]
        return torch.eye(*value.shape[:2]).reshape(value.shape)
    if any(part in name for part in (".conv2.", ".proj_out.", ".conv_shortcut.bias")):
        return torch.zeros_like(value)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    shutil.copytree(args.model, args.out)
    old = UNet2DConditionModel.from_pretrained(args.model / "unet", torch_dtype=torch.float32)
    new = grown(old)
    given = torch.randn(2, old.config["in_channels"], 16, 16), torch.tensor([10, 700]), torch.randn(2, 32, 96)
    with torch.no_grad():
        assert torch.allclose(old(*given).sample, new(*given).sample, atol=1e-5), "a grown denoiser computes the same"
    shutil.rmtree(args.out / "unet")
    new.save_pretrained(args.out / "unet")
    print(f"{sum(p.numel() for p in new.parameters()) / 1e6:.2f} M weights")


if __name__ == "__main__":
    main()
