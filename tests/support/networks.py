"""Two network namespaces on one wire: each is a machine to what runs in it, with an address of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ADDRESSES = ("10.77.0.1", "10.77.0.2")


@contextmanager
def two_networks() -> Iterator[list[list[str]]]:
    """What to put before a command to run it at the first of `ADDRESSES`, and at the second; skips where that cannot
    be."""
    names = [f"dreambooth-{os.getpid()}-{number}" for number in (0, 1)]
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "add", names[0]], check=False).returncode:
        pytest.skip("needs the right to make network namespaces, and iproute2")
    try:
        first, second = (f"ip -n {name}" for name in names)
        lines = [f"ip netns add {names[1]}", f"{first} link add v0 type veth peer name v1 netns {names[1]}"]
        for ip, device, address in ((first, "v0", ADDRESSES[0]), (second, "v1", ADDRESSES[1])):
            lines += [f"{ip} addr add {address}/24 dev {device}", f"{ip} link set {device} up", f"{ip} link set lo up"]
        for line in lines:
            subprocess.run(line.split(), check=True)
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)
