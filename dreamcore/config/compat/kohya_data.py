"""Photographs of sd-scripts: folders named REPEATS_WORDS, or subsets of a `dataset_config`, as concepts.

Alike: a photograph counts as often in an epoch as its folder's repeats say, and its caption file wins over the folder's
words.  Other than there:

- Each sample brings a class image of its own, so an update of `train_batch_size` n sees n photographs and n class
  images; there n are drawn from both together, class images repeated until they are as many.  An epoch is therefore
  half as many updates here.  Repeats of class images mean nothing here.
- Class images are trained with their folder's words; of several folders each takes as many images as the smallest has.
- A caption is the whole file; there its first line.
- What is no property of a photograph (size, flips, batch) is one setting for all of them.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...io.text import read_text
from .kohya_names import NAMES
from .kohya_parts import DEFAULTS, Values
from .kohya_values import number
from .meaning import Refused, Settings, switch

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl")
CAPTIONS = (".txt", ".caption")
OURS = ("instance_data_dir", "dataset_name", "concepts", "instance_prompt", "class_prompt", "class_data_dir", "repeats")
SUBSET = ("image_dir", "class_tokens", "num_repeats", "is_reg")
OF_CAPTIONS = ("shuffle_tags", "keep_tags", "caption_dropout", "caption_extension")
"""What class images, which have no captions, do not ask for."""
SIZES = ("resolution", "width", "height")


@dataclass
class Subset:
    """A folder of photographs, or of class images."""

    folder: Path
    words: str | None
    repeats: int
    classes: bool
    settings: dict[str, Any] = field(default_factory=dict)
    """What it asks for, which all must have in common."""

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise Refused(f"{self.folder}: no such folder; expected one with images")
        self.names = sorted(entry.name for entry in os.scandir(self.folder) if not entry.name.startswith("."))
        self.images = [name for name in self.names if Path(name).suffix.lower() in IMAGES]

    def captioned(self, ending: str) -> bool:
        """Whether some image has a caption file of that ending."""
        stems = {Path(name).stem for name in self.images}
        return any(name.endswith(ending) and name.removesuffix(ending) in stems for name in self.names)


def photographs(values: Values) -> None:
    """The concepts, their class images and their captions."""
    train, classes, config = (values.pop(n, None) for n in ("train_data_dir", "reg_data_dir", "dataset_config"))
    repeats = int(number("dataset_repeats", values.pop("dataset_repeats", 1)))
    given = next((name for name in OURS if values.get(name) is not None), None)
    if config is not None:
        if given or train is not None or classes is not None:
            also = given or ("train_data_dir" if train is not None else "reg_data_dir")
            raise Refused(f"dataset_config: given together with {also}; give one or the other")
        subsets = _of_config(Path(str(config)).expanduser(), values, repeats)
    elif train is not None:
        if given:
            raise Refused(f"train_data_dir: given together with {given}; give one or the other")
        subsets = _of_folders("train_data_dir", train, False)
        subsets += _of_folders("reg_data_dir", classes, True) if classes is not None else []
    else:
        for name in ("caption_extension", "caption_prefix", "caption_suffix"):
            if values.pop(name, None):
                raise Refused(f"{name}: has no use without train_data_dir or dataset_config; give one of them")
        if classes is not None:
            raise Refused("reg_data_dir: has no use without train_data_dir; give both")
        return
    _words(values, subsets)
    _concepts(values, [one for one in subsets if not one.classes], [one for one in subsets if one.classes])


def _of_folders(setting: str, name: Any, classes: bool) -> list[Subset]:
    """The sub-folders named REPEATS_WORDS; others are none of it."""
    folder, found = Path(str(name)).expanduser(), []
    example = "1_dog" if classes else "10_sks dog"
    if not folder.is_dir():
        raise Refused(f"{setting}: {folder}: no such folder; expected one with sub-folders such as {example!r}")
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        repeats, _, words = path.name.partition("_")
        if repeats.isdecimal() and int(repeats) > 0:
            found.append(Subset(path, words, int(repeats), classes))
    if not found:
        raise Refused(
            f"{setting}: {folder}: has no sub-folder named REPEATS_WORDS, such as {example!r}; move the images into one"
        )
    return found


def _of_config(file: Path, values: Values, repeats: int) -> list[Subset]:
    """The subsets of a file; `values` receives what they have in common, which wins over flags, as it does there."""
    try:
        text = read_text(file)
        read = json.loads(text) if file.suffix.lower() == ".json" else tomllib.loads(text)
        general, found = {"num_repeats": repeats, **read.get("general", {})}, []
        for dataset in read["datasets"]:
            common = {**general, **{n: v for n, v in dataset.items() if n != "subsets"}}
            found += [_subset({**common, **subset}) for subset in dataset["subsets"]]
    except OSError as error:
        raise Refused(f"dataset_config: {file}: {error.strerror or error}") from None
    except Refused as error:
        raise Refused(f"dataset_config: {file}: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Refused(f"dataset_config: {file}: expected [[datasets]] with [[datasets.subsets]] ({error})") from None
    found = [one for one in found if one.repeats > 0]
    if not any(not one.classes for one in found):
        raise Refused(f"dataset_config: {file}: names no photographs; expected a subset without is_reg")
    if any(set(SIZES) & one.settings.keys() for one in found):
        for name in SIZES:
            values.pop(name, None)
    _together(file, values, found)
    return found


def _subset(options: Mapping[str, Any]) -> Subset:
    if options.get("metadata_file") is not None:
        raise Refused("metadata_file: captions are read from NAME.txt beside each photograph; write them there")
    if "image_dir" not in options:
        raise Refused("image_dir: missing in a subset")
    settings: dict[str, Any] = {}
    for name, value in options.items():
        if name not in SUBSET:
            settings |= _option(name, value)
    classes = switch(options.get("is_reg", False))
    if classes:
        settings = {name: value for name, value in settings.items() if name not in OF_CAPTIONS}
    words = options.get("class_tokens")
    folder = Path(str(options["image_dir"])).expanduser()
    return Subset(folder, words if words is None else str(words), int(options["num_repeats"]), classes, settings)


def _option(name: str, value: Any) -> Settings:
    """What an option of a data set or subset makes: its flag's settings."""
    if name == "batch_size":
        return {"train_batch_size": value}
    if name == "network_multiplier":
        if float(value) != 1:
            raise Refused("network_multiplier: LoRA counts alike for all photographs; leave it out")
        return {}
    if name == "custom_attributes":  # for their users' own programs
        return {}
    if name not in NAMES:
        raise Refused(f"{name}: no option of a data set that is known here; leave it out")
    try:
        return NAMES[name].read(value)
    except Refused as error:
        raise Refused(f"{name}: {error}") from None


def _together(file: Path, values: Values, subsets: Sequence[Subset]) -> None:
    """Put what all subsets have into `values`; where one says nothing, the flag or its default stands."""
    shuffled = [values.get("shuffle_tags", False), *(one.settings.get("shuffle_tags", False) for one in subsets)]
    for name in dict.fromkeys(name for one in subsets for name in one.settings):
        if name == "keep_tags" and not any(map(switch, shuffled)):
            continue
        base = values.get(name, DEFAULTS.get(name))
        asking = [one for one in subsets if not (one.classes and name in OF_CAPTIONS)]
        said = {_plain(one.settings.get(name, base)): one for one in asking}
        if len(said) > 1:
            (first, one), (second, other) = list(said.items())[:2]
            raise Refused(
                f"dataset_config: {file}: {name} is {first} for {one.folder} and {second} for {other.folder}; give one "
                "value, as it is one setting for all photographs here"
            )
        values[name] = next(one.settings[name] for one in subsets if name in one.settings)


def _plain(value: Any) -> str:
    """A value to compare, whoever wrote it."""
    return "off" if str(value).lower() in ("none", "", "false", "0", "0.0") else str(value)


def _words(values: Values, subsets: Sequence[Subset]) -> None:
    """Captions where files of the ending that was given lie, and what stands before and behind all words."""
    ending = str(values.pop("caption_extension", ".caption"))
    before, behind = (str(values.pop(f"caption_{where}", None) or "") for where in ("prefix", "suffix"))
    captioned = [one for one in subsets if one.captioned(ending)]
    if captioned and ending not in CAPTIONS:
        raise Refused(f"caption_extension: {ending}: captions are read from .txt and .caption; rename them")
    shuffled = switch(values.get("shuffle_tags", False))
    for one in subsets if captioned else ():
        if one.classes and one in captioned:
            raise Refused(
                f"{one.folder}: class images are trained with their folder's words; move the {ending} files away"
            )
        other = next(end for end in CAPTIONS if end != ending)
        if not one.classes and one.captioned(other):
            raise Refused(
                f"{one.folder}: holds {other} files too, which caption_extension {ending} leaves out; move them away"
            )
    if captioned:
        values.setdefault("use_captions", True)
        values.setdefault("caption_source", "files")
    else:
        if shuffled and any("," in (one.words or "") for one in subsets):
            raise Refused(
                "shuffle_caption: the folder's words hold commas, and only captions are shuffled; leave it out"
            )
        for name in ("shuffle_tags", "keep_tags"):
            values.pop(name, None)
    if (before or behind) and captioned:
        if shuffled:
            raise Refused(
                "caption_prefix, caption_suffix: would be shuffled with the tags; write them into the captions"
            )
        values["caption_template"] = " ".join(part for part in (before, "{caption}", behind) if part)
    for one in subsets:
        if one.words is None and one.captioned(ending):
            one.words = ""
        if one.words is None:
            raise Refused(
                f"dataset_config: {one.folder}: has neither class_tokens nor {ending} files; give class_tokens"
            )
        one.words = " ".join(part for part in (before, one.words, behind) if part)


def _concepts(values: Values, subjects: Sequence[Subset], classes: Sequence[Subset]) -> None:
    """One subject as the settings themselves, several as `concepts`."""
    if empty := [one for one in classes if not one.images]:
        raise Refused(f"{empty[0].folder}: holds no class images; fill it, or leave it out")
    paired = {id(subject): _class_of(subject, classes) for subject in subjects} if classes else {}
    if unused := [one for one in classes if all(one is not used for used in paired.values())]:
        raise Refused(
            f"{unused[0].folder}: its words, {unused[0].words!r}, end no subject's; each subject has one "
            "folder of class images, whose words end its own"
        )
    concepts = []
    for one in subjects:
        concept = {"instance_data_dir": str(one.folder), "instance_prompt": one.words, "repeats": one.repeats}
        if classes:
            concept |= {"class_prompt": paired[id(one)].words, "class_data_dir": str(paired[id(one)].folder)}
        concepts.append(concept)
    values |= concepts[0] if len(concepts) == 1 else {"concepts": concepts}
    if classes:
        values["with_prior_preservation"] = True
        values.setdefault("num_class_images", min(len(one.images) for one in classes))


def _class_of(subject: Subset, classes: Sequence[Subset]) -> Subset:
    """The only folder of class images, or that whose words end the subject's."""
    if len(classes) == 1:
        return classes[0]
    own = (subject.words or "").split()
    fit = [one for one in classes if (last := (one.words or "").split()) and own[-len(last) :] == last]
    if len(fit) != 1:
        raise Refused(
            f"{subject.folder}: of several folders of class images there must be one whose words end the "
            f"subject's, {subject.words!r}; there are {len(fit)}"
        )
    return fit[0]
