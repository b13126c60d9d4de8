"""How large what a run holds is: numbers, and bytes of each, by its settings and the headers of its model's files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..backends.lora import Lora, layer_shapes
from ..backends.optimizers import state_bytes
from ..backends.quantization import methods, quantised, stored_bytes
from ..config import TrainConfig
from ..config.common import Quantization
from ..errors import ConfigError
from ..families import TextEncoder
from ..formats.weights import TABLE
from ..models.folder import ModelFolder
from ..models.settings import learns_words
from ..text.lengths import padded_length
from .activations import Arithmetic, Pass, decoding, denoiser_pass, encoding
from .blocks import blocks_by_size
from .headers import StoredWeights
from .machine import Machine
from .plan import Place
from .shards import largest_share
from .workload import WAYS, Ways, Workload

REMADE, QUANTISING = 2, 64 * 2**20
"""Copies of a quantised weight while it is made whole, or made whole and then in the order of a convolution; bytes that
quantising takes at a time at most, 16 for each number."""
SHARDS = ("torch", "paddle")
"""Backends whose processes share out the optimizer's state."""


@dataclass(frozen=True)
class Facts:
    """Of a run, before anything is loaded.

    Args:
        parts: what each component's files say of its weights.
    """

    config: TrainConfig
    model: ModelFolder
    parts: Mapping[str, StoredWeights]
    work: Workload
    machine: Machine
    backend: str

    @cached_property
    def here(self) -> Place:
        """Where networks compute."""
        return "host" if self.machine.on_host else "device"

    @cached_property
    def ways(self) -> Ways:
        return WAYS[self.backend]

    @cached_property
    def half(self) -> bool:
        return self.config.mixed_precision != "no"

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(self.half, norms=not self.machine.on_host)

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The components that train, or whose factors do."""
        encoders = [e.network for e in self.model.text_encoders if self.config.train_text_encoder and e.lora_layers]
        return *(() if self.config.words_alone else (self.model.family.denoiser,)), *encoders

    @cached_property
    def at_work(self) -> tuple[str, ...]:
        """The components of training's pass: those and the text encoders that learn new words."""
        learning = [e.network for e in self.model.text_encoders if learns_words(self.config, e)]
        return tuple(dict.fromkeys((self.model.family.denoiser, *self.trained, *learning)))

    @cached_property
    def factors(self) -> int:
        """Numbers of the LoRA factors that train."""
        return self._numbers(frozen=False)

    def _numbers(self, *, frozen: bool) -> int:
        if not self.config.use_lora:
            return 0
        lora, found = Lora.of(self.config, self.model), 0
        for name in self.trained:
            shapes = {n.removesuffix(".weight"): s for n, s in self.parts[name].shapes.items() if n.endswith(".weight")}
            try:
                chosen = lora.chosen(name, shapes)
            except ConfigError:  # the backend, which sees layers, says so
                continue
            found += sum(lora.numbers(shapes[n], frozen=frozen) for n in chosen)
        return found

    def _factored(self, lora: Lora) -> tuple[str, ...]:
        """Endings of the names of the denoiser's layers that have factors, as `denoiser_pass` names layers: of a
        transformer in full, of a UNet in whichever block."""
        denoiser = self.model.family.denoiser
        if lora.blocks is None or denoiser == "unet" or not self.parts[denoiser].shapes:
            return lora.endings[denoiser]
        return tuple(lora.chosen(denoiser, layer_shapes(self.parts[denoiser].shapes)))

    @cached_property
    def parameters(self) -> int:
        """Numbers that train."""
        if self.config.use_lora:
            return self.factors
        return sum(self._trainable(name) for name in self.trained)

    @cached_property
    def _optimizer_state(self) -> int:
        """Bytes that the optimizer keeps; of LoRA's factors at the most."""
        shapes: dict[str, tuple[int, ...]] = {"factors": (self.factors,)} if self.config.use_lora else {}
        for name in () if self.config.use_lora else self.trained:
            unused = (*self.model.unused(name), TABLE)
            known = {n: s for n, s in self.parts[name].shapes.items() if not n.startswith(unused)}
            shapes |= {f"{name}.{n}": s for n, s in known.items()} or {name: (self.parts[name].count,)}
        return round(state_bytes(self.config, shapes) * self._share(shapes))

    def _share(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """The part of the optimizer's state that one process keeps at most; of LoRA's factors, which are many and
        small, as if they came out even."""
        processes = self.machine.processes
        if self.config.shard == "none" or self.backend not in SHARDS:
            return 1.0
        if self.config.use_lora:
            return 1 / processes
        return largest_share({name: math.prod(shape) for name, shape in shapes.items()}, processes)

    @cached_property
    def _kept(self) -> float:
        """The part of the weights of training's pass, and of gradients, that one process keeps at most."""
        if self.config.shard != "full" or self.backend != "torch":
            return 1.0
        shapes = {f"{name}.{n}": s for name in self.at_work for n, s in self.parts[name].shapes.items()}
        return largest_share({name: math.prod(shape) for name, shape in shapes.items()}, self.machine.processes)

    def _trainable(self, name: str) -> int:
        unused, shapes = (*self.model.unused(name), TABLE), self.parts[name].shapes
        left_out = sum(math.prod(s) for n, s in shapes.items() if n.startswith(unused))
        return self.parts[name].count - left_out

    def _held(self, name: str) -> int:
        """Bytes of a number of a component's weights from `place` on."""
        own = name in self.trained and not self.config.use_lora
        fits = {e.network: e.fits_fp16 for e in self.model.text_encoders}.get(name, True)
        halves = self.backend == "torch" or (self.backend == "paddle" and self.config.amp_level == "O2")
        own = own and not self._offloads
        kept = own or name == self.model.family.vae or (self.config.mixed_precision == "fp16" and not fits)
        return 2 if self.half and halves and not kept else 4

    @property
    def _offloads(self) -> bool:
        """Whether what trains are copies, whose float32 originals lie on the host, or some of them there."""
        return self.config.placement == "cpu" and self.backend == "torch"

    @property
    def _beside(self) -> bool:
        """Whether networks compute with copies in 16 bits of originals that lie beside them on the device."""
        plain = not self.config.use_lora or (self.config.lora_method == "lora" and not self.config.use_dora)
        return self.half and plain and self.backend == "torch" and not self._offloads and self.config.shard == "none"

    @property
    def _leaf(self) -> int:
        """Bytes of a number of what trains."""
        return 4 if self.config.use_lora else self._held(self.model.family.denoiser)

    @cached_property
    def _swapped(self) -> tuple[int, int]:
        """Bytes of the blocks that wait on the host, and of those that are on the device in turn: one, and the next."""
        count = self.config.blocks_to_swap if self.config.use_lora and self.backend == "torch" else 0
        name = self.model.family.denoiser
        sizes = [n * self._held(name) for n in list(blocks_by_size(self.parts[name].shapes).values())[:count]]
        return sum(sizes), sum(sizes[:2])

    @cached_property
    def _quantised(self) -> dict[str, Quantization]:
        """How components are that are kept in fewer bits."""
        return methods(self.config, self.model)

    def _weights(self, name: str) -> tuple[int, str]:
        """Bytes of a component's weights from `place` on, and what they are."""
        part, each = self.parts[name], self._held(name)
        method = self._quantised.get(name)
        if method is None:
            return part.count * each, f"{8 * each} bits"
        shapes = part.shapes.items()
        stored = sum(stored_bytes(s, method) if quantised(n, s) else math.prod(s) * each for n, s in shapes)
        return stored or stored_bytes((part.count, 1), method), f"{method} in their blocks"

    def _remade(self, name: str) -> int:
        """Bytes that a component's quantised weight takes meanwhile, for each number; rows are made in float32 for
        fp16."""
        method = self._quantised.get(name)
        wide = self.config.mixed_precision == "fp16" and method != "nf4"
        return REMADE * (4 if wide else self._held(name)) if method else 0

    @cached_property
    def tokens(self) -> int:
        """Of the denoiser's words."""
        groups = {e.group: self._length(e) for e in self.model.text_encoders if e.group is not None}
        zeros = self.model.absent_words
        return sum((groups | {n: self.config.max_sequence_length or length for n, length in zeros.items()}).values())

    def _length(self, encoder: TextEncoder) -> int:
        return padded_length(self.config, encoder, self.model.window(encoder))

    def _width(self, encoder: TextEncoder) -> int:
        config = self.model.config(encoder.network)
        return int(config.get("hidden_size") or config.get("d_model") or 0)

    @cached_property
    def embeddings(self) -> int:
        """Bytes of the embeddings of the run's prompts; nothing where text encoders train, which embed anew."""
        if len(self.at_work) > 1:
            return 0
        first = [e for e in self.model.text_encoders if e.group == 0]
        width = (
            self.model.words_width
            or sum(self._width(e) for e in first)
            or max(map(self._width, self.model.text_encoders))
        )
        pooled = sum(self._width(e) for e in self.model.text_encoders if e.pooled)
        stacks = [e for e in self.model.text_encoders if e.stacks]
        depths = (int(self.model.config(e.network).get("num_hidden_layers") or 0) for e in stacks)
        layers = sum(n * self._length(e) * self._width(e) for n, e in zip(depths, stacks, strict=True))
        return self.work.prompts * (self.tokens * width + pooled + layers) * 4

    @cached_property
    def latents(self) -> int:
        """Bytes of encoded images in the host's memory."""
        if not self.config.cache_latents:
            return 0
        factor = self.model.latent_factor
        planes = 2 * self.model.latent_channels * (1 + self.work.references) + int(self.config.masked_loss)
        size = self.work.variants * planes * (self.work.height // factor) * (self.work.width // factor) * 4
        return int(min(size, self.config.cache_memory_gb * 2**30))

    @cached_property
    def _casts(self) -> int:
        """Bytes of copies in 16 bits that autocasting keeps of weights that train; those of 16 bits need none."""
        casts = self.half and not self.config.use_lora and self.backend == "torch" and not self._offloads
        casts = casts and not self._beside and self.config.shard != "full"
        return self.parameters * 2 if casts else 0

    @property
    def _makes_class_images(self) -> bool:
        return bool(self.config.with_prior_preservation and self.work.class_images)

    @property
    def _stay(self) -> set[str]:
        """Components that are there from the beginning: those whose weights train, not LoRA's beside them."""
        return set() if self.config.use_lora else set(self.trained)

    @property
    def _autoencoder(self) -> set[str]:
        return {self.model.family.vae} if self.model.family.vae else set()

    def _guided(self, guidance: float | None) -> int:
        """Rows of an image in the making."""
        scale = self.model.family.guidance_scale if guidance is None else guidance
        return 2 if self.model.classifier_free and scale > self.model.family.unguided else 1

    @cached_property
    def _pass_alone(self) -> Pass:
        """The denoiser's, without gradients."""
        factor = self.model.latent_factor
        size = self.work.height // factor, self.work.width // factor
        return denoiser_pass(self.model, size, self.tokens, self.arithmetic)

    @cached_property
    def _decoding(self) -> int:
        sides = (self.work.height, self.work.width)
        if self.config.enable_vae_tiling and self.model.family.vae:
            size = self.model.config(self.model.family.vae).get("sample_size") or 512
            tile = int(max(size) if isinstance(size, list) else size)
            sides = (min(sides[0], tile), min(sides[1], tile))
        return decoding(self.model, *sides, on_cpu=self.machine.on_host)

    @cached_property
    def _encoding(self) -> int:
        return encoding(self.model, self.work.height, self.work.width, on_cpu=self.machine.on_host)
