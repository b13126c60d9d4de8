"""A run of `dreambooth train` that is ready for its first update, on photographs drawn here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any


def prepared(model: str | Path, resolution: int, scratch: Path, stack: ExitStack, *more: str) -> Any:
    """The run, on PyTorch.

    Args:
        scratch: where photographs and the run's folder come to lie.
        stack: ends it.
        more: settings as they are typed, beside those here or in place of them.
    """
    from dreamcore.cli.flags import parse_settings
    from dreamcore.config import TrainConfig, load_config
    from dreamcore.training.setup import prepare
    from tests.support.tiny import draw_photos

    words = [
        f"--pretrained_model_name_or_path={model}",
        f"--instance_data_dir={draw_photos(scratch / 'photos', size=resolution)}",
        "--instance_prompt=a photo of sks dog",
        f"--output_dir={scratch / 'run'}",
        f"--resolution={resolution}",
        "--center_crop",
        "--max_train_steps=100000",
        "--backend=torch",
        "--report_to=none",
    ]
    given = {_setting(word) for word in more}
    words = [*(word for word in words if _setting(word) not in given), *more]
    return prepare(load_config(TrainConfig, *parse_settings(TrainConfig, "train", "", words)), stack)


def _setting(word: str) -> str:
    return word.partition("=")[0].removeprefix("--").removeprefix("no_")
