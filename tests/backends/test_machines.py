"""Launchers of several machines watch each other: who is missing, fails or falls silent is named to all, soon."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from dreamcore.backends import machines
from dreamcore.backends.machines import Machines, Watch
from dreamcore.errors import ConfigError, RunError

TERMS = {"rdzv_id": "dog", "backend": "torch", "num_processes": 2}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(machines, "HELLO_SECONDS", 0.3)
    monkeypatch.setattr(machines, "JOIN_SECONDS", 5.0)


@pytest.fixture
def port() -> int:
    """A free one, with the next."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1]) - 1


def joined(port: int, terms: list[dict[str, Any]]) -> list[Watch | Exception]:
    """A watch for each of `terms`, all joining at once, or why it could not."""

    def join(rank: int) -> Watch | Exception:
        watch = Watch(Machines(len(terms), rank, "127.0.0.1", port), terms[rank], lambda text: None)
        try:
            return watch.__enter__()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(terms)) as pool:
        return list(pool.map(join, range(len(terms))))


@pytest.fixture
def three(port: int) -> Iterator[list[Watch]]:
    with ExitStack() as stack:
        watches = [watch for watch in joined(port, [TERMS] * 3) if isinstance(watch, Watch)]
        assert len(watches) == 3
        for watch in watches:
            stack.push(watch)
        yield watches


def test_all_end_well(three: list[Watch]) -> None:
    time.sleep(1.0)  # longer than a silence: signs of life are heard
    for watch in reversed(three):
        watch.ended(5)
        watch.__exit__()
    assert [watch.trouble() for watch in three] == [None] * 3


@pytest.mark.parametrize("who", [0, 2])
def test_who_fails_is_heard_by_all(who: int, three: list[Watch]) -> None:
    three[who].failed(ConfigError("process 4: rank: 0"))
    three[who].__exit__()
    for watch in three:
        error = watch.trouble(5)
        assert isinstance(error, ConfigError)
        assert str(error) == f"machine {who}: process 4: rank: 0"


def test_who_is_gone_is_named(three: list[Watch]) -> None:
    three[1].__exit__()
    for watch in (three[0], three[2]):
        assert "machine 1: has gone without a word" in str(watch.trouble(5))


def test_who_falls_silent_is_named(three: list[Watch]) -> None:
    """Its connection stays, as a machine's does that has lost its network."""
    three[1]._over.set()
    for watch in (three[0], three[2]):
        assert "machine 1: has not answered for 0.6 s" in str(watch.trouble(5))


def test_strangers_are_shown_out(port: int) -> None:
    """One says nothing, one says something else; the run's name is told to none."""
    heard = []

    def knock(said: bytes) -> None:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", port + 1), timeout=5) as line:
                    line.sendall(said)
                    heard.append(line.recv(1000))
                return
            except ConnectionRefusedError:
                time.sleep(0.01)

    threads = [threading.Thread(target=knock, args=(said,)) for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"7\n")]
    watch = Watch(Machines(2, 0, "127.0.0.1", port), TERMS, lambda text: None)
    for thread in threads:
        thread.start()
    with ThreadPoolExecutor(1) as pool:
        entering = pool.submit(watch.__enter__)
        for thread in threads:
            thread.join()
        other = Watch(Machines(2, 1, "127.0.0.1", port), TERMS, lambda text: None)
        with other:
            entering.result().__exit__()
    assert heard == [b""] * 3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_processes": 1}, "num_processes: 1 there and 2 on the first machine"),
        ({"backend": "paddle"}, "backend: 'paddle' there and 'torch' on the first machine"),
        ({"rdzv_id": "cat"}, "rdzv_id: another there than on the first machine; expected the same on all"),
    ],
)
def test_what_differs_is_refused_on_both(changed: dict[str, Any], words: str, port: int) -> None:
    first, second = joined(port, [TERMS, TERMS | changed])
    assert isinstance(first, ConfigError) and isinstance(second, ConfigError)
    assert words in str(second)
    assert str(first) == f"machine 1: {second}"


def test_who_does_not_come_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "JOIN_SECONDS", 0.2)
    with pytest.raises(RunError, match="machine 1 has not come within 0.2 s"):
        Watch(Machines(2, 0, "127.0.0.1", port), TERMS, lambda text: None).__enter__()
    with pytest.raises(RunError, match=r"the first machine has not answered within 0.2 s .*start --node_rank 0 there"):
        Watch(Machines(2, 1, "127.0.0.1", port), TERMS, lambda text: None).__enter__()


def test_an_address_that_others_cannot_reach_is_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian gives a machine's own name 127.0.1.1."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", port + 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ConfigError, match="rdzv_endpoint: node0 is 127.0.1.1 to this machine"):
        Machines(2, 0, "node0", port).listening()


@pytest.mark.parametrize("text", ["10.0.0.1:29400", "node0:29400", "[fe80::1]:29400", "node0"])
def test_endpoints(text: str) -> None:
    found = Machines.of("2", 1, text)
    assert found == Machines(2, 1, text.removesuffix(":29400").strip("[]"), 29400 if ":29400" in text else 29500)
