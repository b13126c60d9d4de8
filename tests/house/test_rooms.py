"""The arrows between packages run one way; CONTRIBUTING says which, and docs/packages.svg shows them."""

from __future__ import annotations

import re

from ..support.import_graph import circle, module_files, module_graph, room_graph
from ..support.paths import ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ORDER = ("errors", "version", *re.findall(r"^ {6}(\w+)/ ", CONTRIBUTING, re.MULTILINE), "dreamcore", "adapters", "cli")
"""A package imports only from those before it, as CONTRIBUTING lists them; `dreamcore` is the API in its root."""
BEYOND_CORE = {"adapters", "cli"}


def test_no_module_is_in_a_circle() -> None:
    assert circle(module_graph()) == []


def test_arrows_run_as_stated() -> None:
    place = {name: i for i, name in enumerate(ORDER)}
    graph = room_graph()
    assert set(graph) == set(ORDER), "a new package has its place in CONTRIBUTING's list"
    against = [f"{room} -> {t}" for room, targets in graph.items() for t in targets if place[t] > place[room]]
    assert against == []


def test_core_reaches_no_adapter_and_no_front_end() -> None:
    reached = {(room, target) for room, targets in room_graph().items() for target in targets & BEYOND_CORE}
    assert {room for room, _ in reached} <= BEYOND_CORE
    assert ("adapters", "cli") not in reached


def test_the_root_holds_the_api_and_little_else() -> None:
    root = [name for name, file in module_files().items() if file.parent == ROOT / "dreamcore"]
    assert sorted(root) == ["dreamcore", "dreamcore.errors", "dreamcore.version"]


def test_contributing_names_every_package() -> None:
    packages = [name for name in room_graph() if name not in ("dreamcore", "errors", "version")]
    assert [name for name in packages if f"  {name}/" not in CONTRIBUTING] == []


def test_the_check_itself_sees_a_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


ONLY: dict[str, set[str]] = {
    "torch": {
        *("casting", "compiling", "full_sharding", "gathering", "masters", "offload", "perceptual", "quantization"),
        *("graphs", "ranks", "reducing", "sharding", "slabs", "staging", "store", "streaming"),
    },
    "paddle": {"cpu_shim", "libraries", "sharding"},
    "mindspore": {"cpu_shim", "network", "buckets", "rotary"},
}
"""What an adapter has beside the files that each has; CONTRIBUTING says why."""


def test_adapters_have_the_same_files() -> None:
    files = {name: {file.stem for file in (ROOT / "adapters" / name).glob("*.py")} for name in ONLY}
    alike = [files[name] - own for name, own in ONLY.items()]
    assert all(names == alike[0] for names in alike), files
