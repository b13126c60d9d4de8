"""Packages whose `__init__` is left out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamcore.adapters.imports import import_lazily


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package below another, whose `__init__` says so when it runs and imports two modules, one of them dear."""
    folder = tmp_path / "outer_of_test" / "greedy"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").write_text(
        "__version__ = '1.5'\nimport sys\nsys.modules['ran_of_test'] = sys\nfrom .dear import costly\n"
        "if costly:\n    from .cheap import thing\ncomputed = thing + costly\n"
    )
    (folder / "dear.py").write_text("costly = 40\n")
    (folder / "cheap.py").write_text("from . import __version__\nthing = 2\n")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield "outer_of_test.greedy"
    for name in [name for name in set(sys.modules) - before if "of_test" in name]:
        del sys.modules[name]


def test_a_name_brings_its_own_module_and_no_other(package: str) -> None:
    import_lazily(package)
    module = importlib.import_module(package)
    assert sys.modules["outer_of_test"].greedy is module  # type: ignore[attr-defined]
    assert module.__version__ == "1.5"
    assert module.thing == 2
    assert f"{package}.dear" not in sys.modules
    assert "ran_of_test" not in sys.modules


def test_a_name_that_only_the_init_makes_runs_it(package: str) -> None:
    import_lazily(package)
    module = importlib.import_module(package)
    assert module.computed == 42
    assert "ran_of_test" in sys.modules
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing


def test_a_package_that_is_there_is_left_alone(package: str) -> None:
    before = importlib.import_module(package)
    import_lazily(package)
    assert sys.modules[package] is before


def test_a_package_that_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package_of_test"):
        import_lazily("no_such_package_of_test")
