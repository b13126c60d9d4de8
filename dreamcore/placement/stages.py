"""What each stage of a run holds, as backends place it: `backends/base.py`, and each adapter's `place` and `move`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..backends.lora import Lora
from ..backends.out_of_memory import CLASSES, IMAGES, LOADING, PROMPTS, SAVING, TRAINING, VALIDATION
from ..config import TrainConfig
from ..errors import ConfigError
from ..families import TextEncoder
from ..formats.weights import TABLE
from ..models.folder import ModelFolder
from ..text.lengths import padded_length
from .activations import Arithmetic, decoding, denoiser_pass, encoder_kept, encoding
from .headers import StoredWeights, stored_weights
from .machine import Machine
from .plan import Place, Plan, Stage

HELD_BACK = 192 * 2**20
"""Bytes that the C library keeps of what loading a network has freed (glibc; measured: 0.20 to 0.32 GiB for networks of
84 to 860 million weights)."""
REORDERED = 2
"""Copies of the largest weight that convolutions on a CPU make in an order of their own (oneDNN; measured with
PyTorch)."""


@dataclass(frozen=True)
class Workload:
    """What a plan asks of the photographs.

    Args:
        height: of the largest training image, in pixels.
        width: of it.
        prompts: different ones, whose embeddings are kept.
        variants: encoded images that are kept.
        class_images: whether some have to be made.
        held_out: whether photographs are held out.
    """

    height: int
    width: int
    prompts: int = 1
    variants: int = 0
    class_images: bool = False
    held_out: bool = False


@dataclass(frozen=True)
class Ways:
    """How a backend goes about memory.

    Args:
        maps: whether weights come tensor by tensor from a mapped file; otherwise a file is read whole, copied, and made
            arrays of.
        parks: whether networks leave the device while they are not used.
        parks_denoiser: whether the denoiser does while prompts are encoded.
        born_on_device: whether networks are made there.
        sums: whether gradients are gathered in vectors, a copy of them.
    """

    maps: bool = False
    parks: bool = False
    parks_denoiser: bool = False
    born_on_device: bool = True
    sums: bool = False


WAYS = {
    "torch": Ways(maps=True, parks=True, parks_denoiser=True, born_on_device=False),
    "paddle": Ways(parks=True),
    "mindspore": Ways(sums=True),
}


def make_plan(config: TrainConfig, model: ModelFolder, work: Workload, machine: Machine, backend: str) -> Plan:
    """The plan of a run with these settings; reads the headers of the model's files and nothing else of them.

    Raises:
        ConfigError: a damaged file.
    """
    optional = tuple(encoder.network for encoder in model.family.text_encoders if encoder.optional)
    if config.drop_t5 and optional:
        model = replace(model, without=optional)
    parts = {name: stored_weights(model.weight_files(name)) for name in model.networks}
    return _Planner(config, model, parts, work, machine, backend).plan()


@dataclass(frozen=True)
class _Planner:
    config: TrainConfig
    model: ModelFolder
    parts: Mapping[str, StoredWeights]
    work: Workload
    machine: Machine
    backend: str

    def plan(self) -> Plan:
        stages = [self._loading()]
        if self.config.with_prior_preservation and self.work.class_images:
            stages.append(self._classes())
        stages.append(self._words())
        if self.config.cache_latents or self.work.held_out:
            stages.append(self._images())
        stages.append(self._training())
        if self.config.validation_prompt is not None:
            stages.append(self._validation())
        stages.append(self._saving())
        return Plan(self.model.family.name, self.backend, self.machine, stages, self._notes())

    def _notes(self) -> list[str]:
        notes = ["Beside what the idle process holds: Python, the framework, the driver's context."]
        notes.append("predicted: from the architecture, operator by operator; not measured on this machine.")
        if rough := [name for name, part in self.parts.items() if not part.shapes]:
            notes.append(f"{', '.join(rough)}: a form without a header, judged by its files' size")
        return notes

    # Facts

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
        return self.model.family.denoiser, *encoders

    @cached_property
    def factors(self) -> int:
        """Numbers of the LoRA factors."""
        if not self.config.use_lora:
            return 0
        lora, found = Lora.of(self.config, self.model), 0
        for name in self.trained:
            shapes = {n.removesuffix(".weight"): s for n, s in self.parts[name].shapes.items() if n.endswith(".weight")}
            try:
                chosen = lora.chosen(name, shapes)
            except ConfigError:  # the backend, which sees layers, says so
                continue
            found += sum(lora.rank * (shapes[n][0] + math.prod(shapes[n][1:])) for n in chosen)
        return found

    @cached_property
    def parameters(self) -> int:
        """Numbers that train."""
        if self.config.use_lora:
            return self.factors
        return sum(self._trainable(name) for name in self.trained)

    def _trainable(self, name: str) -> int:
        unused, shapes = (*self.model.unused(name), TABLE), self.parts[name].shapes
        left_out = sum(math.prod(s) for n, s in shapes.items() if n.startswith(unused))
        return self.parts[name].count - left_out

    def _held(self, name: str) -> int:
        """Bytes of a number of a component's weights from `place` on."""
        own = name in self.trained and not self.config.use_lora
        fits = {e.network: e.fits_fp16 for e in self.model.text_encoders}.get(name, True)
        halves = self.backend == "torch" or (self.backend == "paddle" and self.config.amp_level == "O2")
        kept = own or name == self.model.family.vae or (self.config.mixed_precision == "fp16" and not fits)
        return 2 if self.half and halves and not kept else 4

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
        if len(self.trained) > 1:
            return 0
        first = [e for e in self.model.text_encoders if e.group == 0]
        width = (
            self.model.words_width
            or sum(self._width(e) for e in first)
            or max(map(self._width, self.model.text_encoders))
        )
        pooled = sum(self._width(e) for e in self.model.text_encoders if e.pooled)
        return self.work.prompts * (self.tokens * width + pooled) * 4

    @cached_property
    def latents(self) -> int:
        """Bytes of encoded images in the host's memory."""
        if not self.config.cache_latents:
            return 0
        factor = self.model.latent_factor
        planes = 2 * self.model.latent_channels + int(self.config.masked_loss)
        size = self.work.variants * planes * (self.work.height // factor) * (self.work.width // factor) * 4
        return int(min(size, self.config.cache_memory_gb * 2**30))

    # What stages have alike

    def _networks(self, stage: Stage, here: set[str]) -> None:
        """The components' weights; those not in `here` lie on the host where the backend parks them."""
        for name, part in self.parts.items():
            each = self._held(name)
            place: Place = self.here if name in here or not self.ways.parks else "host"
            stage.add(f"{name}: weights, {16 if each == 2 else 32} bits", place, part.count * each, part.basis)
        stage.add("LoRA factors", self.here, self.factors * 4)
        if self.config.use_ema:
            stage.add("moving average", self.here, self.parameters * 4)

    def _used(self, *, vae: bool, encoders: bool = False) -> set[str]:
        found = set(self.trained) | ({self.model.family.vae} if vae and self.model.family.vae else set())
        return found | ({e.network for e in self.model.text_encoders} if encoders else set())

    def _images_made(self, stage: Stage, count: int, guidance: float | None) -> None:
        """A batch of images: the denoiser's pass, or the autoencoder's."""
        scale = self.model.family.guidance_scale if guidance is None else guidance
        rows = count * (2 if self.model.family.classifier_free and scale > 1 else 1)
        factor = self.model.latent_factor
        size = self.work.height // factor, self.work.width // factor
        one = denoiser_pass(self.model, size, self.tokens, self.arithmetic).alone
        making = rows * one + self._casts
        stage.add("images in the making", self.here, max(making, count * self._decoding), "predicted")

    @cached_property
    def _decoding(self) -> int:
        return decoding(self.model, self.work.height, self.work.width, on_cpu=self.machine.on_host)

    @cached_property
    def _encoding(self) -> int:
        return encoding(self.model, self.work.height, self.work.width, on_cpu=self.machine.on_host)

    @cached_property
    def _casts(self) -> int:
        """Bytes of copies in 16 bits that autocasting keeps of weights that train."""
        return self.parameters * 2 if self.half and not self.config.use_lora and self.backend == "torch" else 0

    def _average(self, stage: Stage) -> None:
        if self.config.use_ema:
            stage.add("weights laid aside while their average is in their place", self.here, self.parameters * 4)

    # The stages

    def _loading(self) -> Stage:
        stage = Stage(LOADING)
        born: Place = self.here if self.ways.born_on_device else "host"
        for name, part in self.parts.items():
            stage.add(f"{name}: weights, 32 bits", born, part.count * 4, part.basis)
        stage.add("what reading adds", "host", self._reading() + HELD_BACK, "predicted")
        if self.config.use_ema:
            stage.add("moving average", self.here, self.parameters * 4)
        return stage

    def _reading(self) -> int:
        """Bytes that reading a component adds at its worst, beyond all weights in float32.

        A mapped file's pages are not counted: they give way.  One that is read whole lies there as read, as cut into
        tensors, and (bfloat16) as float32; beside the network then only as arrays.
        """
        most, before, whole = 0, 0, sum(part.count for part in self.parts.values()) * 4
        own = 0 if self.ways.born_on_device and not self.machine.on_host else 4
        for part in self.parts.values():
            if self.ways.maps:
                largest = max((math.prod(shape) for shape in part.shapes.values()), default=0) * 4
                extra = largest if part.kind == "safetensors" else part.file_bytes
                peak = before + part.count * own + extra
            else:
                arrays = part.count * 4 if part.bytes_each == 2 and part.kind == "safetensors" else 0
                reading = 2 * part.file_bytes + arrays
                peak = before + max(reading, (arrays or part.file_bytes) + part.count * own)
            before += part.count * own
            most = max(most, peak)
        return max(0, most - (whole if own else 0))

    def _classes(self) -> Stage:
        stage = Stage(CLASSES)
        self._networks(stage, self._used(vae=True, encoders=True))
        self._images_made(
            stage, min(self.config.sample_batch_size, self.config.num_class_images), self.config.prior_guidance_scale
        )
        self._average(stage)
        return stage

    def _words(self) -> Stage:
        stage, trains = Stage(PROMPTS), len(self.trained) > 1
        made = self.config.with_prior_preservation and self.work.class_images
        here = self._used(vae=bool(made), encoders=True)
        if self.ways.parks_denoiser and not trains:
            here.discard(self.model.family.denoiser)
        self._networks(stage, here if self.ways.parks_denoiser else set(self.parts))
        stage.add("prompt embeddings, joined", self.here, self.embeddings * 2)
        widest = max((self._length(e) * self._width(e) for e in self.model.text_encoders), default=0)
        stage.add("a text encoder's activations", self.here, widest * 4 * 16, "predicted")
        return stage

    def _images(self) -> Stage:
        stage = Stage(IMAGES)
        self._networks(stage, self._used(vae=True) if self.ways.parks_denoiser else set(self.parts))
        stage.add("prompt embeddings", self.here, self.embeddings)
        stage.add("latents", "host", self.latents)
        stage.add("an image in the autoencoder", self.here, self._encoding, "predicted")
        return stage

    def _resting(self, stage: Stage, *, vae: bool, encoders: bool = False) -> None:
        """What lies there from the first update on."""
        self._networks(stage, self._used(vae=vae, encoders=encoders))
        stage.add("prompt embeddings", self.here, self.embeddings)
        stage.add("latents", "host", self.latents)
        eight = self.config.use_8bit_adam and self.backend == "torch"
        stage.add(f"AdamW's moments, {8 if eight else 32} bits", self.here, self.parameters * (2 if eight else 8))

    def _training(self) -> Stage:
        stage, config = Stage(TRAINING), self.config
        self._resting(stage, vae=not config.cache_latents)
        gradients = self.parameters * 4 * (2 if self.ways.sums else 1)
        kept, more = self._activations()
        forward = kept + self._casts
        if config.gradient_accumulation_steps > 1 or self.ways.sums:
            stage.add("gradients", self.here, gradients)
            stage.add("activations", self.here, forward + more, "predicted")
        elif forward > gradients:  # gradients come as activations go
            stage.add("activations, then gradients", self.here, forward + more, "predicted")
        else:
            stage.add("gradients", self.here, gradients)
            stage.add("activations beside them", self.here, more, "predicted")
        if self.machine.on_host:
            shapes = self.parts[self.model.family.denoiser].shapes.values()
            largest = max((math.prod(shape) for shape in shapes if len(shape) == 4), default=0)
            stage.add("weights in the order of convolutions", "host", REORDERED * largest * 4, "predicted")
        if not config.cache_latents:
            stage.add("an image in the autoencoder", self.here, self._encoding - kept - more, "predicted")
        return stage

    def _activations(self) -> tuple[int, int]:
        """Bytes that a micro-batch keeps, and those that its backward pass adds."""
        config, factor = self.config, self.model.latent_factor
        rows = config.train_batch_size * (2 if config.with_prior_preservation else 1)
        factors: tuple[str, ...] = ()
        if config.use_lora:
            factors = tuple(Lora.of(config, self.model).endings[self.model.family.denoiser])
        one = denoiser_pass(
            self.model,
            (self.work.height // factor, self.work.width // factor),
            self.tokens,
            self.arithmetic,
            trains=not config.use_lora,
            factors=factors,
            rank=config.rank,
            recomputes=config.gradient_checkpointing,
        )
        kept = rows * one.kept
        for encoder in self.model.text_encoders:
            if encoder.network in self.trained:
                layers = int(self.model.config(encoder.network).get("num_hidden_layers") or 12)
                each = encoder_kept(self._width(encoder), layers, self._length(encoder), self.arithmetic)
                kept += min(rows, self.work.prompts) * each
        return kept, rows * one.backward

    def _validation(self) -> Stage:
        stage, config = Stage(VALIDATION), self.config
        self._resting(stage, vae=True, encoders=len(self.trained) > 1)
        count = min(config.sample_batch_size, config.num_validation_images)
        self._images_made(stage, count, config.validation_guidance_scale)
        self._average(stage)
        return stage

    def _saving(self) -> Stage:
        stage = Stage(SAVING)
        self._resting(stage, vae=not self.config.cache_latents)
        self._average(stage)
        if not self.machine.on_host:  # a component's weights, or all moments, on their way to a file
            component = self.factors if self.config.use_lora else max(map(self._trainable, self.trained))
            stage.add("arrays on their way to a file", "host", max(component * 4, self.parameters * 8))
        elif self.backend != "torch":
            stage.add("arrays on their way to a file", "host", self.parameters * 8)
        return stage
