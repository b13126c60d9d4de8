"""Other trainers' command lines: every flag of theirs has its effect, changes nothing, or is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from dreamcore.cli.flags import parse_settings
from dreamcore.config import GenerateConfig, TrainConfig, load_config
from dreamcore.config.common import Like
from dreamcore.config.compat import SYSTEMS, meanings
from dreamcore.config.loading import settings_names
from dreamcore.config.names import ALIASES
from dreamcore.errors import ConfigError

FLAGS = json.loads((Path(__file__).parent / "peer_flags.json").read_text())
"""System and command -> flag -> its kind (text, int, float, bool, switch, list, or choices) and its default there."""
ROWS = [(*of.split(), flag, *about) for of, flags in FLAGS.items() for flag, about in flags.items()]
CLASSES = {"train": TrainConfig, "generate": GenerateConfig}
BASE = {
    "train": {
        "pretrained_model_name_or_path": "m",
        "instance_data_dir": "d",
        "instance_prompt": "a photo of sks dog",
        "class_prompt": "a photo of a dog",
    },
    "generate": {"pretrained_model_name_or_path": "m", "prompt": "a dog"},
}
TEXTS = {
    "lr_scheduler": "cosine",
    "report_to": "wandb",
    "optim": "lion",
    "optimizer": "prodigy",
    "betas": ["0.8", "0.9"],
    "version": "1.5",
    "weighting_scheme": "mode",
    "mixed_precision": "bf16",
    "prior_generation_precision": "bf16",
    "validation_scheduler": "DDIMScheduler",
    "image_interpolation_mode": "bilinear",
    "device_target": "CPU",
    "log_level": "DEBUG",
    "output_path": "elsewhere",
    "aspect_ratio_buckets": "64,64;64,128",
    "text_encoder_out_layers": ["1", "2"],
    "device": "cpu",
    "scale": "5.0",
    "precondition_outputs": "false",
    "lora_rank": "9",
    "cache_latents": "false",
}


def another(flag: str, kind: str, default: Any) -> list[str]:
    """A value that is not the default, as the words of a command line."""
    if flag in TEXTS:
        return TEXTS[flag] if isinstance(TEXTS[flag], list) else [str(TEXTS[flag])]
    if kind == "text" and flag in TrainConfig.model_fields:
        numeric = any(word in str(TrainConfig.model_fields[flag].annotation) for word in ("int", "float"))
        return ["4"] if numeric else ["some/text"]
    if kind == "switch":
        return []
    if kind == "bool":
        return [str(not default)]
    if kind == "int":
        return [str((default or 0) + 64)]
    if kind == "float":
        return [str((default or 0.0) / 2 + 0.25)]
    if "|" in kind:
        return [next(choice for choice in kind.split("|") if choice != str(default))]
    return ["some/text"]


OTHER_VALUES = {"mode", "validation_scheduler", "save_precision", "class_labels_conditioning"}
"""Names that are ours too, whose values have other spellings."""


def table(system: str, command: str) -> dict[str, Any]:
    return meanings(SYSTEMS[system], command)


def load(system: str, command: str, words: list[str], **more: Any) -> Any:
    cls = CLASSES[command]
    config, given, problems, notes = parse_settings(cls, command, "", [*words, f"--like={system}"])
    taken = {
        *given,
        *(word for n in given if n in table(system, command) for word in table(system, command)[n].words.split("`")),
    }
    taken |= {"prompt"} if "prompt_file" in taken else set()
    base = {name: value for name, value in BASE[command].items() if name not in taken}
    return load_config(cls, config, base | given | more, problems, notes)


@pytest.mark.parametrize(("system", "command", "flag", "kind", "default"), ROWS, ids=lambda v: str(v))
def test_a_flag_of_theirs(system: str, command: str, flag: str, kind: str, default: Any, tmp_path: Path) -> None:
    if flag in SYSTEMS[system].configuration:
        file = tmp_path / "train.json"
        file.write_text('{"train_batch_size": 7}')
        assert load(system, command, [f"--{flag}", str(file)]).train_batch_size == 7
        return
    words = [f"--{flag}", *another(flag, kind, default)]
    words += {"height": ["--width=64"], "width": ["--height=64"]}.get(flag, [])
    name = flag.replace("-", "_")
    names, fields = table(system, command), CLASSES[command].model_fields
    if name not in names and name not in fields and name not in ALIASES:
        pytest.fail(f"{flag} has no meaning")
    words_of = names[name].words if name in names else ""
    plain = load(system, command, [])
    try:
        config = load(system, command, words)
    except ConfigError as error:
        assert f"{name}: " in str(error) and "did you mean" not in str(error) and "unknown" not in str(error)
        contradicts = any(
            said in str(error)
            for said in ("given together", "has no use without", "needs one", "give 1 for one of them")
        )
        assert "refused" in words_of or contradicts or "expected" in str(error), (words_of, str(error))
        return

    def facts(loaded: Any) -> set[tuple[str, str]]:
        return {(n, repr(v)) for n, v in loaded.given().items() if n not in loaded.suggested}

    changed = facts(config) - facts(plain) | ({"token"} if config.token else set())
    if words_of.startswith("accepted") or "nothing" in words_of:
        assert changed == set()
    else:
        assert changed, f"{flag} changes nothing, and nothing says so"


def test_like_names_every_system() -> None:
    assert set(get_args(Like)) == set(SYSTEMS)


def test_tables_lead_to_settings_that_are_there() -> None:
    """What a table's words name in backquotes is a setting; no name of ours is in a table without need."""
    for system in SYSTEMS.values():
        for command, cls in CLASSES.items():
            for name, meaning in system.names(command).items():
                said = [
                    part.partition("=")[0] for part in meaning.words.split("`")[1::2] if "refused" not in meaning.words
                ]
                assert set(said) <= {*cls.model_fields, *GenerateConfig.model_fields, "config"}, (system.name, name)
                assert meaning.words != f"`{name}`" or name in OTHER_VALUES, (system.name, name)


def test_defaults_are_settings_and_valid() -> None:
    for system in SYSTEMS.values():
        for command in CLASSES:
            config = load(system.name, command, [])
            theirs = system.generates if command == "generate" else system.defaults
            assert {n: getattr(config, n) for n in theirs if n not in BASE[command]} == {
                n: v for n, v in theirs.items() if n not in BASE[command]
            }
            assert config.suggested >= theirs.keys() - BASE[command].keys()


def one_system_alone() -> Iterator[tuple[str, str]]:
    for of, flags in FLAGS.items():
        system, command = of.split()
        own = SYSTEMS[system].names(command).keys() - meanings(None, command).keys() - ALIASES.keys()
        for flag in flags:
            others = [s for s in SYSTEMS.values() if s.name != system and flag in {*s.names(command), *s.configuration}]
            if flag in own and flag not in settings_names() and command == "train" and not others:
                yield system, flag


@pytest.mark.parametrize(("system", "flag"), list(one_system_alone()))
def test_a_name_that_one_has_takes_its_table(system: str, flag: str) -> None:
    config, given, problems, notes = parse_settings(TrainConfig, "train", "", [f"--{flag}", "1"])
    try:
        loaded = load_config(TrainConfig, config, BASE["train"] | given, problems, notes)
    except ConfigError as error:
        assert f"{flag}: " in str(error)
        return
    assert loaded.like == system and any(f"{flag} is a name of {system}'s" in note for note in loaded.notes)


def test_what_is_given_wins_over_their_defaults() -> None:
    config = load(
        "structured-lora", "train", ["--learning_rate", "1e-5", "--max_train_steps=7", "--validation_steps=3"]
    )
    assert (config.learning_rate, config.max_train_steps, config.validation_steps) == (1e-5, 7, 3)
    assert config.validation_epochs is None and config.use_lora and config.train_batch_size == 1


def test_a_preset_wins_over_their_defaults() -> None:
    config = load("structured-lora", "train", ["--config", "sd15-lora"])
    assert (config.rank, config.max_train_steps, config.mixed_precision) == (8, 500, "fp16")


@pytest.mark.parametrize("system", ["diffusers", "mindone", "ppdiffusers", "kohya"])
def test_a_rank_says_that_lora_trains(system: str) -> None:
    flag = "--network_dim=8" if system == "kohya" else "--rank=8"
    config = load(system, "train", [flag])
    assert (config.use_lora, config.rank) == (True, 8) and not load(system, "train", []).use_lora


def test_a_printed_slip_is_mended_and_said() -> None:
    config = load("structured-lora", "train", ["--with_prior_preservation", "--class_prompt==a photo of dog"])
    assert config.class_prompt == "a photo of dog"
    assert any("--class_prompt=a photo of dog" in note for note in config.notes)
