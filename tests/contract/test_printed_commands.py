"""The command lines that other trainers' README files print, word for word but for models, places and sizes.

Each goes through parsing, and through a real run on the backend that it belongs to.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import types
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from dreamcore.backends.installed import installed_backends
from dreamcore.cli.flags import parse_settings
from dreamcore.cli.main import command_of, main
from dreamcore.config import GenerateConfig, TrainConfig, load_config
from dreamcore.errors import ConfigError
from dreamcore.models.ldm_export import write_ldm_checkpoint
from dreamcore.training import loop, setup

from ..support import needs
from ..support.ldm import CONFIG
from ..support.paths import ROOT
from ..support.runs import small_run
from ..support.tables import as_parquet
from ..support.tiny import draw_photos

pytestmark = needs.backend

SEEDS = ROOT.parent / "shared" / "seeds"
"""The README files themselves, beside a clone, where they are."""
BACKENDS = {"ppdiffusers": "paddle", "mindone": "mindspore", "mindone-sd2": "mindspore"}


VARIABLES = {
    "instance_prompt": "a photo of sks dog",
    "class_prompt": "a photo of a dog",
    "train_batch_size": "1",
    "image_size": "512",
    "VALIDATION_IMAGES": "low/1.png low/2.png",
}
"""What a README file sets before its command."""


class Printed(NamedTuple):
    """A line of `printed_commands.txt`."""

    trainer: str
    model: str
    refused: str
    command: str

    @property
    def words(self) -> list[str]:
        """The script's name and its arguments."""
        command = self.command
        for variable, value in VARIABLES.items():
            command = command.replace(f"${variable}", value)
        words = shlex.split(command)
        return words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]

    @property
    def backend(self) -> str:
        return BACKENDS.get(self.trainer, "torch")


def table() -> Iterator[Printed]:
    text = (Path(__file__).parents[1] / "support" / "printed_commands.txt").read_text()
    for line in text.splitlines():
        if not line.startswith("#"):
            trainer, model, refused, command = (part.strip() for part in line.split(" | ", 3))
            yield Printed(trainer, model, refused, command)


TABLE = list(table())
HERE = [one for one in TABLE if one.backend in installed_backends()]
DEVICE = "(device) "
RUN = [one for one in HERE if not one.refused]
BUT_FOR_THE_DEVICE = [one for one in HERE if one.refused.startswith(DEVICE)]


def name(one: Printed) -> str:
    return f"{one.trainer}-{one.words[0]}-{TABLE.index(one)}"


@pytest.fixture
def places(
    tiny_model: Path, family_models: Callable[[str], Path], photos: Path, tmp_path: Path, monkeypatch: Any
) -> Callable[[Printed], list[str]]:
    """A printed command's words with models, places and sizes of this machine's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def swapped(one: Printed) -> list[str]:
        model = tiny_model if one.model == "sd" else family_models(one.model)
        values = {
            "pretrained_model_name_or_path": str(model),
            "pretrained_vae_model_name_or_path": str(model),
            "instance_data_dir": str(photos),
            "class_data_dir": str(tmp_path / "classes"),
            "output_dir": str(tmp_path / "out"),
            "output_path": str(tmp_path / "out"),
            **dict.fromkeys(("resolution", "height", "width", "image_size"), "32" if one.model == "sana" else "16"),
            "num_class_images": "2",
            "max_train_steps": "2",
            "epochs": "1",
        }
        if "--dataset_name" in one.command:
            names = {"text": "prompt"}
            if "--cond_image_column" in one.command:
                names = {"image": "output", "text": "instruction", "beside": "file_name"}
            values["dataset_name"] = str(as_parquet(photos, tmp_path / "table", **names))
        more = ["--num_class_images=2"] if "--with_prior_preservation" in one.words else []
        more += ["--prior_num_inference_steps=2"] if more else []
        looks = "--validation_prompt" in one.command
        more += ["--validation_num_inference_steps=2"] if looks else []
        if "--validation_images" in one.command:
            draw_photos(tmp_path / "low", count=2, size=8)
            for number, file in enumerate(sorted((tmp_path / "low").iterdir()), 1):
                Image.open(file).convert("RGB").crop((0, 0, 8, 8)).save(tmp_path / "low" / f"{number}.png")
        elif looks:
            more += ["--num_validation_images=1"]
        if one.trainer == "mindone-sd2":
            values |= of_mindone(family_models("ldm1"), tmp_path)
            train = one.words[0].startswith("train")
            more = ["--train_data_repeats=1", "--num_class_images=2"] if train else ["--H=16", "--W=16", "--n_iter=1"]
        if "--checkpoint_dir" in one.command:
            values["checkpoint_dir"] = str(tmp_path / "lora")
            small_run(tiny_model, photos, tmp_path / "lora", use_lora=True, overwrite_output_dir=True)
            more = ["--num_images=2", "--num_inference_steps=2"]
        words = [swap(word, after, values) for word, after in zip(one.words, [*one.words[1:], ""], strict=True)]
        dropped = {more_word.partition("=")[0] for more_word in more}
        words = [word for word in words if word.partition("=")[0] not in dropped]
        return [*separate(words, values), *more]

    return swapped


def swap(word: str, after: str, values: dict[str, str]) -> str:
    flag, equals, _ = word.partition("=")
    return f"{flag}={values[flag[2:]]}" if equals and flag[2:] in values else word


def separate(words: list[str], values: dict[str, str]) -> list[str]:
    """Values that stand as words of their own."""
    for i, word in enumerate(words[:-1]):
        if word.startswith("--") and word[2:] in values and not words[i + 1].startswith("--"):
            words[i + 1] = values[word[2:]]
    return words


def of_mindone(model: Path, folder: Path) -> dict[str, str]:
    """A checkpoint of MindONE's, the model's description, and a file of settings."""
    write_ldm_checkpoint(model, folder / "sd.ckpt")
    (folder / "model.yaml").write_text(CONFIG)
    settings = {"original_config": str(folder / "model.yaml"), "betas": [0.9, 0.98], "random_crop": True}
    (folder / "train.json").write_text(json.dumps({**settings, "warmup_steps": 200, "epochs": 8}))
    return {
        "pretrained_model_path": str(folder),
        "pretrained_model_file": "sd.ckpt",
        "train_config": str(folder / "train.json"),
        "config": str(folder / "model.yaml"),
        "ckpt_path": str(folder / "sd.ckpt"),
    }


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of runs that would have been published; Weights & Biases is there, and notes nothing."""
    found = list[Path]()
    monkeypatch.setattr(setup, "check_publishing", lambda config, folder: None)
    monkeypatch.setattr(loop, "publish", lambda config, folder, *_: config.push_to_hub and found.append(folder))
    monkeypatch.setitem(sys.modules, "wandb", stand_in_for_wandb())
    return found


def stand_in_for_wandb() -> Any:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    module: Any = types.ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    run = types.SimpleNamespace(id="1", log=nothing, finish=nothing, summary={}, define_metric=nothing)
    module.init, module.Image = lambda **_: run, nothing
    return module


def launched(one: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerate's launcher says to the script."""
    if one.command.startswith("accelerate launch"):
        precision = re.match(r'accelerate launch --mixed_precision="(\w+)"', one.command)
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision[1] if precision else "no")


@pytest.mark.parametrize("one", [one for one in HERE if one.refused], ids=name)
@pytest.mark.usefixtures("published")
def test_what_cannot_run_says_why(
    one: Printed, places: Callable[[Printed], list[str]], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another family or optimizer needs, before anything is opened; what a CPU lacks, once all is understood."""
    launched(one, monkeypatch)
    assert main(places(one)) == 2
    assert one.refused.removeprefix(DEVICE) in (said := capsys.readouterr().err)
    assert "unknown setting" not in said and "did you mean" not in said


def without_a_gpu(word: str) -> str | None:
    """A word of a command line that asks for what a CPU lacks, otherwise."""
    if word.startswith("--mixed_precision="):
        return "--mixed_precision=no"
    return None if word == "--use_8bit_adam" else word


@pytest.mark.parametrize("one", [*RUN, *BUT_FOR_THE_DEVICE], ids=name)
def test_it_runs(
    one: Printed,
    places: Callable[[Printed], list[str]],
    published: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if one in RUN:
        launched(one, monkeypatch)
    words = [taken for word in places(one) if (taken := word if one in RUN else without_a_gpu(word)) is not None]
    assert main(words) == 0
    command, _ = command_of(words)
    if command == "generate":
        assert len(list(tmp_path.rglob("0000*.png"))) >= 2
        return
    folder = next(file.parent for file in tmp_path.rglob("metrics.jsonl") if "lora" not in file.parts)
    finished = ("model_index.json", "pytorch_lora_weights.safetensors", f"{folder.name}_emb.safetensors")
    assert any((folder / name).exists() for name in finished)
    assert (folder / finished[2]).exists() == ("--train_text_encoder_ti" in words)
    assert (published == [folder]) == ("--push_to_hub" in words)
    if (folder / "model_index.json").exists() and one.trainer in SNIPPETS:
        assert SNIPPETS[one.trainer](folder, "A photo of sks dog in a bucket").size == (32, 32)


def by_diffusers(folder: Path, prompt: str) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder)(prompt, num_inference_steps=2, guidance_scale=7.5).images[0]


def by_ppdiffusers(folder: Path, prompt: str) -> Any:
    from ppdiffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(str(folder))(prompt, num_inference_steps=2).images[0]


def by_mindone(folder: Path, prompt: str) -> Any:
    import mindspore as ms
    from mindone.diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(str(folder), mindspore_dtype=ms.float32, use_safetensors=True)
    return pipeline(prompt, num_inference_steps=2, guidance_scale=7.5)[0][0]


SNIPPETS = {"colossalai": by_diffusers, "ppdiffusers": by_ppdiffusers, "mindone": by_mindone}
"""The lines of Python at the README files' ends, on what the command has written."""


@pytest.mark.parametrize("one", RUN, ids=name)
def test_it_is_the_same_under_our_own_commands(one: Printed, places: Callable[[Printed], list[str]]) -> None:
    """`dreambooth train` with the same arguments; where nothing else says whose they are, with --like."""
    command, rest = command_of([*places(one), f"--backend={one.backend}"])
    cls = {"train": TrainConfig, "generate": GenerateConfig}[command]
    by_script = load_config(cls, *parse_settings(cls, command, "", rest))
    assert by_script.like == one.trainer
    ours = [*places(one)[1:], f"--backend={one.backend}", f"--like={one.trainer}"]
    ours += ["--use_lora"] if getattr(by_script, "use_lora", False) else []
    assert command_of(["train" if command == "train" else "generate", *ours])[0] == command
    assert load_config(cls, *parse_settings(cls, command, "", ours)) == by_script


def test_the_table_has_what_their_files_print() -> None:
    """Where the files are at hand: each complete command, and no other text of theirs."""
    if not SEEDS.is_dir():
        pytest.skip("the README files are not beside this clone")
    rows = {" ".join(one.command.split()) for one in TABLE}
    for file in sorted(SEEDS.glob("*.txt")):
        for block in re.findall(r"^ *```[^\n]*\n(.*?)^ *```", file.read_text(encoding="utf-8"), re.S | re.M):
            for line in re.sub(r"\\\s*\n", " ", block).splitlines():
                words = re.sub(r"(?<=\s)#.*", "", line).split()
                complete = "--instance_data_dir" in line or "--prompt" in line
                if words and words[0] in ("python", "torchrun", "accelerate") and complete:
                    assert " ".join(words) in rows, (file.name, line)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("train_dreambooth_flax.py", "JAX is not among the backends; on PyTorch it is train_dreambooth.py"),
        ("train_dreambooth_lora_krea2.py", "is for a family of models, or a method, that is not trained here"),
        ("finetune.py", "no script that is known here; "),
    ],
)
def test_scripts_that_are_not_known(script: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{script}: {words}"):
        command_of([script, "--resolution=512"])
