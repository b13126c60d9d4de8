"""Packages whose `__init__` imports far more than anybody here uses: their names are found when they are asked for."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any


def import_lazily(package: str) -> None:
    """Import a package without running its `__init__`.

    A name that the `__init__` imports from a module is taken from that module, which alone is imported; any other name
    runs the `__init__` after all.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is None or spec.loader is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module, loader, init = module_from_spec(spec), spec.loader, ast.parse(Path(spec.origin).read_bytes())
    sources = _sources(init)

    def find(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if name in sources:
            value = getattr(import_module(sources[name], package), name)
            return vars(module).setdefault(name, value)
        if "__getattr__" in vars(module):
            del vars(module)["__getattr__"]
            loader.exec_module(module)
        return getattr(module, name)

    vars(module).update(_constants(init), __getattr__=find)  # PEP 562
    sys.modules[package] = module
    parent, _, leaf = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], leaf, module)


def _sources(init: ast.Module) -> dict[str, str]:
    """The module, relative to its package, of each name that an `__init__` takes from one."""
    found = (node for node in ast.walk(init) if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module)
    return {name.name: f".{node.module}" for node in found for name in node.names if name.asname is None}


def _constants(init: ast.Module) -> dict[str, Any]:
    """Names that an `__init__` sets to constants, such as its version."""
    found = ((node.targets, node.value) for node in init.body if isinstance(node, ast.Assign))
    pairs = ((target, value.value) for targets, value in found if isinstance(value, ast.Constant) for target in targets)
    return {target.id: value for target, value in pairs if isinstance(target, ast.Name)}
