"""The base of all configurations: strict, frozen, and alike whether flags, a file or Python brought the values.

The library's rule is that no setting is silently ignored: `used.py` says when each one acts.
"""

from __future__ import annotations

import numbers
import reprlib
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ..errors import ConfigError
from .compat import meanings
from .compat.meaning import TOKEN
from .names import canonical_names, unknown_names


def setting(
    default: Any = ...,
    *,
    may_change: bool = False,
    may_be_empty: bool = False,
    example: Any = None,
    **constraints: Any,
) -> Any:
    """A field.

    Args:
        may_change: a resumed run may give it another value (see `checkpoint.check_resumable`).
        may_be_empty: empty text means something, as it does for a prompt; to a path it is a variable that was not set.
        example: a value, for help and documents, where none follows from its type (see `describe.example`).
    """
    extra: dict[str, Any] = {"may_change": may_change, "may_be_empty": may_be_empty, "example": example}
    return Field(default, json_schema_extra=extra, **constraints)


class Strict(BaseModel):
    """What settings and concepts share: strict fields, and one meaning of a value wherever it was written."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=False, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """A value as every source gives it: words for words, a list for commas; neither empty, nor a bare switch."""
        assert info.field_name is not None
        field = cls.model_fields[info.field_name]
        kinds = kinds_of(field.annotation)
        value = _plain(value, is_path=info.field_name.endswith(PATHS))
        if isinstance(value, bool) and bool not in kinds:
            raise ValueError(f"needs a value; received {value}")  # pydantic would take `rank: true` for rank 1
        if str in kinds and isinstance(value, int | float):
            value = getattr(value, "text", str(value))  # `identifier: 010` of a YAML file, as --identifier 010
        several = any(typing.get_origin(of) is list and typing.get_args(of)[0] in (str, int, float) for of in kinds)
        if several:
            value = listed(value, is_path=info.field_name.endswith(PATHS))
        empty = (several and value == []) or (isinstance(value, str) and not value.strip())
        if empty and not (field.json_schema_extra or {}).get("may_be_empty"):  # type: ignore[union-attr]
            raise ValueError("is empty (was a variable not set?); give a value, or leave it out")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                _check_text(text)
                if info.field_name.endswith(PATHS):
                    _check_path(text)
        return value


class Settings(Strict):
    """Base class; subclasses add fields, each with a docstring that is also the command line's help."""

    COMMAND: ClassVar[str] = "train"
    """Which of another trainer's commands has the same names."""
    WORDS: ClassVar[tuple[str, ...]] = ()
    """Settings that the first words of a command line give, without their flags."""
    GROUP: ClassVar[str] = ""
    """What the settings that a class brings are called together: `--help GROUP`."""
    ESSENTIAL: ClassVar[tuple[str, ...]] = ()
    """The settings that `--help` shows, in that order; without any, it shows them all."""
    LOOKS_AT: ClassVar[frozenset[str] | None] = None
    """The settings that make a difference to the command, which takes the others too: help has these.  None: all."""

    @classmethod
    def from_mapping(
        cls,
        values: Mapping[str, Any],
        suggested: Collection[str] = (),
        problems: Sequence[str] = (),
        file: Path | None = None,
        notes: Sequence[str] = (),
    ) -> Self:
        """Validate `values`; the names that diffusers' scripts have besides are understood.

        Args:
            suggested: names whose values come from a preset and not from the user, who need not use them all.
            problems: what is wrong already, to be said together with the rest.
            file: that they were read from.
            notes: to be said at the start.

        Raises:
            ConfigError: naming each setting, the value received and what would be right.
        """
        found, said = list(problems), list(notes)
        given = canonical_names(values, cls.model_fields, found, meanings(None, cls.COMMAND), said)
        given = unknown_names(given, cls.model_fields, found)
        token = given.pop(TOKEN, None)
        taken, note = cls.completion({n: _plain(v, is_path=n.endswith(PATHS)) for n, v in given.items()})
        config, wrong = cls._validated(given | taken)
        found += wrong
        if found or config is None:
            raise ConfigError("\n".join(dict.fromkeys(found)))
        overruled = {name: given.get(name) for name in taken}
        said += [note] if note is not None else []
        config.__dict__.update(
            _suggested=frozenset(suggested), _notes=list(dict.fromkeys(said)), _overruled=overruled, _file=file
        )
        config.__dict__["_token"] = token
        return config

    @classmethod
    def _validated(cls, values: Mapping[str, Any]) -> tuple[Self | None, list[str]]:
        """The configuration, and all that is wrong with it: values, and what they contradict."""
        wrong, bad = list[str](), set[str]()
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            wrong = [cls._explain(e) for e in error.errors()]
            bad = {str(e["loc"][0]) for e in error.errors() if e["loc"]}
            if any(len(e["loc"]) > 1 for e in error.errors()):  # a list, without which nothing else can be judged
                return None, wrong
            required = {name: "?" for name in bad if name in cls.model_fields and cls.model_fields[name].is_required()}
            try:
                config = cls.model_validate({n: v for n, v in values.items() if n not in bad} | required)
            except ValidationError:
                return None, wrong
        # What is contradicted by a value that is wrong anyway is for when that has been mended.
        return config, wrong + [text for text in config.contradictions() if not any(name in text for name in bad)]

    @classmethod
    def completion(cls, given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Settings that `given` ones bring with them, and a line that says so; overridden where there are any."""
        return {}, None

    def contradictions(self) -> Iterator[str]:
        """What is wrong with the settings taken together; overridden by each configuration."""
        return iter(())

    @classmethod
    def missing(cls, name: str) -> str:
        """What is said of a setting that is required and was not given."""
        return f"{name}: required, but not given"

    def given(self) -> dict[str, Any]:
        """The settings that the user gave, by flag or file; not what `completion` brought."""
        overruled = self.__dict__.get("_overruled", {})
        given = {name: self.__dict__[name] for name in type(self).model_fields if name in self.model_fields_set}
        kept = {name: value for name, value in overruled.items() if value is not None}
        return {name: value for name, value in given.items() if name not in overruled} | kept

    @property
    def suggested(self) -> frozenset[str]:
        """The settings whose values a preset suggested."""
        return frozenset(self.__dict__.get("_suggested", ()))

    def suggest(self, values: Mapping[str, Any]) -> Self:
        """The settings with values that nobody gave, of the right types: given as a preset would."""
        made = self.model_copy(update=dict(values))
        made.__dict__["_suggested"] = self.suggested | values.keys()
        return made

    def with_reasons(self, reasons: Mapping[str, str]) -> Self:
        """The settings with why each has its value, which the run's configuration file will say."""
        made = self.model_copy()
        made.__dict__["_reasons"] = dict(reasons)
        return made

    @property
    def reasons(self) -> Mapping[str, str]:
        """Setting -> why it has its value, where that was chosen for the user."""
        reasons: Mapping[str, str] = self.__dict__.get("_reasons", {})
        return reasons

    @property
    def file(self) -> Path | None:
        """The configuration file, where there was one."""
        return self.__dict__.get("_file")

    @property
    def notes(self) -> list[str]:
        """What is to be said at the start: defaults that another trainer's names bring, and what `completion` did."""
        return list(self.__dict__.get("_notes", ()))

    @property
    def token(self) -> str | None:
        """The Hub's token where one was given among the settings, of which it is none: it is written nowhere."""
        return self.__dict__.get("_token")

    @classmethod
    def _explain(cls, error: Any) -> str:
        name = ".".join(str(part) for part in error["loc"]) or "configuration"
        if error["type"] == "missing":
            return cls.missing(name)
        if error["type"] == "value_error":
            return f"{name}: {error['msg'].removeprefix('Value error, ')}"
        return f"{name}: {error['msg'][0].lower()}{error['msg'][1:]}; received {shown(error['input'])}"


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation admits, None left out."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    members = typing.get_args(annotation) if union else (annotation,)
    return tuple(kind for kind in members if kind is not types.NoneType)


def _plain(value: Any, *, is_path: bool) -> Any:
    """What a program gives, as a file would: a path as text, NumPy's numbers as Python's, any sequence as a list."""
    if isinstance(value, tuple | list):
        return [_plain(one, is_path=is_path) for one in value]
    if is_path and isinstance(value, PurePath):
        return str(value)
    if isinstance(value, numbers.Real) and not isinstance(value, int | float):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return value


def listed(value: Any, *, is_path: bool) -> Any:
    """A value of a setting that takes several: text in which commas part them, or a single one; a file that is there
    may have commas in its name."""
    if not isinstance(value, str):
        return [value] if isinstance(value, int | float) else value
    if is_path and "," in value:
        with suppress(OSError, RuntimeError, ValueError):  # no path at all, as its own check says
            if Path(value).expanduser().exists():
                return [value]
    return [part.strip() for part in value.split(",") if part.strip()]


PATHS = (
    *("_dir", "_name_or_path", "_file", "lora", "grid", "sheet", "dataset_name", "resume_from_checkpoint"),
    *("original_config", "tokenizer_name", "source", "target", "base", "validation_images", "image"),
)
"""Endings of the names of settings that may name a file or folder."""


def _check_path(text: str) -> None:
    """Refuse what the system cannot even look for: a name too long, a stranger's home, a folder that is closed."""
    try:
        Path(text).expanduser().exists()
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot be looked for: {why.rstrip('.').lower()}; received {shown(text)}") from None


def _check_text(text: str) -> None:
    """Refuse text that no file name and no file can hold."""
    if "\0" in text:
        raise ValueError(f"holds a zero byte: {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"is no text in UTF-8: {shown(text)}") from None


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 300
_SHORT.maxlist = _SHORT.maxdict = 12


def shown(value: Any) -> str:
    """A value for a message: whole where it is short."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number too long to show"
