"""`generate` takes from a LoRA run's own configuration what nobody should have to type again."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamcore.cli.main import main
from dreamcore.config import GenerateConfig, load_config
from dreamcore.config.base import Settings
from dreamcore.errors import ConfigError
from dreamcore.runs.next_steps import next_steps

from ..support.runs import small_run

FEW = ["--prompt", "a sks dog", "--num_inference_steps", "1"]


@pytest.fixture(scope="module")
def run(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run at another size than the model's, with an autoencoder of its own and a checkpoint."""
    vae = Path(shutil.copytree(tiny_model / "vae", tmp_path_factory.mktemp("vae") / "other"))
    settings = {"use_lora": True, "resolution": 64, "pretrained_vae_model_name_or_path": str(vae)}
    folder = tmp_path_factory.mktemp("run") / "lora"
    return small_run(tiny_model, photos, folder, **settings, max_train_steps=1, checkpointing_steps=1).folder


def test_by_either_of_its_files(run: Path, tiny_model: Path) -> None:
    for name in ("pytorch_lora_weights.safetensors", f"{run.name}.safetensors"):
        one = config(lora=f"another.safetensors,{run / name}")
        assert one.pretrained_model_name_or_path == str(tiny_model.resolve()) and one.height == 64


@pytest.mark.parametrize("words", [["--lora", ""], ["--model", ""], ["--lora", "checkpoint-1"]], ids=" ".join)
def test_model_and_size_come_with_the_run(
    words: list[str], run: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag, part = words
    assert main(["generate", flag, str(run / part), *FEW, "--output_dir", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().err.splitlines()[0]
    assert (
        said.startswith(f"{run / 'config.yaml'} says: ")
        and f"pretrained_model_name_or_path {tiny_model.resolve()}" in said
    )
    assert Image.open(tmp_path / "a" / "00000.png").size == (64, 64)
    record = json.loads((tmp_path / "a" / "pictures.json").read_text())["settings"]
    assert record["pretrained_vae_model_name_or_path"].endswith("other")
    everything = ["--model", str(tiny_model), "--lora", str(run), "--height", "64", "--width", "64"]
    everything += ["--pretrained_vae_model_name_or_path", record["pretrained_vae_model_name_or_path"]]
    assert main(["generate", *everything, *FEW, "--output_dir", str(tmp_path / "b")]) == 0
    brought, typed = (Image.open(tmp_path / part / "00000.png").tobytes() for part in "ab")
    assert brought == typed


def test_the_line_that_a_run_tells_is_typed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    command, *words = shlex.split(next_steps(Path(run.name)).generate)
    assert command == "dreambooth" and main(words) == 0
    assert Image.open(run.parent / "samples" / "00000.png").size == (64, 64)


def config(**given: Any) -> GenerateConfig:
    return load_config(GenerateConfig, None, {"prompt": "a", **given})


def test_what_is_given_wins(run: Path, tiny_model: Path) -> None:
    one = config(lora=str(run), height=32)
    assert (one.height, one.width) == (32, None)
    other = config(lora=str(run), pretrained_model_name_or_path="another/model")
    assert other.pretrained_model_name_or_path == "another/model"
    assert other.pretrained_vae_model_name_or_path is None, "it belongs to the run's own model"
    assert (other.height, other.width) == (64, 64)
    none = config(lora=str(run), pretrained_vae_model_name_or_path=None)
    assert none.pretrained_vae_model_name_or_path is None
    assert none.pretrained_model_name_or_path == str(tiny_model.resolve())
    same = config(lora=str(run), pretrained_model_name_or_path=f"{tiny_model}/../{tiny_model.name}")
    assert same.pretrained_vae_model_name_or_path is not None, "its own model, written otherwise"


def test_checking_it_again_changes_nothing(run: Path) -> None:
    for given in ({"lora": str(run)}, {"pretrained_model_name_or_path": str(run)}):
        once: Settings = config(**given)
        again = GenerateConfig.from_mapping(once.given(), once.suggested)
        assert (again, again.notes) == (once, once.notes) and again.notes
        assert once.given() == {"prompt": "a", **{n: [v] if n == "lora" else v for n, v in given.items()}}


def test_a_file_of_unknown_origin_asks_for_its_model(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "pytorch_lora_weights.safetensors", tmp_path)
    with pytest.raises(ConfigError, match="pretrained_model_name_or_path: required, but not given; .*--lora RUN"):
        config(lora=str(tmp_path))
    (tmp_path / "config.yaml").write_text("rank: [")
    with pytest.raises(ConfigError, match=r"config\.yaml: "):
        config(lora=str(tmp_path))
    with pytest.raises(ConfigError, match="lora: cannot be looked for: file name too long"):
        config(lora="a" * 300)
