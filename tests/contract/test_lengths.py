"""How long a run is where nobody says so, and what is said of a warm-up that outlasts it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import TrainConfig, load_config
from dreamcore.families import FAMILIES

from ..support.runs import prepared

CASES: dict[str, tuple[dict[str, Any], int, str]] = {
    "full": ({}, 400, "400 updates, usual for full fine-tuning of Stable Diffusion 1.x / 2.x; max_train_steps or"),
    "LoRA": ({"use_lora": True}, 500, "500 updates, usual for LoRA of Stable Diffusion 1.x / 2.x; max_train_steps or"),
    "updates": ({"max_train_steps": 7}, 7, ""),
    "epochs": ({"num_train_epochs": 3}, 3 * 5, ""),  # of five photographs
}


@pytest.mark.parametrize("case", CASES)
def test_a_length_is_given_or_the_usual_one_is_taken_and_said(
    case: str, tiny_model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, updates, said = CASES[case]
    settings: dict[str, Any] = {"max_train_steps": None, "cache_latents": False, **given}
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, **settings)
    assert run.resolved.rates.total == updates
    printed = capsys.readouterr().err
    assert said in printed and ("usual" in printed) == bool(said)
    again = load_config(TrainConfig, tmp_path / "out" / "config.yaml")
    assert again.max_train_steps == (None if case == "epochs" else updates), "the same length, whatever is usual then"


def test_presets_have_their_familys_usual_length() -> None:
    from dreamcore.config import read_config_file

    family = FAMILIES["StableDiffusionPipeline"]
    assert read_config_file("sd15-full")["max_train_steps"] == read_config_file("sd21-full")["max_train_steps"]
    assert read_config_file("sd15-full")["max_train_steps"] == family.updates
    for preset, pipeline in (("sd15", ""), ("sdxl", "XL"), ("sd3", "3")):
        usual = FAMILIES[f"StableDiffusion{pipeline}Pipeline"].lora_updates
        assert read_config_file(f"{preset}-lora")["max_train_steps"] == usual
    assert read_config_file("flux-lora")["max_train_steps"] == FAMILIES["FluxPipeline"].lora_updates


@pytest.mark.parametrize(("warmup", "warned"), [(3, False), (4, True), (500, True)])
def test_a_warm_up_that_outlasts_the_run_is_said(
    warmup: int, warned: bool, tiny_model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": warmup, "cache_latents": False}
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, **settings)
    rates = [run.resolved.rates.at(update)["unet"] for update in range(4)]
    assert (max(rates) < 1e-4) == warned, "the rate that was asked for is never reached"
    assert (f"lr_warmup_steps: {warmup} is not less than the 4 updates" in capsys.readouterr().err) == warned
