"""What a model has learned of its subject, measured: `dreambooth evaluate`.

By the protocol of DreamBooth (2208.12242, section 4.1): some pictures of each of 25 prompts, from fixed seeds, beside
photographs of the subject, and pictures of its class.  Judges and photographs are looked at first: whatever cannot be
had is said before a picture is made.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..config import GenerateConfig
from ..config.evaluate import MAKING, SAMPLING, EvaluateConfig
from ..config.places import filled
from ..errors import ConfigError
from ..evaluation import Judge, Picture, Subject, SubjectScores, open_judge, score
from ..evaluation.embedded import EmbeddedJudge
from ..evaluation.figure import Pair, Part, figure
from ..evaluation.metrics import confusion
from ..evaluation.opening import TINYWORLD, usual
from ..evaluation.prompts import LIVING, prompts
from ..evaluation.scores import DIVERSITY, Distance
from ..evaluation.table import table
from ..io.files import AGAIN, explain_disk_errors, free_name, usable_folder, write_new
from ..io.images import png_bytes
from ..io.names import EVALUATION, EVALUATION_FIGURE, EVALUATION_TABLE
from ..io.text import NotUTF8, read_text
from ..track import Console, shows_progress
from .generate import generate
from .judged import Judged, Made, Source, find_source, read_picture

PICTURES, PROMPTS = "pictures", "prompts.txt"
PROTOCOL = "arXiv 2208.12242, section 4.1"
ABOUT_DIVERSITY = f"{DIVERSITY}: mean over prompts and pairs of pictures of one prompt of "
APART = {
    True: "LPIPS (AlexNet), the paper's distance.",
    False: "1 - cos of the embeddings by which {space} is measured; the paper's distance is LPIPS.",
}
"""Whether LPIPS measures -> what is said of DIV."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured; files of it lie in `folder`."""

    folder: Path
    content: Mapping[str, Any]
    """As evaluation.json has it."""

    @property
    def measures(self) -> dict[str, dict[str, float]]:
        """Subject -> measure -> value."""
        return {
            one["name"]: {name: said["value"] for name, said in one["measures"].items()}
            for one in self.content["subjects"]
        }

    @property
    def files(self) -> list[Path]:
        """The table, its numbers and the figure."""
        return [self.folder / name for name in (EVALUATION_TABLE, EVALUATION, EVALUATION_FIGURE)]

    def __str__(self) -> str:
        return table(self.content)


@shows_progress
def evaluate(config: EvaluateConfig) -> Evaluation:
    """Make pictures by the protocol, or take those that are there; judge them; write the table and the figure.

    Raises:
        ConfigError: before anything is made: no such run, photographs or words; or no judge is to be had, with how to
            get it.
        RunError: the disk is full or cannot be written.
    """
    console = Console()
    for note in config.notes:
        console.message(note)
    source = find_source(config, lambda text: None)
    if source.generate is None:
        _refuse_making(config)
    judge = open_judge(config.judge or usual(source.model), config.cache_dir)
    folder = _new_folder(config)
    if source.generate is not None:
        source = replace(source, subjects=_made(config, source, folder))
    judged = [_open(one) for one in source.subjects]
    apart = None if isinstance(judge, EmbeddedJudge) else _lpips()
    scores = [score(judge, one, apart) for one in judged]
    content = _content(config, source, judge, scores, folder)
    content["about_diversity"] = ABOUT_DIVERSITY + APART[apart is not None].format(space=judge.likenesses[0])
    with explain_disk_errors(f"writing {folder}", AGAIN):
        write_new([folder / EVALUATION_TABLE], table(content) + "\n")
        write_new([folder / EVALUATION_FIGURE], png_bytes(np.asarray(_figure(judge, source, judged, scores))))
        write_new([folder / EVALUATION], json.dumps(content, indent=1, ensure_ascii=False))
    return Evaluation(folder, content)


def _refuse_making(config: EvaluateConfig) -> None:
    if given := [name for name in config.given() if name in MAKING]:
        raise ConfigError(f"{given[0]}: {config.source} holds pictures, and none are made; leave it out")


def _new_folder(config: EvaluateConfig) -> Path:
    folder = Path(config.output_dir).expanduser()
    if folder.is_dir() and any(folder.iterdir()):
        folder = free_name(folder)
    usable_folder(folder, "output_dir")
    return folder


# -- pictures


def _made(config: EvaluateConfig, source: Source, folder: Path) -> list[Judged]:
    """The subjects with their pictures, which are made for it: all at once, so that the model is loaded once."""
    assert source.generate is not None
    asked = [_prompts(config, one, source.model) for one in source.subjects]
    of_class = [_class_lines(config, one) for one in source.subjects]
    lines = [line for of_one in (*asked, *of_class) for line in of_one]
    with explain_disk_errors(f"writing {folder}", AGAIN):
        file = write_new([folder / PROMPTS], "".join(f"{line}\n" for line in lines))
    shared = {*GenerateConfig.model_fields} & {*EvaluateConfig.model_fields} - {"output_dir", "prompt_file"}
    given = {name: value for name, value in config.given().items() if name in shared}
    sampling = {name: getattr(config, name) for name in SAMPLING if getattr(config, name) is not None}
    more = {"prompt_file": str(file), "output_dir": str(folder / PICTURES), "contact_sheet": False}
    files = iter(generate(GenerateConfig.from_mapping(given | sampling | more | dict(source.generate))))

    def taken(prompts: Sequence[str], first: Sequence[int]) -> Made:
        pairs = [
            (prompt, seed + k) for prompt, seed in zip(prompts, first, strict=True) for k in range(config.num_images)
        ]
        return Made([next(files) for _ in pairs], [prompt for prompt, _ in pairs], [seed for _, seed in pairs])

    made = [taken(some, [config.seed] * len(some)) for some in asked]
    some_class = [
        taken([one.class_prompt] * len(some), [config.seed + k * config.num_images for k in range(len(some))])
        for one, some in zip(source.subjects, of_class, strict=True)
    ]
    return [
        replace(one, made=of_one, made_of_class=others if others.files else None)
        for one, of_one, others in zip(source.subjects, made, some_class, strict=True)
    ]


def _class_lines(config: EvaluateConfig, one: Judged) -> list[str]:
    """As many lines as make `num_class_images` pictures or a few more, each with seeds of its own."""
    count = -(-config.num_class_images // config.num_images)
    return [f"{one.class_prompt} --d {config.seed + k * config.num_images}" for k in range(count)]


def _prompts(config: EvaluateConfig, one: Judged, model: str | None) -> list[str]:
    if config.prompt_file is None:
        usual_one = "live" if one.class_word.split()[-1].lower() in LIVING else "objects"
        protocol = config.protocol or (TINYWORLD if model == TINYWORLD else usual_one)
        return prompts(protocol, one.identifier, one.class_word)
    try:
        lines = read_text(Path(config.prompt_file).expanduser()).splitlines()
    except (OSError, NotUTF8) as error:
        raise ConfigError(f"prompt_file: {config.prompt_file}: {error}") from None
    words = {"identifier": one.identifier, "class": one.class_word}
    found = [filled(line.strip(), words) for line in lines if line.strip()]
    if not found:
        raise ConfigError(f"prompt_file: {config.prompt_file}: holds no prompt; write one a line")
    return found


# -- judging


def _lpips() -> Distance | None:
    """LPIPS, where its package is installed, which is PyTorch's; it is imported only then."""
    if find_spec("lpips") is None or find_spec("torch") is None:
        return None
    found: Distance | None = importlib.import_module("dreamcore.adapters.torch.perceptual").open_lpips()
    return found


def _open(one: Judged) -> Subject:
    assert one.made is not None
    of_class = one.made_of_class
    like = one.held_out or one.trained_on
    return Subject(
        one.name,
        _read(one.made.files),
        one.made.prompts,
        like.pictures,
        _read(of_class.files) if of_class else (),
        of_class.prompts if of_class else (),
        one.identifier,
        one.trained_on.pictures,
    )


def _read(files: Sequence[Path]) -> list[Picture]:
    return [read_picture(file) for file in files]


def _content(
    config: EvaluateConfig, source: Source, judge: Judge, scores: Sequence[SubjectScores], folder: Path
) -> dict[str, Any]:
    """Everything that evaluation.json holds."""
    about = {name: getattr(judge, name) for name in ("name", "about", "threshold")}
    content: dict[str, Any] = {
        "source": config.source,
        "model": source.model,
        "protocol": PROTOCOL,
        "settings": {name: getattr(config, name) for name in SAMPLING} if source.generate is not None else {},
        "judge": about | {"sources": dict(judge.sources)},
        "subjects": [_of_subject(one, found, folder) for one, found in zip(source.subjects, scores, strict=True)],
    }
    if len(scores) > 1:
        spaces = ([one.embeddings[name] for one in scores] for name in ("pictures", "photographs"))
        content["confusion"] = [[round(float(share), 6) for share in row] for row in confusion(*spaces)]
    return content


def _of_subject(one: Judged, found: SubjectScores, folder: Path) -> dict[str, Any]:
    assert one.made is not None
    pictures = _listed(one.made, folder)
    for n, row in enumerate(pictures):
        values = {name: float(each[n]) for name, each in found.pictures.items()}
        row["scores"] = {name: round(value, 6) for name, value in values.items() if not np.isnan(value)}
        row["nearest"] = _resolved(one.trained_on.names[found.nearest[0][n]])
        row["nearness"] = round(float(found.nearest[1][n]), 6)
    return {
        "name": one.name,
        "identifier": one.identifier,
        "class_word": one.class_word,
        "class_prompt": one.class_prompt,
        "measures": {name: measure.as_dict() for name, measure in found.measures.items()},
        "photographs": [_resolved(name) for name in one.trained_on.names],
        "held_out": [_resolved(name) for name in one.held_out.names] if one.held_out else [],
        "pictures": pictures,
        "class_pictures": _listed(one.made_of_class, folder) if one.made_of_class else [],
    }


def _listed(made: Made, folder: Path) -> list[dict[str, Any]]:
    """Pictures with what is known of them; files by their names from the evaluation's folder on, if in it."""
    files = [f.relative_to(folder).as_posix() if f.is_relative_to(folder) else str(f.resolve()) for f in made.files]
    unknown = [None] * len(files)
    return [
        {"file": file, "prompt": prompt, "seed": seed}
        for file, prompt, seed in zip(files, made.prompts or unknown, made.seeds or unknown, strict=True)
    ]


def _resolved(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def _figure(judge: Judge, source: Source, judged: Sequence[Subject], scores: Sequence[SubjectScores]) -> Image.Image:
    """The first picture of each prompt beside its nearest photograph; of pictures without prompts the first 24."""
    parts, first = [], judge.likenesses[0]
    for one, subject, found in zip(source.subjects, judged, scores, strict=True):
        shown = {prompt: n for n, prompt in reversed(list(enumerate(subject.prompts)))}
        chosen = sorted(shown.values()) if shown else list(range(len(subject.pictures)))[:24]
        pairs = []
        for n in chosen:
            which, near = found.nearest[0][n], float(found.nearest[1][n])
            words = subject.prompts[n] if subject.prompts else Path(one.made.files[n]).name if one.made else ""
            said = f"{first} {found.pictures[first][n]:.2f}; to the photograph beside it {near:.2f}"
            by_heart = found.alike is not None and near > found.alike
            pairs.append(Pair(subject.pictures[n], one.trained_on.pictures[which], words, said, by_heart))
        values = ", ".join(f"{name} {measure.value:.3f}" for name, measure in found.measures.items())
        parts.append(Part(one.name, values, pairs))
    note = "Right: the photograph that the picture is most like. Red: nearer to it than any two photographs are."
    return figure(parts, note)
