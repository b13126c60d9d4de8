"""Ten updates of each method against a plain loop over diffusers' UNet with peft's layers, which start by themselves
where the method's first values are no draw: DoRA's lengths, PiSSA's singular values."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.protocol import Batch
from dreamcore.io.names import LORA_FILE

from ..support import needs
from ..support.runs import prepared, texts

pytestmark = needs.torch

UPDATES, RATE = 10, 5e-3
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in"]
CASES: dict[str, dict[str, Any]] = {
    "dora, rslora": {"use_dora": True, "use_rslora": True, "rank": 4, "lora_alpha": 6.0, "lora_layers": LAYERS},
    "pissa": {"lora_method": "pissa", "rank": 3, "lora_alpha": 6.0},
    "loha": {"lora_method": "loha", "rank": 3, "lora_alpha": 1.5, "lora_layers": LAYERS},
    "lokr": {"lora_method": "lokr", "rank": 3, "lora_alpha": 6.0, "lokr_factor": 2, "lora_layers": LAYERS},
}


def peft_config(given: dict[str, Any]) -> Any:
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    rank, layers = given["rank"], given.get("lora_layers", LAYERS[:4])
    alpha = given.get("lora_alpha", rank)
    if given.get("lora_method") == "loha":
        return LoHaConfig(r=rank, alpha=alpha, target_modules=layers)
    if given.get("lora_method") == "lokr":
        return LoKrConfig(r=rank, alpha=alpha, decompose_factor=given.get("lokr_factor", -1), target_modules=layers)
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=layers,
        use_dora=given.get("use_dora", False),
        use_rslora=given.get("use_rslora", False),
        init_lora_weights="pissa" if given.get("lora_method") == "pissa" else True,
    )


class Plain:
    """The loop."""

    def __init__(self, model: Path, given: dict[str, Any], first: dict[str, np.ndarray]):
        import torch
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        self.tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(model / "text_encoder").eval()
        self.unet = UNet2DConditionModel.from_pretrained(model / "unet").eval().requires_grad_(False)
        self.untouched = copy.deepcopy(self.unet)
        self.unet.add_adapter(peft_config(given))
        weights = []
        for name, weight in self.unet.named_parameters():
            if not weight.requires_grad:
                continue
            weights.append(weight)
            drawn = first.get("unet." + name.replace(".default", ""))
            if drawn is not None and given.get("lora_method") != "pissa" and "magnitude" not in name:
                weight.data.copy_(torch.from_numpy(drawn).view_as(weight))
        self.weights, self.optimizer = weights, torch.optim.AdamW(weights, lr=RATE, weight_decay=1e-2, foreach=False)

    def errors(self, unet: Any, batch: Batch, prompts: list[str]) -> Any:
        import torch

        ids = self.tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with torch.no_grad():
            words = self.encoder(ids.input_ids)[0]
        answer = unet(torch.from_numpy(batch.x), torch.from_numpy(batch.t), words).sample
        return (answer - torch.from_numpy(batch.target)).square().flatten(1).mean(1)

    def update(self, batch: Batch, prompts: list[str]) -> tuple[np.ndarray, float]:
        import torch

        errors = self.errors(self.unet, batch, prompts)
        (errors * torch.from_numpy(batch.weight)).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return errors.detach().numpy(), float(norm)


@pytest.mark.parametrize("case", CASES)
def test_ten_updates(case: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    given = CASES[case]
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "run", stack, use_lora=True, train_batch_size=2, **given)
        first = run.backend.trained_lora(averaged=False)
        assert first is not None
        plain = Plain(tiny_model, given, first.factors)
        batches = [run.batcher.update(number, 0)[0][0] for number in range(UPDATES)]
        untouched = plain.errors(plain.untouched, batches[0], texts(run, batches[0])).numpy()
        np.testing.assert_allclose(run.backend.loss(batches[0]), untouched, rtol=1e-5, err_msg="begins as the model is")
        for number, batch in enumerate(batches):
            errors, norm = plain.update(batch, texts(run, batch))
            run.backend.train_step([batch], {"unet": RATE})
            (result,) = run.backend.metrics()
            np.testing.assert_allclose(result.errors, errors, rtol=1e-5, err_msg=f"{case}: errors of update {number}")
            np.testing.assert_allclose(result.grad_norm, norm, rtol=1e-5, err_msg=f"{case}: norm of update {number}")
        if given.get("lora_method") in ("loha", "lokr"):
            return
        run.backend.export(tmp_path, averaged=False)
        read = plain.errors(read_by_diffusers(tiny_model, tmp_path), batches[0], texts(run, batches[0])).detach()
        np.testing.assert_allclose(run.backend.loss(batches[0]), read.numpy(), rtol=1e-5, err_msg="in diffusers")


def read_by_diffusers(model: Path, folder: Path) -> Any:
    """The UNet of its own pipeline with the LoRA file."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, feature_extractor=None)
    pipeline.load_lora_weights(folder / LORA_FILE)
    return pipeline.unet
