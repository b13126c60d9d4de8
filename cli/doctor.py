"""`dreambooth doctor`: the installation in words, or as JSON for a bug report or a script."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec

import dreamcore
from dreamcore.backends.installation import BackendState, Installation, Package
from dreamcore.backends.installed import installed_backends


def run(about: str, argv: Sequence[str]) -> int:
    """Print the report; 1 where no backend can be used."""
    parser = argparse.ArgumentParser(prog="dreambooth doctor", description=about)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    what = "try each way of computing that this device has, in under a minute (under a launcher, the processes too)"
    parser.add_argument("--selftest", action="store_true", help=what)
    words = parser.parse_args(argv)
    if words.selftest:
        return selftest()
    as_json = words.json
    found = dreamcore.doctor()
    print(json.dumps(asdict(found), indent=2) if as_json else in_words(found))
    return 0 if found.usable else 1


def selftest() -> int:
    """Print each check of each installed backend that has a self-test; 1 where one fails or none has any."""
    tested = [name for name in installed_backends() if find_spec(f"dreamcore.adapters.{name}.selftest")]
    if not tested:
        print("No installed backend has a self-test.")
    outcomes = []
    for name in tested:
        for check, holds, seen in import_module(f"dreamcore.adapters.{name}.selftest").selftest():
            print(f"{name}: {'-' if holds is None else 'ok' if holds else 'FAILED':<7} {check}: {seen}", flush=True)
            outcomes.append(holds)
    return 0 if tested and False not in outcomes else 1


def in_words(found: Installation) -> str:
    """The report as text, one backend a paragraph."""
    memory = f", {found.memory_gb} GiB of memory" if found.memory_gb else ""
    lines = [
        f"dreambooth {found.version}, Python {found.python}, {found.platform}",
        f"{found.cpu_count} CPU cores{memory}, {found.disk_free_gb} GiB free on this disk",
        *_packages(found.packages),
    ]
    for backend in found.backends:
        lines += ["", f"{backend.name}: {_state(backend)}", *_packages(backend.packages)]
    if not found.usable:
        lines += ["", "No backend can be used."]
    return "\n".join(lines)


def _state(backend: BackendState) -> str:
    return f"ready, on {', '.join(backend.devices)}" if backend.usable else str(backend.problem)


def _packages(packages: Sequence[Package]) -> list[str]:
    return [f"  {p.name:<14} {p.installed or 'missing':<14} {_verdict(p)}".rstrip() for p in packages]


def _verdict(package: Package) -> str:
    return "as tested" if package.as_tested else f"tested: {package.tested}"
