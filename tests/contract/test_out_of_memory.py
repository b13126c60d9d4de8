"""Running out of memory: one message that names the stage and what would need less; the log keeps the traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dreamcore.backends import out_of_memory
from dreamcore.backends.installed import installed_backends
from dreamcore.backends.loading import Residence
from dreamcore.backends.out_of_memory import OutOfMemory
from dreamcore.cli.main import main
from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig, TrainConfig
from dreamcore.errors import ConfigError

from ..support import needs
from ..support.runs import PRIOR, configuration, small_run

BACKEND = installed_backends()[0]
LOOKING = {"validation_prompt": "a dog", "num_validation_images": 1, "validation_num_inference_steps": 1}
STAGES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "loading the model": ("prepare_training", {"use_ema": True}, ["--use_lora", "--no-use_ema"]),
    "encoding prompts": ("set_prompts", {}, []),
    "encoding images": ("encode_images", {}, ["--resolution below 32", "--cache_memory_gb"]),
    "generating class images": (
        "sample",
        PRIOR,
        ["--sample_batch_size 1", "--resolution below 32", "--class_data_dir"],
    ),
    "training": (
        "train_step",
        {"train_batch_size": 2, "gradient_accumulation_steps": 2},
        ["--gradient_checkpointing", "--train_batch_size 1 --gradient_accumulation_steps 4", "--use_lora"],
    ),
    "validating": ("sample", LOOKING, ["--sample_batch_size 1", "--resolution below 32", "no --validation_prompt"]),
    "saving": ("export", {}, ["--use_lora"]),
}
"""Stage -> a method of backends that works in it, settings that bring it about, and what would help, in order."""
TRIED = STAGES if BACKEND != "mindspore" else ("loading the model", "training", "validating")
ON_A_DEVICE = {
    "torch": "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 9.50 GiB",
    "paddle": "\n----\nError Message Summary:\n----\nResourceExhaustedError: \n\nOut of memory error on GPU 0. "
    "Cannot allocate 20.000000MB memory on GPU 0, 9.5GB memory has been allocated",
    "mindspore": "Malloc for kernel output failed, Memory isn't enough, node:Default/Conv2D-op1",
}


def exhaust(*_: Any, **__: Any) -> NoReturn:
    """Ask the framework for more than there is."""
    if BACKEND == "torch":
        import torch

        torch.empty(2**50)
    elif BACKEND == "paddle":
        import paddle

        paddle.empty([2**50])
    else:
        from mindspore import ops

        ops.zeros((2**31 - 1, 2**10)).asnumpy()
    raise AssertionError("as much memory as that?")


def on_a_device(*_: Any, **__: Any) -> NoReturn:
    """What this backend's framework raises where an accelerator's memory is used up."""
    if BACKEND == "torch":
        import torch

        raise torch.OutOfMemoryError(ON_A_DEVICE[BACKEND])
    raise (MemoryError if BACKEND == "paddle" else RuntimeError)(ON_A_DEVICE[BACKEND])


def fail_in(method: str, failure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a method of the backend fail."""
    import importlib

    module = importlib.import_module(f"dreamcore.adapters.{BACKEND}.backend")
    cls = {"torch": "TorchBackend", "paddle": "PaddleBackend", "mindspore": "MindSporeBackend"}[BACKEND]
    monkeypatch.setattr(getattr(module, cls), method, failure)


@pytest.mark.parametrize("stage", TRIED)
def test_the_stage_and_what_would_help(
    stage: str, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, settings, helps = STAGES[stage]
    fail_in(method, exhaust, monkeypatch)
    with pytest.raises(OutOfMemory) as error:
        small_run(tiny_model, photos, tmp_path, **settings)
    said = str(error.value)
    assert said.startswith(f"out of memory of the host while {stage} ("), said
    assert "\n" not in said
    places = [said.index(words) for words in [*helps, "more memory for each process"]]
    assert places == sorted(places)
    assert not any(f"--{name} " in said for name in settings if name != "train_batch_size" and "steps" not in name)
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log and "in exhaust" in log
    assert str(tmp_path / "log.txt") in said


def test_a_device_is_told_from_the_host(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, as a user meets it."""
    if BACKEND == "mindspore":
        monkeypatch.setattr("mindspore.get_context", lambda name: "Ascend")
        recognised = out_of_memory.memory_trouble(RuntimeError(ON_A_DEVICE[BACKEND]))
        assert recognised == ("device", ON_A_DEVICE[BACKEND])
        return
    fail_in("train_step", on_a_device, monkeypatch)
    config = configuration(tiny_model, photos, tmp_path)
    words = [f"--{name}={value}" for name, value in config.given().items()]
    assert main(["train", *words]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("dreambooth: stopped: out of memory of the device while training (")
    assert ON_A_DEVICE[BACKEND].splitlines()[-1][:60] in said
    assert "--mixed_precision bf16" in said and ("--use_8bit_adam" in said) is (BACKEND == "torch")
    assert "Every checkpoint is whole" in said


def test_pictures(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_in("sample", exhaust, monkeypatch)
    given = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a dog", "output_dir": str(tmp_path)}
    with pytest.raises(
        OutOfMemory, match=r"while generating images \(.*--batch_size 1; .*smaller --height and --width"
    ):
        generate(GenerateConfig.from_mapping(given))
    assert "in exhaust" in (tmp_path / "log.txt").read_text()


def test_what_was_moved_for_an_image_goes_back(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[str] = []
    fail_in("decode_latents", exhaust, monkeypatch)
    monkeypatch.setattr(Residence, "leave", lambda residence, name: left.append(name))
    given = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a dog", "output_dir": str(tmp_path)}
    with pytest.raises(OutOfMemory):
        generate(GenerateConfig.from_mapping(given | {"num_inference_steps": 1}))
    assert left[-2:] == ["vae", "text_encoder"]


def test_every_setting_that_is_advised_exists() -> None:
    told = [words for words, *_ in out_of_memory.REMEDIES if isinstance(words, str)]
    names = {name for words in told for name in re.findall(r"--(?:no-)?(\w+)", words)}
    assert len(names) > 8
    assert names <= TrainConfig.model_fields.keys() | GenerateConfig.model_fields.keys()


def test_other_errors_stay_what_they_are(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*_: Any) -> NoReturn:
        raise RuntimeError("the sizes of tensors must match")

    fail_in("set_prompts", other, monkeypatch)
    with pytest.raises(RuntimeError, match="the sizes of tensors") as error:
        small_run(tiny_model, photos, tmp_path)
    assert type(error.value) is RuntimeError


def test_an_error_that_comes_of_another_is_seen_through() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise ConfigError("unet: cannot be loaded") from None
    except ConfigError as error:
        assert out_of_memory.memory_trouble(error) == ("host", "MemoryError")


@needs.torch
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited in Linux' way")
def test_memory_that_is_truly_used_up(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """The address space of a whole command, cut down to 600 MB more than it needs before it begins."""
    code = """
import resource, sys
import dreamcore.adapters.torch.backend
from dreamcore.cli.main import main
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 600 * 2**20,) * 2)
sys.exit(main(sys.argv[1:]))
"""
    settings = configuration(tiny_model, photos, tmp_path, train_batch_size=256, resolution=64).given()
    words = [f"--{name}={value}" for name, value in settings.items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, "train", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "out of memory of the host while training (" in last
    assert "--gradient_checkpointing; --train_batch_size 1" in last
    assert "Traceback" not in done.stderr and "Traceback" in (tmp_path / "log.txt").read_text()
