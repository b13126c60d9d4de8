"""The command lines of the backends' own launchers, which start a run's processes on the devices of a machine."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .machines import Machines

GRACE_SECONDS = 120
"""After one process has failed, or the run was told to stop, the others have so long to save and end."""
GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
MACHINES = "DREAMBOOTH_MACHINES"
"""Environment variable: how many machines a launched run has."""


@dataclass(frozen=True)
class Launch:
    """A launcher's command line, and what it adds to the environment."""

    command: list[str]
    environment: dict[str, str]

    def __str__(self) -> str:
        return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.environment.items()), shlex.join(self.command)])


@dataclass(frozen=True)
class Processes:
    """What a launcher is to start on this machine."""

    count: int
    devices: Sequence[str]
    """None on a CPU, or for the first ones."""
    logs: Path
    """Folder for what the launcher itself writes."""
    machines: Machines | None = None

    @property
    def ranks(self) -> range:
        """Of this machine's processes; every machine has as many."""
        first = self.machines.rank * self.count if self.machines else 0
        return range(first, first + self.count)


def _gloo(machines: Machines | None) -> dict[str, str]:
    """Where gloo is to listen: it would take the host's name, which often is 127.0.1.1 to itself."""
    if machines is None or GLOO_INTERFACE in os.environ or (interface := machines.interface()) is None:
        return {}
    return {GLOO_INTERFACE: interface}


def _torchrun(asked: Processes) -> Launch:
    command = [sys.executable, "-m", "torch.distributed.run"]
    if m := asked.machines:
        command += [f"--nnodes={m.count}", f"--node-rank={m.rank}"]
        command += [f"--master-addr={m.host}", f"--master-port={m.port}"]
    else:
        command += ["--standalone"]
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(asked.devices)} if asked.devices else {}
    command += [f"--nproc-per-node={asked.count}", f"--shutdown-timeout={GRACE_SECONDS}"]
    return Launch(command, visible | _gloo(m))


def _paddle_launch(asked: Processes) -> Launch:
    command = [sys.executable, "-m", "paddle.distributed.launch", f"--log_dir={asked.logs}", "--log_level=WARNING"]
    if m := asked.machines:
        command += [f"--master={m.host}:{m.port}", f"--nnodes={m.count}", f"--rank={m.rank}"]
        if address := m.own_address():  # or it takes the host's name, which often is 127.0.1.1 to itself
            command += [f"--host={address}"]
    # no --backend: gloo would keep Paddle on the CPU, and any makes the launcher an older one
    own = f"--devices={','.join(asked.devices)}" if asked.devices else f"--nproc_per_node={asked.count}"
    return Launch([*command, own], _gloo(asked.machines))


def _msrun(asked: Processes) -> Launch:
    folder = Path(sys.executable).parent
    if m := asked.machines:
        where = [f"--master_addr={m.host}", f"--master_port={m.port}", f"--node_rank={m.rank}"]
    else:
        where = [f"--master_port={_free_port()}"]
    everywhere = asked.count * (m.count if m else 1)
    count = [f"--worker_num={everywhere}", f"--local_worker_num={asked.count}", *where]
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}  # msrun starts whatever python is first
    if asked.devices:
        environment["ASCEND_RT_VISIBLE_DEVICES"] = ",".join(asked.devices)
    return Launch([str(folder / "msrun"), *count, f"--log_dir={asked.logs}", "--join=True"], environment)


LAUNCHERS: dict[str, Callable[[Processes], Launch]] = {
    "torch": _torchrun,
    "paddle": _paddle_launch,
    "mindspore": _msrun,
}
"""Backend -> its launcher's command; the script and its arguments follow."""


def processes_asked_for(
    devices: Sequence[str], processes: int | None, logs: Path, machines: Machines | None = None
) -> Processes:
    """The processes of this machine.

    Args:
        devices: numbers of the machine's accelerators; none for the CPU, or for the first `processes` of them.
        processes: how many, where it is not the number of `devices`.

    Raises:
        ConfigError: neither devices nor a number, or both and they differ.
    """
    if processes is None and not devices:
        raise ConfigError("launch: say on which devices (--devices 0,1) or in how many processes (--num_processes 2)")
    if wrong := [d for d in devices if not d.isdecimal()]:
        raise ConfigError(f"devices: {wrong[0]!r} is no device number; expected numbers with commas, 0,1")
    if len(set(devices)) < len(devices):
        raise ConfigError(f"devices: {','.join(devices)} names a device twice; one process runs on each")
    if devices and processes not in (None, len(devices)):
        raise ConfigError(f"num_processes: {processes} for {len(devices)} devices; leave it out, or name as many")
    if (count := processes or len(devices)) < 1:
        raise ConfigError(f"num_processes: {count}; expected at least 1")
    return Processes(count, devices, logs, machines)


def launch_command(backend: str, arguments: Sequence[str], asked: Processes) -> Launch:
    """The command that runs `dreambooth ARGUMENTS` once a device.

    Raises:
        ConfigError: a backend without a launcher.
    """
    if backend not in LAUNCHERS:
        raise ConfigError(f"launch: the launcher of backend {backend!r} is not known; start its own launcher instead")
    start = LAUNCHERS[backend](asked)
    several = {MACHINES: str(asked.machines.count)} if asked.machines else {}
    return Launch([*start.command, str(_script()), *arguments], start.environment | several)


def _script() -> Path:
    """The installed console script, which every launcher can run as `python SCRIPT`."""
    for script in (Path(sys.argv[0]), Path(sys.executable).with_name("dreambooth")):
        if script.name == "dreambooth" and script.is_file():
            return script.absolute()
    if sys.platform == "win32":  # its console scripts are programs
        return Path(__file__).parent / "cli" / "__main__.py"
    raise ConfigError(f"launch: {Path(sys.executable).with_name('dreambooth')}: not there; install the package first")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
