"""Hashes of large files are remembered while the files stay as they are, and never where that is in doubt."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamcore.io import hashing
from dreamcore.io.hashing import remembered_sha256


class Hasher:
    """Counts what is read in full."""

    def __init__(self) -> None:
        self.read = list[Path]()

    def __call__(self, path: Path) -> str:
        self.read.append(path)
        time.sleep(0.02)  # so that others come in the meantime
        return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def hasher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hasher:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashing, "LARGE", 1)
    monkeypatch.setattr(hashing, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(hashing, "file_sha256", hasher := Hasher())
    return hasher


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"one")
    return file


def sha(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def notes(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "dreambooth" / "sha256").glob("*.json"))


def test_a_file_is_read_once(hasher: Hasher, weights: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(weights)
    assert [remembered_sha256(file) for file in (weights, weights, link)] == [sha(b"one")] * 3
    assert hasher.read == [weights]


def test_a_small_file_leaves_no_note(
    hasher: Hasher, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "LARGE", 4)
    assert remembered_sha256(weights) == sha(b"one")
    assert notes(tmp_path) == []


def test_processes_that_ask_at_once_read_it_once(hasher: Hasher, weights: Path) -> None:
    start = threading.Barrier(4)

    def ask(_: int) -> str:
        start.wait()
        return remembered_sha256(weights)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {sha(b"one")}
    assert len(hasher.read) == 1


def in_place(file: Path) -> None:
    """The same size and time of change, and other bytes."""
    stat = file.stat()
    time.sleep(0.02)  # more than a tick of the file system's clock
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"two")
    os.replace(other, file)


@pytest.mark.parametrize("change", [in_place, replaced])
def test_a_changed_file_is_read_again(change, hasher: Hasher, weights: Path) -> None:  # type: ignore[no-untyped-def]
    assert remembered_sha256(weights) == sha(b"one")
    change(weights)
    assert remembered_sha256(weights) == sha(b"two")
    assert remembered_sha256(weights) == sha(b"two")
    assert len(hasher.read) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"state": [], "sha256": 3}', b"\xff\x00"])
def test_a_damaged_note_is_not_believed(content: bytes, hasher: Hasher, weights: Path, tmp_path: Path) -> None:
    remembered_sha256(weights)
    (note,) = notes(tmp_path)
    note.write_bytes(content)
    assert remembered_sha256(weights) == sha(b"one")
    assert json.loads(note.read_bytes())["sha256"] == sha(b"one"), "and is mended"
    note.write_text(json.dumps({**json.loads(note.read_bytes()), "sha256": "no hash"}))
    assert remembered_sha256(weights) == sha(b"one")


def test_without_a_place_for_notes_a_file_is_read(
    hasher: Hasher, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert remembered_sha256(weights) == sha(b"one")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))

    def unwritable(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hashing, "FileLock", unwritable)
    assert remembered_sha256(weights) == sha(b"one")


def test_a_note_that_cannot_be_written_costs_no_second_reading(
    hasher: Hasher, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hashing.os, "replace", full)
    assert remembered_sha256(weights) == sha(b"one")
    assert hasher.read == [weights]
    assert notes(tmp_path) == []


def test_a_file_just_changed_is_waited_for(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a tick of its file system's clock it could change once more and look the same."""
    waits = list[float]()
    assert not hashing._settle(weights, waits.append), "it is as young as before where nobody has waited"
    assert 0 < waits[0] <= hashing.SETTLED_SECONDS
    os.utime(weights, (time.time() + 3600,) * 2)
    assert not hashing._settle(weights, waits.append), "a clock that is ahead says nothing"
    assert len(waits) == 1
    monkeypatch.setattr(hashing, "SETTLED_SECONDS", -7200.0)
    assert hashing._settle(weights, waits.append)


def test_what_has_not_settled_is_not_noted(hasher: Hasher, weights: Path, tmp_path: Path) -> None:
    os.utime(weights, (time.time() + 3600,) * 2)
    assert remembered_sha256(weights) == remembered_sha256(weights) == sha(b"one")
    assert notes(tmp_path) == []


def test_models_are_known_by_what_is_remembered_and_checkpoints_are_not(
    hasher: Hasher, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamcore.models.folder import ModelFolder
    from dreamcore.runs import checkpoint
    from dreamcore.training.latent_cache import encoder_identity

    first = ModelFolder.open(str(tiny_model)).fingerprint
    model = ModelFolder.open(str(tiny_model))
    encoder_identity(model, "torch", "cpu")
    assert model.fingerprint == first
    assert len(hasher.read) == len(set(hasher.read)) == 3, "UNet, autoencoder and text encoder, each once"
    monkeypatch.setattr(checkpoint, "file_sha256", hasher)
    saved = checkpoint.save(tmp_path, 1, lambda folder: (folder / "a").touch(), {}, None)
    hasher.read.clear()
    for _ in range(2):
        checkpoint.verify(saved)
    assert hasher.read == [saved / "a"] * 2
