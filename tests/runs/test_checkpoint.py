"""Checkpoints: complete or absent, any damage noticed and named, older ones gone only when a newer one is whole."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamcore.errors import ConfigError, RunError
from dreamcore.io.names import RECORDS, STATE_FILE
from dreamcore.runs.checkpoint import check_resumable, find, list_checkpoints, save, verify

STATE = {"settings": {"seed": 3, "rank": 4}, "model": "abc", "samples_per_update": 4}
NAMES = ("unet/config.json", "unet/weights.safetensors", "optimizer.safetensors", STATE_FILE)


def write(folder: Path) -> None:
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(bytes(range(256)))
    (folder / "optimizer.safetensors").write_bytes(b"moments" * 30)


def names(folder: Path) -> list[str]:
    """What lies in a run's folder, but for its records."""
    return sorted(f.name for f in folder.iterdir() if f.name != RECORDS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint; for copying, not for changing."""
    return save(tmp_path_factory.mktemp("run"), 7, write, STATE, None)


def test_what_was_saved_is_verified_and_read(whole: Path) -> None:
    state = verify(whole)
    assert whole.name == "checkpoint-7"
    assert state["update"] == 7
    assert {k: state[k] for k in STATE} == STATE
    assert set(state["files"]) == set(NAMES) - {STATE_FILE}
    assert names(whole.parent) == ["checkpoint-7"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.sampled_from(NAMES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_any_change_of_any_file_is_noticed_and_named(
    whole: Path, tmp_path: Path, name: str, where: float, bit: int, cut: bool
) -> None:
    folder = tmp_path / whole.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    data = bytearray((folder / name).read_bytes())
    place = int(where * len(data))
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    (folder / name).write_bytes(data)
    with pytest.raises(RunError, match=Path(name).name):
        verify(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(whole: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / whole.name))
    (folder / name).unlink()
    with pytest.raises(RunError, match=rf"{name}: missing"):
        verify(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "3", "{}", '{"format": 1}', '{"format": 1, "files": []}', '{"format": 2, "files": {}}']
)
def test_a_state_of_another_kind(whole: Path, tmp_path: Path, text: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / whole.name))
    (folder / STATE_FILE).write_text(text)
    with pytest.raises(RunError, match=r"state\.json"):
        verify(folder)


@pytest.mark.parametrize("limit", [None, 1])
def test_a_save_that_fails_leaves_what_there_was(tmp_path: Path, limit: int | None) -> None:
    old = save(tmp_path, 1, write, STATE, limit)

    def fails(folder: Path) -> None:
        write(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"writing .*checkpoint-2: no space left on the disk.*intact"):
        save(tmp_path, 2, fails, STATE, limit)
    assert names(tmp_path) == ["checkpoint-1"]
    verify(old)

    def breaks(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2, breaks, STATE, limit)
    assert names(tmp_path) == ["checkpoint-1"]


def test_older_ones_go_only_when_the_newer_is_there(tmp_path: Path) -> None:
    for update in (8, 9, 10, 11):
        seen: list[str] = []

        def looks(folder: Path, seen: list[str] = seen) -> None:
            write(folder)
            seen.extend(f.name for _, f in list_checkpoints(tmp_path))

        save(tmp_path, update, looks, STATE, 2)
        assert seen == [f"checkpoint-{u}" for u in (8, 9, 10) if update - 3 < u < update]
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11"]


def test_checkpoints_are_listed_by_number_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-best", ".checkpoint-11.tmp", "checkpoint-12.damaged"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-13").write_text("a file")
    assert [n for n, _ in list_checkpoints(tmp_path)] == [9, 10]
    assert list_checkpoints(tmp_path / "none") == []


def test_latest_is_the_newest_whole_one_and_what_is_passed_over_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    assert find("latest", tmp_path, said.append) is None
    for update in (9, 10, 11):
        save(tmp_path, update, write, STATE, None)
    found = find("latest", tmp_path, said.append)
    assert found is not None
    assert (found[0].name, found[1]["update"], said) == ("checkpoint-11", 11, [])
    (tmp_path / "checkpoint-11" / "optimizer.safetensors").write_bytes(b"short")
    (tmp_path / "checkpoint-10" / STATE_FILE).unlink()
    found = find("latest", tmp_path, said.append)
    assert found is not None
    assert found[0].name == "checkpoint-9"
    assert "checkpoint-11/optimizer.safetensors" in said[0]
    assert "5 bytes where 210 were written" in said[0]
    assert "checkpoint-10/state.json" in said[1]


def test_a_checkpoint_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = save(tmp_path / "other", 5, write, STATE, None)
    run = tmp_path / "run"
    save(run, 2, write, STATE, None)

    def chosen(resume: str) -> Any:
        found = find(resume, run, pytest.fail)
        return found and found[0].resolve()

    assert chosen("checkpoint-2") == (run / "checkpoint-2").resolve()
    assert chosen(str(elsewhere)) == elsewhere.resolve()
    monkeypatch.chdir(tmp_path)
    assert chosen("other/checkpoint-5") == elsewhere.resolve()
    with pytest.raises(ConfigError, match=r"checkpoint-3: no such folder in .*checkpoints there: checkpoint-2"):
        find("checkpoint-3", run, pytest.fail)
    (elsewhere / "optimizer.safetensors").unlink()
    with pytest.raises(RunError, match="optimizer"):
        find(str(elsewhere), run, pytest.fail)


def test_settings_that_cannot_change_are_named_with_both_values() -> None:
    old = {"seed": 1, "rank": 4, "max_train_steps": 10, "gone": 3}
    check_resumable(old, {**old, "max_train_steps": 20, "new": 5}, {"max_train_steps"})
    with pytest.raises(ConfigError) as caught:
        check_resumable(old, {"seed": 2, "rank": 8, "max_train_steps": 20}, {"max_train_steps"})
    assert "seed: was 1, is now 2" in str(caught.value)
    assert "rank: was 4, is now 8" in str(caught.value)
    assert "max_train_steps" not in str(caught.value)
