"""Text is read as UTF-8, and what is none is named as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamcore.config.files import read_config_file
from dreamcore.data.captions import read_captions
from dreamcore.errors import ConfigError
from dreamcore.io.text import NotUTF8, is_chinese, read_text

WORDS = "一只小狗在雪地上，a photo of sks dog\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_with_and_without_a_mark(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "小狗.txt").write_bytes(WORDS.encode(encoding))
    assert read_text(tmp_path / "小狗.txt") == WORDS.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            WORDS.encode("gb18030"),
            r"^is text in GB18030, as it seems \(it reads '一只小狗在雪地上，a p'\); save it as UTF-8$",
        ),
        ("小狗".encode("gbk"), "GB18030, as it seems .*'小狗'"),
        (WORDS.encode("utf-16"), "^is text in UTF-16; save it as UTF-8$"),
        ("ein Hündchen".encode("latin-1"), r"^is no text in UTF-8 \(invalid .* at byte 5\)"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff", "^is no text in UTF-8"),
    ],
)
def test_other_encodings_are_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(NotUTF8, match=words):
        read_text(tmp_path / "a.txt")


def test_captions_and_configuration_files_say_so(tmp_path: Path) -> None:
    image = tmp_path / "小狗.jpg"
    image.touch()
    image.with_suffix(".txt").write_bytes(WORDS.encode("gb18030"))
    with pytest.raises(ConfigError, match=r"小狗\.txt: is text in GB18030"):
        read_captions([image], tmp_path)
    image.with_suffix(".txt").unlink()
    (tmp_path / "metadata.csv").write_bytes(f"file_name,text\n小狗.jpg,{WORDS}".encode("gb18030"))
    with pytest.raises(ConfigError, match=r"metadata\.csv: is text in GB18030"):
        read_captions([image], tmp_path)
    (tmp_path / "metadata.csv").write_bytes(f"file_name,text\n小狗.jpg,{WORDS}".encode("utf-8-sig"))
    assert read_captions([image], tmp_path)[0] == {image: WORDS.strip()}
    (tmp_path / "训练.toml").write_bytes("instance_prompt = '一张小狗的照片'\n".encode("gb18030"))
    with pytest.raises(ConfigError, match=r"config: .*训练\.toml: is text in GB18030"):
        read_config_file(tmp_path / "训练.toml")


def test_which_letters_are_chinese() -> None:
    assert all(map(is_chinese, "狗一\u3400\U00020000"))
    assert not any(map(is_chinese, "gのé，。한"))
