"""What `dreambooth convert`, `merge`, `resize` and `extract` share: what they answer, which form a target gets, and
settings that cannot act."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..config.convert import ReadingSettings, WritingSettings
from ..errors import ConfigError
from ..io.files import AGAIN, explain_disk_errors
from ..io.names import LORA_FILE, ONE_FILE, PADDLE_LORA_FILE
from ..io.targets import new_file, new_folder, refuse_taken
from ..models.folder import ModelFolder
from ..models.lora_forms import FORMS, file_name, readers

FOLDERS = ("diffusers", "paddle")
"""Forms of a model that are folders."""
LISTED = 3
"""Names of a group that are all said."""
MODEL_FORMS = {
    "diffusers": "a folder in diffusers' layout",
    "paddle": "a folder in Paddle's layout",
    "original": "one file in the original layout",
    "mindone": "MindONE's checkpoint",
}
ENDINGS = {"diffusers": "", "paddle": "", "original": ".safetensors", "mindone": ".ckpt"}
"""Form of a model -> ending of its name; a folder has any."""
OF_MODELS = {
    "variant": "on a model's folder",
    "original_config": "on a model in one file",
    "sd_version": "on a model in one file",
}


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    target: Path
    form: str
    """What it is, in words."""
    left_out: tuple[str, ...] = ()
    """Tensors and files of the source that have no place in the target."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Layer -> relative error (Frobenius) that another rank costs, or 0."""
    notes: tuple[str, ...] = ()

    def in_words(self) -> list[str]:
        """Lines for the console."""
        lines = [f"{self.target}: {self.form}"]
        if self.errors:
            values = list(self.errors.values())
            worst = max(self.errors, key=lambda name: self.errors[name])
            lines.append(
                f"relative error of a layer's weights (Frobenius): mean {sum(values) / len(values):.2%}, worst "
                f"{self.errors[worst]:.2%} ({worst})"
            )
        lines += self.notes
        if self.left_out:
            lines.append(f"left out: {'; '.join(grouped(self.left_out))}")
        return lines


def grouped(names: Sequence[str]) -> list[str]:
    """Names by what they have in common, which is what stands before a number, with how many there are.

    >>> grouped(["logit_scale", *(f"layers.23.{name}" for name in "abcd"), "ema.x"])
    ['ema.x', 'layers.23.* (4)', 'logit_scale']
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        parts = name.replace("/", "/\0").replace(".", ".\0").split("\0")
        depth = next((i for i, part in enumerate(parts) if part.rstrip(".").isdecimal()), None)
        beginning = "".join(parts[: depth + 1]) if depth is not None else parts[0] if len(parts) > 1 else name
        groups.setdefault(beginning, []).append(name)
    listed = ([f"{start}* ({len(many)})"] if len(many) > LISTED else many for start, many in groups.items())
    return [name for names in listed for name in names]


def refuse_given(config: WritingSettings, names: Mapping[str, str]) -> None:
    """Refuse settings that were given and cannot act.

    Args:
        names: each with where it acts, after "acts only".

    Raises:
        ConfigError: naming all of them.
    """
    given = config.given()
    wrong = [
        f"{name}={given[name]}: acts only {where}; remove it"
        for name, where in names.items()
        if given.get(name) not in (None, type(config).model_fields[name].default)
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))


def model_form(to: str | None, target: Path) -> str:
    """The form that a model gets: the one asked for, or that of the target's ending.

    Raises:
        ConfigError: a form of LoRA alone, or one that contradicts the ending.
    """
    endings = {ending: form for form, ending in reversed(ENDINGS.items()) if ending}
    form = to or endings.get(target.suffix, "diffusers")
    if form not in MODEL_FORMS:
        raise ConfigError(f"to: {form} is a form of LoRA; a model becomes one of {', '.join(MODEL_FORMS)}")
    wanted = ENDINGS[form]
    if wanted and target.suffix != wanted:
        raise ConfigError(f"target: {target}: {MODEL_FORMS[form]} ends in {wanted}")
    if not wanted and target.suffix in ONE_FILE:
        raise ConfigError(f"target: {target}: {MODEL_FORMS[form]} is a folder; its name ends in {target.suffix}")
    return form


@contextmanager
def writing(target: Path, form: str) -> Iterator[Path]:
    """A place to write to that becomes the target, folder or file; the disk's complaints in words."""
    folder = form in FOLDERS and target.suffix not in ONE_FILE
    refuse_taken(target, "target", folder=folder)
    with explain_disk_errors(f"writing {target}", AGAIN), (new_folder if folder else new_file)(target) as part:
        yield part


def open_model(name: str, config: ReadingSettings) -> ModelFolder:
    """A model that a setting names, as a folder."""
    if not Path(name).expanduser().is_file():
        return ModelFolder.open(name, variant=config.variant)
    described = {"original_config": config.original_config, "version": config.sd_version}
    return ModelFolder.open(name, **described, allow_pickle=config.allow_pickle)


def refuse_idle_reading(config: WritingSettings, *models: str) -> None:
    """Refuse settings about models' folders where all are files, and about files where all are folders.

    Raises:
        ConfigError: naming them.
    """
    files = [Path(name).expanduser().is_file() for name in models]
    of_folders = {"variant"} if all(files) else set()
    of_files = OF_MODELS.keys() - {"variant"} if not any(files) else set()
    refuse_given(config, {name: words for name, words in OF_MODELS.items() if name in of_folders | of_files})


def lora_form(to: str | None, target: Path, usual: str | None) -> str:
    """The form that a LoRA gets: the one asked for, or MindONE's for .ckpt, else `usual`.

    Raises:
        ConfigError: none, a form of models alone, or one that contradicts the ending.
    """
    folder = target.suffix not in ONE_FILE
    form = to or ("mindone" if target.suffix == ".ckpt" else "diffusers" if folder else usual)
    if form is None:
        raise ConfigError(f"to: give the form of {target.name}: {', '.join(FORMS)}")
    if form not in FORMS:
        raise ConfigError(f"to: {form} is a form of models; a LoRA becomes one of {', '.join(FORMS)}")
    wanted = ".ckpt" if form == "mindone" else ".safetensors"
    if target.suffix != wanted and not (folder and form in FOLDERS):
        raise ConfigError(f"target: {target}: a LoRA in the form of {form} is a file that ends in {wanted}")
    return form


@contextmanager
def writing_lora(target: Path, form: str) -> Iterator[Path]:
    """A file to write a LoRA to, which becomes the target, or lies in the folder that does."""
    with writing(target, form) as part:
        yield part / file_name(form) if part.is_dir() else part


def found_by(target: Path, form: str, model: ModelFolder | None, *, allow_pickle: bool) -> tuple[str, ...]:
    """A line about which programs find the layers of a LoRA that was written, where it is known for what model."""
    if model is None or form not in ("diffusers", "peft", "kohya"):
        return ()
    file = target / file_name(form) if target.is_dir() else target
    return (readers(file, model, allow_pickle=allow_pickle),)


def lora_file(setting: str, name: str) -> Path:
    """The LoRA file that a setting names, or that a folder holds.

    Raises:
        ConfigError: there is none.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        path = next((path / file for file in (LORA_FILE, PADDLE_LORA_FILE) if (path / file).is_file()), path)
    if not path.is_file() or path.suffix not in ONE_FILE:
        raise ConfigError(
            f"{setting}: {name}: no LoRA there; expected a .safetensors file or a folder with {LORA_FILE}"
        )
    return path
