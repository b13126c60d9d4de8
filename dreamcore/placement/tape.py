"""A forward pass without numbers: which tensors a framework keeps of it for the backward pass, and of how many bytes;
and how many operations its products are.

The rules are autograd's of PyTorch 2, operator by operator: a convolution or a normalisation keeps its input, a product
with a matrix keeps its input only where the matrix trains, an activation keeps its input, a product of two tensors
keeps each that the other's gradient needs, attention (fused) keeps queries, keys, values and its answer, sums and
copies keep nothing.  Nothing is kept before the first weight that trains.  `tests/placement/test_tape.py` compares them
with what PyTorch itself keeps of small networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class Tensor:
    """An activation of one sample.

    Args:
        count: its numbers.
        each: bytes of a number.
        grad: whether a gradient passes through it.
    """

    count: int
    each: int
    grad: bool

    @property
    def bytes(self) -> int:
        return self.count * self.each


@dataclass
class Piece:
    """A stretch of the pass: a block, which may be computed again, or what lies between two; bytes are of one sample.

    Args:
        kept: what is kept when its backward pass begins: of the pass up to here, and of the block, if need be computed
            again.
        largest: its largest tensor.
        weight: numbers of its largest weight.
        kernel: numbers of its convolutions' largest.
        trained: numbers of its weights or factors that train, of products and convolutions.
        waiting: gradients that later layers have given to earlier ones, and that wait meanwhile.
    """

    kept: int
    largest: int
    weight: int
    kernel: int
    trained: int
    waiting: int = 0


class Tape:
    """What is kept, of one sample.

    Args:
        compute: bytes of a number in products and convolutions.
        norms: bytes of a number that normalisations answer with; None as what they are given (autocasting on a CPU).
        trains: whether the network's own weights do.
        factors: endings of the names of the layers that have LoRA factors.
        rank: numbers of a token between those.
        beside: answers of a factored layer's width that are kept besides.
        recomputes: whether blocks are computed again in the backward pass.
    """

    def __init__(
        self,
        *,
        compute: int = 4,
        norms: int | None = 4,
        trains: bool = True,
        factors: tuple[str, ...] = (),
        rank: int = 0,
        beside: int = 0,
        recomputes: bool = False,
    ):
        self.compute, self._norms, self.trains, self._recomputes = compute, norms, trains, recomputes
        self._factors, self._rank, self._beside = tuple(f".{name}" for name in factors), rank, beside
        self._kept: dict[Tensor, None] = {}
        self._whole: dict[Tensor, Tensor] = {}  # of which a tensor is a part
        self.largest = 0
        """Bytes of the largest tensor."""
        self._pieces: list[Piece] = []
        self._own, self._weight, self._kernel, self._training = 0, 0, 0, 0  # of the piece that goes on
        self.held = 0
        """Bytes that a pass without gradients holds on to: what later layers are given besides."""
        self.operations = 0
        """Multiplications and additions of products with matrices, of convolutions and of attention."""

    @property
    def kept(self) -> int:
        """Bytes kept until the backward pass."""
        return sum(tensor.bytes for tensor in self._kept)

    def tensor(self, count: int, each: int | None = None, *, grad: bool = False) -> Tensor:
        """A new one."""
        made = Tensor(count, self.compute if each is None else each, grad)
        self.largest, self._own = max(self.largest, made.bytes), max(self._own, made.bytes)
        return made

    def weigh(self, numbers: int, *, kernel: bool = False) -> None:
        """A weight that is computed with, in numbers; `kernel` is one of a convolution."""
        self._weight = max(self._weight, numbers)
        self._kernel = max(self._kernel, numbers if kernel else 0)
        self._training += numbers if self.trains else 0

    def keep(self, *tensors: Tensor) -> None:
        self._kept.update(dict.fromkeys(self._whole.get(tensor, tensor) for tensor in tensors))

    @contextmanager
    def segment(self, *inputs: Tensor) -> Iterator[None]:
        """A block, of which only the inputs are kept where it is computed again."""
        self._end_piece({})
        outer = self._kept
        if self._recomputes:
            self._kept = {}
        try:
            yield
        finally:
            block, self._kept = self._kept, outer
            if block and self._recomputes:  # else no gradient comes here
                self.keep(*inputs)
            self._end_piece(block)

    def _end_piece(self, block: dict[Tensor, None]) -> None:
        kept = sum(tensor.bytes for tensor in self._kept | block)
        self._pieces.append(Piece(kept, self._own, self._weight, self._kernel, self._training))
        self._own = self._weight = self._kernel = self._training = 0

    def pieces(self) -> list[Piece]:
        """Of the pass so far."""
        self._end_piece({})
        return self._pieces

    @property
    def place(self) -> int:
        """How many pieces have ended."""
        return len(self._pieces)

    def skipped(self, since: int, early: Tensor, both: Tensor) -> None:
        """A tensor that was made at an earlier `place` has been read as a part of `both`: its gradient, a part of the
        other's, waits until then."""
        for piece in self._pieces[since:] if early.grad else ():
            piece.waiting += both.bytes

    # Operators

    def linear(self, x: Tensor, tokens: int, width: int, name: str = "") -> Tensor:
        """x · W, [tokens, width]."""
        self.operations += 2 * x.count * width
        self.weigh(x.count // tokens * width)
        cast, factored = self._cast(x), f".{name}".endswith(self._factors) if self._factors else False
        if self.trains:
            self.keep(cast)
        if factored:  # peft hands its factors a copy in float32, which autocasting casts back
            self._training += self._rank * (x.count // tokens + width)
            self.keep(x if self.compute == 4 else self.tensor(x.count), self.tensor(tokens * self._rank))
            self.keep(*(self.tensor(tokens * width) for _ in range(self._beside)))
        return self.tensor(tokens * width, grad=x.grad or self.trains or factored)

    def conv(self, x: Tensor, area: int, width: int, inputs: int) -> Tensor:
        """A convolution that answers with [area, width] numbers, of `inputs` each."""
        count = area * width
        self.operations += 2 * count * inputs
        self.weigh(width * inputs, kernel=True)
        grad = x.grad or self.trains
        cast = self._cast(x)
        if grad:
            self.keep(cast)
        return self.tensor(count, grad=grad)

    def norm(self, x: Tensor, *, affine: bool = True) -> Tensor:
        """A normalisation; `affine` ones have weights."""
        each, grad = self._norms or x.each, x.grad or (self.trains and affine)
        given = x if x.each == each else self.tensor(x.count, each)
        if grad:
            self.keep(given)
        return self.tensor(x.count, each, grad=grad)

    def act(self, x: Tensor) -> Tensor:
        """An activation function."""
        if x.grad:
            self.keep(x)
        return self.tensor(x.count, x.each, grad=x.grad)

    def times(self, x: Tensor, *, by_weight: bool | None = None) -> Tensor:
        """A product with a few numbers, of weights that train or not."""
        grad = self.trains if by_weight is None else by_weight
        if grad:
            self.keep(x)
        return self.tensor(x.count, x.each, grad=x.grad or grad)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self.tensor(x.count, max(x.each, y.each), grad=x.grad or y.grad)

    def cat(self, *parts: Tensor) -> Tensor:
        count, each = sum(p.count for p in parts), max(p.each for p in parts)
        return self.tensor(count, each, grad=any(p.grad for p in parts))

    def part(self, x: Tensor, count: int) -> Tensor:
        """A part of a tensor, copied."""
        return self.tensor(count, x.each, grad=x.grad)

    def view(self, x: Tensor, count: int) -> Tensor:
        """A part of a tensor where it lies: whoever keeps it keeps the whole."""
        made = Tensor(count, x.each, x.grad)
        self._whole[made] = x
        return made

    def scaled(self, x: Tensor, count: int, *, pools: bool) -> Tensor:
        """An image made larger, or (`pools`) smaller by means, which keeps what it was."""
        if pools and x.grad:
            self.keep(x)
        return self.tensor(count, x.each, grad=x.grad)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int, queries: int) -> Tensor:
        """Fused attention; queries and keys are equally wide."""
        self.operations += 4 * k.count * queries
        q, k, v = (self._cast(t) for t in (q, k, v))
        out = self.tensor(q.count, grad=q.grad or k.grad or v.grad)
        if out.grad:
            self.keep(q, k, v, out, self.tensor(heads * queries, 4))
        return out

    def gated(self, x: Tensor) -> Tensor:
        """GEGLU of [tokens, 2·w]: one half times GELU of the other."""
        half = self.tensor(x.count // 2, x.each, grad=x.grad)
        if x.grad:
            self.keep(x, half)
        return self.tensor(half.count, x.each, grad=x.grad)

    def _cast(self, x: Tensor) -> Tensor:
        return x if x.each == self.compute else self.tensor(x.count, grad=x.grad)
