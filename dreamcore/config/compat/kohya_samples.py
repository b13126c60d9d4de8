"""Sample images of sd-scripts: a file of prompts, each with its options, as the one prompt that is validated here.

Images are drawn in the training's size, from the run's own seeds, the same each time, which is what `--d` is for;
and before the first update and after the last one too, whatever the interval.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from ...io.text import read_text
from .kohya_parts import Values, size
from .kohya_values import SAMPLERS, number
from .meaning import Refused

OPTIONS = {
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "sample_steps",
    "l": "scale",
    "ss": "sample_sampler",
    "g": "guidance_scale",
}


def samples(values: Values) -> None:
    """The prompt, and one interval for images and for the loss of what is held out."""
    file, at_first = values.pop("sample_prompts", None), values.pop("sample_at_first", None)
    sampler = values.pop("sample_sampler", None)
    drawn, judged = _interval(values, "sample"), _interval(values, "validate")
    if drawn is judged is None and number("validation_split", values.get("validation_share", 0)) > 0:
        judged = {"validation_epochs": 1}
    if drawn and judged and {n: float(v) for n, v in drawn.items()} != {n: float(v) for n, v in judged.items()}:
        raise Refused("validate_every_n_steps: other than sample_every_n_steps; both are done together, give one")
    values |= drawn or judged or {}
    if file is None or (drawn is None and at_first in (None, False, "false", "False")):
        return  # without an interval no image is drawn there
    values |= ({} if sampler is None else _sampler("sample_sampler", sampler)) | _settings(str(file), values)


def _interval(values: Values, what: str) -> dict[str, Any] | None:
    """Epochs win over updates; what is not above 0 is none."""
    found: dict[str, Any] | None = None
    for name, ours in (("steps", "validation_steps"), ("epochs", "validation_epochs")):
        given = values.pop(f"{what}_every_n_{name}", None)
        if given is not None and number(f"{what}_every_n_{name}", given) > 0:
            found = {ours: given}
    return found


def _settings(file: str, values: Values) -> dict[str, Any]:
    prompts = _prompts(Path(file).expanduser())
    if len(prompts) != 1:
        raise Refused(f"sample_prompts: {file}: holds {len(prompts)} prompts; one is validated here, keep one of them")
    given = dict(prompts[0])
    made: dict[str, Any] = {"validation_prompt": given.pop("prompt", "")}
    sides = given.pop("width", None), given.pop("height", None)
    given.pop("seed", None)
    whole = size(values)
    if whole is not None and any(s is not None and number("size", s) != w for s, w in zip(sides, whole, strict=True)):
        raise Refused(
            f"sample_prompts: {file}: images are drawn in the training's size, {whole[0]} x {whole[1]}; leave --w and "
            "--h out"
        )
    names = {
        "negative_prompt": "validation_negative_prompt",
        "sample_steps": "validation_num_inference_steps",
        "guidance_scale": "validation_guidance_scale",
        "scale": "validation_guidance_scale",
    }
    told = values.get("kohya_script") == "flux" or "guidance_scale" in given
    if told and number("scale", given.pop("scale", 1)) != 1:
        raise Refused(f"sample_prompts: {file}: --l: Flux is told one strength of guidance, --g; leave --l out")
    made |= {ours: given.pop(theirs) for theirs, ours in names.items() if theirs in given}
    if (sampler := given.pop("sample_sampler", None)) is not None:
        made |= _sampler(f"sample_prompts: {file}: --ss", sampler)
    if given:
        raise Refused(f"sample_prompts: {file}: {', '.join(given)}: not there; leave it out")
    return made


def _sampler(name: str, given: Any) -> dict[str, Any]:
    if str(given) not in SAMPLERS:
        raise Refused(f"{name}: {given}: not among the samplers here; {', '.join(SAMPLERS)} are")
    return {"validation_scheduler": SAMPLERS[str(given)]}


def _prompts(file: Path) -> list[dict[str, Any]]:
    """The prompts of a file: lines of text, TOML or JSON."""
    try:
        text = read_text(file)
        if file.suffix == ".toml":
            common = tomllib.loads(text)["prompt"]
            found = [{**common, **one} for one in common["subset"]]
            entries: list[Any] = [{n: v for n, v in one.items() if n not in ("subset", "enum")} for one in found]
        elif file.suffix == ".json":
            entries = list(json.loads(text))
        elif file.suffix == ".txt":
            entries = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        else:
            raise Refused(f"sample_prompts: {file}: expected a file ending in .txt, .toml or .json")
    except OSError as error:
        raise Refused(f"sample_prompts: {file}: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"sample_prompts: {file}: no list of prompts ({error})") from None
    return [_line(one) if isinstance(one, str) else dict(one) for one in entries]


def _line(text: str) -> dict[str, Any]:
    """`PROMPT --n WORDS --w 512 …`"""
    prompt, *parts = text.split(" --")
    found: dict[str, Any] = {"prompt": prompt.strip()}
    for part in parts:
        option = re.fullmatch(r"(\w+)\s+(.+)", part.strip())
        if option is None:
            raise Refused(f"sample_prompts: --{part.strip()}: expected an option and its value")
        found[OPTIONS.get(option[1].lower(), f"--{option[1]}")] = option[2].strip()
    return found
