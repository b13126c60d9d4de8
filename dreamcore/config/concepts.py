"""One subject among several: what the list `concepts` of a configuration file holds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ConfigError


class Concept(BaseModel):
    """One subject; its names mean what they mean among the settings of a run with a single one."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    instance_data_dir: str
    """Folder with the photographs of the subject."""
    instance_prompt: str | None = None
    """Words for the subject."""
    identifier: str | None = None
    """What {identifier} stands for."""
    class_word: str | None = None
    """What {class} stands for."""
    class_prompt: str | None = None
    """Words for the class; left out, the subject has no prior."""
    class_data_dir: str | None = None
    """Folder of class images."""
    weight: float = Field(1.0, gt=0)
    """How often a photograph of this concept is drawn, beside those of concepts of weight 1."""
    repeats: int = Field(1, ge=1)
    """Times that each photograph counts in an epoch."""

    def check(self, setting: str) -> None:
        """Raise ConfigError where something is given that nothing uses."""
        if self.class_data_dir is not None and self.class_prompt is None:
            raise ConfigError(f"{setting}.class_data_dir: has no use without class_prompt")
