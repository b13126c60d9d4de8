"""Runs beside each other: the settings that differ, what they measured, which pictures come from the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..hub.card import filled
from .collect import RunData, collect
from .elements import flat
from .evaluations import Evaluated, evaluations
from .facts import final_loss

OF_THE_FOLDER = ("output_dir", "logging_dir", "hub_model_id")
"""Settings that say where a run lies, and nothing of how it trains."""
_PICTURES = {
    "validation_prompt": "the prompts",
    "validation_negative_prompt": "the negative prompts",
    "validation_scheduler": "the samplers",
    "validation_num_inference_steps": "the samplers' steps",
    "validation_guidance_scale": "the strengths of guidance",
    "validation_images": "the images that they begin with",
    "pretrained_model_name_or_path": "the base models",
    "resolution": "the sizes",
    "height": "the heights",
    "width": "the widths",
    "backend": "the backends",
}
"""Settings that decide what a picture of a given seed is, before anything is trained -> what to call them."""
_HELD_OUT = {
    "validation_data_dir": "the held-out photographs",
    "validation_share": "the shares held out",
    "instance_data_dir": "the photographs",
    "seed": "the seeds",
    "pretrained_model_name_or_path": "the base models",
    "resolution": "the sizes",
}
"""What decides which photographs are held out, and at which noise they are judged."""


@dataclass(frozen=True)
class Compared:
    """One of the runs."""

    place: int
    """Among them, from 0."""
    name: str
    folder: Path
    data: RunData = field(repr=False)
    evaluated: Evaluated | None = None
    """What `dreambooth evaluate` has found of it."""

    @property
    def letter(self) -> str:
        """What the page calls it where its name is too long: A ... Z, then 27, 28 ..."""
        return chr(ord("A") + self.place) if self.place < 26 else str(self.place + 1)

    @property
    def last(self) -> int | None:
        """The update of its last pictures; None without any."""
        return max(self.data.samples, default=None)

    def seed(self, number: int) -> int | None:
        """The seed of its picture of that number, from 0; None where it is not known."""
        first = self.data.config.get("seed", 0)
        return first + number if isinstance(first, int) and "validation_images" not in self.data.config else None

    def as_dict(self) -> dict[str, Any]:
        """Its numbers and files, for JSON."""
        data = self.data
        return {
            "letter": self.letter,
            "name": self.name,
            "folder": str(self.folder),
            "state": data.state,
            "updates": data.updates,
            "seed": data.config.get("seed"),
            "loss": final_loss(data),
            "validation": [dict(record) for record in data.validation],
            "judge": data.judge or None,
            "best": asdict(data.best) if data.best else None,
            "scores": dict(data.scores),
            "evaluation": _evaluation(self.evaluated) if self.evaluated else None,
            "pictures": {str(step): [str(file) for file in files.values()] for step, files in data.samples.items()},
        }


def _evaluation(found: Evaluated) -> dict[str, Any]:
    return {
        "folder": str(found.folder),
        "judge": found.judge[0],
        "measures": {name: asdict(score) for name, score in found.scores.items()},
    }


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other, in the order in which they were named."""

    runs: list[Compared]
    differs: dict[str, list[Any]]
    """Setting -> its value in each run, None where it does not act there; only those that are not alike in all."""
    warnings: list[str]
    """What of the runs cannot be compared, and why."""
    page: Path | None = None
    """Where it was written, with curves and pictures."""

    @property
    def measures(self) -> list[str]:
        """What the runs have measured along the way: `validation_loss`, and scores where they were evaluated."""
        return list(dict.fromkeys(name for run in self.runs for name in run.data.measures))

    @property
    def evaluated(self) -> list[str]:
        """What `dreambooth evaluate` has measured of any of the runs."""
        return list(dict.fromkeys(name for run in self.runs if run.evaluated for name in run.evaluated.scores))

    @property
    def scores(self) -> list[str]:
        """Names of what the runs' own pictures were judged by once they had ended."""
        return list(dict.fromkeys(name for run in self.runs for name, _ in flat(run.data.scores)))

    def as_dict(self) -> dict[str, Any]:
        """All of it but curves of the training loss, for JSON."""
        return {
            "format": 1,
            "runs": [run.as_dict() for run in self.runs],
            "differs": self.differs,
            "warnings": self.warnings,
            "same_seeds": [
                {"seed": seed, "pictures": [str(file) if file else None for file in files]}
                for seed, files in same_seeds(self.runs)
            ],
        }


def compare_runs(folders: Sequence[Path], judged: Sequence[Path] = ()) -> Comparison:
    """Read runs, finished or not; what is missing or damaged in one is left out.

    Args:
        judged: folders of evaluations of them.

    Raises:
        ConfigError: one of those is none, or of another run.
    """
    parts = zip(_names(folders), folders, evaluations(folders, judged), strict=True)
    found = [Compared(place, name, folder, collect(folder), one) for place, (name, folder, one) in enumerate(parts)]
    return Comparison(found, _differing([run.data.config for run in found]), list(_warnings(found)))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of their paths as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def _differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for config in configs for name in config if name not in OF_THE_FOLDER)
    values = {name: [config.get(name) for config in configs] for name in names}
    return {name: row for name, row in values.items() if any(one != row[0] for one in row)}


def _warnings(runs: Sequence[Compared]) -> list[str]:
    warnings = [f"{run.letter}: {problem}" for run in runs for problem in run.data.problems]
    if any(run.data.samples for run in runs):
        looked = [run for run in runs if run.data.samples]
        if differ := _unlike(looked, _PICTURES):
            warnings.append(
                f"{differ}: the pictures of one seed would not be alike even before training; what differs between "
                "them is not the training's doing alone"
            )
        if len({run.data.config.get("seed") for run in looked}) > 1:
            shared = len(same_seeds(looked))
            also = f"{shared} of the pictures' seeds are in all runs" if shared else "no picture's seed is in all runs"
            warnings.append(f"the seeds differ ({_each(looked, 'seed')}): {also}")
        if len({run.last for run in looked}) > 1:
            updates = "; ".join(f"{run.letter}: {run.last:,}" for run in looked)
            warnings.append(f"the last pictures are of different updates ({updates})")
    measured = [run for run in runs if run.data.held_out]
    if len(measured) > 1 and (differ := _unlike(measured, _HELD_OUT)):
        warnings.append(f"{differ}: losses on held-out photographs cannot be compared")
    if len(judges := {run.data.judge for run in runs if run.data.judge}) > 1:
        warnings.append(f"the judges differ ({', '.join(sorted(judges))}): their scores cannot be compared")
    evaluated = [run.evaluated for run in runs if run.evaluated]
    for what, values in (("judges", [e.judge for e in evaluated]), ("pictures", [e.made for e in evaluated])):
        if any(value != values[0] for value in values):
            of = " (prompts, seeds or samplers)" if what == "pictures" else ""
            warnings.append(f"the evaluations' {what} differ{of}: their scores cannot be compared")
    return warnings


def _unlike(runs: Sequence[Compared], settings: Mapping[str, str]) -> str:
    """What differs of these settings, in words; empty where nothing does."""
    found = []
    for name, words in settings.items():
        values = [filled(run.data.config, v) if "prompt" in name else v for run in runs for v in [_value(run, name)]]
        if any(value != values[0] for value in values):
            found.append(f"{words} differ ({_each(runs, name)})")
    return "; ".join(found)


def _value(run: Compared, name: str) -> Any:
    return run.data.status.backend if name == "backend" and run.data.status else run.data.config.get(name)


def _each(runs: Sequence[Compared], name: str) -> str:
    return "; ".join(f"{run.letter}: {shown(_value(run, name))}" for run in runs)


def shown(value: Any) -> str:
    """A setting's value in few characters; one that is not given, or does not act, is a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {shown(one)}" for name, one in value.items() if one is not None)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def same_seeds(
    runs: Sequence[Compared], step: Callable[[Compared], int | None] = lambda run: run.last
) -> list[tuple[int | None, list[Path | None]]]:
    """The pictures that runs made of the same seed: (seed, a file of each run, None where that has no pictures).

    Args:
        step: of which update a run's pictures are; its last ones.

    Returns:
        Those seeds that all runs with pictures have.  Where pictures begin with images, or a run does not tell its
        seed, the pictures' places in their row stand for it, and the seed is None.
    """
    pictures = [(run, run.data.samples.get(at, {}) if (at := step(run)) is not None else {}) for run in runs]
    looked = [(run, files) for run, files in pictures if files]
    by_seed = all(run.seed(0) is not None for run, _ in looked)

    def keys(run: Compared, files: Mapping[int, Path]) -> dict[int, Path]:
        first = run.seed(0) if by_seed else None
        return {(first or 0) + number: file for number, file in files.items()}

    known = [keys(run, files) for run, files in pictures]
    common = set.intersection(*(set(one) for one in known if one)) if looked else set[int]()
    return [(key if by_seed else None, [one.get(key) for one in known]) for key in sorted(common)]
