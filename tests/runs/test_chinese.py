"""Prompts, captions and names in Chinese, from the photographs' folder to the report, on consoles that lack letters."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from dreamcore.cli.main import main
from dreamcore.config.files import read_config_file
from dreamcore.models.folder import ModelFolder

from ..support.tiny import draw_photos

CAPTION = "一只{identifier}小狗，在雪地上"
PROMPT = "一张qzt小狗的照片，红色背景"


@pytest.fixture
def words(stub_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line, with everything that it names in Chinese, relative to where it runs."""
    monkeypatch.chdir(tmp_path)
    folder = draw_photos(tmp_path / "训练" / "照片", count=2, size=32)
    for number, file in enumerate(sorted(folder.iterdir()), 1):
        image = file.rename(folder / f"小狗{number}.png")
        image.with_suffix(".txt").write_text(CAPTION, "utf-8-sig")
    (tmp_path / "太乙").symlink_to(stub_model)
    (tmp_path / "设置.toml").write_text(
        f"""use_captions = true
identifier = "qzt"
with_prior_preservation = true
class_prompt = "一只小狗"
class_data_dir = "类别图片"
num_class_images = 2
validation_prompt = "{PROMPT}"
num_validation_images = 1
max_train_steps = 2
train_batch_size = 1
report_to = "none"
""",
        "utf-8-sig",
    )
    return ["train", "训练/照片", "--config", "设置.toml", "--model", "太乙", "--output_dir", "输出/小狗"]


@pytest.mark.parametrize("encoding", ["ascii", "cp936"])
def test_a_run(encoding: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {
        name: io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for name in ("stdout", "stderr")
    }
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert main(words) == 0
    assert main(["generate", "--model", "输出/小狗", "--prompt", PROMPT, "--output_dir", "图片"]) == 0
    said = {name: stream.buffer.getvalue().decode(encoding) for name, stream in streams.items()}  # type: ignore[attr-defined]
    shown = PROMPT.encode(encoding, "backslashreplace").decode(encoding)
    assert shown in said["stderr"] and "图片".encode(encoding, "backslashreplace").decode(encoding) in said["stdout"]
    folder = tmp_path / "输出" / "小狗"
    config = read_config_file(folder / "config.yaml")
    assert (config["validation_prompt"], config["class_data_dir"]) == (PROMPT, "类别图片")
    assert PROMPT in (folder / "config.yaml").read_text("utf-8"), "a person can read it"
    assert PROMPT in (folder / "log.txt").read_text("utf-8")
    report = (folder / "report.html").read_text("utf-8")
    assert PROMPT in report and "小狗" in report
    assert len(list((tmp_path / "类别图片").glob("*.png"))) == 2
    assert ModelFolder.open(str(folder)).path == folder
    record = (tmp_path / "图片" / "pictures.json").read_text("utf-8")
    assert PROMPT in record and json.loads(record)["pictures"][0]["prompt"] == PROMPT
    with Image.open(tmp_path / "图片" / "00000.png") as image:
        assert image.info["parameters"].startswith(PROMPT)
    assert main([*words, "--resume_from_checkpoint", "latest", "--max_train_steps", "4"]) == 0


def test_captions_are_what_is_trained(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words[1:6]]) == 0
    assert "一只qzt小狗，在雪地上" in capsys.readouterr().out
