"""Configuration files as nobody means them: a configuration or a ConfigError, never a traceback or another meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamcore.config import TrainConfig, load_config
from dreamcore.config.base import kinds_of
from dreamcore.config.files import SUFFIXES, parse
from dreamcore.errors import ConfigError

NAMES = sorted(TrainConfig.model_fields)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=20)
"""Without what YAML admits as an escape only; that comes below."""
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
FILES = st.dictionaries(st.sampled_from(NAMES) | TEXT, NESTED, max_size=6)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load(path: Path, content: bytes) -> TrainConfig | None:
    """The configuration in a file, None where it is refused; whatever else happens fails the test."""
    path.write_bytes(content)
    try:
        return load_config(TrainConfig, path)
    except ConfigError as error:
        assert str(error) and len(str(error)) < 20_000
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@QUICK
@given(values=FILES, cut=st.integers(0, 200), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
def test_any_values_in_any_encoding_cut_anywhere(folder: Path, values: dict[str, Any], cut: int, encoding: str) -> None:
    for suffix, text in ((".json", json.dumps(values)), (".yaml", yaml.safe_dump(values, allow_unicode=True))):
        content = text.encode(encoding, "replace")
        load(folder / f"whole{suffix}", content)
        load(folder / f"cut{suffix}", content[:cut])
        load(folder / f"twice{suffix}", content + content)
    load(folder / "cut.toml", as_toml(values).encode(encoding, "replace")[:cut])


@QUICK
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes(folder: Path, content: bytes) -> None:
    for suffix in SUFFIXES:
        load(folder / f"bytes{suffix}", content)
        load(folder / f"value{suffix}", b"instance_prompt: " + content)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "seed: 0x" + "f" * 5000,
        "instance_prompt: !!binary aGk=",
        "seed: !!int abc",
        "seed: !!python/object:os.system {}",
        "? [1, 2]\n: 3",
        'instance_data_dir: "\\ud800"',
        'instance_data_dir: "a\\0b"',
        "concepts: {weight: 1}",
        "concepts: [{1: 2}]",
        "concepts: [3, null, []]",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b, *b, *b]\nrank: [*c, *c, *c, *c, *c, *c]",
        "<<: 3",
        "--- a\n--- b",
        "use_lora: !!bool maybe",
    ],
)
def test_what_yaml_can_say(folder: Path, text: str) -> None:
    assert load(folder / "said.yaml", text.encode()) is None


def test_nesting_without_end(folder: Path) -> None:
    for suffix in SUFFIXES:
        assert load(folder / f"deep{suffix}", b"rank = " + b"[" * 1_200) is None
        assert load(folder / f"deep{suffix}", b'{"rank": ' + b"[" * 1_200) is None


def sound_values() -> st.SearchStrategy[dict[str, Any]]:
    """Values that the fields' kinds admit, whether or not they go together."""
    kinds = {bool: st.booleans(), int: st.integers(0, 2**62), str: TEXT}
    kinds[float] = st.floats(allow_nan=False, allow_infinity=False)
    kinds[list[str]] = st.lists(TEXT, min_size=1, max_size=3)
    one = {n: kinds.get(kinds_of(field.annotation)[0], TEXT) for n, field in TrainConfig.model_fields.items()}
    return st.sets(st.sampled_from(sorted(one)), max_size=5).flatmap(
        lambda names: st.fixed_dictionaries({name: one[name] for name in sorted(names)})
    )


def as_toml(values: dict[str, Any]) -> str:
    """TOML of flat values, whose strings and numbers are JSON's but for one letter; without what it cannot say."""
    kinds = bool | int | float | str | list
    lines = [
        f"{json.dumps(name, ensure_ascii=False)} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for name, value in values.items()
        if isinstance(value, kinds) and "null" not in json.dumps(value) and "{" not in json.dumps(value)
    ]
    return "\n".join(lines)


@QUICK
@given(values=sound_values())
def test_what_a_strict_writer_writes_reads_back_as_itself(values: dict[str, Any]) -> None:
    written = {
        ".json": json.dumps(values),
        ".toml": as_toml(values),
        ".yaml": yaml.safe_dump(values, allow_unicode=True),
        ".yml": json.dumps(values, ensure_ascii=False),  # JSON is YAML 1.2
    }
    for suffix, text in written.items():
        read = parse(text, suffix, "here")
        expected = values if suffix != ".toml" else {n: v for n, v in values.items() if n in read}
        assert read == expected, suffix
        assert {n: type(v) for n, v in read.items() if isinstance(v, bool)} == {
            n: bool for n, v in expected.items() if isinstance(v, bool)
        }


@QUICK
@given(value=st.integers(0, 2**62) | st.floats(1e-300, 1e300), name=st.sampled_from(["identifier", "learning_rate"]))
def test_a_number_means_the_same_in_every_file_and_as_a_flag(value: float, name: str) -> None:
    base = {"pretrained_model_name_or_path": "m", "instance_data_dir": "d", "instance_prompt": "a"}
    if name == "learning_rate" and value == 0:
        return
    text = json.dumps(value)
    flag = getattr(load_config(TrainConfig, None, base | {name: text}), name)
    lines = {".json": f'{{"{name}": {text}}}', ".yaml": f"{name}: {text}", ".toml": f"{name} = {text}"}
    for suffix, line in lines.items():
        assert getattr(TrainConfig.from_mapping(base | parse(line, suffix, "here")), name) == flag, suffix
