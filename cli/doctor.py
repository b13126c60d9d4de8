"""`dreambooth doctor`: the installation in words, or as JSON for a bug report or a script."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

import dreamcore
from dreamcore.installation import BackendState, Installation, Package


def run(about: str, argv: Sequence[str]) -> int:
    """Print the report; 1 where no backend can be used."""
    parser = argparse.ArgumentParser(prog="dreambooth doctor", description=about)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    as_json = parser.parse_args(argv).json
    found = dreamcore.doctor()
    print(json.dumps(asdict(found), indent=2) if as_json else in_words(found))
    return 0 if found.usable else 1


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
