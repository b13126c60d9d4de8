"""What each stage of a run holds, as backends place it: `backends/base.py`, and each adapter's `place` and `move`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..backends.bucketing import BUCKET_BYTES, IN_FLIGHT
from ..backends.lora import Lora, layer_shapes
from ..backends.optimizers import rule_for, state_bytes
from ..backends.out_of_memory import CLASSES, IMAGES, LOADING, PROMPTS, SAVING, TRAINING, VALIDATION
from ..backends.quantization import methods, quantised, stored_bytes
from ..config import TrainConfig
from ..config.common import Quantization
from ..config.optimizers import OPTIMIZERS, name_of
from ..errors import ConfigError
from ..families import TextEncoder
from ..formats.weights import READ_AHEAD, TABLE
from ..models.folder import ModelFolder
from ..models.settings import learns_words
from ..text.conditioning import ON_DEVICE
from ..text.lengths import padded_length
from .activations import Arithmetic, Costs, Pass, decoding, denoiser_pass, encoder_kept, encoding
from .auto import Placing, choose_placement
from .blocks import blocks_by_size
from .headers import StoredWeights, stored_weights
from .machine import Machine
from .plan import Place, Plan, Stage
from .shards import gathered, largest_share
from .times import operations

HELD_BACK = 64 * 2**20
"""Bytes that networks without weights take, and that the C library keeps of what loading has freed: 46 to 60 MiB as
measured of SD 1.5 (PyTorch 2.13, glibc 2.36)."""
REMADE, QUANTISING = 2, 64 * 2**20
"""Copies of a quantised weight while it is made whole, or made whole and then in the order of a convolution; bytes that
quantising takes at a time at most, 16 for each number."""
SHARDS = ("torch", "paddle")
"""Backends whose processes share out the optimizer's state."""
ON_THEIR_WAY = 4
"""Buckets of gradients that leave for another process, at the most: one that fills and those that travel."""
ORIGINALS = "originals of what trains"
"""What networks compute with are copies then."""
REORDERED = 1
"""Copies of a weight that a convolution on a CPU makes in an order of its own: 1.02 as measured of 2,560 to 1,280
channels (PyTorch 2.13, oneDNN; AVX2 and AVX-512, float32 and bfloat16); a product with a matrix copies none."""


@dataclass(frozen=True)
class Workload:
    """What a plan asks of the photographs.

    Args:
        height: of the largest training image, in pixels.
        width: of it.
        prompts: different ones, whose embeddings are kept.
        variants: encoded images that are kept.
        class_images: how many have to be made.
        held_out: whether photographs are held out.
        references: reference images beside each photograph: 0 or 1.
    """

    height: int
    width: int
    prompts: int = 1
    variants: int = 0
    class_images: int = 0
    held_out: bool = False
    references: int = 0


@dataclass(frozen=True)
class Ways:
    """How a backend goes about memory.

    Args:
        parks: whether what has changed leaves the device while it is not used; what has not goes on every backend, for
            its files bring it back.
        copies: of a weight in float32, on its way from the file into the host's memory; to a device there is one more.
        sums: whether gradients are gathered in vectors, a copy of them.
    """

    parks: bool = False
    copies: int = 1
    sums: bool = False


WAYS = {"torch": Ways(parks=True, copies=0), "paddle": Ways(parks=True), "mindspore": Ways(sums=True)}


def make_plan(config: TrainConfig, model: ModelFolder, work: Workload, machine: Machine, backend: str) -> Plan:
    """The plan of a run with these settings; reads the headers of the model's files and nothing else of them.

    Raises:
        ConfigError: a damaged file.
    """
    optional = tuple(encoder.network for encoder in model.family.text_encoders if encoder.optional)
    if config.drop_t5 and optional:
        model = replace(model, without=optional)
    parts = {name: stored_weights(model.weight_files(name)) for name in model.networks}

    def planned(changes: Placing) -> Plan:
        return _Planner(config.model_copy(update=changes), model, parts, work, machine, backend).plan()

    if config.placement != "auto" or backend != "torch":
        return planned({})
    blocks = len(blocks_by_size(parts[model.family.denoiser].shapes))
    return choose_placement(config, blocks, planned)


@dataclass(frozen=True)
class _Planner:
    config: TrainConfig
    model: ModelFolder
    parts: Mapping[str, StoredWeights]
    work: Workload
    machine: Machine
    backend: str

    def plan(self) -> Plan:
        stages = [self._loading(), self._words()]
        if self._makes_class_images:
            stages.append(self._classes())
        if self.config.cache_latents or self.work.held_out:
            stages.append(self._images())
        stages.append(self._training())
        if self.config.validation_prompt is not None:
            stages.append(self._validation())
        stages.append(self._saving())
        counted = self._operations({stage.name for stage in stages})
        return Plan(self.model.family.name, self.backend, self.machine, stages, self._notes(), operations=counted)

    def _operations(self, stages: Collection[str]) -> dict[str, int]:
        """Of an update and of images made, by stage (`times.operations`)."""
        config = self.config
        words = sum(
            2 * self.parts[e.network].count * self._length(e)
            for e in self.model.text_encoders
            if e.network in self.at_work
        )
        made = {
            CLASSES: (self.work.class_images, config.prior_num_inference_steps, config.prior_guidance_scale),
            VALIDATION: (
                config.num_validation_images,
                config.validation_num_inference_steps,
                config.validation_guidance_scale,
            ),
        }
        passes = {
            stage: n * steps * self._guided(scale) for stage, (n, steps, scale) in made.items() if stage in stages
        }
        return operations(config, self._pass_alone.operations, words, passes)

    def _notes(self) -> list[str]:
        notes = ["Beside what the idle process holds: Python, the framework, the driver's context."]
        notes.append("predicted: from the architecture, operator by operator; not measured on this machine.")
        if self.config.shard != "none" and self.machine.processes == 1:
            notes.append("shard: one process keeps the whole of what is shared out; `dreambooth launch` starts several")
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

    def _gathered(self, stage: Stage) -> None:
        """What comes from other processes for a pass, in the precision of the arithmetic."""
        if self._kept == 1.0:
            return
        for name in self.at_work:
            held = 2 if self.half and name in self.trained else self._held(name)
            size = gathered(self.parts[name].shapes) * held
            stage.add(f"{name}: blocks gathered for their turns", self.here, size)

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

    def _split(self, stage: Stage, what: str, size: int) -> None:
        """What goes with the originals: as much of it is on the host."""
        hosted = round(size * self.config.offload_optim_frac) if self._offloads else 0
        stage.add(what, "host", hosted)
        stage.add(what, self.here, size - hosted)

    @property
    def _beside(self) -> bool:
        """Whether networks compute with copies in 16 bits of originals that lie beside them on the device."""
        plain = not self.config.use_lora or (self.config.lora_method == "lora" and not self.config.use_dora)
        return self.half and plain and self.backend == "torch" and not self._offloads and self.config.shard == "none"

    def _originals(self, stage: Stage) -> None:
        """In float32, of the copies that train; on the device they are these themselves where these are so too."""
        if self._beside:
            stage.add("copies of what trains, 16 bits", self.here, self.parameters * 2)
        if not self._offloads:
            return
        hosted = round(self.parameters * self.config.offload_optim_frac)
        stage.add(f"{ORIGINALS}, 32 bits", "host", hosted * 4)
        if self.half and not self.config.use_lora:
            stage.add(f"{ORIGINALS}, 32 bits", self.here, (self.parameters - hosted) * 4)
        stage.add("gradients, then weights, on their way", "host", hosted * self._leaf)

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

    def _made_whole(self, stage: Stage, names: Collection[str]) -> None:
        """A quantised weight while it is computed with: it, and what it is made of on the way."""
        sizes = [
            self._remade(name) * math.prod(shape)
            for name in names
            for weight, shape in self.parts[name].shapes.items()
            if quantised(weight, shape)
        ]
        stage.add("a weight made whole to compute with", self.here, max(sizes, default=0), "predicted")

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

    # What stages have alike

    @property
    def _makes_class_images(self) -> bool:
        return bool(self.config.with_prior_preservation and self.work.class_images)

    @property
    def _stay(self) -> set[str]:
        """Components that are there from the beginning: those whose weights train, not LoRA's beside them."""
        return set() if self.config.use_lora else set(self.trained)

    def _networks(self, stage: Stage, here: set[str], aside: set[str] | None = None) -> None:
        """The weights of components where they are computed with, and of those that are put aside on the host."""
        aside = aside or set()
        for name, part in self.parts.items():
            if name in here or name in aside:
                size, kind = self._weights(name)
                waits, turns = self._swapped if name == self.model.family.denoiser else (0, 0)
                place: Place = self.here if name in here else "host"
                if self._kept < 1 and name in self.at_work:
                    size, kind = round(size * self._kept), f"{kind}, one share"
                stage.add(f"{name}: weights, {kind}", place, size - waits, part.basis)
                stage.add(f"{name}: weights of blocks that wait, {kind}", "host", waits, part.basis)
                stage.add(f"{name}: blocks in turn", place, turns, part.basis)
        stage.add("LoRA factors", self.here, (self.factors + self._numbers(frozen=True)) * 4)
        self._originals(stage)
        if self.config.use_ema:
            kept = 1.0 if self.config.use_lora else self._kept
            self._split(stage, "moving average", round(self.parameters * 4 * kept))

    @property
    def _autoencoder(self) -> set[str]:
        return {self.model.family.vae} if self.model.family.vae else set()

    def _embeddings(self, stage: Stage) -> None:
        """Those of the run's prompts: on the device up to a budget, then in the host's memory."""
        on_device = min(self.embeddings, ON_DEVICE)
        stage.add("prompt embeddings", self.here, on_device)
        stage.add("prompt embeddings beyond their budget", "host", self.embeddings - on_device)

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

    def _images_made(self, stage: Stage, count: int, guidance: float | None) -> None:
        """A batch of images: the denoiser's pass, or the autoencoder's."""
        making = count * self._guided(guidance) * self._pass_alone.alone + self._casts
        self._made_whole(stage, self.at_work)
        self._gathered(stage)
        at_once = 1 if self.config.enable_vae_slicing else count
        stage.add("images in the making", self.here, max(making, at_once * self._decoding), "predicted")

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

    @cached_property
    def _casts(self) -> int:
        """Bytes of copies in 16 bits that autocasting keeps of weights that train; those of 16 bits need none."""
        casts = self.half and not self.config.use_lora and self.backend == "torch" and not self._offloads
        casts = casts and not self._beside and self.config.shard != "full"
        return self.parameters * 2 if casts else 0

    def _average(self, stage: Stage) -> None:
        changes_places = self.config.use_ema and self.backend == "torch"
        if (self.config.use_ema and not changes_places) or rule_for(self.config).averages:
            self._split(stage, "weights laid aside while their average is in their place", self.parameters * 4)

    # The stages

    def _loading(self) -> Stage:
        """What trains itself; the others come, one after the other, when their turn comes."""
        stage = Stage(LOADING)
        self._networks(stage, self._stay)
        stage.add("what reading adds", "host", self._reading(self._stay) + HELD_BACK, "predicted")
        return stage

    def _reading(self, names: Collection[str]) -> int:
        """Bytes that reading these components adds at its worst: of a mapped file the pages that are not yet given
        back and copies of a weight; of one that is read whole, as read and as cut into arrays."""
        most, copies = 0, self.ways.copies + int(not self.machine.on_host)
        for name in names:
            part = self.parts[name]
            largest = max((math.prod(shape) for shape in part.shapes.values()), default=0) * 4
            mapped = part.kind == "safetensors" or (part.kind == "bin" and self.backend == "torch")
            whole = 0 if mapped else 2 * part.file_bytes
            whole += min(QUANTISING, 4 * largest) if name in self._quantised else 0
            most = max(most, min(part.file_bytes, READ_AHEAD) + copies * largest + whole)
        return most

    def _words(self) -> Stage:
        """One text encoder after the other, but for those that train; the denoiser, where it is there, steps aside."""
        stage, trains = Stage(PROMPTS), len(self.at_work) > 1
        there = set(self.at_work) if trains else self._stay
        aside = there if self.ways.parks and not trains and not self.machine.on_host else set()
        asked = [e.network for e in self.model.text_encoders if e.network not in there]
        largest = max(asked, key=lambda name: self._weights(name)[0], default=None)
        self._networks(stage, (there - aside) | ({largest} if largest else set()), aside)
        self._embeddings(stage)
        self._made_whole(stage, asked)
        widest = max((self._length(e) * self._width(e) for e in self.model.text_encoders), default=0)
        stage.add("a text encoder's activations", self.here, widest * 4 * 16, "predicted")
        stage.add("what reading adds", "host", self._reading(asked) + HELD_BACK, "predicted")
        return stage

    def _classes(self) -> Stage:
        stage = Stage(CLASSES)
        self._networks(stage, set(self.at_work) | self._autoencoder)
        self._embeddings(stage)
        self._images_made(
            stage, min(self.config.sample_batch_size, self.config.num_class_images), self.config.prior_guidance_scale
        )
        self._average(stage)
        return stage

    def _images(self) -> Stage:
        """The autoencoder, and what is there already."""
        stage = Stage(IMAGES)
        there = set(self.at_work) if self._makes_class_images else self._stay
        self._networks(stage, there | self._autoencoder)
        self._embeddings(stage)
        stage.add("latents", "host", self.latents)
        images = max(1, min(self.config.vae_batch_size, self.work.variants)) if self.config.cache_latents else 1
        stage.add("images in the autoencoder", self.here, images * self._encoding, "predicted")
        stage.add("what reading adds", "host", self._reading(self._autoencoder) + HELD_BACK, "predicted")
        return stage

    def _resting(self, stage: Stage, *, vae: bool) -> None:
        """What lies there from the first update on."""
        self._networks(stage, set(self.at_work) | (self._autoencoder if vae else set()))
        self._embeddings(stage)
        stage.add("latents", "host", self.latents)
        stage.add("what loading has left", "host", HELD_BACK, "predicted")
        name = OPTIMIZERS[name_of(self.config)].published
        self._split(stage, f"{name}'s state", self._optimizer_state)

    def _training(self) -> Stage:
        stage, config = Stage(TRAINING), self.config
        self._resting(stage, vae=not config.cache_latents)
        self._gathered(stage)
        gradients = self._gradients(stage)
        gathers = config.gradient_accumulation_steps > 1 or self.ways.sums
        constant = gathers or (config.fused_backward_pass and self.backend == "torch")
        worst = self._backward(0 if constant else gradients)
        stage.add("gradients", self.here, gradients if constant else worst.gradients)
        if gathers and self._beside:
            stage.add("gradients of a micro-batch, 16 bits", self.here, self.parameters * 2)
        stage.add("activations", self.here, worst.kept + self._casts + worst.backward, "predicted")
        stage.add("a weight made whole to compute with", self.here, worst.whole, "predicted")
        stage.add("a weight in the order of a convolution", self.here, worst.reordered, "predicted")
        self._made_whole(stage, [name for name in self.at_work if name != self.model.family.denoiser])
        if not config.cache_latents:
            more = self._encoding - worst.kept - worst.backward
            stage.add("an image in the autoencoder", self.here, more, "predicted")
        return stage

    def _gradients(self, stage: Stage) -> int:
        """Bytes of those that gather where networks compute; others are noted where they lie."""
        config, every = self.config, self.parameters * 4 * (2 if self.ways.sums else 1)
        shapes = (s for name in self.trained for s in self.parts[name].shapes.values())
        largest = max((math.prod(shape) for shape in shapes), default=0) * self._leaf
        if config.fused_backward_pass and self.backend == "torch":
            return min(every, BUCKET_BYTES + largest)
        if self._kept < 1 and not config.use_lora:
            return min(every, round(every * self._kept) + ON_THEIR_WAY * BUCKET_BYTES)
        if not self._offloads:
            return every
        hosted = round(self.parameters * config.offload_optim_frac)
        at_once = name_of(config) == "adamw" and config.mixed_precision != "fp16"
        whole = config.gradient_accumulation_steps > 1 or not at_once
        stage.add("gradients in float32", "host", hosted * 4 if whole else min(hosted * 4, BUCKET_BYTES))
        leaving = 2 * largest + (0 if self.machine.on_host else IN_FLIGHT)
        stage.add("gradients that leave", self.here, min(hosted * self._leaf, leaving), "predicted")
        return (self.parameters - hosted) * 4

    def _backward(self, gradients: int) -> Pass:
        """The backward pass of a micro-batch when it takes most, while so many bytes of gradients gather."""
        config, factor = self.config, self.model.latent_factor
        rows = config.train_batch_size * (1 + config.with_prior_preservation + config.preserves_output)
        factors, lora = tuple[str, ...](), Lora.of(config, self.model) if config.use_lora else None
        if lora is not None:
            factors = self._factored(lora)
        one = denoiser_pass(
            self.model,
            (self.work.height // factor * (1 + self.work.references), self.work.width // factor),
            self.tokens,
            self.arithmetic,
            trains=not config.use_lora or config.words_alone,  # for these, more than it keeps
            factors=factors,
            rank=lora.between if lora is not None else 0,
            beside=lora.beside if lora is not None else 0,
            recomputes=config.gradient_checkpointing,
            rows=rows,
            costs=self._costs(gradients),
        )
        kept = one.kept
        for encoder in self.model.text_encoders:
            if encoder.network in self.at_work:
                layers = int(self.model.config(encoder.network).get("num_hidden_layers") or 12)
                each = encoder_kept(self._width(encoder), layers, self._length(encoder), self.arithmetic)
                kept += min(rows, self.work.prompts) * each
        return replace(one, kept=kept)

    def _costs(self, gradients: int) -> Costs:
        name = self.model.family.denoiser
        copied = self.machine.on_host and name not in self._quantised
        return Costs(gradients, self._remade(name), REORDERED * self._held(name) if copied else 0)

    def _validation(self) -> Stage:
        stage, config = Stage(VALIDATION), self.config
        self._resting(stage, vae=True)
        count = min(config.sample_batch_size, config.num_validation_images)
        self._images_made(stage, count, config.validation_guidance_scale)
        self._average(stage)
        return stage

    def _saving(self) -> Stage:
        stage = Stage(SAVING)
        self._resting(stage, vae=not self.config.cache_latents)
        self._average(stage)
        if not self.machine.on_host:  # a component's weights, or all moments, on their way to a file
            component = self.factors if self.config.use_lora else max(map(self._trainable, self.trained), default=0)
            arrays = max(component * 4, self._optimizer_state)
            if self._kept < 1:  # one tensor after the other
                shapes = (shape for name in self.trained for shape in self.parts[name].shapes.values())
                arrays = min(arrays, max((math.prod(shape) for shape in shapes), default=0) * 4)
            stage.add("arrays on their way to a file", "host", arrays)
        elif self.backend != "torch":
            stage.add("arrays on their way to a file", "host", self._optimizer_state)
        return stage
