"""Every setting of every command, and how settings are read from files and flags."""

from __future__ import annotations

from .base import Settings
from .files import preset_names, read_config_file
from .generate import GenerateConfig
from .loading import load_config
from .train import TrainConfig

__all__ = ["GenerateConfig", "Settings", "TrainConfig", "load_config", "preset_names", "read_config_file"]
