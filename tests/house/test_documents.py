"""Every line of README.md and of the pages of docs/, typed in a clone of this repository that the package was installed
from, not editably.

What stands in for what a test has not: a small server for the Hugging Face Hub, with one small model for every name;
drawn photographs; presets with the lengths of `SHORT`; a `pip` and a `nox` that only check what they are asked for (a
quickstart runs in an environment that nox makes, and tests/tinyworld runs it); the words of `INSTEAD`, for devices and
for `...`.  The environment sees the tested one's libraries.  Whatever else they say is run as it stands; in another
environment than PyTorch's, what is that backend's own.

Commands of ours and programs in Python are forks of one process of the installed package, which has imported PyTorch
(tests/support/forked.py); all others, and what needs a shell, are started as they are typed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.config import read_config_file
from dreamcore.io.names import CONFIG
from dreamcore.runs.status import read_status

from ..support import needs
from ..support.described import undescribed
from ..support.documents import Line, typed
from ..support.forked import Forks
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
ONLY_WITH_PRIOR = ("num_class_images", "prior_num_inference_steps")
SMALL = "--max_train_steps 1 --resolution 32"
REST = f"--model {MODEL} {SMALL} --instance_data_dir photos/dog --instance_prompt 'a sks dog' --output_dir "
WATCHED = f"""dreambooth train --model {MODEL} --resolution 32 --max_train_steps 100000 --instance_data_dir photos/dog \
  --instance_prompt 'a sks dog' --validation_prompt 'a sks dog' --num_validation_images 1 --logging_steps 1 \
  --validation_num_inference_steps 1 --output_dir watched"""
"""The run at work that RUN stands for; it begins with the first line that names it."""
INSTEAD = {
    "RUN": "watched",
    "MODEL": MODEL,
    " photos/dog --class dog": " photos/dog --class dog --yes",  # there is no terminal to ask in
    "realistic.safetensors": "model.safetensors --original_config model",
    "steps 800": "steps 2",
    "images 100": "images 1",
    "model.safetensors model2/": "model.safetensors model2/ --original_config model",  # for its size, which is nobody's
    "-m tests.crossing.table": "-c 'import tests.crossing.table'",  # it reads what the tests of all backends have left
    " --rdzv_endpoint 10.0.0.1:29500": " --rdzv_endpoint 10.0.0.1:29500 --dry_run",  # there is one machine
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
LAST = ("realistic.safetensors", "RUN", "stop RUN")
LINES = sorted(typed(), key=lambda line: [words in line.text for words in reversed(LAST)])
"""In the documents' order, but for what needs a file that another line makes, or asks a run at work, to stop last."""


def _of_this_environment(line: Line) -> bool:
    """Whether no other environment runs the line."""
    owners = [backend for backend, words in OWN.items() if any(word in line.text for word in words)]
    return any(backend in installed_backends() for backend in owners or ["torch"])


def test_what_is_replaced_is_there() -> None:
    said = "\n".join(line.text for line in LINES)
    assert [words for words in INSTEAD if words not in said] == []
    assert {line.kind for line in LINES} == {"shell", "python", "toml"}


@pytest.fixture
def clone(tmp_path: Path, tiny_model: Path) -> Path:
    """A clone, with photographs, a model and two LoRA files; beside it the environment of `pip install .`."""
    folder = tmp_path / "clone"
    for file in tree_files():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / file)
    for preset in (folder / "configs").glob("*.toml"):
        text = preset.read_text(encoding="utf-8")
        prior = "with_prior_preservation" in text  # without it, lengths of class images would be idle
        short = {name: value for name, value in SHORT.items() if prior or name not in ONLY_WITH_PRIOR}
        text = re.sub(rf"^({'|'.join(short)}) = .*$", "", text, flags=re.MULTILINE)
        preset.write_text("\n".join([text, *(f"{name} = {value}" for name, value in short.items())]), encoding="utf-8")
    for subject in ("dog", "mug", "anna", "ink"):
        draw_photos(folder / "photos" / subject)
    for photo in sorted((folder / "photos" / "ink").glob("*.png")):
        photo.with_suffix(".txt").write_text("a lighthouse on a rock", encoding="utf-8")
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


class Typist:
    """Types lines in a clone.

    Args:
        forks: of the installed package; None where commands are started one by one.
    """

    def __init__(self, clone: Path, environment: dict[str, str], forks: Forks | None):
        self._clone, self._environment, self._forks = clone, environment, forks
        self._watched: subprocess.Popen[bytes] | None = None

    def type(self, line: Line) -> str:
        """What went wrong; empty where nothing has."""
        text = line.text
        if "RUN" in text and self._watched is None:
            self._watch()
        if line.kind == "toml":
            (self._clone / "two.toml").write_text(text, encoding="utf-8")
            text = f"dreambooth data --config two.toml --model {MODEL}"
            text += " --with_prior_preservation" if "class_prompt" in line.text else ""
        for words, others in INSTEAD.items():
            text = text.replace(words, others + str(LINES.index(line)) if words == " ..." else others)
        code, said = self._run(text, python=line.kind == "python")
        return f"{line.file}, line {line.number}: {text}\n{said[-2000:]}" if code else ""

    def _watch(self) -> None:
        """Start the run that is watched, and wait for its first update."""
        self._watched = subprocess.Popen(
            shlex.split(WATCHED), cwd=self._clone, env=self._environment, stdout=subprocess.DEVNULL
        )
        while not (status := read_status(self._clone / "watched")) or not status.update:
            assert self._watched.poll() is None, "the watched run has ended"
            time.sleep(0.2)

    def runs(self) -> list[Path]:
        """The folders of the runs that the lines have made, but for those in another trainer's layout: docs/moving.md
        has what these add."""
        folders = [folder.parent for folder in self._clone.rglob(".dreambooth")]
        return [one for one in folders if read_config_file(one / CONFIG).get("layout") == "dreambooth"]

    def close(self) -> None:
        """End what is still at work."""
        if self._watched is not None and self._watched.poll() is None:
            self._watched.kill()
        if self._forks:
            with suppress(BrokenPipeError):
                self._forks.close()

    def _run(self, text: str, *, python: bool) -> tuple[int, str]:
        if self._forks and python:
            return self._forks.run(code=text)
        if self._forks and text.startswith("dreambooth ") and not re.search(r"[&|;<>$]", text):
            return self._forks.run(words=shlex.split(text)[1:])
        command = [*(["python", "-P"] if python else ["bash"]), "-c", text]
        done = subprocess.run(
            command, cwd=self._clone, env=self._environment, capture_output=True, text=True, timeout=240
        )
        return done.returncode, done.stdout[-500:] + done.stderr


@pytest.fixture
def typist(clone: Path, tiny_model: Path, tmp_path: Path) -> Iterator[Typist]:
    hub = Hub(tiny_model, name=MODEL)
    environment = os.environ | {
        "PATH": os.pathsep.join(map(str, (tmp_path / "stand-ins", tmp_path / "venv" / "bin", BIN, os.environ["PATH"]))),
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    forks = None
    if "torch" in installed_backends():
        forks = Forks(tmp_path / "venv" / "bin" / "python", clone, environment)
    typist = Typist(clone, environment, forks)
    try:
        yield typist
    finally:
        hub.close()
        typist.close()


def test_every_line_runs(typist: Typist) -> None:
    failed = [said for line in filter(_of_this_environment, LINES) if (said := typist.type(line))]
    assert not failed, "\n\n".join(failed)
    undescribed_files = {run.name: undescribed(run) for run in typist.runs()}
    assert not any(undescribed_files.values()), undescribed_files
