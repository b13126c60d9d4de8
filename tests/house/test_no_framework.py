"""Core never imports a framework, and starting takes no detour: each case in a fresh process."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import dreamcore

FRAMEWORKS = (
    "torch", "diffusers", "transformers", "peft", "accelerate",
    "paddle", "ppdiffusers", "paddlenlp", "mindspore", "mindone", "jax", "tensorflow",
)  # fmt: skip


def loaded_after(code: str, *names: str) -> list[str]:
    """Which of `names` a fresh interpreter has loaded once it has run `code`."""
    report = f"import sys\n{code}\nprint('loaded', *[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def core_modules() -> list[str]:
    """Every module of core; adapters are what may import a framework, `__main__` runs."""
    names = [m.name for m in pkgutil.walk_packages(dreamcore.__path__, "dreamcore.")]
    return [n for n in names if not n.startswith("dreamcore.adapters") and not n.endswith("__main__")]


def test_import_is_light() -> None:
    assert loaded_after("import dreamcore", *FRAMEWORKS, "numpy", "pydantic", "PIL", "rich") == []


def test_no_core_module_imports_a_framework() -> None:
    named = ("main", "flags", "doctor", "launch", "data", "identifiers", "runs", "convert")
    commands = [f"dreamcore.cli.{name}" for name in named]
    modules = [*core_modules(), *commands]
    assert len(modules) > 20
    each = f"""
from importlib import import_module
for name in {modules}:
    import_module(name)
    loaded = [f for f in {FRAMEWORKS} if f in sys.modules]
    assert not loaded, f"{{name}} imports {{loaded}}"
"""
    assert loaded_after(each, *FRAMEWORKS) == []


def test_listing_backends_imports_none() -> None:
    asks = "from dreamcore.backends.installed import installed_backends\ninstalled_backends()"
    assert loaded_after(asks, *FRAMEWORKS, "numpy") == []


def test_help_loads_no_framework_and_no_numpy() -> None:
    for words in (["--help"], ["train", "--help"], ["generate", "--help"], ["convert", "--help"]):
        code = f"from dreamcore.cli.main import main\ntry: main({words!r})\nexcept SystemExit: pass"
        assert loaded_after(code, *FRAMEWORKS, "numpy", "PIL") == [], words


def test_the_check_itself_sees_an_import() -> None:
    assert loaded_after("import numpy", "numpy") == ["numpy"]
