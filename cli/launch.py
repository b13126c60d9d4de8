"""`dreambooth launch --devices 0,1 -- train ...`: the backend's own launcher, built and run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreamcore.backends.installed import choose_backend
from dreamcore.backends.launchers import launch_command, processes_asked_for
from dreamcore.backends.launching import run_launched
from dreamcore.backends.machines import Machines
from dreamcore.config import TrainConfig, load_config
from dreamcore.config.used import Context, refuse_idle
from dreamcore.errors import ConfigError
from dreamcore.track.verbosity import current

from .flags import CommandParser, parse_settings
from .verbosity import without_verbosity


def run(about: str, argv: Sequence[str]) -> int:
    """Check the command that is launched, so that a mistake is said once, and launch it."""
    own, words = list(argv), []
    if "--" in own:
        words = own[own.index("--") + 1 :]
        own = own[: own.index("--")]
    if "--" not in argv and "train" in own:
        raise ConfigError("launch: -- is missing before train; expected " + EXAMPLE)
    parser = _parser(about)
    asked = parser.parse_args(own)
    empty = [f"{name}: is empty (was a variable not set?)" for name, value in vars(asked).items() if value == ""]
    if problems := [*parser.twice, *empty]:
        raise ConfigError("\n".join(problems))
    if words[:1] != ["train"]:
        raise ConfigError("launch: expected `-- train` and its settings after launch's own, as in: " + EXAMPLE)
    flag, settings = without_verbosity(words[1:])
    if flag is None and current() != "normal":
        words.append("--quiet" if current() == "quiet" else "--verbose")
    config = load_config(TrainConfig, *parse_settings(TrainConfig, "train", about, settings))
    if asked.backend and config.backend and asked.backend != config.backend:
        raise ConfigError(f"backend: {asked.backend} is to launch, but train is given {config.backend}; give it once")
    backend = choose_backend(asked.backend or config.backend)
    refuse_idle(config, Context(backend))
    if asked.backend and not config.backend:
        words += ["--backend", backend]
    devices = [d.strip() for d in asked.devices.split(",")] if asked.devices else []
    if devices and config.device == "cpu":
        raise ConfigError("device: cpu, while launch names --devices; on a CPU give --num_processes in their place")
    machines = Machines.of(asked.nnodes, asked.node_rank, asked.rdzv_endpoint)
    if asked.dry_run:
        print(launch_command(backend, words, processes_asked_for(devices, asked.num_processes, Path("logs"), machines)))
        return 0
    return run_launched(
        backend, words, devices=devices, processes=asked.num_processes, machines=machines, rdzv_id=asked.rdzv_id
    )


EXAMPLE = "dreambooth launch --devices 0,1 -- train --config sd15-lora"
MACHINES = (
    "dreambooth launch --nnodes 2 --node_rank 0 --rdzv_endpoint 10.0.0.1:29500 --devices 0,1 -- train ..., with "
    "--node_rank 1 on the second."
)


def _parser(about: str) -> CommandParser:
    parser = CommandParser(
        prog="dreambooth launch",
        usage="dreambooth launch --devices 0,1 [--dry_run] -- train [--SETTING VALUE ...]",
        description=f"{about}  The same global batch (batch size · accumulation · processes) is the "
        "same run, in however many processes.  Over several machines, start it on each: " + MACHINES,
        allow_abbrev=False,
    )
    parser.add_argument("--devices", metavar="0,1", help="numbers of the devices; one process runs on each")
    parser.add_argument(
        "--num_processes", "--num-processes", type=int, metavar="N", help="processes, on a CPU or the first N devices"
    )
    parser.add_argument(
        "--backend", metavar="TEXT", help="torch, paddle or mindspore; train's own setting does as well"
    )
    parser.add_argument("--nnodes", metavar="N", help="machines of the run; each has as many processes")
    parser.add_argument("--node_rank", "--node-rank", type=int, metavar="N", help="which of them this is; 0 writes")
    parser.add_argument(
        "--rdzv_endpoint", "--rdzv-endpoint", metavar="HOST:PORT", help="of machine 0; the next port is used too"
    )
    parser.add_argument(
        "--rdzv_id", "--rdzv-id", default="dreambooth", metavar="TEXT", help="a name of the run, alike on all machines"
    )
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="print the command, and run nothing")
    return parser
