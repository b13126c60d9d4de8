"""What a user installs is what the tree holds: every package, module, preset and version list."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from typing import Any

import pytest
from packaging.requirements import Requirement

import dreamcore
from dreamcore.backends.installation import COMPANIONS, pinned_versions

from ..support.paths import ROOT

MOVED = {"adapters": "dreamcore.adapters", "cli": "dreamcore.cli", "configs": "dreamcore.configs"}
MOVED["constraints"] = "dreamcore.constraints"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files in a wheel built from a copy of what git tracks or would track, so that no left-over can get in."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for file in tree_files():
        target = tree / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / file).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file_name,) = out.glob("dreambooth-*.whl")
    return set(zipfile.ZipFile(file_name).namelist())


def tree_files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        files = listed.stdout.splitlines()
    else:  # an unpacked archive
        files = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    return [file for file in files if (ROOT / file).is_file() and "__pycache__" not in file]


def _installed_name(file: str) -> str | None:
    """Where a file of the tree lies in site-packages; None where it is not installed."""
    top, _, rest = file.partition("/")
    if top == "dreamcore":
        return file
    return f"{MOVED[top].replace('.', '/')}/{rest}" if top in MOVED else None


def _packages_in_tree() -> dict[str, str]:
    """Package name -> folder of the tree."""
    found = {}
    for file in tree_files():
        name = _installed_name(file)
        if name and name.endswith("/__init__.py"):
            found[name.removesuffix("/__init__.py").replace("/", ".")] = file.removesuffix("/__init__.py")
    return found


def test_every_package_is_listed(project: dict[str, Any]) -> None:
    setuptools = project["tool"]["setuptools"]
    missing = sorted(set(_packages_in_tree()) - set(setuptools["packages"]))
    assert not missing, f"add to [tool.setuptools] packages in pyproject.toml: {missing}"
    gone = sorted(set(setuptools["packages"]) - set(_packages_in_tree()))
    assert not gone, f"no such folder with an __init__.py; take out of [tool.setuptools] packages: {gone}"


def test_every_moved_folder_is_mapped(project: dict[str, Any]) -> None:
    mapped = project["tool"]["setuptools"]["package-dir"]
    moved = {name: folder for name, folder in _packages_in_tree().items() if not folder.startswith("dreamcore")}
    missing = {name: folder for name, folder in moved.items() if mapped.get(name) != folder}
    assert not missing, f"add to [tool.setuptools.package-dir] in pyproject.toml: {missing}"


def test_wheel_holds_every_module(wheel: set[str]) -> None:
    modules = {name for file in tree_files() if file.endswith(".py") and (name := _installed_name(file))}
    assert len(modules) > 20
    assert sorted(modules - wheel) == [], "a folder without __init__.py, or one that pyproject.toml does not list"


def test_wheel_holds_every_data_file(wheel: set[str]) -> None:
    """Whatever lies in a package and is no Python file is there to be read at run time."""
    data = {name for file in tree_files() if not file.endswith(".py") and (name := _installed_name(file))}
    assert {"dreamcore/py.typed", "dreamcore/configs/sd15-lora.toml", "dreamcore/constraints/torch.txt"} <= data
    assert sorted(data - wheel) == [], "add to [tool.setuptools.package-data] in pyproject.toml"


def test_wheel_holds_nothing_else(wheel: set[str]) -> None:
    """No general name at the top of site-packages, no tests."""
    assert {name.partition("/")[0] for name in wheel} == {
        *("dreamcore", "dreambooth.py"),
        f"dreambooth-{dreamcore.__version__}.dist-info",
    }


def test_command_and_backends_are_declared(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"dreambooth": "dreamcore.cli.main:main"}
    declared = project["project"]["entry-points"]["dreambooth.backends"]
    folders = {path.parent.name for path in (ROOT / "adapters").glob("*/__init__.py")}
    assert set(declared) == folders
    assert all(value == f"dreamcore.adapters.{name}.backend:load" for name, value in declared.items())


@pytest.mark.parametrize("backend", sorted(COMPANIONS))
def test_pinned_versions_cover_the_extra(project: dict[str, Any], backend: str) -> None:
    extra = [Requirement(text) for text in project["project"]["optional-dependencies"][backend]]
    assert set(COMPANIONS[backend]) <= {requirement.name for requirement in extra}
    pins = pinned_versions(backend)
    for requirement in extra:
        assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_moved_folders_are_imported_by_their_installed_names() -> None:
    """`import adapters` works in the tree and makes a second copy of every class; elsewhere it is another library."""
    wrong = []
    for file in tree_files():
        if not file.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            wrong += [f"{file}:{node.lineno}" for name in names if name.partition(".")[0] in MOVED]
    assert not wrong
