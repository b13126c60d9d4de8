"""The loss as one network, which MindSpore differentiates and, in graph mode, compiles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mindspore as ms
from mindspore import Tensor, nn, ops

from dreamcore.text.conditions import Layout, join_prompt_embeds
from dreamcore.text.encoder import LoadedEncoder

LAYERS = re.compile(r"(^|\.)(resnets|attentions|layers?)\.\d+$|^(single_)?transformer_blocks\.\d+$")
"""Cells of a denoiser and of a text encoder that keep nothing but their inputs when they are recomputed."""


class Reader(NamedTuple):
    """How a text encoder is asked, and where in its answer stands what is wanted: plain numbers, for the compiler."""

    uses_mask: bool
    last: int
    """Place of the last state in the answer."""
    embeds: bool
    """Whether its prompt embeddings are wanted."""
    layer: int
    """Which hidden state they are; 0 for the last, after the final norm."""
    pooled: int
    """Place of the pooled embedding; -1 for none."""
    trains: bool

    @classmethod
    def of(cls, part: LoadedEncoder[Tensor]) -> Reader:
        wanted = part.description
        projects = wanted.pooled == "text_embeds"  # then the answer begins with them, and the last state follows
        return cls(
            uses_mask=part.uses_mask,
            last=1 if projects else 0,
            embeds=wanted.group is not None,
            layer=wanted.layer or 0,
            pooled={None: -1, "text_embeds": 0, "pooler_output": 1}[wanted.pooled],
            trains=part.trains,
        )


def encode(network: nn.Cell, reader: Reader, ids: Tensor, masks: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Prompt embeddings [B, tokens, width] and pooled ones [B, width] of token ids [B, tokens], as far as wanted."""
    out = network(
        ids,
        attention_mask=masks if reader.uses_mask else None,
        output_hidden_states=reader.layer != 0,
        return_dict=False,
    )
    embeds = None
    if reader.embeds:
        embeds = out[reader.last] if reader.layer == 0 else out[-1][reader.layer]
    return embeds, out[reader.pooled] if reader.pooled >= 0 else None


class ConditioningNetwork(nn.Cell):
    """Prompt embeddings and pooled ones from the text encoders that train and the answers of those that do not.

    Args:
        erases: whether zeros may stand for an encoder's answer.
    """

    def __init__(self, parts: Sequence[LoadedEncoder[Tensor]], layout: Layout, *, erases: bool):
        super().__init__()
        self.encoders = nn.CellList([part.network for part in parts if part.trains])
        self.readers, self.layout, self.erases = [Reader.of(part) for part in parts], layout, erases

    def construct(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Prompt embeddings [B, tokens, width] and, where the family has them, pooled ones [B, width].

        Args:
            given: of each encoder token ids and attention mask [B, length], or its prompt embeddings and pooled
                one; last of all, where answers are erased, [B, encoders] 0 for such.
        """
        embeds: list[Any] = []
        pooled: list[Any] = []
        trained = 0
        for i in range(len(self.readers)):
            if self.readers[i].trains:
                answer = encode(self.encoders[trained], self.readers[i], given[2 * i], given[2 * i + 1])
                trained += 1
            else:
                answer = (given[2 * i], given[2 * i + 1])
            embeds.append(self._kept(answer[0], given[-1], i) if self.readers[i].embeds else answer[0])
            pooled.append(self._kept(answer[1], given[-1], i) if self.readers[i].pooled >= 0 else answer[1])
        found = [join_prompt_embeds(self.layout, embeds, given[0].shape[0], _cat, _zeros)]
        if len(self.layout.pooled) > 0:
            found.append(_cat([pooled[k] for k in self.layout.pooled], -1))
        return tuple(found)

    def _kept(self, answer: Any, present: Tensor, encoder: int) -> Any:
        """An encoder's answer, times 1 or 0 [B, encoders] where some are erased."""
        return answer * present[:, encoder].reshape((-1,) + (1,) * (answer.ndim - 1)) if self.erases else answer


class LossNetwork(nn.Cell):
    """The denoiser's squared error, with the text encoders before it where some train.

    Args:
        inputs: the denoiser's argument (or ARGUMENT.KEY) -> the name of what it gets (`Family.inputs`).
        names: of what is given in their order, what comes of prompts last.
        before: how many come before that.
        conditioning: makes what comes of prompts from what is given in its place.
    """

    def __init__(
        self,
        denoiser: nn.Cell,
        inputs: Mapping[str, str],
        names: Sequence[str],
        before: int,
        conditioning: ConditioningNetwork | None = None,
    ):
        super().__init__()
        self.denoiser, self.conditioning, self.before = denoiser, conditioning, before
        places = {argument: names.index(name) for argument, name in inputs.items() if name in names}
        self.outer, self.flat, self.inner = "", list[tuple[str, int]](), list[tuple[str, int]]()
        for argument, place in places.items():
            name, _, key = argument.partition(".")
            if key:
                self.outer = name
                self.inner.append((key, place))
            else:
                self.flat.append((name, place))

    def construct(self, target: Tensor, weight: Tensor, mask: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum [] and mean squared error of each row [B], in float32.

        Args:
            target: [B, C, h, w], or [B, tokens, width].
            weight: [B], the loss scale in it.
            mask: weights of the squared error's elements, of a shape that fits the target's.
            given: the inputs, in the order of the names.
        """
        answer = self.answer(*given)
        if answer.shape[1] > target.shape[1]:  # a variance besides
            answer = answer[:, : target.shape[1]]
        squared = ops.square(answer - target) * mask
        errors = squared.reshape(squared.shape[0], -1).mean(1)
        return (errors * weight).sum(), errors

    def answer(self, *given: Tensor) -> Tensor:
        """The denoiser's answer to the inputs, in the order of the names, in float32."""
        values = given
        if self.conditioning is not None:
            values = given[: self.before] + self.conditioning(*given[self.before :])
        arguments: dict[str, Any] = {}
        for name, place in self.flat:
            arguments[name] = values[place]
        if self.outer != "":
            arguments[self.outer] = {name: values[place] for name, place in self.inner}
        return self.denoiser(**arguments)[0].astype(ms.float32)


def _cat(tensors: list[Tensor], axis: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else ops.cat(tensors, axis)


def _zeros(*sizes: int) -> Tensor:
    return ops.zeros(sizes, ms.float32)


class Stacked(nn.Cell):
    """A cell whose tensors, all of one shape, come as one: MindSpore recomputes no cell that is given a tuple."""

    def __init__(self, cell: nn.Cell):
        super().__init__()
        self.cell = cell

    def construct(self, *inputs: Tensor) -> Tensor:
        return ops.stack(self.cell(*inputs))


def recompute(network: nn.Cell) -> None:
    """Compute the activations within residual, attention and encoder layers again in the backward pass.

    mindone's own switch asks its cells for a method that MindSpore 2.7 does not have.
    """
    positions = getattr(network, "pos_embed", None)
    if hasattr(positions, "axes_dim"):  # rotary, whose cosines and sines mindone takes in either form
        network.pos_embed = Stacked(positions)
    for name, cell in network.cells_and_names():
        if LAYERS.search(name):
            cell.recompute()


def gradient_function(
    network: LossNetwork, weights: ms.ParameterTuple, compile: Callable[[Any], Any] | None = None
) -> Any:
    """A function of the network's inputs that returns ((loss, errors), gradients), compiled where it is said how."""
    differentiated = ms.value_and_grad(network, None, weights, has_aux=True)

    def run(*inputs: Tensor) -> Any:
        return differentiated(*inputs)

    return compile(run) if compile else run
