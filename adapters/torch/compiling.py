"""What `torch.compile` needs besides PyTorch: looked for before anything costly, and not in the first update."""

from __future__ import annotations

import os
import shutil

import torch

from dreamcore.errors import ConfigError


def check_compiler(device: torch.device) -> None:
    """Refuse to compile without a compiler: C++ for a CPU; C for a card, whose kernels' launchers are written in it.

    Raises:
        ConfigError: there is none.
    """
    variable, names = ("CC", ("gcc", "clang", "cc")) if device.type == "cuda" else ("CXX", ("g++", "clang++", "cl"))
    given = os.environ.get(variable)
    if not any(shutil.which(name) for name in ([given] if given else names)):
        what = f"{variable}={given} is not there" if given else f"{', '.join(names)} are not there"
        raise ConfigError(
            f"compile: needs a compiler of C{'' if variable == 'CC' else '++'} for {device.type}, and {what}; install "
            f"one, let the environment variable {variable} name it, or leave compile out"
        )
