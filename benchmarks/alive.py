"""Bytes alive in one update of a UNet of a published geometry, on tensors without memory: PyTorch's own operators and
lifetimes, none of their arithmetic.

    python -m benchmarks.alive sdxl 128 --lora              # a latent of 128²: 1024² pixels
    python -m benchmarks.alive sd15 64                      # full fine-tuning
    python -m benchmarks.alive sdxl 128 --lora --bf16

Blocks are computed again in the backward pass.  What is printed is what `dreamcore/placement/` has to come to: bytes
kept after the forward pass, and the most there are at once; without the weights, with their gradients.  What operators
hold while they run is not seen: on a CPU a convolution copies its weight and both sides into an order of its own.
"""

from __future__ import annotations

import argparse
import weakref
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.placement.test_tape import ATTENTION, SD15, SDXL

GEOMETRIES: dict[str, dict[str, Any]] = {
    "sd15": SD15,
    "sdxl": SDXL
    | {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
GIB = 2**30


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that operators make, until these go."""

    def __init__(self, known: list[torch.Tensor]):
        super().__init__()
        self.now = self.most = 0
        self.where = ""
        self._storages = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(answer):
            if isinstance(tensor, torch.Tensor):
                self._made(tensor.untyped_storage())
        if self.now > self.most:
            self.most, self.where = self.now, str(func)
        return answer

    def _made(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._storages:
            self._storages.add(storage._cdata)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.now -= size


def network_of(geometry: str, fake: FakeTensorMode, *, lora: bool, bf16: bool) -> UNet2DConditionModel:
    """The network, in training; without memory from the beginning.  Factors are of rank 16 and float32."""
    with torch.device("meta"):
        network = UNet2DConditionModel(**GEOMETRIES[geometry])
        if lora:
            network.requires_grad_(False)
            network.add_adapter(LoraConfig(r=16, target_modules=list(ATTENTION)))
    with fake:
        for layer in network.modules():
            for name, weight in layer._parameters.items():
                if weight is not None:
                    dtype = torch.bfloat16 if bf16 and not weight.requires_grad else torch.float32
                    made = torch.empty(weight.shape, dtype=dtype)
                    layer._parameters[name] = torch.nn.Parameter(made, requires_grad=weight.requires_grad)
    again = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False, preserve_rng_state=False)
    network.enable_gradient_checkpointing(again)
    return network.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("geometry", choices=GEOMETRIES)
    parser.add_argument("side", type=int, help="of the latent")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocasting, as on a CPU")
    asked = parser.parse_args()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    network = network_of(asked.geometry, fake, lora=asked.lora, bf16=asked.bf16)
    with fake:
        words = torch.randn(1, 77, network.config["cross_attention_dim"])
        more = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
        alive = Alive(list(network.parameters()))
        with alive, torch.autocast("cpu", torch.bfloat16, enabled=asked.bf16):
            sample, time = torch.randn(1, 4, asked.side, asked.side), torch.tensor([5])
            (answer,) = network(sample, time, words, added_cond_kwargs=more, return_dict=False)
            kept = alive.now
            loss = answer.float().pow(2).mean()
            del answer
            loss.backward()
    print(f"kept {kept / GIB:.4f} GiB, at most {alive.most / GIB:.4f} (in {alive.where})")


if __name__ == "__main__":
    main()
