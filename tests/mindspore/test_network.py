"""The loss of a family as one function of tensors: what MindSpore's compiler makes of it is what runs without."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dreamcore.families import FAMILIES
from dreamcore.text.conditions import Layout
from dreamcore.text.encoder import LoadedEncoder

from ..support import needs

pytestmark = needs.mindspore
FAMILY = FAMILIES["StableDiffusionXLPipeline"]


def network(trains: tuple[bool, bool]) -> tuple[Any, Any]:
    """A loss with two text encoders and a denoiser of a matrix each, all of whose operators the compiler has on a CPU;
    its weights."""
    import mindspore as ms
    from mindspore import nn

    from dreamcore.adapters.mindspore.network import ConditioningNetwork, LossNetwork

    class Encoder(nn.Cell):
        def __init__(self, width: int):
            super().__init__()
            self.table, self.layer, self.config = nn.Embedding(9, width), nn.Dense(width, width), SimpleNamespace()

        def construct(
            self, ids: Any, attention_mask: Any = None, output_hidden_states: Any = None, return_dict: Any = None
        ) -> Any:
            first = self.table(ids)
            last = self.layer(first)
            return (last[:, 0], last, (first, last)) if output_hidden_states else (last[:, 0], last)

    class Denoiser(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Dense(5, 8)

        def construct(
            self, sample: Any, timestep: Any, encoder_hidden_states: Any, added_cond_kwargs: Any = None
        ) -> Any:
            told = added_cond_kwargs["text_embeds"].sum(-1) + added_cond_kwargs["time_ids"].sum(-1) + timestep
            heard = self.layer(encoder_hidden_states).mean(1)
            return (sample * heard.reshape(-1, 1, 1, 8) + told.reshape(-1, 1, 1, 1),)

    encoders = [Encoder(2), Encoder(3)]
    described = zip(FAMILY.text_encoders, encoders, trains, strict=True)
    parts: Any = [LoadedEncoder(d, None, encoder, 4, trains=t) for d, encoder, t in described]
    words = ConditioningNetwork(parts, Layout(((0, 1), ()), (0, 2), 5, (1,)), erases=True)
    whole = LossNetwork(
        Denoiser(), FAMILY.inputs, ("x", "t", "time_ids", "prompt_embeds", "pooled_prompt_embeds"), 3, words
    )
    weights = ms.ParameterTuple(whole.get_parameters())
    for weight in weights:
        weight.requires_grad = True
    return whole, weights


@pytest.mark.parametrize("trains", [(False, True)])
def test_compiled_as_it_runs(trains: tuple[bool, bool]) -> None:
    import mindspore as ms

    from dreamcore.adapters.mindspore.network import gradient_function

    draw = np.random.default_rng(0)
    x, target = draw.standard_normal((2, 2, 4, 8, 8), np.float32)
    t, time_ids = np.array([0.3, 0.7], np.float32), draw.standard_normal((2, 6), np.float32)
    words: list[np.ndarray] = []
    for width, one in zip((2, 3), trains, strict=True):
        ids, answer = draw.integers(0, 9, (2, 4)), draw.standard_normal((2, 4, width), np.float32)
        words += [ids, np.ones_like(ids)] if one else [answer, np.zeros(2, np.float32)]
    arrays = (target, np.full(2, 0.5, np.float32), np.ones(1, np.float32), x, t, time_ids, *words)
    inputs = [ms.Tensor(array) for array in (*arrays, np.array([[1, 1], [0, 0]], np.float32))]
    whole, weights = network(trains)
    found = [gradient_function(whole, weights, compile)(*inputs) for compile in (lambda run: run, ms.jit)]
    ((loss, errors), gradients), ((again, others), compiled) = found
    assert float(loss) == pytest.approx(float(0.5 * errors.asnumpy().sum()))
    assert float(loss) == pytest.approx(float(again), rel=1e-6)
    np.testing.assert_allclose(errors.asnumpy(), others.asnumpy(), rtol=1e-6)
    for one, other in zip(gradients, compiled, strict=True):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=1e-5, atol=1e-6)
    assert any(np.abs(gradient.asnumpy()).max() > 1e-3 for gradient in gradients)
    bare = np.square(x * weights_bias(weights) + (time_ids[1].sum() + t[1]) - target)[1].mean()
    assert float(errors[1]) == pytest.approx(bare, rel=1e-5), "the second row's words are erased"


def weights_bias(weights: Any) -> np.ndarray:
    """What the denoiser hears of zeros."""
    (bias,) = [w.asnumpy() for w in weights if w.shape == (8,)]
    return np.asarray(bias)
