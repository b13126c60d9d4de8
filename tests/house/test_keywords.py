"""Settings as keywords of the Python API: a type checker knows each, and so does whoever asks at a prompt."""

from __future__ import annotations

import inspect
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import dreamcore
from dreamcore.config import GenerateConfig, TrainConfig, keywords
from dreamcore.config.convert import ConvertConfig, ExtractConfig, MergeConfig, ResizeConfig
from dreamcore.config.evaluate import EvaluateConfig
from dreamcore.config.identifiers import IdentifiersConfig
from dreamcore.config.look import DataConfig
from dreamcore.config.names import ALIASES

from ..support.paths import ROOT

FUNCTIONS = {
    "train": (TrainConfig, keywords.TrainKeywords),
    "plan": (TrainConfig, keywords.TrainKeywords),
    "data_report": (DataConfig, keywords.DataKeywords),
    "generate": (GenerateConfig, keywords.GenerateKeywords),
    "evaluate": (EvaluateConfig, keywords.EvaluateKeywords),
    "identifiers": (IdentifiersConfig, keywords.IdentifiersKeywords),
    "convert": (ConvertConfig, keywords.ConvertKeywords),
    "merge": (MergeConfig, keywords.MergeKeywords),
    "resize": (ResizeConfig, keywords.ResizeKeywords),
    "extract": (ExtractConfig, keywords.ExtractKeywords),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_setting_is_a_keyword_and_no_other(name: str) -> None:
    config, typed = FUNCTIONS[name]
    fields = set(config.model_fields)
    assert get_type_hints(typed).keys() - ALIASES.keys() == fields
    assert not typed.__required_keys__, "a configuration may bring it"
    parameters = inspect.signature(getattr(dreamcore, name)).parameters
    assert fields <= parameters.keys() and parameters.keys() - fields <= {"config", "callbacks", "settings"}
    for setting, field in config.model_fields.items():
        assert parameters[setting].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[setting].annotation == field.annotation
        assert parameters[setting].default == (... if field.is_required() else field.default)


def test_every_function_that_takes_settings_shows_them() -> None:
    """`teach` has some as parameters of its own, and a type checker cannot be told of all others but these."""
    source = (ROOT / "dreamcore" / "__init__.py").read_text(encoding="utf-8")
    definitions = re.findall(r"^def (\w+)\((?:(?!^def ).)*?\*\*settings: ([^\n]*)", source, re.MULTILINE | re.DOTALL)
    typed = {name: words for name, words in definitions if name != "_configuration"}
    assert typed.keys() == {*FUNCTIONS, "teach"}
    assert all("Unpack[" in typed[name] for name in FUNCTIONS)
    assert "learning_rate" in inspect.signature(dreamcore.teach).parameters


def test_help_says_what_each_setting_is_below_a_line_that_can_be_read() -> None:
    words = pydoc.plain(pydoc.render_doc(dreamcore.train))
    signature = next(line for line in words.splitlines() if line.startswith("train("))
    assert "rank" not in signature and "callbacks" in signature and len(signature) < 200
    assert "Personalise a model" in words and "    rank: int = 4\n" in words
    assert "Rank of the LoRA factors" in words
    assert words.index("instance_data_dir:") < words.index("adam_beta1:"), "what most runs give comes first"


USE = {
    'train("sd15-lora", instance_data_dir=Path("dog"), rank=8, lora_layers=("to_q",), model="tinyworld")': None,
    'train(callbacks=[Stops(), lambda training, metrics: training.stop("enough")], seed=1)': None,
    'generate(lora="out", prompt="a dog", lora_scale=0.5)': None,
    'train(**{"network_dim": 8})': None,  # another trainer's name, whose types nobody knows
    "train(rnak=8)": 'Unexpected keyword argument "rnak" for "train"',
    'train(rank="8x")': 'Argument "rank" to "train" has incompatible type "str"; expected "int"',
    'train(lr_scheduler="cosin")': 'Argument "lr_scheduler" to "train" has incompatible type',
    "generate(rank=8)": 'Unexpected keyword argument "rank" for "generate"',
    "data_report(sheets='x.png')": 'Unexpected keyword argument "sheets" for "data_report"',
}
"""A call -> what mypy says of it."""


def test_mypy_finds_a_misspelt_setting(tmp_path: Path) -> None:
    """With the files that say what a setting is, of the installed ones; the rest of the package takes a minute."""
    for name in ("__init__.py", "version.py", "py.typed", "config/keywords.py"):
        (tmp_path / "dreamcore" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "dreamcore" / name, tmp_path / "dreamcore" / name)
    (tmp_path / "dreamcore" / "config" / "__init__.py").touch()
    head = [
        "from pathlib import Path",
        "from typing import Any",
        "import dreamcore",
        "class Stops(dreamcore.Callback): ...",
    ]
    calls = [f"dreamcore.{call}" for call in USE]
    calls[3] = f"x: dict[str, Any] = {{}}; {calls[3].partition('(')[0]}(**x)"
    (tmp_path / "use.py").write_text("\n".join([*head, *calls, ""]), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--no-incremental", "--follow-imports=silent"]
    done = subprocess.run([*command, "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    said: dict[int, str] = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"use\.py:(\d+): error: (.*)", line):
            said.setdefault(int(match[1]), match[2])
    first = len(head) + 1
    for number, (call, expected) in enumerate(USE.items(), first):
        assert (said.get(number) is None) == (expected is None) and (expected or "") in said.get(number, ""), (
            call,
            done.stdout + done.stderr,
        )
