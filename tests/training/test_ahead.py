"""Batches formed one update ahead: the same ones in the same order, no further ahead, and errors where they belong."""

from __future__ import annotations

import threading
import time

import pytest

from dreamcore.errors import RunError
from dreamcore.training.ahead import Ahead

HERE = threading.get_ident


def test_the_next_is_formed_by_another_thread_while_this_one_is_used() -> None:
    formed: list[tuple[int, int]] = []
    ahead = Ahead(lambda update: formed.append((update, HERE())) or update * 10, 8)
    assert ahead(3) == 30
    for update in (4, 5, 6, 7):
        end = time.monotonic() + 10
        while [number for number, _ in formed][-1] != update and time.monotonic() < end:
            time.sleep(0.001)
        assert [number for number, _ in formed][-1] == update, "the next, and none beyond it"
        assert ahead(update) == update * 10
    ahead.close()
    assert [number for number, _ in formed] == [3, 4, 5, 6, 7], "each once, and none beyond the last"
    assert formed[0][1] == HERE() and len({thread for _, thread in formed[1:]} - {HERE()}) == 1


def test_one_that_was_not_foreseen_is_formed_at_once() -> None:
    ahead = Ahead(lambda update: update, 10)
    assert [ahead(update) for update in (0, 1, 5, 6, 2)] == [0, 1, 5, 6, 2]
    ahead.close()


def test_nothing_is_formed_ahead_where_that_needs_the_networks() -> None:
    formed: list[int] = []
    ahead = Ahead(lambda update: formed.append(HERE()) or update, None)
    assert [ahead(0), ahead(1)] == [0, 1]
    ahead.close()
    assert formed == [HERE()] * 2


def test_an_error_of_the_thread_is_raised_when_its_update_comes() -> None:
    def form(update: int) -> int:
        if update == 2:
            raise RunError("a.png: it is gone")
        return update

    ahead = Ahead(form, 5)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(RunError, match=r"a\.png: it is gone"):
        ahead(2)
    ahead.close()
