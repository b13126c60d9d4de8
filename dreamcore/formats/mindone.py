"""What MindONE's stable_diffusion_v2 calls the weights of Stable Diffusion, on top of LDM's names.

Its networks are LDM's, written for MindSpore: layers of normalization have `gamma` and `beta`, the UNet's convolutions
lie in a cell `conv`, and the text encoder of both versions is one class (FrozenCLIPEmbedder), built like OpenCLIP's.

Sources: mindspore-lab/mindone, `examples/stable_diffusion_v2`: `ldm/modules/**`, and the lists of names in
`tools/model_conversion` (ms_names_v2.txt, ms_exceptcond_v1.txt).  In the former the autoencoder's normalizations are
called `weight` and `bias`, as in LDM; both are read, and `gamma` and `beta` written, as its networks have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from .ldm import OPEN_CLIP, SCHEDULE, UNET, VAE
from .weights import Arrays

TEXT = "cond_stage_model.transformer."
"""What names of the text encoder begin with."""
_PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    UNET: (
        (".conv.", ".conv.conv."),  # of upsampling; before those that follow bring a `conv` of their own
        ("input_blocks.0.0.", "input_blocks.0.0.conv."),
        (".in_layers.0.", ".in_layers_norm."),
        (".in_layers.2.", ".in_layers_conv.conv."),
        (".out_layers.0.", ".out_layers_norm."),
        (".out_layers.3.", ".out_layers_conv.conv."),
        (".skip_connection.", ".skip_connection.conv."),
        (".op.", ".op.conv."),
        (f"{UNET}out.2.", f"{UNET}out.2.conv."),
    ),
    VAE: (),
    OPEN_CLIP: (
        (f"{OPEN_CLIP}transformer.", f"{TEXT}transformer_layer."),
        (OPEN_CLIP, TEXT),
        ("token_embedding.weight", "embedding_table"),
        (".attn.in_proj_", ".attn.attn.in_proj."),
        (".attn.out_proj.", ".attn.attn.out_proj."),
        (".mlp.c_", ".c_"),
    ),
}
"""Part -> pieces of its names: LDM's, MindONE's."""
_NORM = re.compile(
    r"\.(norm\d?|norm_out|ln_\w+|in_layers_norm|out_layers_norm|diffusion_model\.out\.0)\.(weight|bias)$"
)
_GREEK = {"weight": "gamma", "bias": "beta"}
BOOKKEEPING = re.compile(
    r"epoch_num|cur_step|loss_scale|lora_rank|global_step|learning_rate|scale_sense|(current|last_overflow)_iterator_step"
    rf"|accum_step|updates|beta[12]_power|(adam_[mv]|moment[12]|ema|swap|grad_accumulated_)\..+|{SCHEDULE}"
)
"""What a checkpoint holds beside its weights: the state of training (train_resume.ckpt), averages among it, and the
noise schedule, which is computed anew."""


def mindone_name(name: str) -> str:
    """What MindONE calls an array of LDM's (SD 1's text encoder: of OpenCLIP's) full name.

    >>> mindone_name("model.diffusion_model.input_blocks.1.0.in_layers.0.weight")
    'model.diffusion_model.input_blocks.1.0.in_layers_norm.gamma'
    """
    for old, new in _pieces(name):
        name = name.replace(old, new)
    return _NORM.sub(lambda found: f".{found[1]}.{_GREEK[found[2]]}", name)


def ldm_name(name: str) -> str:
    """The inverse of `mindone_name`.

    >>> ldm_name("cond_stage_model.transformer.transformer_layer.resblocks.0.attn.attn.in_proj.bias")
    'cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias'
    """
    for greek, kind in (("gamma", "weight"), ("beta", "bias")):
        name = re.sub(rf"\.{greek}$", f".{kind}", name)
    for old, new in _pieces(name):
        name = name.replace(new, old)
    return name


def _pieces(name: str) -> tuple[tuple[str, str], ...]:
    part = next((part for part in _PARTS if name.startswith(part)), OPEN_CLIP if name.startswith(TEXT) else VAE)
    return _PARTS[part]


def by_part(arrays: Mapping[str, NDArray[Any]], what: str) -> dict[str, Arrays]:
    """A checkpoint's arrays by part (`UNET`, `VAE`, `OPEN_CLIP`) and LDM's name within it.

    Raises:
        ConfigError: an array of none of these that is not known to be superfluous, or two of one name.
    """
    parts: dict[str, Arrays] = {part: {} for part in _PARTS}
    strange = []
    for name, value in arrays.items():
        full = ldm_name(name)
        part = next((part for part in parts if full.startswith(part)), None)
        if part is None:
            if not BOOKKEEPING.fullmatch(name):
                strange.append(name)
        elif (short := full.removeprefix(part)) in parts[part]:
            raise ConfigError(f"{what}: {name}: is there under two names")
        else:
            parts[part][short] = value
    _refuse(strange, what)
    return parts


def _refuse(strange: Iterable[str], what: str) -> None:
    if names := sorted(strange):
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ConfigError(
            f"{what}: unexpected keys: {', '.join(names[:5])}{more}; expected weights of MindONE's stable_diffusion_v2"
        )
