"""The command lines of kohya's tools for files of weights, as its documents print them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamcore.cli.main import command_of, main
from dreamcore.config import load_config
from dreamcore.config.convert import ExtractConfig, MergeConfig, ResizeConfig

from ..support.lora import UNET, write_lora

LINES = {
    "networks/merge_lora.py --sd_model m.safetensors --save_to out.safetensors --models a.safetensors b.safetensors "
    "--ratios 0.8 0.5 --save_precision fp16 --precision float": (
        MergeConfig,
        {"pretrained_model_name_or_path": "m.safetensors", "target": "out.safetensors", "save_precision": "fp16"}
        | {"lora": ["a.safetensors", "b.safetensors"], "lora_scale": [0.8, 0.5], "rank": None},
    ),
    "networks/svd_merge_lora.py --save_to out.safetensors --models a b --ratios 0.6 0.4 --new_rank 32 --device cuda": (
        MergeConfig,
        {"target": "out.safetensors", "lora": ["a", "b"], "lora_scale": [0.6, 0.4], "rank": 32, "save_precision": None},
    ),
    "networks/resize_lora.py --save_precision float --save_to out.safetensors --model lora.safetensors --verbose": (
        ResizeConfig,
        {"source": "lora.safetensors", "target": "out.safetensors", "rank": 4, "save_precision": "fp32"},
    ),
    "networks/extract_lora_from_models.py --model_org base.ckpt --model_tuned tuned --save_to=out.safetensors --dim=8 "
    "--v2": (
        ExtractConfig,
        {"pretrained_model_name_or_path": "tuned", "base": "base.ckpt", "target": "out.safetensors", "rank": 8},
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_a_printed_command_line_is_understood(line: str) -> None:
    from dreamcore.cli.convert import PARTS
    from dreamcore.cli.flags import parse_settings

    command, words = command_of(line.split())
    cls, wanted = LINES[line]
    assert command == "convert" and PARTS[words[0]].settings is cls
    config = load_config(cls, *parse_settings(cls, words[0], "", words[1:]))
    assert {name: getattr(config, name) for name in wanted} == wanted


def test_models_between_their_forms() -> None:
    line = "tools/convert_diffusers20_original_sd.py --v1 --fp16 --use_safetensors folder out.safetensors"
    wanted = ["--save_precision=fp16", "--source=folder", "--target=out.safetensors"]
    assert command_of(line.split()) == ("convert", wanted)
    line = (
        "convert_diffusers20_original_sd.py in.safetensors out --v2 --reference_model a/folder --save_precision_as no"
    )
    assert command_of(line.split())[1] == ["--source=in.safetensors", "--target=out", "--original_config=a/folder"]


@pytest.mark.parametrize(("line", "message"), [
    ("resize_lora.py --dynamic_method sv_fro --new_conv_rank 4", "new_conv_rank: remove it; a rank is of all layers"),
    ("merge_lora.py --models a --save_to a.ckpt", "target: a.ckpt: pickled files are not written"),
    ("sdxl_merge_lora.py --models a --lbws 1,0", "lbws: weights of single blocks are not known here"),
    ("extract_lora_from_models.py --clamp_quantile 0.9", "clamp_quantile: the factors are the nearest there are"),
    ("resize_lora.py --model a --save_to b.safetensors --new_rnak 3", "new_rnak: unknown setting"),
])  # fmt: skip
def test_what_is_not_had_is_named(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert message in capsys.readouterr().err


def test_it_runs(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = write_lora(tiny_model, tmp_path / "a.safetensors", [f"{UNET}.to_q"])
    assert (
        main(["resize_lora.py", "--model", str(lora), "--save_to", f"{tmp_path}/b.safetensors", "--new_rank", "1"]) == 0
    )
    assert "rank 1, fp32" in capsys.readouterr().out
