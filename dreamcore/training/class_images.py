"""Class images for prior preservation: which are there, which are missing, and making those.

Each generated image is a PNG made from its own seed.  `class_images.json` in their folder says which prompt, model
and seed made it; its entry is written before the image, so that an interruption leaves no image without one.  Images
that it does not name are the user's own, and count; images of another prompt, model or sampling are named in the log
and left alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.protocol import World
from ..data import WHITE, Colour, ImageFolder, find_images, storage
from ..errors import ConfigError
from ..io.files import explain_disk_errors, write_atomically
from ..io.images import png_bytes
from ..io.locks import held
from ..io.names import CLASS_IMAGES
from ..io.progress import progress
from .sharing import Sharing

HALF_WRITTEN = re.compile(r"\.(\d{5,}-[0-9a-f]{10}\.png|class_images\.json)\.\d+\.tmp")
"""What a run that was killed while it wrote leaves of an image or the manifest (`files.write_atomically`)."""
Make = Callable[[Sequence[int]], NDArray[np.uint8]]
"""Images [N, H, W, 3] for N seeds."""


@dataclass(frozen=True)
class ClassImages:
    """A folder of class images.

    Args:
        folder: created when first needed; or a zip, whose images are the user's own, and to which none can be added.
        recipe: what made an image besides its seed: prompt, model, sampler, steps, guidance, size.
        background: what shows through where an image of the user's is transparent.
    """

    folder: Path
    recipe: Mapping[str, Any]
    background: Colour = WHITE

    def usable(self, own: Sequence[str]) -> list[str]:
        """Names of the images to train on: of the names in `own` (all images in the folder) those that are the user's
        or of this recipe."""
        manifest = self.manifest()
        return [name for name in own if name not in manifest or self._fits(name, manifest[name])]

    def manifest(self) -> dict[str, dict[str, Any]]:
        """Recipe and seed of each generated image, by name."""
        file = self.folder / CLASS_IMAGES
        if not file.exists():
            return {}
        try:
            return dict(json.loads(file.read_text(encoding="utf-8"))["images"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"class_data_dir: {file}: damaged ({error}); mend it, or remove it with its images"
            ) from None

    def missing_seeds(self, names: Sequence[str], wanted: int) -> list[int]:
        """The lowest seeds whose images are not among `names`, as many as the folder is short of `wanted`."""
        short = wanted - len(self.usable(names))
        there = set(names)
        seeds = (seed for seed in range(wanted + len(there)) if self._name(seed) not in there)
        return [seed for _, seed in zip(range(short), seeds, strict=False)]

    def make(
        self, seeds: Sequence[int], make: Make, batch_size: int, sharing: Sharing, done: Callable[[int], None]
    ) -> None:
        """Generate the images of `seeds`, shared out over the ranks of this folder; each is on the disk before the next
        batch.

        A batch is always the same stretch of seeds, whichever of them are missing: how many images are made at a
        time changes their last bits, and an interrupted run must end with the same images as one that was not.
        """
        with explain_disk_errors(f"writing class images to {self.folder}"):
            manifest = self.manifest()
            manifest |= {self._name(seed): {**self.recipe, "seed": seed} for seed in seeds}
            if sharing.leads and seeds:
                write_atomically(self.folder / CLASS_IMAGES, json.dumps({"images": manifest}, indent=1))
            sharing.world.barrier()
            end = 1 + max((entry["seed"] for name, entry in manifest.items() if self._fits(name, entry)), default=0)
            stretches = sorted({seed // batch_size for seed in seeds})
            missing, made = set(seeds), 0
            for stretch in sharing.part_of(stretches):
                batch = range(stretch * batch_size, min(end, (stretch + 1) * batch_size))
                for seed, picture in zip(batch, make(batch), strict=True):
                    if seed in missing:
                        write_atomically(self.folder / self._name(seed), png_bytes(picture))
                        made += 1
                done(min(len(seeds), made * len(sharing.ranks)))
            sharing.world.barrier()
        sharing.until_seen(self.folder, [self._name(seed) for seed in seeds])

    def complete(
        self, wanted: int, make: Make, batch_size: int, world: World, say: Callable[[str], None]
    ) -> ImageFolder:
        """Generate what is missing of `wanted` images, and open those to train on.

        Args:
            make: images for seeds; called on every rank, for different seeds.
            say: told what is made, and which images are left alone.
        """
        if self.zipped:
            return self._whole().limited(wanted)
        self.folder.mkdir(parents=True, exist_ok=True)
        sharing = Sharing.of(self.folder, world)
        alone = held(self.folder, lambda: say(f"waiting: another run is filling {self.folder}"))
        with alone if sharing.leads else nullcontext():
            if sharing.leads:
                for left in self.folder.glob(".*.tmp"):
                    if HALF_WRITTEN.fullmatch(left.name):
                        left.unlink()
            here, anywhere = sharing.agree(self.missing_seeds(self._names(), wanted) if sharing.leads else [], wanted)
            if anywhere:
                say(f"generating {len(here)} class images into {self.folder}")
                with progress("generating class images", len(here)) as step:
                    self.make(here, make, batch_size, sharing, step.reached)
        folder = self._whole()
        usable = set(self.usable([p.path.name for p in folder.photos]))
        strangers = [p.path.name for p in folder.photos if p.path.name not in usable]
        if strangers:
            some = ", ".join(strangers[:3]) + (" …" if len(strangers) > 3 else "")
            say(f"{len(strangers)} images in {self.folder} are of another prompt, model or sampler, left alone: {some}")
        chosen = [p for p in folder.photos if p.path.name in usable]
        return folder.part(chosen).limited(wanted)

    @property
    def zipped(self) -> bool:
        """Whether the images are in a zip."""
        return storage.in_zip(self.folder) is not None

    def require(self, wanted: int) -> None:
        """Refuse images of the user's that cannot be read, and a zip that holds fewer than are wanted.

        Raises:
            ConfigError: naming the file, or the zip and the setting.
        """
        if self.folder.suffix.lower() == ".zip" and not self.folder.exists():
            raise ConfigError(f"class_data_dir: {self.folder} does not exist; expected a zip of images, or a folder")
        if self.zipped or (self.folder.exists() and self._names()):
            there = len(self._whole().photos)
            if self.zipped and there < wanted:
                raise ConfigError(
                    f"class_data_dir: {self.folder}: holds {there} images of num_class_images = {wanted}, and a zip is "
                    f"not added to; unpack it and name the folder, or give --num_class_images {there}"
                )

    def _whole(self) -> ImageFolder:
        """Every image that is there."""
        return ImageFolder.open(self.folder, setting="class_data_dir", background=self.background)

    def _names(self) -> list[str]:
        return [path.name for path in find_images(self.folder, "class_data_dir")[0]]

    def _name(self, seed: int) -> str:
        digest = hashlib.sha256(json.dumps(dict(self.recipe), sort_keys=True).encode()).hexdigest()
        return f"{seed:05}-{digest[:10]}.png"

    def _fits(self, name: str, entry: Mapping[str, Any]) -> bool:
        return all(entry.get(key) == value for key, value in self.recipe.items()) and name == self._name(entry["seed"])
