"""What tests share: small models and images, each made once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

os.environ["DREAMBOOTH_ROOM_SECONDS"] = "0"  # nobody makes room on the disks that tests fill, unless they say so
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before a framework is imported: small networks lose time on more

if find_spec("mindspore") and (worker := os.environ.get("PYTEST_XDIST_WORKER")):
    # Threads of its kernels wait for each other by yielding the processor, again and again: on a core of their own they
    # hand over at once, and take none of another worker's time.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

import hypothesis
import pytest

from .crossing.cases import reference
from .support.fork_server import ForkServer
from .support.ldm import OF_MINDONE
from .support.paths import PHOTOGRAPHS
from .support.tiny import draw_photos, write_tiny_model
from .support.tiny_models import EVERY
from .support.tiny_taiyi import write_taiyi

DOG = PHOTOGRAPHS / "dog"

os.fsync = lambda file: None  # a hundred waits for the disk in every run, of which only a power failure could tell

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None)
hypothesis.settings.load_profile("fuzz" if os.environ.get("DREAMBOOTH_FUZZ") else "repeatable")


@pytest.fixture
def every_core() -> Iterator[None]:
    """For what a test starts: processes that wait for each other must not share the one core of a test process."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion 1 that predicts noise."""
    if find_spec("torch") is None:
        return reference("models") / "sd1"
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "sd1")


@pytest.fixture(scope="session")
def tiny_v_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion 2 that predicts v."""
    if find_spec("torch") is None:
        return reference("models") / "sd2"
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "sd2", prediction_type="v_prediction", sd2=True)


@pytest.fixture(scope="session")
def family_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small models of the other families, those that MindONE's checkpoints hold, and one with a BERT (taiyi), by the
    names of their writers."""

    @cache
    def model(name: str) -> Path:
        if find_spec("torch") is None:
            return reference("models") / name
        return {**EVERY, **OF_MINDONE, "taiyi": write_taiyi}[name](tmp_path_factory.mktemp("families") / name)

    return model


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of a subject: real photographs where there are any, drawn ones otherwise."""
    folder = tmp_path_factory.mktemp("photos")
    if DOG.is_dir():
        return Path(shutil.copytree(DOG, folder, dirs_exist_ok=True))
    return draw_photos(folder)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """A process that has imported the framework, to start commands from."""
    with ForkServer() as server:
        yield server
