"""What a user may well type and would lose something by: refused by name, with nothing touched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import dreamcore
from dreamcore.config import TrainConfig, load_config
from dreamcore.errors import ConfigError

from ..support.stub_runs import contents, train

OVERWRITE = {"overwrite_output_dir": True}
LATEST = {"resume_from_checkpoint": "latest"}


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A finished run's folder."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def refused(match: str, model: Path, photos: Path, out: Path, **settings: Any) -> None:
    """Assert that the run is refused, and that everything around its folder is as it was."""
    before = contents(out.parent)
    with pytest.raises(ConfigError, match=match):
        train(model, photos, out, **settings)
    assert contents(out.parent) == before


@pytest.mark.parametrize("settings", [OVERWRITE, LATEST, {}], ids=["overwrite", "resume", "neither"])
@pytest.mark.parametrize("place", ["samples", "subject", "unet", "checkpoint-9", ".dreambooth"])
def test_photographs_among_the_results(
    place: str, settings: dict[str, Any], stub_model: Path, drawn: Path, out: Path
) -> None:
    shutil.copytree(drawn, out / place, dirs_exist_ok=True)
    refused(
        rf"instance_data_dir: .*{place}: lies in .*{place}, where a run in output_dir writes its results; move it, or "
        r"choose another output_dir, such as .*out-2",
        *(stub_model, out / place, out),
        **settings,
    )


def test_a_link_leads_there_too(stub_model: Path, drawn: Path, out: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(out / "samples")
    refused("instance_data_dir: .*link: lies in .*samples", stub_model, link, out, **OVERWRITE)
    mixed = Path(shutil.copytree(drawn, tmp_path / "mixed"))
    (mixed / "mine.png").symlink_to(out / "samples" / "step-000004-0.png")
    refused(r"lies in .*samples, by the link .*mine\.png", stub_model, mixed, out, **OVERWRITE)
    (out / "samples").rename(tmp_path / "elsewhere")
    (out / "samples").symlink_to(tmp_path / "elsewhere")
    refused("lies in .*samples", stub_model, tmp_path / "elsewhere", out, **OVERWRITE)


@pytest.mark.parametrize("settings", [OVERWRITE, LATEST, {}], ids=["overwrite", "resume", "neither"])
def test_the_base_model_is_the_output(settings: dict[str, Any], stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(stub_model, tmp_path / "model"))
    refused("output_dir: .*model: is pretrained_model_name_or_path as well", model, drawn, model, **settings)
    refused("output_dir: .*lies in pretrained_model_name_or_path", model, drawn, model / "unet" / "out", **settings)


def test_an_autoencoder_inside_the_output(stub_model: Path, drawn: Path, out: Path) -> None:
    for vae in (out, out / "vae"):
        setting = {"pretrained_vae_model_name_or_path": str(vae)}
        refused(
            "pretrained_vae_model_name_or_path: .*vae: lies in .*vae", stub_model, drawn, out, **OVERWRITE, **setting
        )


def test_photographs_above_the_output_are_read_without_it(
    stub_model: Path, drawn: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photos = Path(shutil.copytree(drawn, tmp_path / "photos"))
    refused(
        "output_dir: .*out: lies in instance_data_dir, .*photos, which is read with its sub-folders",
        *(stub_model, photos, photos / "out"),
        sub_folders=True,
    )
    train(stub_model, photos, photos / "out")
    train(stub_model, photos, tmp_path / "other", sub_folders=True)
    assert "1 run's folder skipped" in capfd.readouterr().err
    report = dreamcore.data_report(instance_data_dir=str(photos), sub_folders=True, sheet=str(tmp_path / "sheet.png"))
    assert len(report.inspections[0].rows) == 3
    assert "1 run's folder skipped" in report.inspections[0].notes


def test_two_settings_that_name_one_folder(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    prior = {"with_prior_preservation": True, "class_prompt": "a mug", "num_class_images": 2}
    out, photos = tmp_path / "out", Path(shutil.copytree(drawn, tmp_path / "photos"))
    for settings, match in (
        (prior | {"class_data_dir": str(out)}, "output_dir: .*out: is class_data_dir as well"),
        (prior | {"class_data_dir": str(photos)}, "class_data_dir: .*photos: is instance_data_dir as well"),
        (prior | {"class_data_dir": str(stub_model)}, "class_data_dir: .*: is pretrained_model_name_or_path as well"),
        (prior | {"class_data_dir": str(out / "samples")}, "class_data_dir: .*samples: lies in .*samples"),
        ({"latent_cache_dir": str(photos)}, "latent_cache_dir: .*photos: is instance_data_dir as well"),
        ({"validation_data_dir": str(out), "output_dir": str(out)}, "output_dir: .*is validation_data_dir as well"),
    ):
        refused(match, stub_model, photos, out, **settings)
    inside = prior | {"class_data_dir": str(photos / "classes"), "sub_folders": True}
    refused("class_data_dir: .*classes: lies in instance_data_dir", stub_model, photos, out, **inside)


def test_a_folder_from_before_manifests(stub_model: Path, drawn: Path, out: Path, tmp_path: Path) -> None:
    shutil.rmtree(out / ".dreambooth")
    refused("holds config.yaml, metrics.jsonl,.*such as .*out-2", stub_model, drawn, out, **OVERWRITE)
    longer = train(stub_model, drawn, out, **LATEST, max_train_steps=6)
    assert longer.updates == 6
    train(stub_model, drawn, out, **OVERWRITE)  # now it is on record


def test_resuming_where_there_is_no_checkpoint(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(drawn, out / "samples")
    (out / "samples" / "step-000000-0.png").write_bytes((out / "samples" / "00.png").read_bytes())
    refused("holds samples/step-000000-0.png", stub_model, drawn, out, **LATEST)


def test_the_configuration_is_where_the_run_writes_its_own(
    stub_model: Path, drawn: Path, out: Path, tmp_path: Path
) -> None:
    def again(file: Path, **settings: Any) -> None:
        dreamcore.train(load_config(TrainConfig, file, {"output_dir": str(out), **settings}))

    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"config: .*config\.yaml: is where the run in .*out writes its own"):
        again(out / "config.yaml", **OVERWRITE)
    assert contents(tmp_path) == before
    again(out / "config.yaml", **LATEST, max_train_steps=6)
    shutil.copyfile(out / "config.yaml", tmp_path / "mine.yaml")
    again(tmp_path / "mine.yaml", **OVERWRITE)


def test_a_sheet_among_the_photographs(drawn: Path, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(drawn, tmp_path / "photos"))
    with pytest.raises(ConfigError, match=r"sheet: .*would lie among the photographs of instance_data_dir"):
        dreamcore.data_report(instance_data_dir=str(photos), sheet=str(photos / "sheet.png"))
    assert len(list(photos.iterdir())) == 3
