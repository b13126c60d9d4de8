"""The command line: forms of flags, files with flags over them, messages, exit codes; and the same from Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import dreamcore
from dreamcore.cli.flags import parse_settings
from dreamcore.cli.main import main
from dreamcore.config import GenerateConfig, TrainConfig, load_config
from dreamcore.config.common import Scheduler
from dreamcore.config.names import ALIASES
from dreamcore.errors import ConfigError, RunError
from dreamcore.training import loop

from ..support.tiny import draw_photos

REQUIRED = ["--model", "m", "--instance_data_dir", "d", "--instance_prompt", "a photo of sks dog"]


def train_config(*flags: str) -> TrainConfig:
    return load_config(TrainConfig, *parse_settings(TrainConfig, "train", "", [*REQUIRED, *flags]))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations with which the API was called; nothing runs."""
    calls: list[Any] = []

    class Done:
        exit_code = 0
        stopped_by = None

    monkeypatch.setattr(dreamcore, "train", lambda config: calls.append(config) or Done())
    monkeypatch.setattr(dreamcore, "generate", lambda config: calls.append(config) or [Path("a.png"), Path("b.png")])
    return calls


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        (["--cache_latents"], True),
        (["--cache_latents=True"], True),
        (["--cache_latents=false"], False),
        (["--cache_latents", "False"], False),
        (["--cache-latents", "no"], False),
        (["--no-cache-latents"], False),
        (["--no_cache_latents"], False),
        (["--cache_latents=false", "--no-cache-latents"], False),
        (["--cache_latents", "--use_lora"], True),
    ],
)
def test_boolean_forms(flags: list[str], value: bool) -> None:
    assert train_config(*flags).cache_latents is value


def test_a_word_after_a_boolean_must_be_one() -> None:
    with pytest.raises(ConfigError, match="random_flip: .*received 'dog.png'"):
        train_config("--random_flip", "dog.png")


@pytest.mark.parametrize(
    "flags", [["--lora_layers", "to_q,to_k"], ["--lora-layers", "to_q", "to_k"], ["--lora_layers=to_q, to_k"]]
)
def test_list_forms(flags: list[str]) -> None:
    config = train_config("--use_lora", *flags, "--rank", "8")
    assert config.lora_layers == ["to_q", "to_k"]
    assert config.rank == 8


def test_values_are_read_as_the_setting_says() -> None:
    config = train_config("--learning-rate=1e-4", "--max_train_steps", "7", "--validation_prompt", "--a=b c")
    assert (config.learning_rate, config.max_train_steps) == (1e-4, 7)
    assert config.validation_prompt == "--a=b c"


def test_only_what_was_typed_is_given() -> None:
    assert set(train_config("--rank", "4").given()) == {
        "pretrained_model_name_or_path", "instance_data_dir", "instance_prompt", "rank",
    }  # fmt: skip


def test_seed_zero_is_a_seed() -> None:
    assert train_config("--seed", "0").given()["seed"] == 0


@pytest.mark.parametrize("alias", sorted(set(ALIASES) - {"model"}))
def test_other_trainers_names(alias: str) -> None:
    value = {"writer_type": "wandb", "lora_target_modules": "to_q"}.get(alias, "3")
    value = "true" if TrainConfig.model_fields[ALIASES[alias]].annotation is bool else value
    assert ALIASES[alias] in train_config(f"--{alias}", value).given()


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank: given twice"):
        train_config("--lora_rank", "3", "--rank", "4")
    assert train_config("--lora_rank", "4", "--rank", "4").rank == 4


@pytest.mark.parametrize(
    ("flag", "answer"),
    [
        ("--learning_rat", "did you mean learning_rate?"),
        ("--with-prior-preservatoin", "did you mean with_prior_preservation?"),
        ("--no-use-loraa", "did you mean use_lora?"),
        ("--confg=x", "did you mean config?"),
        ("--no_rank", "did you mean rank?"),
        ("--n_samples", "n_samples: a name of mindone-sd2; --like mindone-sd2 gives it its meaning"),
        ("-x", "x: unknown setting"),
    ],
)
def test_unknown_flags_name_the_nearest(flag: str, answer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train_config(flag, "4")
    assert answer in str(caught.value)


def test_no_flag_may_be_cut_short() -> None:
    """argparse takes --resol for --resolution if it is let; a later setting would change what it means."""
    with pytest.raises(ConfigError, match="^--resol: unknown setting; --help all lists them$"):
        train_config("--resol", "512")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rank", "4", "--rank", "8"], "--rank: given twice, as 4 and 8; give it once"),
        (["--no-cache_latents", "--cache-latents"], "--cache_latents: given twice, as false and true; give it once"),
        (["--config", "sd15-lora", "--config=sdxl-lora"], "--config: given twice, as sd15-lora and sdxl-lora;"),
        (["--lora_layers", "a,b", "--lora_layers", "c"], "--lora_layers: given twice, as a,b and c; give it once"),
    ],
)
def test_a_flag_given_twice_with_two_values_is_refused(flags: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train_config(*flags)
    assert said in str(caught.value)
    assert train_config("--rank", "4", "--rank=4").rank == 4
    with pytest.raises(ConfigError, match="--lora: given twice, as a and b"):
        words = ["--model", "m", "--prompt", "p", "--lora", "a", "--lora", "b"]
        load_config(GenerateConfig, *parse_settings(GenerateConfig, "generate", "", words))


def test_everything_wrong_on_a_command_line_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--rank", "0", "--frobnicate", "3", "--rnak", "4", "--seed=1", "--seed=2", "--lora_layers="]
    assert main(words) == 2
    lines = capsys.readouterr().err.removeprefix("dreambooth: error: ").splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["--seed", "--frobnicate", "--rnak"]
    rest = {"pretrained_model_name_or_path", "rank", "lora_layers", "instance_data_dir", "instance_prompt"}
    assert {line.partition(":")[0] for line in lines[3:]} == rest


def test_the_folder_may_come_as_a_word(started: list[Any]) -> None:
    assert main(["train", "d", "--model", "m", "--instance_prompt", "p"]) == 0
    assert started[0].instance_data_dir == "d"
    assert main(["train", "d", "--instance_data_dir", "e", "--model", "m", "--instance_prompt", "p"]) == 2
    assert main(["generate", "d", "--model", "m", "--prompt", "p"]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
def test_consoles_that_lack_letters(encoding: str, tmp_path: Path) -> None:
    """λ is in the help, × and – in the report of photographs, and a folder's name is the user's."""
    photos, environment = draw_photos(tmp_path / "日本 ü", count=1), os.environ | {"PYTHONIOENCODING": encoding}
    for words in (["train", "--help"], ["data", str(photos), "--sheet", str(tmp_path / "s.png")], ["train", "--λ"]):
        command = [sys.executable, "-m", "dreamcore.cli", *words]
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert done.returncode == (2 if "--λ" in words else 0)
        assert b"Error" not in done.stderr and len(done.stdout + done.stderr) > 50


def test_stray_words_and_missing_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="'photo': a word that belongs to no flag"):
        train_config("--validation_prompt", "a", "photo")
    with pytest.raises(ConfigError, match=r"--rank: expected one argument"):
        train_config("--rank")
    with pytest.raises(ConfigError, match=r"a value that begins with - is given as --validation_prompt=VALUE"):
        train_config("--validation_prompt", "-blurry")


FILES = {
    "run.toml": 'instance_prompt = "file"\nlearning_rate = 1e-4\nuse_lora = true\nlora_layers = ["to_q", "to_k"]\n',
    "run.yaml": "instance_prompt: file\nlearning_rate: 1e-4\nuse_lora: true\nlora_layers: [to_q, to_k]\n",
    "run.yml": yaml.safe_dump({"instance_prompt": "file", "learning_rate": 1e-4, "use_lora": True})
    + "lora-layers:\n- to_q\n- to_k\n",
    "run.json": json.dumps(
        {"instance_prompt": "file", "learning_rate": 1e-4, "use-lora": True, "lora_layers": ["to_q", "to_k"]}
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_and_flags_over_them(name: str, tmp_path: Path, started: list[Any]) -> None:
    file = tmp_path / name
    file.write_text(FILES[name], encoding="utf-8")
    flags = ["--config", str(file), "--model", "m", "--instance_data_dir", "d"]
    assert main(["train", *flags]) == 0
    assert main(["train", *flags, "--no-use-lora", "--learning_rate", "2e-4"]) == 0
    read, over = started
    assert (read.instance_prompt, read.learning_rate, read.use_lora) == ("file", 1e-4, True)
    assert read.lora_layers == over.lora_layers == ["to_q", "to_k"]
    assert (over.instance_prompt, over.learning_rate, over.use_lora) == ("file", 2e-4, False)


def test_none_takes_a_value_back(tmp_path: Path, started: list[Any]) -> None:
    (tmp_path / "run.toml").write_text("snr_gamma = 5.0\nlora_layers = ['to_q']\n", encoding="utf-8")
    flags = ["--config", str(tmp_path / "run.toml"), *REQUIRED, "--snr_gamma", "none", "--lora_layers", "none"]
    assert main(["train", *flags, "--report_to", "none"]) == 0
    assert started[0].snr_gamma is None
    assert started[0].lora_layers is None
    assert started[0].report_to == "none"


def test_preset_with_flags_over_it(started: list[Any]) -> None:
    flags = ["--instance_data_dir", "d", "--instance_prompt", "p", "--rank", "2"]
    assert main(["train", "--config", "sd15-lora", *flags]) == 0
    assert started[0].use_lora
    assert started[0].rank == 2


def test_generate_reads_its_own_settings(started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", "m", "--prompt", "p", "--no-contact-sheet", "--scheduler", "unipc"]) == 0
    (config,) = started
    assert isinstance(config, GenerateConfig)
    assert (config.contact_sheet, config.scheduler) == (False, "unipc")
    assert capsys.readouterr().out == "a.png\nb.png\n"
    assert main(["generate", "--model", "m", "--rank", "2"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "trian: no such command; did you mean train?"),
        (["frobnicate"], "there are teach, train, generate, launch, data"),
        (["train"], "pretrained_model_name_or_path: required, but not given"),
        (["train", "--model", "m"], "instance_data_dir: required, but not given"),
        (["train", "--config", "nowhere.toml"], "nowhere.toml: No such file"),
        (["train", "--config", "sd15-lorra"], "sana-lora, sd15-face, sd15-full, sd15-lora"),
        (["train", "--lr_scheduler", "cosin", *REQUIRED], "received 'cosin'"),
        (["train", "--model", "a", "--pretrained_model_name_or_path", "b"], "given twice (also as model)"),
        (["train", "--model="], "pretrained_model_name_or_path: is empty"),
        (["train", "--config="], "config: '' is neither a file nor a preset"),
        (["appraise"], "appraise: no such command; there are"),
        (["launch", "--devices=", "--", "train", *REQUIRED], "devices: is empty"),
        (["launch", "--devices", "0", "--devices", "1", "--", "train", *REQUIRED], "--devices: given twice"),
        (["generate", "--config", "sd15-lora"], "config: sd15-lora: presets are for `dreambooth train`"),
        (["launch", "--devices", "0,1", "train"], "-- is missing before train"),
    ],
)
def test_mistakes_are_explained(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("dreambooth: error: ")
    assert message in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("model: not there"), 2, "dreambooth: error: model: not there\n"),
        (RunError("disk full; checkpoint-2 is whole"), 1, "dreambooth: stopped: disk full; checkpoint-2 is whole\n"),
        (KeyboardInterrupt(), 130, "dreambooth: interrupted\n"),
    ],
)
def test_how_a_command_ends(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(config: Any) -> None:
        raise error

    monkeypatch.setattr(dreamcore, "train", fail)
    assert main(["train", *REQUIRED]) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("code", [0, 130, 143])
def test_the_run_says_the_exit_code(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreamcore, "train", lambda config: type("Run", (), {"exit_code": code, "stopped_by": None})())
    assert main(["train", *REQUIRED]) == code


@pytest.mark.parametrize("config", [TrainConfig, GenerateConfig])
def test_help_names_every_setting(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = {TrainConfig: "train", GenerateConfig: "generate"}[config]
    with pytest.raises(SystemExit) as caught:
        main([command, "--help", "all"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    _, _, hidden = text.partition("Not shown, as they act only")
    elsewhere = set(re.findall(r"[a-z0-9_]+", hidden))
    assert elsewhere
    for name, field in config.model_fields.items():
        if name == "concepts":  # a structure, for which there is no flag
            assert "In a configuration file only: concepts." in text
            continue
        if name in elsewhere:
            continue
        assert f"--{name} " in text
        assert field.description
        assert " ".join(field.description.split())[:20] in text.replace("- ", "-")
    assert "(default: no)" in text
    assert f"{{{','.join(get_args(Scheduler))}}}" in text


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    commands = ("train", "generate", "launch", "data", "identifiers", "doctor")
    assert all(f"\n  {command} " in overview for command in commands)
    assert main([]) == 2
    assert capsys.readouterr().out == overview
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dreambooth {dreamcore.__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
@pytest.mark.parametrize(
    ("words", "unbuffered"), [(["--help"], "1"), (["train", "--help", "all"], ""), (["train", "--frobnicate"], "")]
)
def test_a_reader_that_goes_ends_it_quietly(words: list[str], unbuffered: str) -> None:
    """`dreambooth ... | head`, and `2>&1 | head`: as of a program that SIGPIPE ends."""
    command = [sys.executable, "-m", "dreamcore.cli", *words]
    reading, writing = os.pipe()
    os.close(reading)
    whole = "--frobnicate" in words
    with os.fdopen(writing, "wb") as gone:
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=gone, stderr=gone if whole else subprocess.PIPE, check=False, env=env)
    assert done.returncode == 141
    assert not done.stderr


def test_as_a_process() -> None:
    """No traceback, the message on standard error, and exit code 2, through the interpreter as a shell sees it."""
    command = [sys.executable, "-m", "dreamcore.cli", "train", "--frobnicate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("dreambooth: error: --frobnicate: unknown setting")
    assert "Traceback" not in done.stderr


def test_python_takes_what_the_command_line_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loop, "train", lambda config, callbacks: config)
    file = tmp_path / "run.toml"
    file.write_text("rank = 2\nuse_lora = true\n", encoding="utf-8")
    required = {"pretrained_model_name_or_path": "m", "instance_data_dir": "d", "instance_prompt": "p"}
    expected = load_config(TrainConfig, None, {**required, "use_lora": True, "rank": 2})
    assert dreamcore.train(use_lora=True, rank=2, **required) == expected
    assert dreamcore.train(str(file), **required) == expected
    assert dreamcore.train(expected) == expected
    assert dreamcore.train(expected, lora_rank=3).rank == 3
    with pytest.raises(ConfigError, match="did you mean rank"):
        dreamcore.train(expected, rankk=3)


def test_python_checks_a_configuration_made_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydantic's constructor knows nothing of settings that contradict each other."""
    monkeypatch.setattr(loop, "train", lambda config, callbacks: config)
    config = TrainConfig(pretrained_model_name_or_path="m", instance_data_dir="d", instance_prompt="p", height=64)
    with pytest.raises(ConfigError, match="height and width"):
        dreamcore.train(config)


def test_public_names() -> None:
    assert dreamcore.TrainConfig is TrainConfig
    assert dreamcore.GenerateConfig is GenerateConfig
    assert set(dreamcore.__all__) <= set(dir(dreamcore))
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = dreamcore.frobnicate


def test_a_setting_with_a_structure_is_no_flag() -> None:
    with pytest.raises(ConfigError, match="--concepts: not a flag; give concepts in a configuration file"):
        train_config("--concepts", "x")


def test_concepts_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    concept = '[[concepts]]\ninstance_data_dir = "{0}"\ninstance_prompt = "a {0}"\nweight = 0.5\n'
    file.write_text('pretrained_model_name_or_path = "m"\n' + concept.format("dog") + concept.format("cat"))
    config = load_config(TrainConfig, *parse_settings(TrainConfig, "train", "", ["--config", str(file)]))
    assert [(c.instance_data_dir, c.instance_prompt, c.weight) for c in config.subjects()] == [
        ("dog", "a dog", 0.5),
        ("cat", "a cat", 0.5),
    ]
