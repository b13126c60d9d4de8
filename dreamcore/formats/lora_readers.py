"""How many layers of a LoRA file other programs will find, by their own naming rules, restated here.

A program makes a table of the names that it looks for from its own model, whose layers have the original repositories'
names.  So does this, from a model's published layers and the tables below, which share nothing with those that files
are written by: a UNet's blocks are counted, not computed.

Sources, at the versions that were read: comfyanonymous/ComfyUI 0.3.64 `comfy/lora.py`, `comfy/utils.py` and
`comfy/weight_adapter/lora.py`; AUTOMATIC1111/stable-diffusion-webui 1.10 `extensions-builtin/Lora/networks.py` and
`modules/models/sd3/sd3_model.py`; lllyasviel/stable-diffusion-webui-forge `packages_3rdparty/comfyui_lora_collection`;
huggingface/diffusers 0.42 `loaders/lora_pipeline.py`, `lora_conversion_utils.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .lora_names import module_and_kind
from .lora_reader_models import original_transformer, original_unet, per_block

Table = dict[str, set[str]]
"""Component -> what stands before the endings of the names that a program looks for."""

_SD, _SDXL, _SD3, _FLUX = (
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline",
)  # fmt: skip
_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
_CLIP = re.compile(rf"text_model\.encoder\.layers\.(\d+)\.({'|'.join(map(re.escape, _ATTENTION))}|mlp\.fc[12])")
_CLIP_DEPTH = 32
"""ComfyUI looks for so many layers of a text encoder."""
_FUSED = ("attn.to_k", "attn.to_v", "attn2.to_k", "attn2.to_v", "attn.add_k_proj", "attn.add_v_proj", "proj_mlp")
"""Published layers whose weights lie in the same layer as the queries'."""
_COMFY = (
    ".lora_up.weight", "_lora.up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_linear_layer.up.weight"
)  # fmt: skip
"""Endings of the second factor's name that ComfyUI and Forge know."""
_PRODUCTS = ("hada_w1_a", "lokr_w1", "lokr_w1_a")
"""By which LoHa and LoKr are known."""
_A1111_SD3 = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
"""Layers of SD 3 that A1111 finds under diffusers' names: its table misspells the others."""


def layers_found(
    names: Iterable[str], pipeline: str, layers: Mapping[str, Iterable[str]]
) -> dict[str, tuple[int, int]]:
    """Program -> layers of a file that it finds, and how many there are in the parts of the model that it gives LoRA.

    Left out are programs that do not run such a model: A1111's web UI where it is Flux, or a UNet without two residual
    blocks in a level.  Parts that a program gives no LoRA do not count, whatever a file has for them: in A1111, SD 3's
    text encoders; in diffusers, Flux's T5; in all of them, a text encoder that is no CLIP.

    LoHa and LoKr are read by all but diffusers.  DoRA's `dora_scale` for each output is taken for inputs' by A1111, and
    left out by diffusers, which reads `lora_magnitude_vector`; ComfyUI and Forge divide by the length of the unchanged
    weight's row where DoRA has the changed one's: nearly the same.

    Args:
        names: of the file's tensors.
        pipeline: the class in model_index.json.
        layers: component -> the model's own layers, by published name.
    """
    names = list(names)
    ups: dict[str, str] = {}
    for name in names:
        found = module_and_kind(name)
        if found is not None and found[1] in ("up", *_PRODUCTS):
            ups[found[0]] = name.removeprefix(found[0])
    lycoris = any(ending.removeprefix(".") in _PRODUCTS for ending in ups.values())
    by_inputs = any(name.endswith(".dora_scale") for name in names)
    model = {component: set(own) for component, own in layers.items()}
    counted: dict[str, tuple[int, int]] = {}
    if pipeline in (_SD, _SDXL, _SD3, _FLUX):
        for reader in ("ComfyUI", "Forge"):
            table = _comfy(model, pipeline, forge=reader == "Forge")
            known = {m for m, ending in ups.items() if ending in _COMFY or ending.removeprefix(".") in _PRODUCTS}
            counted[reader] = _count(known, ups, table, pipeline)
        if pipeline != _FLUX and per_block(model.get("unet", set())) in (None, 2):
            table = _a1111(model, pipeline, set(ups))
            broken = pipeline == _SD3 and any(name.count(".") < 2 for name in names)  # it stops at such a name
            counted["A1111"] = _count(set() if broken or by_inputs else set(ups), ups, table, pipeline)
    unread = by_inputs or lycoris
    counted["diffusers"] = _count(set() if unread else set(ups), ups, _diffusers(model, pipeline, ups), pipeline)
    return counted


def _count(usable: set[str], modules: Iterable[str], table: Table, pipeline: str) -> tuple[int, int]:
    counted = [(module, table.get(_component(module, pipeline))) for module in modules]
    return sum(module in usable and module in own for module, own in counted if own), sum(bool(o) for _, o in counted)


def _component(module: str, pipeline: str) -> str:
    """The part of the model that a module of a file is for, by what its name begins with."""
    match = re.match(r"lora_te(\d?)_|text_encoder(?:_(\d))?\.", module)
    if match is None:
        return "unet" if pipeline in (_SD, _SDXL) else "transformer"
    number = match[1] or match[2] or "1"
    if pipeline == _FLUX and match[1] == "3":
        number = "2"
    return "text_encoder" if number == "1" else f"text_encoder_{number}"


def _joined(name: str) -> str:
    return name.replace(".", "_")


# ComfyUI and Forge


def _comfy(model: Mapping[str, set[str]], pipeline: str, *, forge: bool) -> Table:
    table: Table = {}
    if pipeline in (_SD, _SDXL):
        original = original_unet(model.get("unet", set()))
        own = {f"lora_unet_{_joined(name)}" for name in (*original, *original.values())}
        own |= {f"lycoris_{_joined(name)}" for name in original}
        own |= {f"diffusion_model.{name}" for name in original.values()}
        for name in original:  # as diffusers named them in 2023
            old = name.replace(".to_", ".processor.to_").removesuffix(".0" if name.endswith(".to_out.0") else " ")
            own |= {old, f"unet.{old}"}
        table["unet"] = own
    else:
        layers = model.get("transformer", set())
        original = original_transformer(layers, flux=pipeline == _FLUX)
        own = {f"lora_unet_{_joined(name)}" for name in original.values()}
        own |= {f"diffusion_model.{name}" for name in original.values()}
        if not (forge and pipeline == _SD3):
            known = {name for name in layers if name in original or name.endswith(_FUSED)}
            own |= {f"{before}{_joined(name)}" for name in known for before in ("lora_transformer_", "lycoris_")}
            beginnings = ("transformer.", "base_model.model.") if pipeline == _SD3 else ("transformer.",)
            own |= {before + name for name in known for before in beginnings}
        table["transformer"] = own
    for number, component in enumerate(("text_encoder", "text_encoder_2", "text_encoder_3"), 1):
        clip = {n for n in model.get(component, ()) if (m := _CLIP.fullmatch(n)) and int(m[1]) < _CLIP_DEPTH}
        beginnings = ("lora_te_", "lora_te1_") if number == 1 else (f"lora_te{number}_",)
        table[component] = {before + _joined(name) for name in clip for before in beginnings}
        table[component] |= {f"{component}.{name}" for name in clip}
        if not clip and pipeline in (_SD3, _FLUX):  # T5
            numbers = (3, 2) if forge else (number, 3)
            table[component] = {f"lora_te{n}_{_joined(name)}" for name in model.get(component, ()) for n in numbers}
    return table


# A1111's web UI


def _a1111(model: Mapping[str, set[str]], pipeline: str, modules: set[str]) -> Table:
    if pipeline == _SD3:
        layers = model.get("transformer", set())
        own = {f"lora_unet_{_joined(name)}" for name in original_transformer(layers, flux=False).values()}
        return {"transformer": own | {f"transformer.{name}" for name in layers if name.endswith(_A1111_SD3)}}
    original = original_unet(model.get("unet", set()))
    own = {f"lora_unet_{_joined(name)}" for name in original.values()}
    for name, theirs in original.items():
        level = re.match(r"up_blocks\.(\d+)\.upsamplers", name)  # it takes it for the second, or the third of its block
        if not name.startswith("add_embedding") and (not level or theirs.endswith(f".{1 + (level[1] != '0')}.conv")):
            own.add(f"lora_unet_{_joined(name)}")
    table = {"unet": own}
    for component, beginnings in (("text_encoder", ("lora_te_", "lora_te1_")), ("text_encoder_2", ("lora_te2_",))):
        clip = {name for name in model.get(component, ()) if _CLIP.fullmatch(name)}
        openclip = (
            component == "text_encoder_2"
            or not any(".layers.11." in name for name in clip)
            or any(".layers.12." in name for name in clip)
        )
        if pipeline == _SDXL and component == "text_encoder":
            beginnings, openclip = ("lora_te1_",), False
        elif openclip and component == "text_encoder":
            beginnings = ("lora_te_",)
        table[component] = {
            f"{before}{_joined(name)}"
            for name in clip
            for before in beginnings
            if not openclip or _whole(before, name, modules)
        }
    return table


def _whole(before: str, layer: str, modules: set[str]) -> bool:
    """Whether an attention's four layers are all there, without which A1111 changes none of OpenCLIP's."""
    stem, found, _ = layer.partition("self_attn.")
    return not found or all(f"{before}{_joined(stem + name)}" in modules for name in _ATTENTION)


# diffusers


def _diffusers(model: Mapping[str, set[str]], pipeline: str, modules: Iterable[str]) -> Table:
    """Kohya's names are converted where all of a file's are such, of SD 1, 2, XL and Flux; otherwise diffusers' own."""
    kohya = all(module.startswith("lora_") for module in modules)
    table: Table = {}
    for component, layers in model.items():
        clip = component.startswith("text_encoder")
        if clip:
            layers = {name for name in layers if _CLIP.fullmatch(name)}
        own = {f"{component}.{name}" for name in layers}
        own |= {f"{component}.{name.replace('.to_', '.processor.to_').removesuffix('.0')}" for name in layers}
        if kohya and pipeline in (_SD, _SDXL, _FLUX):
            own = {f"lora_unet_{_joined(name)}" for name in layers}
            if component == "unet":
                own |= {f"lora_unet_{_joined(name)}" for name in original_unet(layers).values()}
            elif component == "transformer":
                own = {
                    f"lora_unet_{_joined(name)}"
                    for name in original_transformer(layers, flux=pipeline == _FLUX).values()
                }
            elif clip:
                beginnings = ("lora_te_", "lora_te1_") if component == "text_encoder" else ("lora_te2_",)
                own = {before + _joined(name) for name in layers for before in beginnings}
        table[component] = own if layers else set()
    return table
