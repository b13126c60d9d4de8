"""The PyTorch backend: diffusers' networks under core's plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from dreamcore.backends.pipelines import make_pipeline
from dreamcore.backends.protocol import Batch, Float, SampleRequest
from dreamcore.backends.sharding import Sharded
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings, Precision
from dreamcore.io.system import keep_blocks_apart
from dreamcore.models.folder import ModelFolder
from dreamcore.text.encoder import LoadedEncoder, Tokens

from . import lora, models, sampling
from .casting import Casting
from .compiling import check_compiler
from .ema import EMA
from .full_sharding import FullySharded, SharedEMA
from .graphs import Graphs, Recorder, recorder
from .launch import choose_device, join_world
from .masters import Beside, Masters
from .memory import out_of_memory
from .models import Named
from .offload import Manner, Offloaded
from .optim import Optimizer
from .precision import DTYPES, autocast, check_class_precision, check_latents, check_precision, set_tf32
from .ranks import OverRanks
from .sampling import Conditioning
from .staging import Staging
from .store import Store
from .streaming import Streaming, swapped, waiting

__all__ = ["TorchBackend", "load", "out_of_memory"]

for logging in (diffusers.utils.logging, transformers.utils.logging):
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # their warnings are of torchvision and of keys, which are all checked here


def load(model: ModelFolder, settings: ModelSettings) -> TorchBackend:
    """The entry point `dreambooth.backends`."""
    return TorchBackend(model, settings)


class TorchBackend(OverRanks):
    """`dreamcore.backends.protocol.Backend` on PyTorch."""

    optimizer: Optimizer | Masters | Sharded[torch.Tensor]
    load_tokenizer = staticmethod(models.load_tokenizer)
    fill = staticmethod(models.fill)
    add_lora = staticmethod(lora.add_lora)
    switch_lora = staticmethod(lora.switch)
    recompute = staticmethod(models.recompute)
    rewrite_weights = staticmethod(models.rewrite_weights)
    set_seed = staticmethod(torch.manual_seed)

    def __init__(self, model: ModelFolder, settings: ModelSettings):
        self.device = choose_device(settings.device)
        self.world = join_world(self.device)
        self.dtype = self._class_dtype = check_precision(settings.mixed_precision, self.device)
        self._vae_dtype, self._vae_checked = torch.float32, False
        self._compiled = False
        self.store = Store(self.device)
        self._staging = Staging(self.device) if self.device.type == "cuda" else None
        self._waiting: Named = {}
        self._streaming: Streaming | None = None
        self._masters: Named = {}
        self._casting: Casting | None = None
        self._recorder: Recorder | None = None
        set_tf32(settings.allow_tf32, self.device)
        self.on_device = self.device.type != "cpu"
        if not self.on_device:
            keep_blocks_apart()
        super().__init__(model, settings)

    # Arrays and tensors

    def to_device(self, array: NDArray[Any]) -> torch.Tensor:
        if self._staging and (sent := self._staging.take(array)) is not None:
            return sent
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def stage(self, batches: Sequence[Batch]) -> None:
        if self._staging:
            self._staging.send(
                array
                for batch in batches
                for array in (batch.x, batch.target, batch.t, batch.weight, batch.mask, *batch.extra.values())
                if isinstance(array, np.ndarray)
            )

    def to_host(self, tensor: torch.Tensor) -> Float:
        return tensor.detach().float().cpu().numpy()

    def concat(self, tensors: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
        return torch.cat(list(tensors), axis)

    def rows(self, tensor: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        return tensor[self.to_device(rows)]

    # Networks

    def load_component(self, model: ModelFolder, name: str, dtype: torch.dtype) -> models.Component:
        return models.load_component(model, name, self.device, dtype)

    def type_of(self, precision: Precision) -> torch.dtype:
        return DTYPES[precision]

    def weights(self, component: str) -> Named:
        named = models.weights_of(self.networks[component])
        return {name: self._masters.get(f"{component}.{name}", weight) for name, weight in named.items()}

    def move(self, network: Any, *, away: bool = False) -> None:
        if not self.shares(network):
            network.to("cpu" if away else self.device)
        if self._streaming and network is self.denoiser:
            self._streaming.settle()

    def set_mode(self, network: Any, *, train: bool) -> None:
        network.train(train)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Not compiled either, for images have other shapes than training's batches."""
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if self._compiled else nullcontext():
            yield

    def encode_pixels(self, pixels: Float) -> tuple[Float, Float]:
        found = self._encoded(pixels, self._vae_dtype)
        if self._vae_dtype is not torch.float32 and not self._vae_checked:
            check_latents(found[0], self._encoded(pixels, torch.float32)[0], "bf16")
            self._vae_checked = True
        return found

    def _encoded(self, pixels: Float, dtype: torch.dtype) -> tuple[Float, Float]:
        with autocast(self.device, dtype):
            answer = self.vae.encode(self.to_device(self.as_film(pixels)))
        return self.answered(getattr(answer, "latent_dist", answer))

    def decode_latents(self, latents: Float) -> Float:
        return self.as_picture(self.to_host(self.vae.decode(self.to_device(self.as_film(latents))).sample))

    @torch.no_grad()
    def encode_prompt(self, part: LoadedEncoder[torch.Tensor], tokens: Tokens, precision: torch.dtype) -> Conditioning:
        if precision is torch.float16 and not part.description.fits_fp16:
            precision = torch.float32
        self.residence.come(part.description.network)
        with autocast(self.device, precision):
            return self.encode_tokens(part, *map(self.to_device, tokens)).each(lambda t: t.float())

    def precision(self, request: SampleRequest) -> torch.dtype:
        return self._class_dtype if request.for_training else self.dtype

    def make_latents(self, request: SampleRequest, positive: Conditioning, negative: Conditioning) -> Float:
        with autocast(self.device, self.precision(request)):
            return sampling.make_latents(self.model, self.denoiser, request, positive, negative)

    def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        own = self.optimizer if hasattr(self, "optimizer") else None
        whole = self.precision(request) is torch.float32 and isinstance(own, Masters) and self._casting
        with own.originals() if whole and isinstance(own, Masters) else nullcontext():
            return super().sample(request)

    def apply_lora(self, file: Path, scale: float) -> None:
        lora.apply_file(make_pipeline(diffusers, self.model, self.networks), self.networks, file, scale)

    # Training

    def place(self, config: TrainConfig) -> None:
        if config.compile:
            check_compiler(self.device)
        if config.cuda_graphs:
            self._recorder = recorder(self.device, self.world.size)
        self._vae_dtype = check_precision(config.vae_precision, self.device, "vae_precision")
        if config.with_prior_preservation and config.prior_generation_precision is not None:
            self._class_dtype = check_class_precision(config.prior_generation_precision, self.denoiser)
        if config.channels_last:  # before the optimizer, whose state takes on the weights' layout
            self.component(self.family.denoiser).memory_format = torch.channels_last
        if config.placement == "cpu" and not config.use_lora:  # originals stay in the host's memory
            for name in self._trained:
                self.component(name).hosted = self.weights(name).keys()
        if config.use_lora and config.blocks_to_swap:
            weights = self.weights(self.family.denoiser)
            self._waiting = {name: weights[name] for name in waiting(weights, config.blocks_to_swap)}
            self.component(self.family.denoiser).hosted = self._waiting.keys()
        self.share(config)

    def add_rows(self, part: LoadedEncoder[torch.Tensor], first: int, rows: Float) -> torch.Tensor:
        weights = self.weights(part.description.network)
        return models.add_rows(part.network, weights[part.description.kind.table], first, rows)

    @torch.no_grad()
    def put(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        tensor.copy_(value)

    @staticmethod
    def require_gradients(weights: Named) -> None:
        for weight in weights.values():
            weight.requires_grad_(True)

    def make_optimizer(
        self, parameters: Mapping[str, Named], config: TrainConfig
    ) -> Optimizer | Masters | Sharded[torch.Tensor]:
        if config.compile:
            for network in self._trained.values():
                network.compile()
            self._compiled = True
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        if self._waiting:
            self._streaming = swapped(self.denoiser, self._waiting, self.store)
        if (shared := self.shared_optimizer(parameters, config)) is not None:
            if isinstance(shared, FullySharded):
                self._masters = shared.named
            return shared
        hosts, casts = config.placement == "cpu", self._casts(config)
        if casts:
            self._casting = Casting(self._at_work.values(), compiled=config.compile)
        made: Masters
        if not hosts and not config.fused_backward_pass:
            if not casts or not self._trained:
                return self.reducing(Optimizer(parameters, config, scaler))
            made = Beside(parameters, lambda own: Optimizer(own, config, scaler), self.store, self.dtype)
            return self._with_masters(self.reducing(made))
        manner = Manner(
            share=config.offload_optim_frac if hosts else 0.0,
            dtype=self.dtype if casts else None,
            from_host=hosts and not config.use_lora,
            accumulates=config.gradient_accumulation_steps > 1,
            fused=config.fused_backward_pass,
            travels=torch.float32 if config.ddp_comm_hook == "no" else DTYPES[config.ddp_comm_hook],
        )
        made = Offloaded(parameters, lambda own: Optimizer(own, config, scaler), self.store, self.world, manner)
        return self._with_masters(made)

    def _casts(self, config: TrainConfig) -> bool:
        """Whether networks hold all that they compute with in 16 bits, so that nothing need be autocast: not what
        methods beside peft's plain layers mix with float32."""
        plain = not config.use_lora or (config.lora_method == "lora" and not config.use_dora)
        return self.dtype is not torch.float32 and plain

    def _with_masters(self, made: Masters) -> Masters:
        """Let files and averages read masters."""
        if self._lora:
            for part, factors in self._factors.items():
                self._factors[part] = {name: made.named.get(name, factor) for name, factor in factors.items()}
        else:
            self._masters = made.named
            for network in self._trained.values():
                network.to(self.device)  # what does not train
        return made

    def make_ema(self, decay: float) -> EMA:
        own = self.optimizer
        if isinstance(own, FullySharded):
            return SharedEMA(own, decay)
        return EMA(own.named, decay, own.publish) if isinstance(own, Masters) else EMA(own.named, decay)

    def train_step(self, micro_batches: Sequence[Batch], lr: Mapping[str, float]) -> None:
        if isinstance(self.optimizer, Offloaded):
            self.optimizer.lr = lr
        super().train_step(micro_batches, lr)

    @cached_property
    def _graphs(self) -> Graphs | None:
        """Where passes are replayed, those of this run's weights."""
        if self._recorder is None:
            return None
        own = self.optimizer.inner if isinstance(self.optimizer, Masters) else self.optimizer
        assert isinstance(own, Optimizer), "what shares the optimizer out is refused beside it"
        own.keeps_gradients = True
        return Graphs(self._passes, list(self.denoiser.parameters()), own.all, self._recorder)

    def _passes(self, given: Mapping[str, Any]) -> torch.Tensor:
        """`backward` of what is on the device already."""
        answer = self._answer(lambda: given["inputs"])
        errors = self.descend(self.squared_error(answer, given["target"], given["mask"]), given["weight"])
        if isinstance(self.optimizer, Masters):
            self.optimizer.end_pass()
        return errors

    def backward(self, batch: Batch) -> torch.Tensor:
        if self._graphs:
            given = {"target": self.target(batch), "inputs": self.inputs(batch)}
            given |= {"mask": self.loss_mask(batch), "weight": self.to_device(batch.weight)}
            return self._graphs.run(given, batch.seed)
        errors = super().backward(batch)
        if isinstance(self.optimizer, Masters):
            self.optimizer.end_pass()
        if self._streaming:
            self._streaming.end()
        self.end_gathering()
        return errors

    def load_state(self, folder: Path, *, reset_optimizer: bool = False) -> None:
        super().load_state(folder, reset_optimizer=reset_optimizer)
        if isinstance(self.optimizer, Masters):
            self.optimizer.publish()

    def answer(self, batch: Batch) -> torch.Tensor:
        return self._answer(partial(self.inputs, batch))

    def _answer(self, inputs: Callable[[], Mapping[str, Any]]) -> torch.Tensor:
        """The denoiser's, in float32; what `inputs` computes, text encoders that train, belongs to the same pass."""
        streaming = self._streaming.saving() if self._streaming else nullcontext()
        with nullcontext() if self._casting else autocast(self.device, self.dtype), streaming, self.saving_notes():
            answer: torch.Tensor = self.together(self.denoiser(**inputs()).sample)
        if self._casting:
            self._casting.settle()
        return answer.float()

    def update(self, lr: Mapping[str, float]) -> torch.Tensor:
        self.add_up()
        return self.optimizer.step(lr)

    # Facts

    def peak_memory(self) -> int | None:
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak

    def device_name(self) -> str:
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)} ({self.device})"
        return f"{self.device} ({torch.get_num_threads()} threads)"
