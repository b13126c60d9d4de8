"""DreamBooth with one core: every decision of a run is made here, in NumPy, and a backend runs the network.

    import dreamcore
    dreamcore.train("sd15-lora", instance_data_dir="dog", instance_prompt="a photo of sks dog", output_dir="out")
    dreamcore.generate(lora="out", prompt="a sks dog in the snow")

Each command of the command line is a function here, with the same names and defaults.  Importing this module imports
neither a framework nor NumPy: a function loads what it needs when it is asked for or called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from .version import __version__

if TYPE_CHECKING:
    from .backends.installation import Installation
    from .commands.conversion import Conversion
    from .commands.data import DataReport
    from .commands.evaluate import Evaluation
    from .commands.identifiers import Identifier
    from .config import GenerateConfig, Settings, TrainConfig
    from .config.convert import ConvertConfig, ExtractConfig, MergeConfig, ResizeConfig
    from .config.evaluate import EvaluateConfig
    from .config.identifiers import IdentifiersConfig
    from .config.keywords import (
        ConvertKeywords,
        DataKeywords,
        EvaluateKeywords,
        ExtractKeywords,
        GenerateKeywords,
        IdentifiersKeywords,
        MergeKeywords,
        ResizeKeywords,
        TrainKeywords,
    )
    from .config.look import DataConfig
    from .errors import CallbackError, ConfigError, RunError
    from .placement.plan import Plan
    from .report.comparison import Comparison
    from .report.run import Run
    from .runs.watching import WatchedRun
    from .track.verbosity import verbosity
    from .training.callbacks import Callback, Training, UpdateFunction, Validation

    S = TypeVar("S", bound=Settings)

__all__ = [
    "Callback",
    "CallbackError",
    "ConfigError",
    "GenerateConfig",
    "Run",
    "RunError",
    "TrainConfig",
    "Training",
    "Validation",
    "__version__",
    "compare",
    "configs",
    "convert",
    "data_report",
    "doctor",
    "evaluate",
    "extract",
    "generate",
    "identifiers",
    "launch",
    "list_runs",
    "merge",
    "open_run",
    "plan",
    "resize",
    "run_report",
    "sample",
    "stand_in",
    "stop",
    "teach",
    "train",
    "verbosity",
]


class _InClone:
    """Finds the parts that are installed inside this package and in a clone lie beside it."""

    PARTS = tuple(f"{__name__}.{part}" for part in ("adapters", "cli", "configs", "constraints"))

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(Path(__file__).parents[1])]) if name in cls.PARTS else None


sys.meta_path.append(_InClone)

_LAZY = {
    **dict.fromkeys(("GenerateConfig", "TrainConfig"), ".config"),
    "Run": ".report.run",
    **dict.fromkeys(("CallbackError", "ConfigError", "RunError"), ".errors"),
    "verbosity": ".track.verbosity",
    **dict.fromkeys(("Callback", "Training", "Validation"), ".training.callbacks"),
}


def teach(
    photographs: str | Path,
    class_word: str,
    model: str | Path | None = None,
    *,
    ask: Callable[[str], str] | None = None,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Run | None:
    """Teach a model what photographs show, and choose everything else: `dreambooth teach`.

    Args:
        photographs: a folder, or a zip of one.
        class_word: what they show, in a word or two: dog.
        model: the one that learns; left out, one that is on this machine, else Stable Diffusion 1.5 from the Hub.
        ask: asks a question and returns the answer; without it nothing is asked.
        say: told what is about to be done.
        settings: fields of `TrainConfig`; they win over what would be chosen.

    Returns:
        The run; None where the answer to `ask` was no.

    Raises:
        ConfigError, RunError: as `train`.
    """
    from .commands.teach import teach
    from .config.teach import TeachConfig

    given = {"instance_data_dir": str(photographs), "class_word": class_word, "yes": ask is None, **settings}
    if model is not None:
        given["pretrained_model_name_or_path"] = str(model)
    return teach(_configuration(TeachConfig, None, given), ask, say)


def train(
    config: TrainConfig | str | Path | None = None,
    *,
    callbacks: Sequence[Callback | UpdateFunction] = (),
    **settings: Unpack[TrainKeywords],
) -> Run:
    """Personalise a model: `dreambooth train`.

    Args:
        config: a configuration, a configuration file or a preset's name.
        callbacks: objects of classes of `Callback`, or functions, that are told of updates, validations, checkpoints
            and the end, and can stop the run.
        settings: fields of `TrainConfig`; they win over those of `config`.

    Returns:
        The run, finished or stopped: its folder, and what it measured.

    Raises:
        ConfigError: before any costly work, naming the setting or file that cannot be used and what would be right.
        RunError: the run had started and cannot go on; it says what is kept.
        CallbackError: one of those, of which a callback is the cause; the run has been saved.
    """
    from .config import TrainConfig
    from .training.loop import train

    return train(_configuration(TrainConfig, config, settings), callbacks)


def open_run(folder: str | Path) -> Run:
    """The run in a folder, whoever made it: the command line, another program, on another day; at work or ended.

    Raises:
        ConfigError: no such folder, or no run in it.
    """
    from .report.run import open_run

    return open_run(Path(folder).expanduser())


def generate(config: GenerateConfig | str | Path | None = None, **settings: Unpack[GenerateKeywords]) -> list[Path]:
    """Make images: `dreambooth generate`.  Arguments and errors as for `train`.

    Returns:
        The files written.
    """
    from .commands.generate import generate
    from .config import GenerateConfig

    return generate(_configuration(GenerateConfig, config, settings))


def launch(
    words: Sequence[str],
    *,
    backend: str | None = None,
    devices: Sequence[int] = (),
    num_processes: int | None = None,
    nnodes: int = 1,
    node_rank: int | None = None,
    rdzv_endpoint: str | None = None,
    rdzv_id: str = "dreambooth",
) -> int:
    """Run a command line, such as `["train", "--config", "sd15-lora", ...]`, on several devices: `dreambooth launch`.

    Args:
        backend: whose launcher starts the processes; may be left out where only one is installed.
        devices: one process runs on each.
        num_processes: on a CPU, or on the first so many devices.
        nnodes: machines of the run, on each of which this is called.
        node_rank: which of them this is, from 0.
        rdzv_endpoint: HOST:PORT of machine 0, which uses the next port too.
        rdzv_id: a name of the run, alike on all machines.

    Returns:
        The exit code: 0, or 128 + the signal that stopped the run.

    Raises:
        ConfigError, RunError: what the process that failed first says of itself.
    """
    from .backends.installed import choose_backend
    from .backends.launching import run_launched
    from .backends.machines import Machines

    machines = Machines.of(str(nnodes), node_rank, rdzv_endpoint)
    numbers = [str(d) for d in devices]
    return run_launched(
        choose_backend(backend), words, devices=numbers, processes=num_processes, machines=machines, rdzv_id=rdzv_id
    )


def data_report(config: DataConfig | str | Path | None = None, **settings: Unpack[DataKeywords]) -> DataReport:
    """What training would see of the photographs: `dreambooth data`.  Arguments as for `train`, and `sheet`.

    Raises:
        ConfigError: training would not start.
    """
    from .commands.data import report_data
    from .config.look import DataConfig

    return report_data(_configuration(DataConfig, config, settings))


def plan(config: TrainConfig | str | Path | None = None, **settings: Unpack[TrainKeywords]) -> Plan:
    """What a run would take of memory, stage by stage: `dreambooth plan`.  Arguments as for `train`.

    Raises:
        ConfigError: training would not start, for another reason than memory.
    """
    from .commands.plan import plan
    from .config import TrainConfig

    return plan(_configuration(TrainConfig, config, settings))


def evaluate(config: EvaluateConfig | str | Path | None = None, **settings: Unpack[EvaluateKeywords]) -> Evaluation:
    """Measure what was learned of a subject, on pictures of it: `dreambooth evaluate`.  Arguments as for `train`.

    Returns:
        The measures of each subject, and where the table, the figure and the pictures are.

    Raises:
        ConfigError: before a picture is made: a setting that cannot be used, or a judge whose weights cannot be had.
        RunError: the disk is full or cannot be written.
    """
    from .commands.evaluate import evaluate
    from .config.evaluate import EvaluateConfig

    return evaluate(_configuration(EvaluateConfig, config, settings))


def identifiers(
    config: IdentifiersConfig | str | Path | None = None, **settings: Unpack[IdentifiersKeywords]
) -> list[Identifier]:
    """Rare words to name a subject by, best first: `dreambooth identifiers`.  Arguments and errors as for `train`."""
    from .commands.identifiers import identifiers
    from .config.identifiers import IdentifiersConfig

    return identifiers(_configuration(IdentifiersConfig, config, settings))


def list_runs(*folders: str | Path, depth: int = 3) -> list[WatchedRun]:
    """The runs in folders, or in the working folder, and below: `dreambooth runs`.

    Args:
        depth: levels of sub-folders that are looked through.

    Returns:
        Those at work first, then the latest first.

    Raises:
        ConfigError: a folder that is not there.
    """
    from .runs.watching import find_runs

    return find_runs([Path(folder).expanduser() for folder in folders or (".",)], depth)


def run_report(run: str | Path = ".") -> list[Path]:
    """Make a run's report anew, and a finished run's card: `dreambooth report`.

    Args:
        run: its folder, or one with a single run at work below it.

    Returns:
        The files written, report.html first.

    Raises:
        ConfigError: no such run, or a file of that name is there that is none of a run's.
        RunError: its folder cannot be written.
    """
    from .commands.report import make_report

    return make_report(Path(run).expanduser())


def compare(*runs: str | Path, output: str | Path | None = None, evaluations: Sequence[str | Path] = ()) -> Comparison:
    """Runs beside each other: `dreambooth compare`.

    Args:
        runs: their folders, or folders with a single run at work below them; two or more.
        output: a page to write, or a folder that gets one under a free name; None: no page.
        evaluations: folders that `dreambooth evaluate` has made of them; those in a run's own folder are found.

    Returns:
        The settings that differ, what each run has measured, and what of it cannot be compared.

    Raises:
        ConfigError: no such run, one given twice, an evaluation of another, or the page's name is taken.
        RunError: the page cannot be written.
    """
    from .commands.compare import compare

    page = None if output is None else Path(output).expanduser()
    judged = [Path(folder).expanduser() for folder in evaluations]
    return compare([Path(run).expanduser() for run in runs], page, judged)


def stop(
    run: str | Path, *, timeout: float | None = None, say: Callable[[str], None] = lambda text: None
) -> WatchedRun:
    """Ask a run to stop once it has saved, and wait until it has: `dreambooth stop`.

    Args:
        run: its folder, or one with a single run at work below it.
        timeout: seconds to wait at most; the request stands.
        say: told what is waited for.

    Returns:
        The run as it has ended.

    Raises:
        ConfigError: no such run, or its process is gone.
        RunError: it has not stopped in that time, or it failed.
    """
    from .commands.runs import stop

    return stop(Path(run).expanduser(), timeout, say)


def sample(
    run: str | Path,
    prompt: str | None = None,
    *,
    timeout: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Have a run that trains make images now, and wait for them: `dreambooth sample`.  Training is not changed by it.

    Args:
        run: as for `stop`.
        prompt: their words; those of its validation where there are none.
        timeout: seconds to wait at most, after which the request is withdrawn.
        say: told what is waited for.

    Returns:
        The files, in the order of their seeds.

    Raises:
        ConfigError: no such run, it is not at work, or it has no validation prompt.
        RunError: the images could not be made, or not in that time.
    """
    from .commands.runs import sample

    return sample(Path(run).expanduser(), prompt, timeout, say)


def convert(config: ConvertConfig | str | Path | None = None, **settings: Unpack[ConvertKeywords]) -> Conversion:
    """Write a model or a LoRA in another form: `dreambooth convert`.  Arguments as for `train`.

    Returns:
        What was written, and what has no place in it.

    Raises:
        ConfigError: before anything is written, naming what cannot be used and what would be right.
        RunError: the disk is full or cannot be written; nothing is left under the target's name.
    """
    from .commands.convert import convert
    from .config.convert import ConvertConfig

    return convert(_configuration(ConvertConfig, config, settings))


def merge(config: MergeConfig | str | Path | None = None, **settings: Unpack[MergeKeywords]) -> Conversion:
    """Merge LoRAs into one, or into a model: `dreambooth convert merge`.  Arguments and errors as for `convert`."""
    from .commands.merge import merge
    from .config.convert import MergeConfig

    return merge(_configuration(MergeConfig, config, settings))


def resize(config: ResizeConfig | str | Path | None = None, **settings: Unpack[ResizeKeywords]) -> Conversion:
    """Bring a LoRA to another rank: `dreambooth convert resize`.  Arguments and errors as for `convert`."""
    from .commands.merge import resize
    from .config.convert import ResizeConfig

    return resize(_configuration(ResizeConfig, config, settings))


def extract(config: ExtractConfig | str | Path | None = None, **settings: Unpack[ExtractKeywords]) -> Conversion:
    """Make a LoRA of the difference of two models: `dreambooth convert extract`.  Arguments and errors as for
    `convert`."""
    from .commands.extract import extract
    from .config.convert import ExtractConfig

    return extract(_configuration(ExtractConfig, config, settings))


def configs() -> dict[str, str]:
    """The presets, and the trainers that `like` knows, each with a line about it: `dreambooth configs`."""
    from .config import preset_names
    from .config.compat import SYSTEMS
    from .config.presets import read_preset

    presets = {name: read_preset(name).about for name in preset_names()}
    return presets | {one.name: one.about for one in SYSTEMS.values()}


def stand_in(folder: str | Path, like: str | None = None) -> list[str]:
    """Put scripts in the place of another trainer's in `folder`, which run this library: `dreambooth stand-in`.

    Args:
        like: whose, where the folder has none of theirs.

    Returns:
        A line for each file.

    Raises:
        ConfigError: no such folder or trainer, or nothing there to stand in for.
    """
    from .commands.stand_in import stand_in

    return list(stand_in(Path(folder).expanduser(), like))


def doctor() -> Installation:
    """What is installed, on which devices, beside the versions that were tested: `dreambooth doctor`."""
    from .backends.installation import examine

    return examine()


_TAKE_SETTINGS = {
    "teach": ".config.teach:TeachConfig",
    **dict.fromkeys(("train", "plan"), ".config:TrainConfig"),
    "generate": ".config:GenerateConfig",
    "data_report": ".config.look:DataConfig",
    "evaluate": ".config.evaluate:EvaluateConfig",
    "identifiers": ".config.identifiers:IdentifiersConfig",
    **{name: f".config.convert:{name.title()}Config" for name in ("convert", "merge", "resize", "extract")},
}
_FUNCTIONS = {name: globals().pop(name) for name in _TAKE_SETTINGS}
"""The functions that take settings, which `__getattr__` gives their settings' names and help: what these are is known
once pydantic is loaded, and whoever asks for such a function is about to load it."""


def _configuration(cls: type[S], config: S | str | Path | None, settings: Mapping[str, Any]) -> S:
    """A checked configuration; a given one is checked anew, for pydantic's constructor alone does not check it."""
    from .config import load_config
    from .config.compat import meanings
    from .config.compat.meaning import TOKEN
    from .config.names import canonical_names

    if config is None or isinstance(config, str | Path):
        return load_config(cls, config, dict(settings))
    problems, notes = list[str](), config.notes
    settings = canonical_names(settings, cls.model_fields, problems, meanings(None, cls.COMMAND), notes)
    kept = {TOKEN: config.token} if config.token is not None else {}
    given = config.given() | kept | settings
    return cls.from_mapping(given, config.suggested - settings.keys(), problems, config.file, notes)


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        from .config.signatures import with_settings

        module, _, cls = _TAKE_SETTINGS[name].partition(":")
        config = getattr(importlib.import_module(module, __name__), cls)
        return globals().setdefault(name, with_settings(_FUNCTIONS[name], config))
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
