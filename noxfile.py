"""What a user or a build server types: `nox -s quickstart`, `nox -t tests`, `nox -s lint`, `nox -s docs`.

Each backend has an environment of its own (.nox/tests-torch ...), for the three frameworks cannot share one; it is
kept and used again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.3.2"
nox.options.reuse_venv = "yes"
nox.options.tags = ["tests"]

FRAMEWORKS = {"torch": "torch==2.13.0", "paddle": "paddlepaddle==3.3.1", "mindspore": "mindspore==2.7.1"}
"""Backend -> its framework, installed first and by its exact version: so pip takes a CPU build that lies at hand."""

BACKENDS_TESTS = (
    "tests/crossing", "tests/contract", "tests/track", "tests/text/test_public_vocabulary.py",
    "tests/cli/test_doctor.py", "tests/house/test_documents.py", "tests/house/test_no_framework.py",
)  # fmt: skip
"""What depends on the backend."""

OLD_NUMPYS_TESTS = (
    "tests/training", "tests/text", "tests/models", "tests/formats", "tests/diffusion", "tests/config", "tests/io",
    "tests/adapters", "tests/runs/test_checkpoint.py", "tests/runs/test_class_folder.py", "tests/house",
)  # fmt: skip
"""What depends on the environment: MindSpore's has NumPy 1.26, Paddle's the same one as PyTorch's."""

CORES_OWN = (
    *(f"--ignore=tests/contract/test_{name}.py" for name in ("report_of_every_end", "looking", "lengths")),
    *(f"--ignore=tests/config/test_{name}.py" for name in ("accelerate", "compat", "kohya", "kohya_files")),
    *(f"--ignore=tests/house/test_{name}.py" for name in ("keywords", "other_systems", "packaging", "rooms")),
    "--ignore=tests/house/test_written_documents.py",
)
"""What core alone decides, in seconds each: PyTorch's session has them."""

IN_TWO_PROCESSES = ("--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder", "--durations=40")
"""Operators of small networks leave a core idle.  A file's tests stay together and share what they make; files start in
the order given: those of few but long tests come first, lest one process ends with them alone."""

LONG_TESTS = ("tests/contract/test_kill.py", "tests/crossing")
LONG_WITH_TORCH = (
    *("tests/house/test_documents.py", "tests/torch/test_ranks.py", "tests/contract/test_kill.py"),
    "tests/tinyworld/test_quickstart.py",
)

OPTIMIZERS = ("prodigyopt==1.1.2", "lion-pytorch==0.2.5", "schedulefree==1.4.1", "came-pytorch==0.1.3")
"""What the rules of `backends/rules.py` are compared with, beside PyTorch and transformers."""

SITE = ("mkdocs==1.6.1", "mkdocs-material==9.8.2", "mkdocstrings==1.0.8", "mkdocstrings-python==2.0.11", "ruff==0.17.5")
"""What makes a site of docs/."""


AS_USED = "--no-compile"
"""What is imported is compiled then, a third of it all; all of a backend's takes two minutes of a processor."""

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
"""Containers often set it.  Nothing would keep what is compiled, and each process that tests start would compile all of
PyTorch and diffusers that it imports anew: three fifths of its processor time."""


def install(session: nox.Session, backend: str, *extras: str) -> None:
    """Install this tree with a backend, all in the versions that were tested."""
    constraints = f"--constraint=constraints/{backend}.txt"
    session.install(AS_USED, FRAMEWORKS[backend], constraints)
    session.install(AS_USED, "--editable", f".[{','.join((backend, *extras))}]", constraints)


def teach(session: nox.Session, backend: str, folder: Path) -> None:
    """Teach the embedded miniature model a mug that it has never seen, on the CPU, and make pictures with it."""
    install(session, backend)
    session.run("python", "-m", "dreamcore.tinyworld", str(folder / "mug"))
    # fmt: off
    session.run(
        "dreambooth", "train", "--config", "quickstart", "--backend", backend,
        "--instance_data_dir", str(folder / "mug"), "--instance_prompt", "a photo of a sks mug",
        "--output_dir", str(folder / "run"), "--overwrite_output_dir",
        *session.posargs,
    )
    session.run(
        "dreambooth", "generate", "--backend", backend,
        "--pretrained_model_name_or_path", str(folder / "run"),
        "--prompt", "a photo of a sks mug in snow", "--num_images", "8", "--guidance_scale", "1.5",
        "--output_dir", str(folder / "pictures"),
    )
    # fmt: on
    session.run("python", "-m", "dreamcore.tinyworld", "--score", str(folder / "run"))
    session.log(f"See {folder / 'run' / 'report.html'}; more pictures are in {folder / 'pictures'}.")


@nox.session
def quickstart(session: nox.Session) -> None:
    """Teach the embedded miniature model a mug that it has never seen, on the CPU, and make pictures with it."""
    teach(session, "torch", Path("quickstart"))


@nox.session(name="quickstart-paddle")
def quickstart_paddle(session: nox.Session) -> None:
    """The same with Paddle."""
    teach(session, "paddle", Path("quickstart") / "paddle")


@nox.session(name="quickstart-mindspore")
def quickstart_mindspore(session: nox.Session) -> None:
    """The same with MindSpore."""
    teach(session, "mindspore", Path("quickstart") / "mindspore")


@nox.session
def experiment(session: nox.Session) -> None:
    """Try the paper's claims on the embedded model, for hours; what is done is not done again."""
    install(session, "torch")
    session.run("python", "-m", "tools.experiment", *session.posargs)


@nox.session(name="tests-torch", tags=["tests"])
def tests_torch(session: nox.Session) -> None:
    """All tests but the other backends' own, with the PyTorch backend."""
    install(session, "torch", "dev")
    session.install(AS_USED, "--no-deps", *OPTIMIZERS)
    found = [p for p in Path("tests").iterdir() if p.name.startswith("test_") or (p / "__init__.py").is_file()]
    others = sorted(str(p) for p in found if p.name not in FRAMEWORKS)
    tests = (*IN_TWO_PROCESSES, *LONG_WITH_TORCH, "tests/torch", *others)
    session.run("python", "-m", "tests.crossing.write_reference", silent=True)  # others need it, whatever fails here
    session.run("python", "-m", "pytest", *(session.posargs or tests))


@nox.session(name="tests-mindspore", tags=["tests"])
def tests_mindspore(session: nox.Session) -> None:
    """What depends on the backend, with MindSpore, beside the files that tests-torch has written."""
    install(session, "mindspore", "dev")
    shutil.rmtree("build/written/mindspore", ignore_errors=True)
    tests = (*IN_TWO_PROCESSES, *LONG_TESTS, "tests/mindspore", *BACKENDS_TESTS, *OLD_NUMPYS_TESTS, *CORES_OWN)
    session.run("python", "-m", "pytest", *(session.posargs or tests))


@nox.session(name="tests-paddle", tags=["tests"])
def tests_paddle(session: nox.Session) -> None:
    """What depends on the backend, with Paddle, beside the files that tests-torch and tests-mindspore have written."""
    install(session, "paddle", "dev")
    shutil.rmtree("build/written/paddle", ignore_errors=True)
    tests = (*IN_TWO_PROCESSES, *LONG_TESTS, "tests/paddle", *BACKENDS_TESTS, *CORES_OWN)
    session.run("python", "-m", "pytest", *(session.posargs or tests))


@nox.session(name="tests-crossing", tags=["tests"], venv_backend="none")
def tests_crossing(session: nox.Session) -> None:
    """PyTorch reads what the other backends' tests have just written; in the environment of tests-torch."""
    tests = ("--numprocesses=2", "tests/crossing/read_by_torch.py")
    session.run(".nox/tests-torch/bin/python", "-m", "pytest", *tests, external=True)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """The proofs that take minutes, in the environments that the tests have made."""
    for backend in FRAMEWORKS:
        tests = ("-m", "slow", "tests/contract", f"tests/{backend}")
        session.run(f".nox/tests-{backend}/bin/python", "-m", "pytest", *tests, external=True, success_codes=[0, 5])


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and types."""
    session.install(AS_USED, "--editable", ".[dev]", "--constraint=constraints/torch.txt")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documents as a site, in site/: a link that leads nowhere, or any other warning, is an error; nor may a page
    ask another host for anything."""
    session.install(AS_USED, *SITE)
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "-m", "tools.house.check_site", "site")
