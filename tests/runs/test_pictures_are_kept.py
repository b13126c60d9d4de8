"""Images that a command makes never take another's place, and say how they were made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.commands.infotext import infotext
from dreamcore.errors import ConfigError
from dreamcore.tinyworld.__main__ import write_subject

from ..support.stub_runs import contents


def generate(model: Path, folder: Path, **settings: object) -> list[str]:
    """The names of three images' files and their sheet."""
    files = dreamcore.generate(
        pretrained_model_name_or_path=str(model), prompt="a mug", num_images=3, output_dir=str(folder), **settings
    )
    return [f.name for f in files]


def test_numbering_goes_on(stub_model: Path, tmp_path: Path) -> None:
    first = generate(stub_model, tmp_path)
    before = contents(tmp_path)
    second = generate(stub_model, tmp_path, seed=7)
    assert first == ["00000.png", "00001.png", "00002.png", "sheet.png"]
    assert second == ["00003.png", "00004.png", "00005.png", "sheet-2.png"]
    assert {name: raw for name, raw in contents(tmp_path).items() if name in before} == before
    record = json.loads((tmp_path / "pictures-2.json").read_text())["pictures"]
    assert [(one["file"], one["seed"]) for one in record] == [("00003.png", 7), ("00004.png", 8), ("00005.png", 9)]
    (tmp_path / "00041.png").write_bytes(b"the user's")
    assert generate(stub_model, tmp_path)[0] == "00042.png"


def test_two_commands_at_once_share_a_folder(stub_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one writes 00000.png after this one has looked which numbers are free."""
    import dreamcore.commands.generate as module

    names = module._free_names

    def looking(folder: Path) -> object:
        found = names(folder)
        (folder / "00000.png").write_bytes(b"another's")
        return found

    monkeypatch.setattr(module, "_free_names", looking)
    assert generate(stub_model, tmp_path)[:2] == ["00001.png", "00002.png"]
    assert (tmp_path / "00000.png").read_bytes() == b"another's"


def test_a_picture_says_how_it_was_made(stub_model: Path, tmp_path: Path) -> None:
    """Read as A1111's web UI does: the last line's details by its own pattern, the lines before it as prompts."""
    generate(stub_model, tmp_path, negative_prompt="blurred, grey", seed=5, guidance_scale=2.0, scheduler="euler")
    text = Image.open(tmp_path / "00001.png").text["parameters"]  # type: ignore[attr-defined]
    *lines, last = text.split("\n")
    pattern = r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)'
    details = dict(re.findall(pattern, last))
    assert lines == ["a mug", "Negative prompt: blurred, grey"]
    side = Image.open(tmp_path / "00001.png").size
    assert details == {
        "Steps": "30",
        "Sampler": "Euler",
        "CFG scale": "2.0",
        "Seed": "6",
        "Size": f"{side[0]}x{side[1]}",
        "Model": "model",
        "Version": f"dreambooth {dreamcore.__version__}",
    }
    assert '"a, b: c"' in infotext("x", "", {"Model": "a, b: c"})
    assert infotext("狗", "", {}).startswith("狗\nVersion")


def test_a_sheet_beside_an_earlier_one(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"the user's")
    for number in (2, 3):
        report = dreamcore.data_report(instance_data_dir=str(drawn), sheet=str(tmp_path / "sheet.png"))
        assert report.sheet == tmp_path / f"sheet-{number}.png"
        assert np.asarray(Image.open(report.sheet)).size
    assert (tmp_path / "sheet.png").read_bytes() == b"the user's"


def test_a_grid_beside_an_earlier_one(
    stub_model: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    (tmp_path / "grid.png").write_bytes(b"the user's")
    dreamcore.identifiers(pretrained_model_name_or_path=str(stub_model), grid=str(tmp_path / "grid.png"))
    assert contents(tmp_path).keys() == {"grid.png", "grid-2.png"}
    assert (tmp_path / "grid.png").read_bytes() == b"the user's"


def test_drawn_pictures_replace_no_others(tmp_path: Path) -> None:
    write_subject(tmp_path)
    before = contents(tmp_path)
    write_subject(tmp_path)
    assert contents(tmp_path) == before and len(before) == 10
    (tmp_path / "3.txt").write_text("a caption of the user's")
    for subject, name in ({"zigzag-mug": r"3\.txt", "barred-fish": r"0\.png"}).items():
        with pytest.raises(ConfigError, match=f"{name} is there already"):
            write_subject(tmp_path, subject)
    assert contents(tmp_path) == before | {"3.txt": b"a caption of the user's"}
