"""Which judge: by a name, a folder, or an id on the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ConfigError
from ..hub.client import is_repo_id
from ..hub.models import download
from .embedded import EmbeddedJudge
from .encoders import CONFIG, Encoder, read_encoder
from .judge import Judge, Picture
from .metrics import Embeddings, Scores, truth

TINYWORLD = "tinyworld"
PUBLISHED = {
    "dino": "facebook/dino-vits16",
    "clip": "openai/clip-vit-base-patch32",
    "dinov2": "facebook/dinov2-base",
}
"""Name -> where it is published: DINO ViT-S/16 and CLIP ViT-B/32, by which the paper measures, and DINOv2 ViT-B/14."""
PAPERS = ("dino", "clip")
SPACES = {"vit": "DINO", "dinov2": "DINOv2", "clip": "CLIP-I"}
"""An encoder's kind -> what likeness in its space is called."""
WORDS = "CLIP-T"


class EncoderJudge(Judge):
    """One or several published encoders."""

    about = (
        "DINO and CLIP-I are the mean cosine of the pictures' embeddings to the photographs', CLIP-T to their prompts' "
        "(arXiv 2208.12242, section 4.1); figures of other encoders' weights cannot be compared with the paper's."
    )

    def __init__(self, encoders: Mapping[str, Encoder]):
        self._encoders = dict(encoders)
        self._last: dict[str, tuple[list[Picture], Embeddings]] = {}
        self.likenesses = tuple(encoders)
        self.name = ", ".join(f"{space} by {one.source.partition(',')[0]}" for space, one in encoders.items())
        self.sources = {space: one.source for space, one in encoders.items()}

    def embed(self, likeness: str, pictures: Sequence[Picture]) -> Embeddings:
        seen, found = self._last.get(likeness, ([], None))  # CLIP's serve for their words, too
        if found is None or len(seen) != len(pictures) or any(a is not b for a, b in zip(seen, pictures, strict=True)):
            found = self._encoders[likeness].images(pictures)
            self._last[likeness] = list(pictures), found
        return found

    def follows(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> dict[str, Scores]:
        readers = [space for space, one in self._encoders.items() if one.read is not None]
        if not readers:
            return {}
        return {WORDS: truth(self.embed(readers[0], pictures), self._encoders[readers[0]].words(prompts))}


def usual(model: str | None) -> tuple[str, ...]:
    """The judges of a model's pictures where none are named: the embedded model's own, else the paper's two."""
    return (TINYWORLD,) if model == TINYWORLD else PAPERS


def open_judge(names: Sequence[str], cache: str | None = None) -> Judge:
    """The judge of these names: `tinyworld` alone, or encoders, each dino, clip, dinov2, a folder or an id on the Hub.

    Args:
        cache: folder for what is fetched, in place of the Hub's own.

    Raises:
        ConfigError: no such encoder, or its weights are not to be had; it names the folder or the repository, and how
            to get it.
    """
    if TINYWORLD in names:
        if len(names) > 1:
            raise ConfigError(f"judge: {', '.join(names)}: {TINYWORLD} judges alone; name it, or encoders")
        return EmbeddedJudge()
    found = dict[str, Encoder]()
    for name in names:
        encoder = read_encoder(_folder(name, cache), PUBLISHED.get(name, name))
        if (space := SPACES[encoder.kind]) in found:
            raise ConfigError(f"judge: {', '.join(names)}: two of them are {space}; name one of a kind")
        found[space] = encoder
    return EncoderJudge(found)


def _folder(name: str, cache: str | None) -> Path:
    path, repo = Path(name).expanduser(), PUBLISHED.get(name, name)
    if name not in PUBLISHED and path.is_dir():
        if not (path / CONFIG).is_file():
            raise ConfigError(f"judge: {path}: no {CONFIG} there; give the folder that an encoder was saved to")
        return path
    if not is_repo_id(repo) or path.exists():
        raise ConfigError(
            f"judge: {name}: no such folder; give {', '.join([TINYWORLD, *PUBLISHED])}, a folder, or an id on the Hub"
        )
    try:
        return download(repo, None, None, "judge", cache)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; where there is a network, `hf download {repo} --local-dir FOLDER`, then --judge FOLDER"
        ) from None
