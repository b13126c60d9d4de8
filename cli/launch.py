"""`dreambooth launch --devices 0,1 -- train ...`: the backend's own launcher, built and run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreamcore.backends.installed import choose_backend
from dreamcore.backends.launching import launch_command, run_launched
from dreamcore.config import TrainConfig, load_config
from dreamcore.config.used import Context, refuse_idle
from dreamcore.errors import ConfigError

from .flags import CommandParser, parse_settings


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
    config = load_config(TrainConfig, *parse_settings(TrainConfig, "train", about, words[1:]))
    if asked.backend and config.backend and asked.backend != config.backend:
        raise ConfigError(f"backend: {asked.backend} is to launch, but train is given {config.backend}; give it once")
    backend = choose_backend(asked.backend or config.backend)
    refuse_idle(config, Context(backend))
    if asked.backend and not config.backend:
        words += ["--backend", backend]
    devices = [d.strip() for d in asked.devices.split(",")] if asked.devices else []
    if devices and config.device == "cpu":
        raise ConfigError("device: cpu, while launch names --devices; on a CPU give --num_processes in their place")
    if asked.dry_run:
        print(launch_command(backend, words, devices=devices, processes=asked.num_processes, logs=Path("logs")))
        return 0
    return run_launched(backend, words, devices=devices, processes=asked.num_processes)


EXAMPLE = "dreambooth launch --devices 0,1 -- train --config sd15-lora"


def _parser(about: str) -> CommandParser:
    parser = CommandParser(
        prog="dreambooth launch",
        usage="dreambooth launch --devices 0,1 [--dry_run] -- train [--SETTING VALUE ...]",
        description=f"{about}  The same global batch (batch size · accumulation · processes) is the "
        "same run, in however many processes.  Over several machines, start the backend's own launcher on each.",
        allow_abbrev=False,
    )
    parser.add_argument("--devices", metavar="0,1", help="numbers of the devices; one process runs on each")
    parser.add_argument(
        "--num_processes", "--num-processes", type=int, metavar="N", help="processes, on a CPU or the first N devices"
    )
    parser.add_argument(
        "--backend", metavar="TEXT", help="torch, paddle or mindspore; train's own setting does as well"
    )
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="print the command, and run nothing")
    return parser
