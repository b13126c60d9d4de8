"""The base of all configurations: strict, frozen, and aware of which settings were read.

The library's rule is that no setting is silently ignored.  Rather than a list of conditions kept by hand, the
configuration records every field that the run reads.  Before the first update `refuse_unread` names each setting that
the user gave and nothing used: `--lora_alpha` without `--use_lora`, a flag that a backend does not have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ..errors import ConfigError
from .names import canonical_names


def setting(default: Any = ..., *, may_change: bool = False, **constraints: Any) -> Any:
    """A field; `may_change` says that a resumed run may give it another value (see `checkpoint.check_resumable`)."""
    return Field(default, json_schema_extra={"may_change": may_change}, **constraints)


class Settings(BaseModel):
    """Base class; subclasses add fields, each with a docstring that is also the command line's help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=False, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _a_switch_is_no_value(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `rank: true`, which would be read as rank 1."""
        assert info.field_name is not None
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError(f"needs a value; received {value}")
        return value

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_") and name in type(self).model_fields:
            super().__getattribute__("__dict__").setdefault("_read", set()).add(name)
        return value

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], suggested: Collection[str] = (), file: Path | None = None) -> Self:
        """Validate `values`; aliases of other trainers' names are understood.

        Args:
            suggested: names whose values come from a preset and not from the user, who need not use them all.
            file: that they were read from.

        Raises:
            ConfigError: naming each setting, the value received and what would be right.
        """
        try:
            config = cls.model_validate(canonical_names(values, cls.model_fields))
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(e) for e in error.errors())) from None
        config.check()
        config.__dict__.update(_read=set(), _suggested=frozenset(suggested), _file=file)
        return config

    def check(self) -> None:
        """Raise ConfigError where settings contradict each other; overridden by each configuration."""

    def given(self) -> dict[str, Any]:
        """The settings that the user gave, by flag or file."""
        return {name: self.__dict__[name] for name in type(self).model_fields if name in self.model_fields_set}

    @property
    def suggested(self) -> frozenset[str]:
        """The settings whose values a preset suggested."""
        return frozenset(self.__dict__.get("_suggested", ()))

    @property
    def file(self) -> Path | None:
        """The configuration file, where there was one."""
        found: Path | None = self.__dict__.get("_file")
        return found

    def resolved(self) -> dict[str, Any]:
        """The settings that the run read, with their values: what the run folder's configuration holds."""
        read = self.__dict__.get("_read", set())
        return {
            name: value for name, value in self.model_dump(mode="json").items() if name in read and value is not None
        }

    def refuse_unread(self, why: str) -> None:
        """Raise ConfigError naming every setting that was given and that nothing has read."""
        read = self.__dict__.get("_read", set())
        given = {name for name, value in self.given().items() if value is not None} - self.suggested
        unread = [name for name in type(self).model_fields if name in given - read]
        if unread:
            listing = ", ".join(f"{name}={self.__dict__[name]!r}" for name in unread)
            raise ConfigError(f"{listing}: given, but nothing in this run uses it ({why}). Remove it.")


def _explain(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "configuration"
    if error["type"] == "missing":
        return f"{name}: required, but not given"
    if error["type"] == "value_error":
        return f"{name}: {error['msg'].removeprefix('Value error, ')}"
    return f"{name}: {error['msg'][0].lower()}{error['msg'][1:]}; received {error['input']!r}"
