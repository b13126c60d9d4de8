"""Results under the names that another trainer gives them, beside ours: what its users' own scripts look for.

They are second names of the same files where the disk has such (hard links), copies elsewhere, on record as all that a
run writes; what somebody else has put there under such a name stays, and ours gets a number.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..config.output import Layout
from ..errors import ConfigError
from ..io.files import numbered
from ..io.names import LOG
from .checkpoint import list_checkpoints
from .manifest import Manifest


@dataclass(frozen=True)
class Names:
    """Names in a layout, relative to the run's folder; empty where it has no such file.

    Args:
        image: of image `k` of the validation after update `step`.
        log: of the log.
        weights: of the weights after `epoch`, in MindSpore's container.
        network: beside a checkpoint's own files, the denoiser as PyTorch's pickle.
        dated: whether each run has a folder of its own, named by date and time, in the output folder.
    """

    image: str = ""
    log: str = ""
    weights: str = ""
    network: str = ""
    dated: bool = False

    @property
    def folders(self) -> list[str]:
        """Where it puts files, but for checkpoints' own folders."""
        return [name.partition("/")[0] for name in (self.image, self.weights) if name]


LAYOUTS: dict[Layout, Names] = {
    "dreambooth": Names(),
    "colossalai": Names(network="diffusion_pytorch_model.bin"),
    "structured-lora": Names("validation_images/step_{step}_{k}.png", "log.log", dated=True),
    "mindone-sd2": Names(weights="ckpt/rank_0/sd-{epoch}.ckpt"),
    "mindone": Names("logs/validation/step{step}/{k}.png"),
}


def also_images(run: Path, manifest: Manifest, names: Names, step: int, files: Sequence[Path]) -> None:
    """Give a validation's images their second names."""
    if names.image:
        for k, file in enumerate(files):
            _also(run, manifest, file, names.image.format(step=step, k=k))


def also_log(run: Path, manifest: Manifest, names: Names) -> None:
    """Give the log its second name, anew where it is a copy."""
    if names.log and (run / LOG).is_file():
        _also(run, manifest, run / LOG, names.log)


def _also(run: Path, manifest: Manifest, file: Path, name: str) -> None:
    place = free_place(run, manifest, name)
    if place.exists() and place.samefile(file):
        return
    place.unlink(missing_ok=True)
    try:
        os.link(file, place)
    except OSError:  # a disk without second names
        shutil.copyfile(file, place)


def place_of(run: Path, manifest: Manifest, name: str) -> Path:
    """Where a file of that name goes: over one that a run has written, and never over another."""

    def ours(place: Path) -> bool:
        return place.relative_to(run).as_posix() in manifest.files

    return next(place for place in numbered(run / name) if ours(place) or not os.path.lexists(place))


def free_place(run: Path, manifest: Manifest, name: str) -> Path:
    """`place_of`, on record and with its folder."""
    place = place_of(run, manifest, name)
    manifest.own([place.relative_to(run).as_posix()])
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def output_folder(name: str, layout: Layout, resume: str | None) -> Path:
    """The run's folder: the one that is named, or in a dated layout a new one in it; to go on, the newest there.

    All processes of a run agree: the time is that of the launcher which started them.

    Raises:
        ConfigError: there is none to go on with.
    """
    folder = Path(name).expanduser()
    if not LAYOUTS[layout].dated:
        return folder
    if resume is not None:
        runs = sorted(f for f in folder.glob("[0-9]*_[0-9]*") if list_checkpoints(f))
        if not runs:
            raise ConfigError(f"resume_from_checkpoint: {folder}: no run with a checkpoint there to go on with")
        return runs[-1]
    several = any(int(os.environ.get(n, "1") or 1) > 1 for n in ("WORLD_SIZE", "PADDLE_TRAINERS_NUM", "MS_WORKER_NUM"))
    started = psutil.Process(os.getppid()).create_time() if several else time.time()
    made = folder / time.strftime("%Y%m%d_%H%M%S", time.localtime(started))
    return made if several else next(free for free in numbered(made) if not free.exists())
