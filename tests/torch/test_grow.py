"""A denoiser that is given more blocks: it computes what it did, and the new blocks can learn."""

from __future__ import annotations

import pytest

from ..support import needs

pytestmark = needs.torch


@pytest.mark.parametrize("shortcut", [(8, 16), (8, 8)], ids=["widths that grow", "one width"])
def test_a_grown_denoiser_computes_the_same_and_all_of_it_learns(shortcut: tuple[int, int]) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    from tools.tinyworld.grow import grown

    torch.manual_seed(0)
    old = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=shortcut,
        norm_num_groups=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12, attention_head_dim=2,
    )  # fmt: skip
    new = grown(old)
    given = torch.randn(3, 4, 8, 8), torch.tensor([1, 400, 900]), torch.randn(3, 5, 12)
    assert torch.allclose(old(*given).sample, new(*given).sample, atol=1e-5)
    assert len(new.state_dict()) > len(old.state_dict())
    optimizer = torch.optim.SGD(new.parameters(), lr=0.1)
    for _ in range(3):  # what begins as nought lets nothing through before it has moved
        optimizer.zero_grad()
        new(*given).sample.square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in new.parameters())
