"""What one does with a run: words that call the subject, commands to type, and what each of its files is for.

All of it comes from the run's folder, so that it holds for a run of yesterday, or one that was killed, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.files import read_config_file
from ..errors import ConfigError
from ..formats.embeddings import Embeddings
from ..formats.single_files import LAYOUTS
from ..hub.card import filled, instance_prompts
from ..hub.seal import is_card
from ..io.files import numbered
from ..io.names import (
    BEST,
    CONFIG,
    INDEX,
    LORA_FILE,
    MODEL_CARD,
    PADDLE_LORA_FILE,
    REPORT,
    REPORT_DATA,
    embeddings_name,
    lora_name,
)
from ..io.system import shell_line
from ..models.folder import ModelFolder
from .best import read as read_best
from .checkpoint import list_checkpoints
from .status import read_status

SINGLE_FILE = {layout.pipeline for layout in LAYOUTS}
"""Pipelines that have an original layout, in one file."""
REPEATED = ("backend", "device", "mixed_precision", "amp_level", "mode")
"""Settings of a run that decide where, and in how much memory, its model makes images, too."""


@dataclass(frozen=True)
class NextSteps:
    """What comes after a run.  Paths in it begin as the folder that was asked about does."""

    words: str | None
    """A prompt that calls the (first) subject; None where nobody knows one."""
    subjects: list[str]
    """Such a prompt of each subject."""
    finished: bool
    """Whether there is a finished model."""
    generate: str
    """The command that makes an image with what was trained; empty where there is nothing yet to make one with."""
    convert: str
    """The command that makes one file of a whole model, for ComfyUI and A1111's web UI; empty where there is none."""
    files: list[tuple[Path, str]]
    """Files and folders that are there, and what each is for."""
    report: Path
    go_on: str
    """The command that goes on with the run from its last checkpoint."""

    def in_words(self, *, stopped: bool) -> Iterator[str]:
        """What is said at the end of a run, in lines."""
        if stopped or not self.finished:
            yield f"to go on: {self.go_on}"
        else:
            yield from self._with_the_model()
        yield f"report: {self.report}"

    def _with_the_model(self) -> Iterator[str]:
        if self.subjects:
            yield f"words to use: {', '.join(map(repr, self.subjects))}"
        yield f"to make an image: {self.generate}"
        if self.convert:
            yield f"to make one file of it, for ComfyUI and others: {self.convert}"
        for file, use in self.files:
            if file.suffix == ".safetensors":
                yield f"{file}: {use}"


def next_steps(folder: Path, called: Path | None = None) -> NextSteps:
    """What comes after the run in a folder, finished or not; what cannot be read is left out.

    Args:
        called: the folder, as commands are to name it, where that is not how it is given here; a relative one holds in
            the working folder.
    """
    called = folder if called is None else called
    try:
        settings: Mapping[str, Any] = read_config_file(folder / CONFIG)
    except ConfigError:
        settings = {}
    subjects = _subjects(folder, settings)
    finished = any((folder / name).is_file() for name in (LORA_FILE, INDEX, embeddings_name(folder)))
    prompt = next(iter(subjects), None) or filled(settings, settings.get("validation_prompt")) or "a photo"
    model = _model(folder, called, settings)
    return NextSteps(
        words=next(iter(subjects), None),
        subjects=subjects,
        finished=finished,
        generate=shell_line(["dreambooth", "generate", *model, *_how(settings, prompt)]) if model else "",
        convert=_convert(folder, called),
        files=list(_files(folder, settings)),
        report=folder / REPORT,
        go_on=to_go_on(folder, called),
    )


def to_go_on(folder: Path, called: Path | None = None) -> str:
    """The command that goes on with a run, by as many processes as it had; arguments as for `next_steps`."""
    status = read_status(folder)
    launched = ["launch", "--num_processes", str(status.processes), "--"] if status and status.processes > 1 else []
    config = _typed((called or folder) / CONFIG)
    return shell_line(["dreambooth", *launched, "train", "--config", config, "--resume_from_checkpoint", "latest"])


def told(folder: Path) -> Mapping[str, Any]:
    """What a run has noted for its report (report_data.json).

    Raises:
        OSError, ValueError: it is not there, or is damaged.
    """
    content = json.loads((folder / REPORT_DATA).read_text(encoding="utf-8"))
    return content if isinstance(content, Mapping) else {}


def _subjects(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """The words of each subject: captions' first, which the configuration does not have, among them."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        if found := [str(words) for one in told(folder)["subjects"] if (words := one.get("words"))]:
            return list(dict.fromkeys(found))
    return instance_prompts(settings)


def _model(folder: Path, called: Path, settings: Mapping[str, Any]) -> list[str]:
    """The words of a command line that name what was trained."""
    if (folder / LORA_FILE).is_file() and not (folder / INDEX).is_file():
        return ["--lora", _typed(called)]
    if (folder / INDEX).is_file():
        if settings.get("skip_save_text_encoder"):
            base = str(settings.get("pretrained_model_name_or_path"))
            denoiser = "transformer" if (folder / "transformer").is_dir() else "unet"
            return ["--model", base, "--pretrained_unet_name_or_path", _typed(called / denoiser)]
        return ["--model", _typed(called), *_size(folder, settings)]
    if (folder / embeddings_name(folder)).is_file():
        return ["--embeddings", _typed(called)]
    for _, checkpoint in reversed(list_checkpoints(folder)):
        if (checkpoint / LORA_FILE).is_file():
            return ["--lora", _typed(called / checkpoint.name)]
    return []


def _size(folder: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """The size that was trained, where a whole model makes images of another one; of LoRA, the run itself says it."""
    side = settings.get("resolution")
    with suppress(ConfigError, KeyError, OSError):
        native = ModelFolder.open(str(folder)).native_resolution
        for name in ("height", "width"):
            if (trained := settings.get(name, side)) not in (None, native):
                yield from (f"--{name}", str(trained))


def _how(settings: Mapping[str, Any], prompt: str) -> Iterator[str]:
    """The prompt, and what the run's own images were made with where that is not what `generate` does by itself."""
    yield from (f"--prompt={prompt}",) if prompt.startswith("-") else ("--prompt", prompt)
    if words := settings.get("validation_negative_prompt"):
        yield from ("--negative_prompt", str(words))
    for own, theirs in (("validation_guidance_scale", "guidance_scale"), ("validation_scheduler", "scheduler")):
        if (value := settings.get(own)) is not None:
            yield from (f"--{theirs}", str(value))
    for name in REPEATED:
        if (value := settings.get(name)) not in (None, "no"):
            yield from (f"--{name}", str(value))
    for image in (settings.get("validation_images") or [])[:1]:
        yield from ("--image", str(image))


def _convert(folder: Path, called: Path) -> str:
    """How to make one file of a whole model."""
    with suppress(OSError, ValueError, AttributeError):
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        whole = all(value != [None, None] for name, value in index.items() if name.startswith("text_encoder"))
        if whole and index.get("_class_name") in SINGLE_FILE:
            beside = called / ".." if called.name in ("", "..") else called.parent
            return shell_line(["dreambooth", "convert", _typed(called), _typed(beside / lora_name(folder))])
    return ""


def _spelt(file: Path) -> str:
    """The tokens of each new word of a file."""
    with suppress(ConfigError, OSError, ValueError):
        return ", ".join(f"{word}: {''.join(tokens)}" for word, tokens in Embeddings.read(file).words.items())
    return "?"


def _files(folder: Path, settings: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    finished_model = (folder / INDEX).is_file() or (folder / LORA_FILE).is_file()
    if (folder / INDEX).is_file():
        library = "ppdiffusers" if settings.get("export_format") == "ppdiffusers" else "diffusers"
        yield (
            folder / INDEX,
            f"lists the parts of the finished model, which is the whole folder, for {library} and dreambooth",
        )
    elif (folder / LORA_FILE).is_file():
        yield folder / LORA_FILE, "the LoRA, for diffusers and dreambooth"
        if (named := folder / lora_name(folder)).is_file():
            yield named, "the same LoRA for ComfyUI, A1111's web UI, Forge and InvokeAI"
        if (paddle := folder / PADDLE_LORA_FILE).is_file():
            yield paddle, "the same LoRA for ppdiffusers"
    if (words := folder / embeddings_name(folder)).is_file():
        yield words, f"embeddings of the new words, which other programs spell {_spelt(words)}"
    elif not finished_model and (checkpoints := list_checkpoints(folder)):
        yield checkpoints[-1][1], "the last checkpoint, to go on training from"
    if (best := read_best(folder)) is not None:
        yield folder / BEST, f"the checkpoint of update {best.update}, kept because {best.words}"
    for card in numbered(folder / MODEL_CARD):
        if is_card(card):
            yield card, "a card: what was trained, its pictures, and how others load it"
        if not card.exists() or is_card(card):
            break
    if (folder / CONFIG).is_file():
        yield folder / CONFIG, "every setting; `dreambooth train --config` with it repeats the run"


def _typed(path: Path) -> str:
    """A path as an argument, which is taken for no flag and for nobody's home."""
    text = str(path)
    if text.startswith("~"):  # a path forgets the ./ that would help
        return str(path.absolute())
    return f".{os.sep}{text}" if text.startswith("-") else text
