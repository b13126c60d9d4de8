"""What is told after a run is what one can type."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from dreamcore.cli.main import main
from dreamcore.io.names import CONFIG, INDEX, LORA_FILE, METRICS, MODEL_CARD, REPORT, lora_name
from dreamcore.runs.next_steps import NextSteps, next_steps
from dreamcore.runs.status import Status, now
from dreamcore.track import read_lines

from ..support.stub_runs import train

WORDS = "a photo of a sks mug"


def typed(line: str) -> int:
    """The exit code of a command, typed into a shell in the working folder."""
    words = shlex.split(line)
    assert words[0] == "dreambooth"
    return main(words[1:])


def names(steps: NextSteps) -> list[str]:
    return [file.name for file, _ in steps.files]


@pytest.mark.parametrize(
    ("folder", "lora"),
    [
        ("out", False),
        ("out", True),
        ('my runs/a $HOME `dog`, "it\'s"!', True),
        ("-x", False),
        ("~me", True),
        (".", False),
    ],
)
def test_generate_line_is_typed(
    folder: str, lora: bool, stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = {"use_lora": True, "rank": 2} if lora else {"validation_guidance_scale": 2.0, "validation_scheduler": "ddim"}
    train(stub_model, drawn, (tmp_path / folder), **more)
    there = Path(folder)
    steps = next_steps(there)
    assert (steps.words, steps.finished, steps.report) == (WORDS, True, there / REPORT)
    assert typed(steps.generate) == 0
    assert (tmp_path / "samples" / "00000.png").is_file()
    assert ("--guidance_scale 2.0 --scheduler ddim" in steps.generate) is not lora
    assert f'"{WORDS}"' in steps.generate
    assert names(steps) == [*([LORA_FILE, lora_name(there)] if lora else [INDEX]), MODEL_CARD, CONFIG]
    assert all(file.exists() for file, _ in steps.files)


def test_absolute_and_of_another_size(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(stub_model, drawn, tmp_path / "out", resolution=48)
    steps = next_steps(tmp_path / "out")
    assert "--height 48 --width 48" in steps.generate and str(tmp_path / "out") in steps.generate
    assert typed(steps.generate) == 0
    assert f"dreambooth convert {tmp_path / 'out'} {tmp_path / 'out.safetensors'}" == steps.convert
    called = next_steps(tmp_path / "out", called=Path("elsewhere"))
    assert "--model elsewhere" in called.generate and called.convert.endswith("elsewhere out.safetensors")


def test_a_run_of_several_processes_goes_on_with_as_many(tmp_path: Path) -> None:
    Status(state="stopped", processes=2, written=now()).write(tmp_path)
    begins = f"dreambooth launch --num_processes 2 -- train --config {tmp_path / CONFIG}"
    assert next_steps(tmp_path).go_on == f"{begins} --resume_from_checkpoint latest"


def test_a_run_that_upscales_names_an_image(tmp_path: Path) -> None:
    (tmp_path / LORA_FILE).touch()
    (tmp_path / CONFIG).write_text("instance_prompt: a sks dog\nvalidation_images: [/small/0.png, /small/1.png]\n")
    assert next_steps(tmp_path).generate.endswith('--prompt "a sks dog" --image /small/0.png')


def test_text_encoders_that_were_left_out_are_the_base_models(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(stub_model, drawn, tmp_path / "out", skip_save_text_encoder=True)
    steps = next_steps(Path("out"))
    assert f"--model {stub_model} --pretrained_unet_name_or_path out/unet" in steps.generate
    assert typed(steps.generate) == 0
    assert steps.convert == ""


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_that_was_stopped_goes_on(
    lora: bool, stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(stub_model, drawn, Path("out"), **({"use_lora": True, "rank": 2} if lora else {}))
    for name in (INDEX, LORA_FILE, "checkpoint-4"):
        place = tmp_path / "out" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    said = "\n".join(next_steps(Path("out")).in_words(stopped=True))
    steps = next_steps(Path("out"))
    assert not steps.finished
    if lora:
        assert "--lora out/checkpoint-2" in steps.generate and typed(steps.generate) == 0
    else:
        assert steps.generate == ""  # a checkpoint is no whole model
    assert names(steps)[0] == "checkpoint-2"
    assert said == f"to go on: {steps.go_on}\nreport: out/{REPORT}"
    assert typed(steps.go_on) == 0
    assert next_steps(Path("out")).finished
    assert [record["step"] for record in read_lines(tmp_path / "out" / METRICS)] == [1, 2, 3, 4]


def test_words_of_several_subjects_and_of_captions(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    concepts = [
        {"instance_data_dir": str(drawn), "instance_prompt": "a sks mug"},
        {"instance_data_dir": str(drawn), "instance_prompt": "a {identifier} {class}", "identifier": "zwx"}
        | {"class_word": "fish"},
    ]
    given = {"instance_data_dir": None, "instance_prompt": None, "concepts": concepts}
    train(stub_model, drawn, tmp_path / "two", **given)
    steps = next_steps(tmp_path / "two")
    assert (steps.words, steps.subjects) == ("a sks mug", ["a sks mug", "a zwx fish"])

    photos = shutil.copytree(drawn, tmp_path / "photos")
    for photo in list(photos.glob("*.png")):
        photo.with_suffix(".txt").write_text("a -- sks 'mug' on sand")
    train(stub_model, photos, tmp_path / "captioned", instance_prompt=None, use_captions=True)
    assert next_steps(tmp_path / "captioned").words == "a -- sks 'mug' on sand"


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    steps = next_steps(tmp_path)
    assert (steps.words, steps.subjects, steps.finished, steps.generate, steps.convert) == (None, [], False, "", "")
    assert steps.files == []


def test_the_run_of_an_odd_prompt(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(stub_model, drawn, tmp_path / "out", instance_prompt='--a "mug" of $USER, \\ it\'s 狗!')
    steps = next_steps(Path("out"))
    assert typed(steps.generate) == 0
    assert steps.words == '--a "mug" of $USER, \\ it\'s 狗!'
