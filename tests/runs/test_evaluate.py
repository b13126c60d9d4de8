"""`dreambooth evaluate`: of runs, of pictures and of what it has left itself; on a backend that computes nothing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist, pdist

import dreamcore
from dreamcore.cli.main import main
from dreamcore.config import GenerateConfig
from dreamcore.errors import ConfigError
from dreamcore.io.images import png_bytes
from dreamcore.io.names import EVALUATION, EVALUATION_FIGURE, EVALUATION_TABLE
from dreamcore.tinyworld import SUBJECTS
from dreamcore.tinyworld.judge import look, threshold

from ..support.stub_runs import contents, train

MUG, CAR = SUBJECTS["zigzag-mug"], SUBJECTS["chequered-car"]


def _written(folder: Path, images: list[Image.Image]) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / f"{number}.png").write_bytes(png_bytes(np.asarray(image)))
    return folder


def _embedded(files: list[Path]) -> np.ndarray:
    return look(np.stack([np.asarray(Image.open(file)) for file in files])).embedding


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return _written(tmp_path / "photos", MUG.pictures(4))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two of the mug and one of a car, as `generate` leaves them."""
    images = [MUG.draw("on sand", 5), MUG.draw("on sand", 6), CAR.draw("in snow", 7)]
    folder = _written(tmp_path / "pictures", images)
    words = ["a photo of a sks mug on sand"] * 2 + ["a photo of a sks mug in snow"]
    listed = [{"file": f"{n}.png", "prompt": text, "seed": n} for n, text in enumerate(words)]
    record = {"settings": {"pretrained_model_name_or_path": "tinyworld"}, "pictures": listed}
    (folder / "pictures.json").write_text(json.dumps(record))
    (folder / "sheet.png").write_bytes(b"no picture")
    return folder


def test_pictures(
    pictures: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table, the file and Python say the same, which is what SciPy makes of the judge's embeddings."""
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "pictures", "--instance_data_dir", "photos", "--output_dir", "out"]) == 0
    printed = capsys.readouterr().out
    content = json.loads(Path("out", EVALUATION).read_text())
    (subject,) = content["subjects"]
    values = {name: said["value"] for name, said in subject["measures"].items()}
    made, real = (_embedded(sorted(folder.glob("?.png"))) for folder in (pictures, photos))
    likeness = 1 - cdist(made, real, "cosine")
    assert values["likeness"] == pytest.approx(likeness.mean(), abs=1e-5)
    assert values["shown"] == pytest.approx(np.mean(likeness.mean(1) >= threshold()), abs=1e-5) == 2 / 3
    assert (values["thing"], values["place"]) == (pytest.approx(2 / 3, abs=1e-5), 1)
    assert values["DIV"] == pytest.approx(pdist(made[:2], "cosine")[0], abs=1e-5)
    assert values["photographs likeness"] == pytest.approx(1 - pdist(real, "cosine").mean(), abs=1e-5)
    nearest = [Path(one["nearest"]).name for one in subject["pictures"]]
    assert nearest == [f"{n}.png" for n in likeness.argmax(1)]
    for name, value in values.items():
        assert re.search(rf"^{re.escape(name)}\b.* {value:.3f}", printed, re.M), name
    assert Path("out", EVALUATION_TABLE).read_text().strip() in printed
    with Image.open(Path("out", EVALUATION_FIGURE)) as figure:
        shown = np.asarray(figure)
    assert figure.mode == "RGB" and len(np.unique(shown.reshape(-1, 3), axis=0)) > 100


def test_again_gives_the_same(pictures: Path, photos: Path, tmp_path: Path) -> None:
    """And so does an evaluation of an evaluation; what is there is never replaced."""
    before = contents(pictures) | contents(photos)
    given = {"instance_data_dir": str(photos), "output_dir": str(tmp_path / "out")}
    first, second = (dreamcore.evaluate(source=str(pictures), **given) for _ in range(2))
    assert (first.folder.name, second.folder.name) == ("out", "out-2")
    assert contents(first.folder) == contents(second.folder)
    third = dreamcore.evaluate(source=str(first.folder), output_dir=str(tmp_path / "third"))
    assert third.content["subjects"] == first.content["subjects"]
    assert contents(pictures) | contents(photos) == before


def test_held_out_photographs_are_what_pictures_are_to_be_like(pictures: Path, photos: Path, tmp_path: Path) -> None:
    held = _written(tmp_path / "held", MUG.pictures(2, seed=9))
    found = dreamcore.evaluate(
        source=str(pictures),
        instance_data_dir=str(photos),
        validation_data_dir=str(held),
        output_dir=str(tmp_path / "out"),
    )
    expected = 1 - cdist(*(_embedded(sorted(folder.glob("?.png"))) for folder in (pictures, held)), "cosine").mean()
    assert found.measures["pictures"]["likeness"] == pytest.approx(expected, abs=1e-5)
    nearest = {one["nearest"] for one in found.content["subjects"][0]["pictures"]}
    assert nearest <= {str(photo) for photo in photos.iterdir()}, "what was learned by heart was trained on"
    assert "held out" in str(found)


def test_a_run_knows_its_subject(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    before = contents(run)
    found = dreamcore.evaluate(
        source=str(run), judge="tinyworld", protocol="objects", num_images=2, num_class_images=3,
        output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    (subject,) = found.content["subjects"]
    assert (subject["identifier"], subject["class_word"], subject["class_prompt"]) == ("sks", "mug", "a photo of a mug")
    assert len(subject["pictures"]) == 50 and len(subject["photographs"]) == 3
    assert {one["seed"] for one in subject["pictures"]} == {0, 1}
    assert [one["seed"] for one in subject["class_pictures"]] == [0, 1, 2, 3], "each of them another"
    assert all((found.folder / one["file"]).is_file() for one in subject["pictures"] + subject["class_pictures"])
    assert contents(run) == before


def test_several_subjects(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    """Which photographs each one's pictures are most like."""
    folders = [_written(tmp_path / name, SUBJECTS[name].pictures(3)) for name in ("zigzag-mug", "chequered-car")]
    concepts = [
        {"instance_data_dir": str(folder), "instance_prompt": f"a photo of {word} {kind}"}
        for folder, word, kind in zip(folders, ("sks", "ohwx"), ("mug", "car"), strict=True)
    ]
    run = train(
        stub_model, drawn, tmp_path / "run", concepts=concepts, instance_data_dir=None, instance_prompt=None,
        validation_prompt=None, validation_steps=None, num_validation_images=None, checkpointing_steps=None,
    )  # fmt: skip
    found = dreamcore.evaluate(
        source=str(run.folder), judge="tinyworld", protocol="tinyworld", num_images=1, num_class_images=0,
        output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    assert [one["name"] for one in found.content["subjects"]] == ["sks mug", "ohwx car"]
    assert np.shape(found.content["confusion"]) == (2, 2)
    np.testing.assert_allclose(np.sum(found.content["confusion"], 1), 1)
    assert "share of each subject's pictures" in str(found)
    with pytest.raises(ConfigError, match="class_word: .* has 2 subjects, each with its own; leave it out"):
        dreamcore.evaluate(source=str(run.folder), class_word="mug")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"judge": "dino"}, r"judge: facebook/dino-vits16: .*hf download facebook/dino-vits16 --local-dir FOLDER"),
        ({"judge": ["clip"]}, r"judge: openai/clip-vit-base-patch32: .*then --judge FOLDER"),
        (
            {"judge": "nowhere"},
            "judge: nowhere: no such folder; give tinyworld, dino, clip, dinov2, a folder, or an id",
        ),
        ({"judge": ["tinyworld", "clip"]}, "tinyworld judges alone"),
        ({"protocol": "live", "prompt_file": "x.txt"}, "protocol: given together with prompt_file"),
        ({"source": "nowhere"}, "source: nowhere: no such run, model, LoRA or folder of pictures"),
        ({"source": "tinyworld"}, "identifier: needed: tinyworld is no run"),
    ],
)
def test_refused_before_a_picture_is_made(
    given: dict[str, object], message: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamcore.commands.evaluate.generate", lambda config: pytest.fail("pictures were made"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        dreamcore.evaluate(**{"source": str(finished), "output_dir": "out", "cache_dir": "cache", **given})  # type: ignore[arg-type]
    assert not Path("out").exists()


def test_pictures_that_are_there_are_not_made(pictures: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_images: .* holds pictures, and none are made; leave it out"):
        dreamcore.evaluate(source=str(pictures), instance_data_dir=str(photos), num_images=2)
    with pytest.raises(ConfigError, match="instance_data_dir: needed"):
        dreamcore.evaluate(source=str(pictures))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no run, no model, no LoRA and no pictures there"):
        dreamcore.evaluate(source=str(tmp_path / "empty"), instance_data_dir=str(photos))


def test_a_checkpoint_of_a_lora(stub_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose run knows its subject, and which is what makes the pictures."""
    photos = _written(tmp_path / "mugs", MUG.pictures(2))
    run = train(
        stub_model, photos, tmp_path / "run", use_lora=True, validation_prompt=None, validation_steps=None,
        num_validation_images=None,
    )  # fmt: skip
    asked = list[list[str] | None]()

    def stand_in(config: GenerateConfig) -> list[Path]:
        asked.append(config.lora)
        return [photos / "0.png"] * 5

    monkeypatch.setattr("dreamcore.commands.evaluate.generate", stand_in)
    checkpoint = str(run.folder / "checkpoint-2")
    found = dreamcore.evaluate(
        source=checkpoint, judge="tinyworld", protocol="tinyworld", num_images=1, num_class_images=0,
        output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    assert asked == [[checkpoint]] and list(found.measures) == ["sks mug"]
