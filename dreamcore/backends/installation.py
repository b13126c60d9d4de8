"""What is installed here, and on what machine: the facts behind `dreambooth doctor`.

A framework is imported in a process of its own: a broken one cannot take the report down, two that cannot live in one
process can both be examined, and core goes on importing none.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path

from ..errors import to_install
from ..version import __version__
from .installed import installed_backends

COMPANIONS = {
    "torch": ("torch", "diffusers", "transformers", "peft", "accelerate"),
    "paddle": ("paddlepaddle", "ppdiffusers", "paddlenlp"),
    "mindspore": ("mindspore", "mindone", "transformers", "huggingface-hub"),
}
"""Backend -> its framework's distribution and the libraries that it cannot do without (the extra of that name)."""

OTHER_BUILDS = {"paddlepaddle": ("paddlepaddle-gpu",)}
"""Distribution -> others that hold the same package."""

_PROBE = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[2])  # not the current folder, which may be a clone of another version
importlib.import_module(f"dreamcore.adapters.{sys.argv[1]}.backend")
devices = importlib.import_module(f"dreamcore.adapters.{sys.argv[1]}.devices").devices()
importlib.import_module(f"dreamcore.adapters.{sys.argv[1]}.sampling")  # its library of networks, after the device
print("devices", json.dumps(devices))
"""


@dataclass(frozen=True)
class Package:
    """One distribution: the version installed and the version tested, None where there is none."""

    name: str
    installed: str | None
    tested: str | None

    @property
    def as_tested(self) -> bool:
        """Whether the tested version is here; a build's mark (2.13.0+cpu) does not count."""
        return self.installed is not None and self.installed.partition("+")[0] == self.tested


@dataclass(frozen=True)
class BackendState:
    """One backend: whether a run can use it, and if not, why not and what to do."""

    name: str
    usable: bool
    packages: list[Package]
    devices: list[str] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True)
class Installation:
    """The machine, the core's own packages and each backend."""

    version: str
    python: str
    platform: str
    cpu_count: int
    memory_gb: float | None
    disk_free_gb: float
    """Free in the current folder."""
    packages: list[Package]
    backends: list[BackendState]

    @property
    def usable(self) -> bool:
        """Whether any backend can be used."""
        return any(backend.usable for backend in self.backends)


def examine() -> Installation:
    """Look at this machine and its Python environment; takes as long as importing each framework takes."""
    return Installation(
        version=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=os.cpu_count() or 1,
        memory_gb=_memory_gb(),
        disk_free_gb=round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        packages=_packages(next(iter(installed_backends()), "torch"), ("numpy", "pillow", "safetensors", "pydantic")),
        backends=[_examine_backend(name) for name in COMPANIONS],
    )


def pinned_versions(backend: str) -> dict[str, str]:
    """Distribution -> version of the set that `backend` is tested with: constraints/BACKEND.txt."""
    file = resources.files("dreamcore.constraints") / f"{backend}.txt"
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    pins = (line.split("==") for line in lines if line)
    return {name.lower(): version for name, version in pins}


def _examine_backend(name: str) -> BackendState:
    packages = _packages(name, COMPANIONS[name])
    missing = [p.name for p in packages if p.installed is None]
    if missing:
        what = f"not installed: {', '.join(missing)}; {to_install(name)}"
        return BackendState(name, usable=False, packages=packages, problem=what)
    probe = [sys.executable, "-c", _PROBE, name, json.dumps(sys.path)]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("devices ")]
    if done.returncode or not found:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return BackendState(name, usable=False, packages=packages, problem=f"cannot be imported: {last}")
    devices = json.loads(found[-1].removeprefix("devices "))
    return BackendState(name, usable=True, packages=packages, devices=devices)


def _packages(backend: str, names: tuple[str, ...]) -> list[Package]:
    tested = pinned_versions(backend)
    return [Package(name, _installed(name), tested.get(name)) for name in names]


def _installed(name: str) -> str | None:
    for distribution in (name, *OTHER_BUILDS.get(name, ())):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _memory_gb() -> float | None:
    import psutil

    try:
        return round(int(psutil.virtual_memory().total) / 2**30, 1)
    except (OSError, psutil.Error):  # a system that does not say
        return None
