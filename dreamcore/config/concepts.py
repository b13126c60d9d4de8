"""One subject among several: what the list `concepts` of a configuration file holds."""

from __future__ import annotations

from collections.abc import Iterator

from .base import Strict, setting
from .places import place_in


class Concept(Strict):
    """One subject; its names mean what they mean among the settings of a run with a single one."""

    instance_data_dir: str | None = None
    """Folder with the photographs of the subject, or a .zip of one."""
    dataset_name: str | None = None
    """Dataset with the photographs, in place of the folder."""
    dataset_config_name: str | None = None
    """Configuration of the dataset."""
    instance_prompt: str | None = setting(None, may_be_empty=True)
    """Words for the subject."""
    identifier: str | None = None
    """What {identifier} stands for."""
    class_word: str | None = None
    """What {class} stands for."""
    class_prompt: str | None = setting(None, may_be_empty=True)
    """Words for the class; left out, the subject has no prior."""
    class_data_dir: str | None = None
    """Folder of class images, or a .zip with enough of them."""
    weight: float = setting(1.0, gt=0)
    """How often a photograph of this concept is drawn, beside those of concepts of weight 1."""
    repeats: int = setting(1, ge=1)
    """Times that each photograph counts in an epoch."""
    validation_data_dir: str | None = None
    """Folder of photographs of this subject that are held out of training, or a .zip of one."""

    @property
    def source(self) -> tuple[str, str]:
        """The setting that names the photographs, and what it says."""
        if self.dataset_name is not None:
            return "dataset_name", self.dataset_name
        assert self.instance_data_dir is not None, "`contradictions` asks for one of them"
        return "instance_data_dir", self.instance_data_dir

    def contradictions(self, prefix: str = "") -> Iterator[str]:
        """Whether the photographs are not named once, or something is given that nothing uses.

        Args:
            prefix: put before the settings' names in messages.
        """
        if self.instance_data_dir is None and self.dataset_name is None:
            yield f"{prefix}instance_data_dir: required, but not given (or dataset_name)"
        if self.instance_data_dir is not None and self.dataset_name is not None:
            yield f"{prefix}dataset_name: given together with instance_data_dir; give one or the other"
        if self.dataset_config_name is not None and self.dataset_name is None:
            yield f"{prefix}dataset_config_name: has no use without dataset_name"
        if wrong := place_in(f"{prefix}class_prompt", self.class_prompt, ("class",)):
            yield wrong
        if self.class_data_dir is not None and self.class_prompt is None:
            yield f"{prefix}class_data_dir: has no use without class_prompt"
