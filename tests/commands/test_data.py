"""`dreambooth data`: what it shows is what training does, and its status says whether training would start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.cli.main import main
from dreamcore.config import TrainConfig
from dreamcore.data import Crop
from dreamcore.errors import ConfigError
from dreamcore.training.training_data import bucket_choice, open_subjects

from ..support.paths import PHOTOGRAPHS
from ..support.tables import as_parquet
from ..support.tiny import draw_photos


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "photos", count=4, size=600)


def test_a_table_a_sheet_and_a_status(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "made" / "sheet.png"
    assert main(["data", str(drawn), "--sheet", str(sheet), "--instance_prompt", "a sks toy", "--center-crop"]) == 0
    text = capsys.readouterr().out
    assert f"{drawn}: 4 images" in text and f"contact sheet: {sheet}" in text
    assert "02.png  PNG     RGB   1     600×900  600×600+0+150  512×512" in text
    assert text.count("a sks toy") == 4
    assert Image.open(sheet).width > 4 * 192


def test_random_crops_are_shown_as_such(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sheet dims nothing that some crop can show; with --center-crop it dims the rest."""
    sheets = []
    for number, flag in enumerate(("--no-center-crop", "--center-crop")):
        sheet = tmp_path / f"{number}.png"
        assert main(["data", str(drawn), "--sheet", str(sheet), flag]) == 0
        sheets.append(np.asarray(Image.open(sheet)).astype(int))
        text = capsys.readouterr().out
        assert ("crops are drawn at random" in text) == (number == 0)
        assert f"600×600+0+{'0…300' if number == 0 else '150'}" in text
    third = 2 * (192 + 12 + 4) + 6 + 192 // 2, 6 + 8  # across the middle of 02.png, near its upper edge
    assert sheets[0][third[1], third[0]].sum() > 2 * sheets[1][third[1], third[0]].sum()


def test_json_holds_every_image_and_remark(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.open(drawn / "00.png").save(drawn / "09.png")
    settings = ["--sheet", str(tmp_path / "s.png"), "--json", "--resolution", "1024"]
    assert main(["data", str(drawn), *settings]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["photographs_usable"] and report["size"] == [1024, 1024]
    (concept,) = report["concepts"]
    assert [image["name"] for image in concept["images"]] == ["00.png", "01.png", "02.png", "03.png", "09.png"]
    assert {remark["kind"] for image in concept["images"] for remark in image["remarks"]} >= {"too small"}
    assert any(remark["text"].startswith("09.png is nearly 00.png") for remark in concept["remarks"])


def test_what_stops_training_is_the_status(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (drawn / "04.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    sheet = tmp_path / "s.png"
    assert main(["data", str(drawn), "--json", "--sheet", str(sheet)]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["photographs_usable"] is False and "04.jpg" in json.loads(said.out)["error"]
    assert "04.jpg" in said.err and not sheet.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_share": 0.9}, "validation_share: .* leaves none to train on"),
        ({"validation_data_dir": "EMPTY"}, "validation_data_dir: .* holds no images"),
        ({"masked_loss": True}, "masked_loss: no image of .* has a mask"),
        ({"output_dir": "DRAWN"}, "output_dir: .* is instance_data_dir as well"),
        (
            {"with_prior_preservation": True, "class_prompt": "a toy", "class_data_dir": "DRAWN"},
            "class_data_dir: .* is",
        ),
        ({"instance_prompt": "a {identifier}"}, "asks for the identifier, and none is given"),
        ({"alpha_color": "reddish"}, "alpha_color: 'reddish' is no colour"),
        ({"aspect_ratio_buckets": True, "bucket_step": 3}, "bucket_step: 3 is not a multiple"),
        ({"dataset_name": "x"}, "dataset_name: given together with instance_data_dir"),
    ],
)
def test_what_stops_a_run_stops_the_look(
    settings: dict[str, object], message: str, drawn: Path, tmp_path: Path
) -> None:
    """The same refusal from `data` and from a run, before anything is written."""
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": str(tmp_path / "empty"), "DRAWN": str(drawn)}
    given = {name: places.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}
    given = {"instance_data_dir": str(drawn), "instance_prompt": "a toy", "resolution": 64} | given
    with pytest.raises(ConfigError, match=message) as look:
        dreamcore.data_report(sheet=str(tmp_path / "s.png"), **given)
    assert not (tmp_path / "s.png").exists()
    crop = Crop(64, 64, center_crop=False, random_flip=False)
    with pytest.raises(ConfigError) as run:
        config = TrainConfig.from_mapping({"pretrained_model_name_or_path": "m", **given})
        open_subjects(config, crop, bucket_choice(config, crop, 8), lambda text: None)
    assert str(run.value) == str(look.value)


def test_what_training_could_not_use_of_the_photographs_is_refused(drawn: Path, tmp_path: Path) -> None:
    given = {"instance_data_dir": str(drawn), "sheet": str(tmp_path / "s.png"), "lora_alpha": 2, "mode": "graph"}
    with pytest.raises(ConfigError, match="^keep_tags=2: acts only with captions; give use_captions, or remove it$"):
        dreamcore.data_report(**given, keep_tags=2)
    assert not (tmp_path / "s.png").exists()
    dreamcore.data_report(**given, keep_tags=0)


def test_held_out_photographs_are_named(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", str(drawn), "--sheet", str(tmp_path / "s.png"), "--validation_share", "0.25"]) == 0
    text = capsys.readouterr().out
    assert f"{drawn}: 3 images" in text and "held out of training: 0" in text


def test_a_dataset_is_looked_at(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = as_parquet(drawn, tmp_path / "table")
    sheet = ["--sheet", str(tmp_path / "s.png")]
    assert (
        main(["data", "--dataset_name", str(table), "--caption_column", "text", *sheet, "--instance_prompt", "a toy"])
        == 0
    )
    text = capsys.readouterr().out
    assert "train-00000-of-00001.parquet, row 3" in text and "a dog in snow" in text
    assert main(["data", str(drawn), "--alpha_color", "black", *sheet]) == 0


def test_captions_without_a_file_are_named(drawn: Path) -> None:
    (drawn / "00.txt").write_text("in snow")
    with pytest.raises(ConfigError, match=r"01\.png"):
        dreamcore.data_report(instance_data_dir=str(drawn), use_captions=True, missing_caption="error")


def test_buckets_and_several_subjects(drawn: Path, tmp_path: Path) -> None:
    other = draw_photos(tmp_path / "other", count=3, size=520, seed=3)
    file = tmp_path / "run.json"
    concepts = [{"instance_data_dir": str(f), "instance_prompt": f"a {f.name}"} for f in (drawn, other)]
    settings = {"concepts": concepts, "aspect_ratio_buckets": True, "sheet": str(tmp_path / "s.png"), "rank": 4}
    file.write_text(json.dumps(settings))
    report = dreamcore.data_report(file)
    assert [len(one.rows) for one in report.inspections] == [4, 3]
    targets = {row.name: row.target for row in report.inspections[0].rows}
    assert targets == {"00.png": (512, 512), "01.png": (448, 576), "02.png": (384, 640), "03.png": (512, 512)}
    assert {row.prompt for row in report.inspections[1].rows} == {"a other"}


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="no real photographs beside the repository")
@pytest.mark.parametrize("name", ["cat", "dog", "rc_car", "teapot"])
def test_the_papers_photographs_bring_no_warning(name: str, tmp_path: Path) -> None:
    report = dreamcore.data_report(
        instance_data_dir=str(PHOTOGRAPHS / name), instance_prompt="a toy", sheet=str(tmp_path / "s.png")
    )
    (inspection,) = report.inspections
    assert len(inspection.rows) == 5 and inspection.remarks == ()
    assert all(row.remarks == () and row.target == (512, 512) for row in inspection.rows)


def test_tokens_are_counted_with_the_models_own(tmp_path: Path, drawn: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("torch")
    model = request.getfixturevalue("tiny_model")
    report = dreamcore.data_report(
        instance_data_dir=str(drawn),
        instance_prompt="a photo of sks dog",
        pretrained_model_name_or_path=str(model),
        sheet=str(tmp_path / "s.png"),
    )
    assert report.size == (32, 32)
    assert {row.tokens for row in report.inspections[0].rows} == {5}
