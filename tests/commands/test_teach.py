"""What `dreambooth teach` chooses and says, without a framework: words, models, lengths, memory, and what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.cli.main import main
from dreamcore.commands import teach
from dreamcore.commands.teaching import memory, models, words
from dreamcore.commands.teaching.choices import PRESETS, preset_memory, preset_of_id, updates_for
from dreamcore.commands.teaching.folders import new_folder, unfinished
from dreamcore.commands.teaching.lesson import prepare
from dreamcore.commands.teaching.models import Chosen, choose_model
from dreamcore.config import TrainConfig, load_config, preset_names, read_config_file
from dreamcore.config.teach import TeachConfig
from dreamcore.errors import ConfigError
from dreamcore.families import FAMILIES
from dreamcore.hub.sizes import Fetch, cached_models
from dreamcore.models.folder import ModelFolder
from dreamcore.models.locate import embedded_model
from dreamcore.placement.machine import Machine
from dreamcore.placement.stages import make_plan
from dreamcore.tinyworld.__main__ import write_subject
from dreamcore.training.memory_plan import workload
from dreamcore.training.training_data import open_training_data

from ..support import needs
from ..support.tiny import draw_photos

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
BACKEND = (installed_backends() or ["torch"])[0]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own with photographs, without the Hub, and nothing in its cache."""
    monkeypatch.chdir(tmp_path)
    draw_photos("photos/dog", count=3)
    monkeypatch.setattr(models, "to_fetch", lambda *rest: None)
    monkeypatch.setattr(models, "cached_models", lambda cache: iter(()))


def given(**settings: Any) -> TeachConfig:
    return load_config(TeachConfig, None, {"instance_data_dir": "photos/dog", **settings})


def nobody_trains(*rest: Any) -> NoReturn:
    raise AssertionError("a run began")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tech photos/dog", "tech: no such command; did you mean teach?"),
        ("teach", "instance_data_dir: which photographs?  dreambooth teach FOLDER --class dog"),
        ("teach phtos/dog --class dog", "instance_data_dir: phtos/dog: no such folder; did you mean photos/dog?"),
        ("teach nowhere/at_all --class dog", "put the photographs into a folder, and give its name"),
        ("teach dog photos/dog", "no such folder, but photos/dog is one: dreambooth teach photos/dog --class dog"),
        ("teach photos/dog --class photos/dog", "'photos/dog' is a place; say what photos/dog shows, in a word"),
        ("teach photos/dog --class {class}", "'{class}' is no class; expected a word or two"),
        ("teach photos/dog", "Say it in a word or two: dreambooth teach photos/dog --class dog"),
        ("teach photos/dog --clas dog", "--clas: unknown setting; did you mean class?"),
        ("teach photos/dog/0.png --class dog", "is one photograph; give the folder that it lies in: photos/dog"),
        ("teach model.safetensors --class dog", "photographs come first, and a model as --model model.safetensors"),
        (f"teach {embedded_model()} --class dog", "is a model; photographs come first"),
        ("teach photos/dog --class mug", "add --yes to begin without being asked: dreambooth teach photos/dog --class"),
        ("teach empty --class mug --yes", "instance_data_dir: empty: no photographs in there; put 3 to 20"),
        ("teach photos --class mug --yes", "or add --sub_folders if they lie in folders of it"),
        ("teach photos/dog --class mug --resume_from_checkpoint latest", "goes on with what is unfinished by itself"),
        ("teach photos/dog --class mug --yes --concepts x", "give concepts in a configuration file"),
        ("teach photos/dog --class dog --yes", "'dog' is nothing that the embedded model tinyworld knows, which is a"),
    ],
)
@needs.backend
def test_each_mistake_is_told_with_the_next_step(
    line: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty").mkdir()
    Path("model.safetensors").touch()
    shutil.copy(min(Path("photos/dog").iterdir()), "photos/dog/0.png")
    monkeypatch.setattr(teach, "train", nobody_trains)
    assert main(line.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "word"), [(["dog"], "dog"), (["a toy car"], "toy car"), (["", "/x", "mug"], "mug"), ([""] * 3, None)]
)
def test_the_class_is_asked_for(answers: list[str], word: str | None) -> None:
    asked = list[str]()

    def ask(question: str) -> str:
        asked.append(question)
        return answers[len(asked) - 1]

    if word is None:
        with pytest.raises(ConfigError, match="nothing was said"):
            words.class_of(given(), ask)
    else:
        assert words.class_of(given(), ask) == word
    assert len(asked) == len(answers)


def test_every_family_has_a_preset_and_every_preset_says_its_memory() -> None:
    assert PRESETS.keys() == FAMILIES.keys()
    assert set(PRESETS.values()) <= set(preset_names())
    for name in preset_names():
        assert " GiB, predicted for preset " in preset_memory(name)
        assert (
            name.endswith(("full", "face"))
            or preset_of_id(read_config_file(name)["pretrained_model_name_or_path"]) == name
        )


@pytest.mark.parametrize(("photographs", "updates"), [(1, 500), (5, 500), (8, 800), (15, 1500), (200, 1500)])
def test_more_photographs_are_seen_as_often_up_to_a_bound(photographs: int, updates: int) -> None:
    assert updates_for(photographs, 500) == updates


@pytest.mark.parametrize(
    ("captions", "word"),
    [
        (["a photo of a sks mug on grass", "sks mug at night"], "sks"),
        (["a photo of a sks mug", "a photo of a red mug"], None),
        (["a photo of a sks mug", None], None),
        (["a mug", "a mug at night"], None),
        ([], None),
    ],
)
def test_captions_may_name_the_subject(captions: list[str | None], word: str | None) -> None:
    assert words.named_in(captions, "mug") == word


def test_a_model_that_is_here_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    here = ["a/one", SD15]
    monkeypatch.setattr(models, "cached_models", lambda cache: ((name, embedded_model()) for name in here))
    monkeypatch.setattr(models, "_open", lambda config, name: ModelFolder.open("tinyworld"))
    questions = list[str]()

    def ask(question: str) -> str:
        questions.append(question)
        return ["9", "2"][len(questions) - 1]

    assert choose_model(given(), "mug", BACKEND, ask).name == "a/one"
    assert questions[0].splitlines()[1:-1] == [
        f"  1  {SD15}  (on this machine)",
        "  2  a/one  (on this machine)",
        "  3  tinyworld  (the embedded miniature, 64 × 64 pixels: for a try)",
    ]
    alone = choose_model(given(), "dog", BACKEND, None)
    assert (alone.name, alone.why) == (SD15, "the first of the models on this machine; --model names another")


def test_models_in_the_hubs_cache_are_found(tmp_path: Path) -> None:
    for commit in ("a", "b"):
        folder = tmp_path / "models--someone--my--model" / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "model_index.json").touch()
    (tmp_path / "models--someone--my--model" / "refs").mkdir()
    (tmp_path / "models--someone--my--model" / "refs" / "main").write_text("a")
    (tmp_path / "models--openai--clip" / "snapshots" / "c").mkdir(parents=True)
    assert list(cached_models(str(tmp_path))) == [("someone/my--model", folder.with_name("a"))]


def test_what_is_to_be_fetched_is_said_and_needs_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetch = Fetch(4_270_000_000, tmp_path / "hub")
    monkeypatch.setattr(models, "to_fetch", lambda *rest: fetch)
    monkeypatch.setattr(models, "_free", lambda folder: 100_000_000_000)
    chosen = choose_model(given(), "dog", BACKEND, None)
    assert (chosen.name, chosen.folder, chosen.fetch) == (SD15, None, fetch)
    screen = prepare(given(), Path("photos/dog"), "dog", chosen, print).screen.text()
    assert f"4.3 GB into {tmp_path / 'hub'}" in " ".join(screen.split())
    assert "predicted for preset sd15-lora: a card with 6 GB; it is planned once the model is here" in " ".join(
        screen.split()
    )
    assert "too small" in screen, "photographs of 48 pixels, and a model of 512"
    monkeypatch.setattr(models, "_free", lambda folder: 4_300_000_000)
    with pytest.raises(ConfigError, match=r"4.3 GB to download, and .*hub has 4.3 GB free; make room"):
        choose_model(given(), "dog", BACKEND, None)


@needs.backend
def test_every_choice_has_its_reason(tmp_path: Path) -> None:
    write_subject(Path("mug"))
    config = given(instance_data_dir="mug", device="cpu", learning_rate="1e-3", validation_prompt=None)
    chosen = Chosen("tinyworld", "for a test", ModelFolder.open("tinyworld"))
    made = prepare(config, Path("mug"), "mug", chosen, print).config
    assert made.reasons.keys() == made.given().keys()
    assert made.reasons["learning_rate"] == "as you gave it"
    assert made.reasons["max_train_steps"] == "preset quickstart has 900, usual for 5 photographs"
    assert made.suggested.isdisjoint({"learning_rate", "device"})
    assert made.output_dir == "mug-model"
    assert made.validation_prompt is None, "taken back, though the preset has one"


def test_folders_are_new() -> None:
    assert new_folder(Path("photos/dog"), "dog", lora=True) == Path("dog-lora")
    Path("dog-lora").mkdir()
    assert new_folder(Path("photos/dog"), "dog", lora=True) == Path("dog-lora-2")
    shutil.make_archive("cat", "zip", "photos/dog")
    assert new_folder(Path("cat.zip"), "cat", lora=False) == Path("cat-model")
    assert unfinished(Path("photos/dog"), "dog", None) is None


ROOMS = [(64, 0, {}), (0, 0, {"gradient_checkpointing": True})]


@pytest.mark.skipif(BACKEND not in ("torch", "paddle", "mindspore"), reason="no plan is known of this backend")
@needs.backend
def test_the_first_row_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines with as much memory as each row takes, and no byte more."""
    config = TrainConfig.from_mapping(
        {
            "pretrained_model_name_or_path": "tinyworld",
            "instance_data_dir": "photos/dog",
            "instance_prompt": "a sks mug",
            "resolution": 256,
            "train_batch_size": 4,
            "gradient_checkpointing": True,
        },
        suggested=("gradient_checkpointing", "train_batch_size", "resolution"),
    )
    data = open_training_data(config, ModelFolder.open("tinyworld"), print)
    work, found = workload(config, data, Path("out")), list[set[str]]()
    machine = Machine("cuda:0", 2**40, 2**40, 2**40)
    for _ in range(4 * len(memory.ROWS)):  # placement auto is a row of many
        monkeypatch.setattr(memory, "find_machine", lambda *rest, machine=machine: machine)
        fitting = memory.find_fitting(config, data, Path("out"))
        assert fitting.plan is not None
        found.append(set(fitting.changes))
        if not fitting.fits:
            break
        worst = fitting.plan.worst("device").bytes("device")
        machine = Machine("cuda:0", worst + 600 * 2**20 - 1, 2**40, 2**40)
    assert found[0] == {"gradient_checkpointing"}
    assert found[1] == set(), "the preset as it is"
    assert found[2] >= {"mixed_precision"}
    assert found[-1] >= {"mixed_precision", "train_batch_size", "gradient_accumulation_steps", "resolution"}
    assert not fitting.fits
    smaller = make_plan(config, data.model, work, machine, BACKEND).worst("device").bytes("device")
    assert fitting.plan.worst("device").bytes("device") < smaller
