"""MindONE's own injection of LoRA gives the names that we read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dreamcore.formats.ldm import UNetGeometry
from dreamcore.formats.mindone_lora import lora_from_mindone
from dreamcore.formats.mindspore_ckpt import read_ckpt

from ..support import needs

pytestmark = needs.mindspore
RANK, WIDTH, WORDS = 2, 8, 6


def attention() -> Any:
    """An attention with the layers of MindONE's CrossAttention, as a class that its injection finds by its path."""
    from mindspore import mint, nn

    class CrossAttention(nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.to_q = mint.nn.Linear(WIDTH, WIDTH, bias=False)
            self.to_k = mint.nn.Linear(WORDS, WIDTH, bias=False)
            self.to_v = mint.nn.Linear(WORDS, WIDTH, bias=False)
            self.to_out = nn.SequentialCell(mint.nn.Linear(WIDTH, WIDTH), nn.Dropout(p=0.0))

    return CrossAttention


def network(attends: Any) -> Any:
    """What is named in LatentDiffusion on the way to the attention of the block in the middle."""
    from mindspore import nn

    def cell(**children: Any) -> Any:
        made = nn.Cell()
        for name, child in children.items():
            setattr(made, name, child)
        return made

    transformer = cell(transformer_blocks=nn.CellList([cell(attn2=attends())]))
    middle = nn.SequentialCell([nn.Dense(1, 1), transformer])
    return cell(model=cell(diffusion_model=cell(middle_block=middle)))


def test_names_of_an_injection(tmp_path: Path, monkeypatch: Any) -> None:
    import mindspore as ms
    from mindone.models import lora

    attends = attention()
    net = network(attends)
    monkeypatch.setattr(lora, "get_obj_from_str", lambda _: attends)
    _, parameters = lora.inject_trainable_lora(net, rank=RANK)
    for number, parameter in enumerate(parameters.values()):
        parameter.set_data(ms.Tensor(np.full(parameter.shape, number, np.float32)))
    listed = [{"name": parameter.name, "data": parameter} for parameter in parameters.values()]
    ms.save_checkpoint(listed, str(tmp_path / "lora.ckpt"), append_dict={"lora_rank": RANK})
    arrays = read_ckpt(tmp_path / "lora.ckpt")
    assert arrays["lora_rank"] == RANK
    found = lora_from_mindone(arrays, "x", UNetGeometry((8, 16), 1, (True, False)))
    here = "unet.mid_block.attentions.0.transformer_blocks.0.attn2"
    layers = ("to_q", "to_k", "to_v", "to_out.0")
    assert sorted(found) == sorted(f"{here}.{layer}.lora_{x}.weight" for layer in layers for x in "AB")
    assert found[f"{here}.to_k.lora_A.weight"].shape == (RANK, WORDS)
