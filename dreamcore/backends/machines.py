"""One run on several machines: their `dreambooth launch` watch each other, and what ends one ends all, in words.

Frameworks notice a process that ends, for its connections close.  Of a machine that has lost its power or its network
nothing comes any more, and they wait for it: for ten minutes, or for hours.  So each launcher sends the first machine's
a sign of life every few seconds and hears one, over a connection beside the frameworks' own (the port after
theirs), and who fails says why.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from ..errors import ConfigError, RunError
from ..version import __version__

PORT = 29500
"""Where the endpoint names none, as torchrun has it."""
JOIN_SECONDS = 600.0
"""Time for all machines to come."""
SILENCE_SECONDS = 60.0
"""A machine of which nothing is heard for so long is gone."""
HELLO_SECONDS = 10.0
"""Who connects says within them who it is: a stranger may say nothing."""
LONGEST_LINE = 1 << 16


@dataclass(frozen=True)
class Machines:
    """Which of how many machines this is, and where the first is found."""

    count: int
    rank: int
    host: str
    port: int

    @classmethod
    def of(cls, nnodes: str | None, node_rank: int | None, endpoint: str | None) -> Machines | None:
        """From torchrun's flags; None for one machine.

        Raises:
            ConfigError: naming the flag that is missing or wrong.
        """
        if nnodes is None or nnodes == "1":
            if node_rank or endpoint:
                raise ConfigError("nnodes: is missing beside --node_rank and --rdzv_endpoint; expected --nnodes 2")
            return None
        if not nnodes.isdecimal() or nnodes == "0":
            raise ConfigError(f"nnodes: {nnodes!r} is no number of machines; expected one, as 2: a run keeps to it")
        if node_rank is None or not 0 <= node_rank < int(nnodes):
            got = "is missing" if node_rank is None else f"{node_rank} of {nnodes}"
            raise ConfigError(f"node_rank: {got}; expected 0 on the first machine, to {int(nnodes) - 1} on the last")
        if not endpoint:
            raise ConfigError("rdzv_endpoint: is missing; expected HOST:PORT of the first machine, on every machine")
        host, colon, port = endpoint.rpartition(":")
        if not colon or endpoint.endswith("]"):
            host, port = endpoint, str(PORT)
        if not host or not port.isdecimal() or not 0 < int(port) < 65535:
            raise ConfigError(f"rdzv_endpoint: {endpoint!r}; expected HOST:PORT, as 10.0.0.1:{PORT}")
        return cls(int(nnodes), node_rank, host.strip("[]"), int(port))

    def own_address(self) -> str | None:
        """This machine's address on the way to the first; None where the system does not say."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((self.host, self.port))  # sends nothing
            return str(probe.getsockname()[0])
        return None

    def interface(self) -> str | None:
        """The name of the network interface that has that address."""
        import psutil

        own = self.own_address()
        for name, addresses in psutil.net_if_addrs().items():
            if any(address.address.partition("%")[0] == own for address in addresses):
                return str(name)
        return None

    def listening(self) -> socket.socket:
        """The first machine's socket, on the address that the others know it by.

        Raises:
            ConfigError: the address is not this machine's, or only this machine reaches it; the port is taken.
        """
        try:
            family, _, _, _, address = socket.getaddrinfo(self.host, self.port + 1, type=socket.SOCK_STREAM)[0]
            if ipaddress.ip_address(address[0]).is_loopback and not _says_loopback(self.host):
                raise ConfigError(
                    f"rdzv_endpoint: {self.host} is {address[0]} to this machine, where no other reaches it; "
                    "give the address that the others know"
                )
            return socket.create_server(address[:2], family=family)
        except OSError as error:
            raise ConfigError(
                f"rdzv_endpoint: the first machine (--node_rank 0) cannot listen at {self.host}, port {self.port + 1} "
                f"({error.strerror or error}); expected an address of this machine, and two free ports"
            ) from None

    def reaching(self) -> socket.socket:
        """A connection to the first machine, which may come later than this one.

        Raises:
            RunError: it has not come in time.
        """
        end, why = time.monotonic() + JOIN_SECONDS, ""
        while time.monotonic() < end:
            try:
                return socket.create_connection((self.host, self.port + 1), timeout=SILENCE_SECONDS)
            except OSError as error:
                why = error.strerror or str(error)
                time.sleep(min(1.0, SILENCE_SECONDS / 10))
        raise RunError(
            f"rdzv_endpoint: {self.host}, port {self.port + 1}: the first machine has not answered within "
            f"{JOIN_SECONDS:g} s ({why}); start --node_rank 0 there, and let both ports through"
        )


def _says_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Line:
    """A connection that carries messages, one JSON object a line, and empty lines as signs of life."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(SILENCE_SECONDS)
        self._socket, self._writes = connection, threading.Lock()
        self._lines = connection.makefile("rb")

    def send(self, message: dict[str, Any] | None = None) -> None:
        """Send a message, or a sign of life; who has gone needs none."""
        raw = (json.dumps(message) if message else "").encode() + b"\n"
        with suppress(OSError), self._writes:
            self._socket.sendall(raw)

    def read(self) -> dict[str, Any]:
        """The next message; signs of life are passed over.

        Raises:
            TimeoutError: nothing came.
            OSError, ValueError: the connection has ended, or is none of ours.
        """
        while True:
            raw = self._lines.readline(LONGEST_LINE)
            if not raw.endswith(b"\n"):
                raise OSError("closed")
            if raw.strip():
                message = json.loads(raw)
                if not isinstance(message, dict):
                    raise ValueError(raw)
                return message

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Watch:
    """The other machines of a run, from their coming to their end.

    Args:
        machines: this one's place.
        terms: what all machines must be told alike: the run's name (`rdzv_id`), the backend, processes on each.
        say: told who is waited for.
    """

    def __init__(self, machines: Machines, terms: dict[str, Any], say: Callable[[str], None]):
        self._machines, self._say = machines, say
        self._terms = {"version": __version__, "nnodes": machines.count, **terms}
        self._lines: dict[int, Line] = {}
        self._ended: set[int] = set()
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._trouble: Exception | None = None

    def __enter__(self) -> Self:
        """Wait until all machines have come.

        Raises:
            ConfigError: a machine was told something else.
            RunError: one has not come.
        """
        try:
            if self._machines.rank == 0:
                self._welcome()
            else:
                self._join()
        except BaseException:
            self.__exit__()
            raise
        for machine, line in self._lines.items():
            threading.Thread(target=self._listen, args=(machine, line), daemon=True).start()
        threading.Thread(target=self._live, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for line in self._lines.values():
            line.close()

    def trouble(self, seconds: float = 0.0) -> Exception | None:
        """What has ended the run on another machine, if anything has; waited for so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._trouble is not None, seconds)
            return self._trouble

    def failed(self, error: Exception) -> None:
        """Tell the others why this machine ends."""
        self._pass_on(self._machines.rank, error)

    def ended(self, seconds: float) -> None:
        """Tell the others that this machine has ended well; the first waits so long for theirs."""
        for line in self._lines.values():
            line.send({"ended": True})
        with self._changed:
            if self._machines.rank == 0:
                self._changed.wait_for(lambda: self._trouble or self._ended >= self._lines.keys(), seconds)

    def _welcome(self) -> None:
        awaited = set(range(1, self._machines.count))
        end = time.monotonic() + JOIN_SECONDS
        with self._machines.listening() as door:
            while awaited:
                self._say(f"waiting for machine {', '.join(map(str, sorted(awaited)))} of {self._machines.count}")
                door.settimeout(max(0.01, end - time.monotonic()))
                try:
                    connection = door.accept()[0]
                except TimeoutError:
                    missing = ", ".join(map(str, sorted(awaited)))
                    raise RunError(f"machine {missing} has not come within {JOIN_SECONDS:g} s") from None
                line = Line(connection)
                connection.settimeout(HELLO_SECONDS)
                try:
                    machine, terms = (hello := line.read())["machine"], dict(hello["terms"])
                except (OSError, ValueError, KeyError, TypeError):
                    line.close()  # a stranger
                    continue
                connection.settimeout(SILENCE_SECONDS)
                if wrong := self._difference(terms):
                    line.send({"refused": wrong})
                    raise ConfigError(f"machine {machine}: {wrong}")
                if machine not in awaited:
                    line.send({"refused": f"node_rank: {machine} is another machine's already, or none of this run's"})
                    line.close()
                    continue
                awaited.discard(machine)
                self._lines[machine] = line
        for line in self._lines.values():
            line.send({"begin": True})

    def _join(self) -> None:
        self._say(f"machine {self._machines.rank} of {self._machines.count}: joining the first")
        self._lines[0] = line = Line(connection := self._machines.reaching())
        connection.settimeout(JOIN_SECONDS)
        line.send({"machine": self._machines.rank, "terms": self._terms})
        try:
            answer = line.read()
        except (OSError, ValueError) as error:
            raise RunError(f"the first machine has gone before all had come ({error})") from None
        if "refused" in answer:
            raise ConfigError(answer["refused"])
        connection.settimeout(SILENCE_SECONDS)

    def _difference(self, theirs: dict[str, Any]) -> str:
        if theirs.get("rdzv_id") != self._terms["rdzv_id"]:
            return "rdzv_id: another there than on the first machine; expected the same on all"
        for name, mine in self._terms.items():
            if theirs.get(name) != mine:
                return f"{name}: {theirs.get(name)!r} there and {mine!r} on the first machine; expected the same on all"
        return ""

    def _live(self) -> None:
        while not self._over.wait(SILENCE_SECONDS / 6):
            for line in self._lines.values():
                line.send()

    def _listen(self, machine: int, line: Line) -> None:
        try:
            while True:
                message = line.read()
                if "ended" in message:
                    self._note_end(machine)
                elif "failed" in message:
                    kind = ConfigError if message["kind"] == ConfigError.__name__ else RunError
                    self._pass_on(int(message["machine"]), kind(message["failed"]))
        except TimeoutError:
            how = f"has not answered for {SILENCE_SECONDS:g} s: it is gone, or the network to it is"
        except (OSError, ValueError, KeyError):
            how = "has gone without a word: its launcher was killed, or its network is down"
        if machine not in self._ended and not self._over.is_set():
            self._pass_on(machine, RunError(f"{how}.  Every checkpoint is from before this"))

    def _note_end(self, machine: int) -> None:
        with self._changed:
            self._ended.add(machine)
            self._changed.notify_all()

    def _pass_on(self, machine: int, error: Exception) -> None:
        """Keep the first trouble, and on the first machine tell it to all others."""
        with self._changed:
            if self._trouble is not None:
                return
            self._trouble = type(error)(f"machine {machine}: {error}")
            self._changed.notify_all()
        kind = ConfigError.__name__ if isinstance(error, ConfigError) else RunError.__name__
        for other, line in self._lines.items():
            if other != machine:
                line.send({"failed": str(error), "kind": kind, "machine": machine})
