"""paddlenlp without what nobody here uses: its `__init__` imports task flows, datasets and metrics, 2 seconds of 5."""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from typing import Any


def import_bare(package: str) -> None:
    """Import a package and leave its `__init__` for when something is asked for that only it provides.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module, loader = module_from_spec(spec), spec.loader

    def fill(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if "__getattr__" in vars(module):
            del vars(module)["__getattr__"]
            loader.exec_module(module)
        return getattr(module, name)

    vars(module)["__version__"] = version(package)
    vars(module)["__getattr__"] = fill  # PEP 562
    sys.modules[package] = module
