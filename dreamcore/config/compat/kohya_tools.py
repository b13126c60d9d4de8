"""kohya-ss/sd-scripts' tools for files of weights (networks/*.py, tools/*.py) as `dreambooth convert`'s commands.

What differs: nothing is overwritten, and no pickled file is written.  Merging is exact, with the ranks concatenated,
where `merge_lora.py` without --concat adds factors, whose product is another.  Resizing and extracting give the nearest
factors there are; there, extracting cuts the largest values off (--clamp_quantile).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import ConfigError

SWITCHES = {
    *("v1", "v2", "sdxl", "v_parameterization", "no_metadata", "concat", "shuffle", "verbose", "fp16", "bf16", "float"),
    *("unet_use_linear_projection", "use_safetensors"),
}
"""Flags without a value."""
PICKLED = (".ckpt", ".pt", ".pth")
NEAREST = "the factors are the nearest there are, and nothing is cut off"
EVERYWHERE = "remove it; a rank is of all layers"
PRECISIONS = {"float": "fp32", "no": "none"}


@dataclass(frozen=True)
class Tool:
    """One of the tools.

    Args:
        command: what stands behind `dreambooth convert`.
        names: its flags -> our settings.
        given: settings that it has without being told.
        idle: flags that change nothing here.
        refused: flags that are not understood -> why.
        words: settings that its words without flags give.
    """

    command: tuple[str, ...]
    names: Mapping[str, str]
    given: Mapping[str, str] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()


_SHARED = frozenset(("device", "precision", "verbose", "v2", "sdxl", "v_parameterization"))
_MERGE = Tool(
    ("merge",),
    {"models": "lora", "ratios": "lora_scale", "sd_model": "pretrained_model_name_or_path", "save_to": "target"}
    | {"save_precision": "save_precision"},
    idle=_SHARED | {"no_metadata", "concat", "shuffle"},
    refused={"lbws": "weights of single blocks are not known here; merge files that hold what is wanted"},
)
TOOLS: Mapping[str, Tool] = {
    "merge_lora.py": _MERGE,
    "sdxl_merge_lora.py": _MERGE,
    "svd_merge_lora.py": Tool(
        ("merge",),
        {**_MERGE.names, "new_rank": "rank"},
        {"rank": "4"},
        _MERGE.idle,
        {**_MERGE.refused, "new_conv_rank": EVERYWHERE},
    ),
    "resize_lora.py": Tool(
        ("resize",),
        {"model": "source", "save_to": "target", "new_rank": "rank", "save_precision": "save_precision"},
        {"rank": "4"},
        _SHARED,
        {"new_conv_rank": EVERYWHERE, "dynamic_method": "give new_rank", "dynamic_param": "give new_rank"},
    ),
    "extract_lora_from_models.py": Tool(
        ("extract",),
        {"model_tuned": "pretrained_model_name_or_path", "model_org": "base", "save_to": "target", "dim": "rank"}
        | {"save_precision": "save_precision"},
        {"rank": "4"},
        _SHARED | {"load_precision", "no_metadata", "load_original_model_to", "load_tuned_model_to"},
        {"conv_dim": "give lora_layers, convolutions among them", "clamp_quantile": NEAREST, "min_diff": NEAREST},
    ),
    "convert_diffusers20_original_sd.py": Tool(
        (),
        {"save_precision_as": "save_precision", "variant": "variant", "reference_model": "original_config"},
        idle=_SHARED | {"v1", "unet_use_linear_projection", "use_safetensors"},
        refused=dict.fromkeys(("epoch", "global_step", "metadata"), "a file says nothing of the kind here"),
        words=("source", "target"),
    ),
}
"""By file name."""


def as_convert(file: str, words: Sequence[str]) -> list[str]:
    """The arguments of `dreambooth convert` that a tool's command line stands for; flags that it has not stay.

    Raises:
        ConfigError: a flag whose meaning is not had here, or a pickled target.
    """
    tool, problems = TOOLS[file], list[str]()
    settings: dict[str, list[str]] = {name: [value] for name, value in tool.given.items()}
    rest, places = list[str](), list(tool.words)
    for flag, values in _flags(words):
        name = flag.lstrip("-").replace("-", "_")
        if not flag:
            rest += [] if places else values
            settings |= {place: [value] for place, value in zip(places, values, strict=False)}
            places = places[len(values) :]
        elif name in tool.refused:
            problems.append(f"{name}: {tool.refused[name]}")
        elif name in ("fp16", "bf16", "float") and tool.words:
            settings["save_precision"] = [name]
        elif name in tool.names:
            settings[tool.names[name]] = values
        elif name not in tool.idle:
            rest += [flag, *values]
    settings["save_precision"] = [PRECISIONS.get(value, value) for value in settings.get("save_precision", ["none"])]
    if problems:
        raise ConfigError("\n".join(problems))
    for target in settings.get("target", ()):
        if target.endswith(PICKLED):
            raise ConfigError(f"target: {target}: pickled files are not written; give a name in .safetensors")
    given = (f"--{name}={','.join(values)}" for name, values in settings.items() if values != ["none"])
    return [*tool.command, *given, *rest]


def _flags(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Flags with the words behind them; "" for words that are none's."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            found.append((flag, [value] if equals else []))
        elif found[-1][0].lstrip("-").replace("-", "_") in SWITCHES:
            found.append(("", [word]))
        else:
            found[-1][1].append(word)
    return [(flag, values) for flag, values in found if flag or values]
