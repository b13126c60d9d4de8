"""What the tape counts is what PyTorch keeps of the same networks for the backward pass, but for trifles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dreamcore.backends.quantization import quantised
from dreamcore.families.flux import FLUX
from dreamcore.families.krea_2 import KREA_2
from dreamcore.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from dreamcore.placement.activations import WALKS
from dreamcore.placement.tape import Tape
from dreamcore.placement.transformer import pass_transformer
from dreamcore.placement.unet import pass_unet

from ..support import needs

RANK, TOKENS = 4, 8
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
UNET = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 64,
    "attention_head_dim": 8,
}
XL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2],
    "use_linear_projection": True,
}
IF = {
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "act_fn": "gelu",
    "resnet_time_scale_shift": "scale_shift",
    "cross_attention_norm": "group_norm",
}
SD3 = {
    "sample_size": 32,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 8,
    "in_channels": 4,
    "out_channels": 4,
    "joint_attention_dim": 64,
    "caption_projection_dim": 128,
    "pooled_projection_dim": 32,
    "pos_embed_max_size": 32,
}
FLUX_SIZES = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 8,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 6, 6),
}
FLUX_2_SIZES = {name: value for name, value in FLUX_SIZES.items() if name != "pooled_projection_dim"}
FLUX_2_SIZES |= {"axes_dims_rope": (4, 4, 4, 4)}
QWEN = {name: FLUX_SIZES[name] for name in ("in_channels", "num_layers", "attention_head_dim", "axes_dims_rope")}
QWEN |= {"out_channels": 4, "num_attention_heads": 8, "joint_attention_dim": 64}
LUMINA = {"hidden_size": 96, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2}
LUMINA |= {"multiple_of": 16, "axes_dim_rope": (8, 8, 8), "axes_lens": (300, 32, 32), "cap_feat_dim": 64}
Z = {"dim": 96, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 4, "n_kv_heads": 4, "cap_feat_dim": 64}
Z |= {"axes_dims": [8, 8, 8], "axes_lens": [1024, 64, 64]}
CHROMA = {name: value for name, value in FLUX_SIZES.items() if name != "pooled_projection_dim"}
CHROMA |= {"approximator_num_channels": 16, "approximator_hidden_dim": 32, "approximator_layers": 1}
SANA = {"sample_size": 24, "in_channels": 16, "out_channels": 16, "num_layers": 2, "num_attention_heads": 4}
SANA |= {"attention_head_dim": 16, "num_cross_attention_heads": 2, "cross_attention_head_dim": 32, "mlp_ratio": 2.0}
SANA |= {"cross_attention_dim": 64, "caption_channels": 64}
KREA = {"in_channels": 16, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 8}
KREA |= {"num_key_value_heads": 4, "intermediate_size": 256, "timestep_embed_dim": 32, "text_hidden_dim": 64}
KREA |= {"num_text_layers": 3, "text_num_attention_heads": 4, "text_num_key_value_heads": 4}
KREA |= {"text_intermediate_size": 96, "axes_dims_rope": (4, 6, 6)}
ERNIE = {"hidden_size": 96, "num_attention_heads": 4, "num_layers": 2, "ffn_hidden_size": 192, "in_channels": 16}
ERNIE |= {"out_channels": 16, "text_in_dim": 64, "rope_axes_dim": (8, 8, 8)}
CASES = [
    ("UNet2DConditionModel", UNET | CROSS, ATTENTION),
    ("UNet2DConditionModel", UNET | XL, ATTENTION),
    ("UNet2DConditionModel", UNET | IF, (*ATTENTION, "add_k_proj", "add_v_proj")),
    ("SD3Transformer2DModel", SD3, STABLE_DIFFUSION_3.lora_layers),
    (
        "SD3Transformer2DModel",
        SD3 | {"qk_norm": "rms_norm", "dual_attention_layers": (0,)},
        STABLE_DIFFUSION_3.lora_layers,
    ),
    ("FluxTransformer2DModel", FLUX_SIZES, FLUX.lora_layers),
    ("Flux2Transformer2DModel", FLUX_2_SIZES, ("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj")),
    ("QwenImageTransformer2DModel", QWEN, (*ATTENTION, "img_mlp.net.2")),
    ("Lumina2Transformer2DModel", LUMINA, (*ATTENTION, "feed_forward.linear_2")),
    ("ZImageTransformer2DModel", Z, (*ATTENTION, "w2")),
    ("Krea2Transformer2DModel", KREA, KREA_2.lora_layers),
    ("ErnieImageTransformer2DModel", ERNIE, (*ATTENTION, "mlp.linear_fc2")),
    ("ChromaTransformer2DModel", CHROMA, FLUX.lora_layers),
    ("SanaTransformer2DModel", SANA, ("to_k", "to_q", "to_v")),
]
NAMES = [
    "SD 1",
    "SDXL",
    "IF",
    "SD 3",
    "SD 3.5",
    "Flux",
    "Flux 2",
    "Qwen-Image",
    "Lumina 2",
    "Z-Image",
    "Krea 2",
    "ERNIE-Image",
    "Chroma",
    "SANA",
]
SIDE = 24
"""Of the latents: tokens of the image are of no other size that there is, by which casts of weights are told."""


def inputs(name: str, sizes: dict[str, Any]) -> dict[str, Any]:
    import torch

    words = torch.randn(1, TOKENS, int(sizes.get("cross_attention_dim") or 64))
    if name.startswith("UNet"):
        sample = torch.randn(1, int(sizes.get("in_channels", 4)), SIDE, SIDE)
        return {"sample": sample, "timestep": torch.tensor([5]), "encoder_hidden_states": words}
    time = torch.tensor([0.3])
    if name.startswith("ZImage"):
        return {"x": [torch.randn(16, 1, SIDE, SIDE)], "t": time, "cap_feats": [words[0]]}
    if name.startswith(("Lumina", "Sana")):
        mask = torch.ones(1, TOKENS, dtype=torch.int64)
        return {"hidden_states": torch.randn(1, 16, SIDE, SIDE), "timestep": time, "encoder_hidden_states": words} | {
            "encoder_attention_mask": mask
        }
    if name.startswith("Krea"):
        states, places = torch.randn(1, TOKENS, 3, 64), torch.zeros(TOKENS + SIDE**2 // 4, 3)
        return {"hidden_states": torch.randn(1, SIDE**2 // 4, 16), "timestep": time, "position_ids": places} | {
            "encoder_hidden_states": states
        }
    if name.startswith("Ernie"):
        squares, count = torch.randn(1, 16, SIDE // 2, SIDE // 2), torch.tensor([TOKENS])
        return {"hidden_states": squares, "timestep": time, "text_bth": words, "text_lens": count}
    if name.startswith("Qwen"):
        packed, shapes = torch.randn(1, SIDE**2 // 4, 16), [[(1, SIDE // 2, SIDE // 2)]]
        return {"hidden_states": packed, "timestep": time, "encoder_hidden_states": words, "img_shapes": shapes}
    given = {"encoder_hidden_states": words, "pooled_projections": torch.randn(1, 32), "timestep": torch.tensor([0.3])}
    if name.startswith("Chroma"):
        del given["pooled_projections"]
        given["attention_mask"] = torch.ones(1, TOKENS + SIDE**2 // 4)
    if name.startswith("SD3"):
        return given | {"hidden_states": torch.randn(1, 4, SIDE, SIDE)}
    n, axes = SIDE**2 // 4, len(sizes["axes_dims_rope"])
    if axes == 4:
        given["guidance"] = given["timestep"]
        del given["pooled_projections"]
    return given | {
        "hidden_states": torch.randn(1, n, 16),
        "img_ids": torch.zeros(n, axes),
        "txt_ids": torch.zeros(TOKENS, axes),
    }


def kept_by_torch(name: str, sizes: dict[str, Any], factors: tuple[str, ...], *, half: bool) -> int:
    """Bytes of the storages that one pass keeps, but for weights and their copies in 16 bits."""
    import diffusers
    import torch
    from peft import LoraConfig
    from torch.autograd.graph import saved_tensors_hooks

    torch.manual_seed(0)
    network = getattr(diffusers, name)(**sizes).eval()
    if factors:
        network.requires_grad_(False)
        network.add_adapter(LoraConfig(r=RANK, target_modules=list(factors)))
    weights = {tuple(p.shape) for p in network.parameters()}
    weights |= {shape[::-1] for shape in weights}
    tables = [t for m in network.modules() for t in vars(m).values() if isinstance(t, torch.Tensor)]  # of positions
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), *tables)}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and not (half and tuple(tensor.shape) in weights):
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autocast("cpu", torch.bfloat16, enabled=half), saved_tensors_hooks(pack, lambda t: t):
        network(**inputs(name, sizes))
    return sum(t.untyped_storage().nbytes() for t in kept.values())


def counted(name: str, sizes: dict[str, Any], factors: tuple[str, ...], *, half: bool) -> int:
    tape = Tape(
        compute=2 if half else 4, norms=None if half else 4, trains=not factors, factors=factors, rank=RANK
    )  # a CPU's autocasting leaves normalisations in the type that they are given
    walk: Callable[..., None] = WALKS.get(name, pass_unet if name.startswith("UNet") else pass_transformer)
    walk(tape, {"_class_name": name} | sizes, SIDE, SIDE, TOKENS)
    return tape.kept


@needs.torch
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(("name", "sizes", "layers"), CASES, ids=NAMES)
def test_the_count_is_what_pytorch_keeps(name: str, sizes: dict[str, Any], layers: tuple[str, ...], lora: bool) -> None:
    factors = layers if lora else ()
    torchs = kept_by_torch(name, sizes, factors, half=False)
    assert counted(name, sizes, factors, half=False) == pytest.approx(torchs, rel=0.03)


@needs.torch
@pytest.mark.parametrize("number", [0, 3], ids=["SD 1", "SD 3"])
@pytest.mark.parametrize("lora", [False, True])
def test_in_16_bits_too(number: int, lora: bool) -> None:
    name, sizes, layers = CASES[number]
    factors = layers if lora else ()
    torchs = kept_by_torch(name, sizes, factors, half=True)
    assert counted(name, sizes, factors, half=True) == pytest.approx(torchs, rel=0.05)


@needs.torch
@pytest.mark.parametrize(("name", "sizes", "layers"), CASES, ids=NAMES)
def test_operations_are_what_pytorch_counts(name: str, sizes: dict[str, Any], layers: tuple[str, ...]) -> None:
    """Its counter sees no product within fused attention, and sees those of the timestep, which are few."""
    import diffusers
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    network = getattr(diffusers, name)(**sizes).eval()
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(**inputs(name, sizes))
    tape = Tape()
    walk: Callable[..., None] = WALKS.get(name, pass_unet if name.startswith("UNet") else pass_transformer)
    walk(tape, {"_class_name": name} | sizes, SIDE, SIDE, TOKENS)
    assert tape.operations == pytest.approx(counter.get_total_flops(), rel=0.01)


SD15 = {
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
SDXL = {
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}


LORA = {"trains": False, "factors": ATTENTION, "rank": 16}


def most(tape: Tape) -> int:
    """Bytes alive in the backward pass when they are most: what is kept, a gradient and the next one."""
    return max(piece.kept + piece.waiting + 2 * piece.largest for piece in tape.pieces())


@pytest.mark.parametrize(
    ("sizes", "side", "settings", "kept", "alive"),
    [
        (SD15, 64, LORA, 0.2734, 0.4316),
        (SD15, 64, {}, 0.2881, None),
        (SDXL, 128, LORA, 0.8651, 1.0211),
        (SDXL, 128, LORA | {"compute": 2, "norms": None}, 0.4328, 0.5348),
    ],
)
def test_published_models_as_counted_on_tensors_without_memory(
    sizes: dict[str, Any], side: int, settings: dict[str, Any], kept: float, alive: float | None
) -> None:
    """GiB after the forward pass, and at the most, of PyTorch 2.13's own tensors of these shapes, with blocks that are
    computed again; weights and what they are cast to apart."""
    tape = Tape(recomputes=True, **settings)
    pass_unet(tape, sizes, side, side, 77)
    assert tape.kept / 2**30 == pytest.approx(kept, rel=0.01)
    if alive is not None:
        assert most(tape) / 2**30 == pytest.approx(alive, rel=0.03)


def test_a_block_that_is_computed_again_keeps_its_input_alone() -> None:
    """By hand: [10, 8] numbers in float32 through one product with a matrix that trains, and an activation."""
    for recomputes, kept in ((False, 320 + 640), (True, 320)):
        tape = Tape(recomputes=recomputes)
        x = tape.tensor(80)
        with tape.segment(x):
            tape.act(tape.linear(x, 10, 16))
        assert tape.kept == kept
        pieces = [piece for piece in tape.pieces() if piece.weight]
        assert [(p.kept, p.largest, p.weight, p.kernel, p.trained) for p in pieces] == [
            (320 + 640, 640, 8 * 16, 0, 8 * 16)
        ]
    frozen = Tape(trains=False, recomputes=True)
    x = frozen.tensor(80)
    with frozen.segment(x):
        frozen.act(frozen.linear(x, 10, 16))
    assert frozen.kept == 0, "no gradient goes there"


def test_a_gradient_waits_for_what_has_skipped_blocks() -> None:
    """By hand: what is made in the first block is read beside what comes out of the second."""
    tape = Tape(recomputes=True)
    x = tape.tensor(80)
    with tape.segment(x):
        x = tape.linear(x, 10, 16)
    place, early = tape.place, x
    with tape.segment(x):
        x = tape.linear(x, 10, 16)
    both = tape.cat(x, early)
    tape.skipped(place, early, both)
    with tape.segment(both):
        tape.linear(both, 10, 16)
    assert [piece.waiting for piece in tape.pieces() if piece.weight] == [0, 2 * 640, 0]


@needs.torch
@pytest.mark.parametrize(("name", "sizes", "layers"), CASES, ids=NAMES)
def test_the_largest_weight_is_known(name: str, sizes: dict[str, Any], layers: tuple[str, ...]) -> None:
    """Of those that may be kept in fewer bits and are made whole one after the other."""
    import diffusers

    network = getattr(diffusers, name)(**sizes)
    weights = {n: p.shape for n, p in network.named_parameters() if quantised(n, tuple(p.shape))}
    tape = Tape()
    walk: Callable[..., None] = WALKS.get(name, pass_unet if name.startswith("UNet") else pass_transformer)
    walk(tape, {"_class_name": name} | sizes, SIDE, SIDE, TOKENS)
    largest = max(shape.numel() for shape in weights.values())
    assert max(piece.weight for piece in tape.pieces()) >= largest
