"""The README's every line, typed in a clone of this repository that the package was installed from, not editably.

What stands in for what a test has not: a small server for the Hugging Face Hub, with one small model for every name;
drawn photographs; presets with the lengths of `SHORT`; a `pip` and a `nox` that only check what they are asked for (a
quickstart runs in an environment that nox makes, and tests/tinyworld runs it); the words of `INSTEAD`, for devices and
for `...`.  The environment sees the tested one's libraries.  Whatever else the README says is run as it stands; in
another environment than PyTorch's, what is that backend's own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dreamcore.backends.installed import installed_backends

from ..support import needs
from ..support.hub_server import Hub
from ..support.lora import ENCODER, UNET, write_lora
from ..support.tiny import draw_photos
from .test_packaging import ROOT, tree_files

pytestmark = [needs.backend, pytest.mark.timeout(900)]

MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SHORT = {
    "max_train_steps": 1, "num_class_images": 1, "prior_num_inference_steps": 1,
    "num_validation_images": 1, "validation_num_inference_steps": 1,
}  # fmt: skip
SMALL = "--max_train_steps 1 --resolution 32"
REST = f"--model {MODEL} {SMALL} --instance_data_dir photos/dog --instance_prompt 'a sks dog' --output_dir "
WATCHED = f"""dreambooth train --model {MODEL} --resolution 32 --max_train_steps 100000 --instance_data_dir photos/dog \
  --instance_prompt 'a sks dog' --validation_prompt 'a sks dog' --num_validation_images 1 \
  --validation_num_inference_steps 1 --output_dir watched & until dreambooth sample watched; do sleep 1; done
dreambooth stop watched && wait"""
INSTEAD = {
    "dreambooth sample RUN": WATCHED,
    "stop RUN": "stop dog",  # which has finished: then it says so
    "MODEL": MODEL,
    "model.safetensors model2/": "model.safetensors model2/ --original_config model",  # for its size, which is nobody's
    "-m tests.crossing.table": "-c 'import tests.crossing.table'",  # it reads what the tests of all backends have left
    " --devices 0,1 ": " --num_processes 2 ",
    "--gpus 0,1,2,3": "--nproc_per_node=2",
    "--worker_num=8 --local_worker_num=8": "--worker_num=2 --local_worker_num=2",
    " ...": f" {REST}run-",
}
BIN = Path(sys.executable).parent
"""Of the tested environment, for msrun."""
OWN = {"paddle": ("paddle", "ppdiffusers"), "mindspore": ("mindspore", "msrun", "--selftest")}
"""Backend -> words of the commands that only its environment can run."""

PIP = f"""#!{sys.executable}
import sys, tomllib
from pathlib import Path
from packaging.requirements import Requirement
command, *words = sys.argv[1:]
assert command == "install", command
pins = {{}}
if words[0] == "-c":
    lines = [line.partition("#")[0].strip() for line in Path(words[1]).read_text("utf-8").splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    words = words[2:]
project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
for word in words:
    if word.startswith("."):
        for requirement in map(Requirement, project["optional-dependencies"][word[2:-1]]):
            assert not pins or requirement.specifier.contains(pins[requirement.name]), requirement
    else:
        assert Requirement(word).name in ("nox", "torch"), word
"""
NOX = f"""#!{sys.executable}
import runpy, sys, types
names = set()
def session(function=None, *, name=None, tags=(), **_):
    if function is None:
        return lambda function: session(function, name=name, tags=tags)
    names.update({{"-s " + (name or function.__name__), *("-t " + tag for tag in tags)}})
sys.modules["nox"] = nox = types.ModuleType("nox")
nox.session, nox.options, nox.Session = session, types.SimpleNamespace(), object
runpy.run_path("noxfile.py")
assert " ".join(sys.argv[1:]) in names, names
"""


class Line(NamedTuple):
    number: int
    kind: str
    """shell, python or toml."""
    text: str


def readme_lines() -> list[Line]:
    """What the README gives to type: its indented blocks, and the commands among its words; once each."""
    found = list[Line]()
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    block = list[str]()
    for number, line in enumerate([*lines, "end"], 1):
        if line.startswith("    ") or (block and not line):
            block.append(line[4:])
            continue
        found += _of_block(block, number - len(block))
        block = []
        words = " ".join(lines[number - 1 : number + 1])  # a command may go on in the next line
        commands = re.finditer(r"`((?:dreambooth|python|pip|nox) [^`]+)`", words)
        found += [Line(number, "shell", said[1]) for said in commands if said.start() < len(line)]
    return list({line.text: line for line in reversed(found)}.values())[::-1]


def _of_block(block: list[str], first: int) -> Iterator[Line]:
    text = "\n".join(block).strip()
    if text.startswith(("import ", "[[")):
        yield Line(first, "python" if text.startswith("import ") else "toml", text + "\n")
        return
    command = ""
    for number, line in enumerate(block, first):
        command += line.removesuffix("\\")
        if command.strip() and not line.endswith("\\"):
            yield Line(number, "shell", command.partition("  #")[0].strip())
            command = ""


def _of_this_environment(line: Line) -> bool:
    """Whether no other environment runs the line."""
    owners = [backend for backend, words in OWN.items() if any(word in line.text for word in words)]
    return any(backend in installed_backends() for backend in owners or ["torch"])


def test_what_is_replaced_is_there() -> None:
    said = "\n".join(line.text for line in readme_lines())
    assert [words for words in INSTEAD if words not in said] == []
    assert {line.kind for line in readme_lines()} == {"shell", "python", "toml"}


@pytest.fixture
def clone(tmp_path: Path, tiny_model: Path) -> Path:
    """A clone, with photographs, a model and two LoRA files; beside it the environment of `pip install .`."""
    folder = tmp_path / "clone"
    for file in tree_files():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / file)
    for preset in (folder / "configs").glob("*.toml"):
        text = preset.read_text(encoding="utf-8")
        text = re.sub(rf"^({'|'.join(SHORT)}) = .*$", "", text, flags=re.MULTILINE)
        preset.write_text("\n".join([text, *(f"{name} = {value}" for name, value in SHORT.items())]), encoding="utf-8")
    for subject in ("dog", "mug"):
        draw_photos(folder / "photos" / subject)
    for name, program in (("pip", PIP), ("nox", NOX)):
        file = tmp_path / "stand-ins" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(program, encoding="utf-8")
        file.chmod(0o755)
    shutil.copytree(tiny_model, folder / "model")
    for number, name in enumerate("ab"):
        write_lora(tiny_model, folder / f"{name}.safetensors", [f"{UNET}.to_q", f"{ENCODER}.q_proj"], seed=number)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "tested.pth").write_text(sysconfig.get_path("purelib") + "\n")  # a line that is read, and no finder in it
    words = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "."]
    subprocess.run([sys.executable, "-m", "pip", "--python", tmp_path / "venv", *words], cwd=folder, check=True)
    assert (site / "dreamcore" / "adapters").is_dir()
    return folder


def test_every_line_runs(clone: Path, tiny_model: Path, tmp_path: Path) -> None:
    hub = Hub(tiny_model, name=MODEL)
    environment = os.environ | {
        "PATH": os.pathsep.join(map(str, (tmp_path / "stand-ins", tmp_path / "venv" / "bin", BIN, os.environ["PATH"]))),
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    failed = list[str]()
    try:
        for line in filter(_of_this_environment, readme_lines()):
            command, text = ["bash", "-c"], line.text
            if line.kind == "python":
                command = ["python", "-c"]
            elif line.kind == "toml":
                (clone / "two.toml").write_text(text)
                text = f"dreambooth data --config two.toml --model {MODEL} --with_prior_preservation"
            for words, others in INSTEAD.items():
                text = text.replace(words, others + str(line.number) if words == " ..." else others)
            done = subprocess.run(
                [*command, text], cwd=clone, env=environment, capture_output=True, text=True, timeout=240
            )
            if done.returncode:
                failed.append(f"README.md, line {line.number}: {text}\n{done.stdout[-800:]}{done.stderr[-1500:]}")
    finally:
        hub.close()
    assert not failed, "\n\n".join(failed)
