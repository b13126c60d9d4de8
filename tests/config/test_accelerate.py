"""What `accelerate launch` asks for, as its own launcher says it to scripts: honoured, refused or overruled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import GenerateConfig, TrainConfig, load_config
from dreamcore.config.accelerate import FSDP, OFFLOAD, REFUSED, STRATEGY, said_by_accelerate
from dreamcore.errors import ConfigError

from ..support.settings import GENERATE, TRAIN

PLAIN = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_CPU": "False"}
"""What it says of a machine of which nothing is asked."""
HONOURED: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({}, {}),
    ({"ACCELERATE_MIXED_PRECISION": "fp16"}, {"mixed_precision": "fp16"}),
    ({"ACCELERATE_MIXED_PRECISION": "BF16"}, {"mixed_precision": "bf16"}),
    ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, {"compile": True}),
    ({"ACCELERATE_USE_CPU": "True"}, {"device": "cpu"}),
    (
        {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "bf16"},
        {"device": "cpu", "mixed_precision": "bf16"},
    ),
    ({"ACCELERATE_USE_DEEPSPEED": "false", "ACCELERATE_USE_FSDP": "False"}, {}),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_RESHARD_AFTER_FORWARD": "true"}, {"shard": "full"}),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_SHARDING_STRATEGY": "SHARD_GRAD_OP"}, {"shard": "optimizer"}),
]
NOT_HERE: list[tuple[dict[str, str], str]] = [
    (
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        "accelerate: deepspeed: DeepSpeed is not used here; .* give mixed_precision",
    ),
    (
        {"ACCELERATE_USE_FSDP": "true", "FSDP_SHARDING_STRATEGY": "HYBRID_SHARD"},
        "accelerate: fsdp_sharding_strategy HYBRID_SHARD: expected one of FULL_SHARD, 1, SHARD_GRAD_OP",
    ),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"}, "accelerate: fsdp_offload_params: shares stay on"),
    ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "accelerate: megatron_lm: Megatron-LM is not used here"),
    ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "accelerate: parallelism_config: there is one mesh"),
    ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "accelerate: mixed_precision fp8: expected no, fp16 or bf16"),
    ({"ACCELERATE_DYNAMO_BACKEND": "EAGER"}, "accelerate: dynamo_backend eager: expected no or inductor"),
]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what the launcher says, on top of `PLAIN`."""
    for name in [*PLAIN, *REFUSED, FSDP, STRATEGY, OFFLOAD]:
        monkeypatch.delenv(name, raising=False)

    def say(said: dict[str, str]) -> None:
        for name, value in (PLAIN | said).items():
            monkeypatch.setenv(name, value)

    return say


@pytest.mark.parametrize(("said", "settings"), HONOURED, ids=str)
def test_what_is_honoured(said: dict[str, str], settings: dict[str, Any], launched: Any) -> None:
    plain = load_config(TrainConfig, None, TRAIN)
    launched(said)
    config = load_config(TrainConfig, None, TRAIN)
    assert config.given() == TRAIN | settings
    assert config == plain.model_copy(update=settings)
    listed = [note for note in config.notes if note.startswith("accelerate: ")]
    assert len(listed) == bool(settings) and all(f"{n} {v}" in listed[0] for n, v in settings.items())


@pytest.mark.parametrize(("said", "words"), NOT_HERE, ids=str)
def test_what_is_refused(said: dict[str, str], words: str, launched: Any) -> None:
    launched(said)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(TrainConfig, None, TRAIN | {"rank": "none at all"})
    assert "rank: " in str(caught.value), "with all else that is wrong"


def test_every_refusal_is_tried() -> None:
    assert REFUSED.keys() <= {name for said, _ in NOT_HERE for name in said}


def test_whatever_is_given_wins(launched: Any, tmp_path: Path) -> None:
    launched({"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_CPU": "true"})
    flags = load_config(TrainConfig, None, TRAIN | {"mixed_precision": "no", "device": "cuda:1"})
    assert (flags.mixed_precision, flags.device) == ("no", "cuda:1")
    assert not [note for note in flags.notes if "accelerate" in note]
    (tmp_path / "a.toml").write_text('mixed_precision = "fp16"\n')
    file = load_config(TrainConfig, tmp_path / "a.toml", TRAIN)
    assert (file.mixed_precision, file.device) == ("fp16", "cpu")
    assert file.notes == ["accelerate: device cpu"]


def test_nothing_is_read_without_the_launcher(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that somebody has set for other scripts; the launcher itself always says the precision."""
    launched(
        {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_USE_CPU": "true"}
    )
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert said_by_accelerate() == ({}, [])
    assert load_config(TrainConfig, None, TRAIN).given() == TRAIN


def test_images_are_made_as_it_asks(launched: Any) -> None:
    """`generate` has a precision and a device, and nothing to compile."""
    launched(
        {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_USE_CPU": "true"}
    )
    config = load_config(GenerateConfig, None, GENERATE)
    assert config.given() == GENERATE | {"mixed_precision": "bf16", "device": "cpu"}


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("--cpu --mixed_precision bf16", {"mixed_precision": "bf16", "device": "cpu"}),
        ("--mixed_precision no --dynamo_backend inductor", {"compile": True}),
        ("--dynamo_backend no", {}),
        ("--mixed_precision fp16", {"mixed_precision": "fp16"}),
    ],
)
def test_the_launcher_itself_says_it_so(words: str, settings: dict[str, Any]) -> None:
    launch = pytest.importorskip("accelerate.commands.launch", reason="accelerate's own launcher is asked")
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    arguments = launch.launch_command_parser().parse_args([*words.split(), "--num_processes=1", "train.py"])
    arguments, *_ = launch._validate_launch_command(arguments)
    _, environment = prepare_simple_launcher_cmd_env(arguments)
    assert said_by_accelerate(environment) == (settings, [])
