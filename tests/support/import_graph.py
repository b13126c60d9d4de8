"""Who imports whom: every import statement of the package, those inside functions and for type checkers too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from .paths import ROOT

FOLDERS = {"dreamcore": "dreamcore", "adapters": "dreamcore.adapters", "cli": "dreamcore.cli"}
"""Folder of the tree -> the package that it is installed as."""
Graph = Mapping[str, set[str]]


def module_files() -> dict[str, Path]:
    """Module name -> its file."""
    found = {}
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = file
    return found


def module_graph() -> dict[str, set[str]]:
    """Module -> the modules of this package that it imports."""
    files = module_files()
    return {name: {t for t in _imported(name, file, files) if t != name} for name, file in files.items()}


def _imported(name: str, file: Path, files: Mapping[str, Path]) -> Iterator[str]:
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source in files:
                inside = [f"{source}.{alias.name}" for alias in node.names]
                yield from (target if target in files else source for target in inside)


def room(module: str) -> str:
    """The package below `dreamcore` that a module lies in; a module of its root is one of its own."""
    return module.split(".")[1] if "." in module else module


def room_graph() -> dict[str, set[str]]:
    """Room -> the rooms that it imports from."""
    found: dict[str, set[str]] = {}
    for module, targets in module_graph().items():
        found.setdefault(room(module), set()).update(room(target) for target in targets)
    return {name: targets - {name} for name, targets in found.items()}


def circle(graph: Graph) -> list[str]:
    """Names that import each other in a circle; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floors(graph: Graph) -> list[list[str]]:
    """Names by how many others stand below them: the first floor imports nothing of this package."""
    depth: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        depth[name] = 1 + max((depth[target] for target in graph.get(name, ())), default=-1)
    return [sorted(n for n, d in depth.items() if d == floor) for floor in range(max(depth.values()) + 1)]


def without_shortcuts(graph: Graph) -> dict[str, set[str]]:
    """The graph without the arrows that follow from others (its transitive reduction)."""

    def below(name: str) -> set[str]:
        return {other for target in graph.get(name, ()) for other in (target, *below(target))}

    return {name: {t for t in ts if not any(t in below(other) for other in ts - {t})} for name, ts in graph.items()}
