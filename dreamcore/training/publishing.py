"""A finished run on the Hugging Face Hub (`push_to_hub`): checked before training, done when all is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..config import TrainConfig
from ..config.files import read_config_file
from ..hub.card import model_card
from ..hub.push import check_access, push
from ..hub.selection import last_samples
from ..io.names import CONFIG, lora_name
from ..report.card import learned_words


def check_publishing(config: TrainConfig, folder: Path) -> None:
    """Make sure, on the main process, that the model can be published once it is there.

    Raises:
        ConfigError: as `hub.push.check_access`.
    """
    if config.push_to_hub:
        check_access(folder, config.hub_model_id, private=config.hub_private_repo)


def publish(config: TrainConfig, folder: Path, pipeline: str, updates: int, say: Callable[[str], None]) -> None:
    """Publish the finished model in `folder`, on the main process; what its run has written down is the card's source.

    Args:
        pipeline: class name in the base model's index.
        updates: that the run made.

    Raises:
        PushError: it is not published; nothing is lost, and the same command with `latest` repeats it.
    """
    if not config.push_to_hub:
        return
    settings, samples = read_config_file(folder / CONFIG), last_samples(folder, updates)
    name = lora_name(folder)
    other_lora = name if settings.get("use_lora") and (folder / name).is_file() else None
    push(
        folder,
        config.hub_model_id,
        private=config.hub_private_repo,
        card=lambda repository: model_card(
            repository, pipeline, settings, samples, updates, other_lora, learned=learned_words(folder)
        ),
        say=say,
        updates=updates,
        again="give the command again with --resume_from_checkpoint latest",
    )
