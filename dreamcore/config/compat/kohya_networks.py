"""What sd-scripts' `network_module` and `network_args` make together: LoRA of its own networks, and of LyCORIS.

Sources: kohya-ss/sd-scripts `networks/lora*.py`; KohakuBlueleaf/LyCORIS 4 `lycoris/{kohya,config}.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .kohya_values import NETWORKS, arguments, listed, number
from .meaning import Refused, Settings, truth

LYCORIS = "lycoris.kohya"
MODULE, ARGUMENTS = "kohya_network_module", "kohya_network_args"
"""Names of the parts until they are joined."""
ALGORITHMS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
LAYERS = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
"""Linear layers and convolutions of 1 × 1 in a UNet's transformers."""
_LINEAR = (*LAYERS, "time_emb_proj", "conv_shortcut", "time_embedding.linear_1", "time_embedding.linear_2")
_CONVOLUTIONS = ("conv1", "conv2", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out")
PRESETS = {
    "full": (*_LINEAR, *_CONVOLUTIONS), "full-lin": _LINEAR, "attn-mlp": LAYERS, "attn-only": ATTENTION
}  # fmt: skip
"""LyCORIS's sets of layers, of a UNet."""
_BLOCKS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}


def read_module(given: Any) -> Settings:
    """Which network."""
    if (module := str(given).strip()) not in (*NETWORKS, LYCORIS):
        raise Refused(f"{given}: LoRA is trained here, as by networks.lora, and LyCORIS's, as by {LYCORIS}; give that")
    return {"use_lora": True, MODULE: module}


def read_arguments(given: Any) -> Settings:
    """Pairs, and no table: those are a file's sections."""
    return {ARGUMENTS: tuple(arguments(given).items())}


def networks(values: dict[str, Any]) -> None:
    """The method, the layers and the blocks."""
    module, given = values.pop(MODULE, NETWORKS[0]), dict(values.pop(ARGUMENTS, ()))
    on = {key: value for key, value in given.items() if truth(value) is not False and value not in ("None", "0.0", "")}
    if module == LYCORIS:
        _lycoris(on, values)
    else:
        _blocks(on, values)
    if not on:
        return
    key = next(iter(on))
    if key.startswith("conv"):
        raise Refused(f"network_args: {key}: convolutions get factors where lora_layers names them, of one rank")
    raise Refused(
        f"network_args: {key}: not there; LoRA here has one rank, alpha and rate, in the layers of lora_layers and "
        "lora_blocks"
    )


def _lycoris(on: dict[str, str], values: dict[str, Any]) -> None:
    """Take out what can be said here."""
    algorithm, preset = on.pop("algo", "lora").lower(), on.pop("preset", "full")
    if algorithm not in ALGORITHMS:
        raise Refused(f"network_args: algo={algorithm}: not trained here; {', '.join(ALGORITHMS)} are")
    if preset not in PRESETS:
        raise Refused(f"network_args: preset={preset}: expected {', '.join(PRESETS)}; lora_layers names any layers")
    values |= {"lora_method": ALGORITHMS[algorithm]}
    values.setdefault("lora_layers", list(PRESETS[preset]))
    if on.pop("dora_wd", None):
        values["use_dora"] = True
    if on.pop("rs_lora", None):
        values["use_rslora"] = True
    if (factor := on.pop("factor", "-1")) != "-1" and algorithm == "lokr":
        values["lokr_factor"] = factor
    same: Mapping[str, Any] = {"conv_dim": values.get("rank", 4), "conv_alpha": values.get("lora_alpha", 1)}
    for key, wanted in same.items():
        if key in on and number(key, on[key]) == number(key, wanted):
            del on[key]
    if truth(on.get("wd_on_output")):
        del on["wd_on_output"]


def _blocks(on: dict[str, str], values: dict[str, Any]) -> None:
    """networks.lora_flux's choice of blocks."""
    kinds, chosen = on.pop("train_blocks", "all"), list[str]()
    if kinds not in ("all", *_BLOCKS):
        raise Refused(f"network_args: train_blocks={kinds}: expected all, double or single")
    for kind, name in _BLOCKS.items():
        numbers = on.pop(f"train_{kind}_block_indices", "all")
        if kinds in ("all", kind) and numbers != "none":
            chosen += [name] if numbers == "all" else [f"{name}.{part.strip()}" for part in listed(numbers)]
    if chosen != list(_BLOCKS.values()):
        values["lora_blocks"] = chosen
