"""Settings of `dreambooth train` about the method: what trains, in how much memory, by which loss, from which words."""

from __future__ import annotations

from typing import Literal

from .base import Settings, setting
from .common import WeightingScheme

LoraMethod = Literal["lora", "pissa", "loha", "lokr"]


class LoraSettings(Settings):
    """Low-rank factors in place of whole weights (LoRA, arXiv 2106.09685)."""

    GROUP = "lora"

    use_lora: bool = setting(False)
    """Train low-rank factors and not the weights themselves, which stay frozen (LoRA, arXiv 2106.09685)."""
    lora_method: LoraMethod = setting("lora")
    """What is made of the factors: lora their product; pissa the same, begun with the weights' largest singular values
    (arXiv 2404.02948) and published as LoRA of twice the rank; loha the product of two such products, number by number;
    lokr a Kronecker product (LyCORIS, arXiv 2309.14859)."""
    use_dora: bool = setting(False)
    """Train the lengths of the weights' rows as well, and let the factors change their directions (DoRA, arXiv
    2402.09353)."""
    use_rslora: bool = setting(False)
    """LoRA's scale is alpha / √rank, so that larger ranks learn as fast (rsLoRA, arXiv 2312.03732)."""
    lokr_factor: int | None = setting(None, ge=2, example=8)
    """Side of LoKr's smaller matrix, where it divides the weight's; the default is near the root of each side."""
    rank: int = setting(4, ge=1, example=8)
    """Rank of the LoRA factors; with `init_lora` the default is its file's."""
    lora_alpha: float | None = setting(None, gt=0, example=8)
    """LoRA's scale is alpha / rank; the default alpha is the rank."""
    init_lora: str | None = setting(None, may_change=True, example="dreambooth-model")
    """LoRA file, or the folder of a run that made one, whose factors training begins with."""
    lora_dropout: float = setting(0.0, ge=0, lt=1, example=0.1)
    """Dropout before the LoRA factors."""
    lora_layers: list[str] | None = setting(None, example=["to_q", "to_k", "to_v", "to_out.0"])
    """Endings of the denoiser's layer names that get factors; the default is the attention projections."""
    lora_blocks: list[str] | None = setting(None, example=["transformer_blocks.0-7", "20"])
    """Blocks of the denoiser that get factors, by name: up_blocks.0.attentions.1, transformer_blocks.0-7,
    down_blocks.*.attentions; a number is that of a transformer block; of SDXL, content and style are B-LoRA's (arXiv
    2403.14572).  The default is all of them."""


class NetworkSettings(Settings):
    """Which networks train, and their average."""

    GROUP = "networks"

    train_text_encoder: bool = setting(False)
    """Train the text encoders (not T5) as well as the denoiser."""
    pre_compute_text_embeddings: bool = setting(False, may_change=True)
    """Embed the prompts once, before training; that is done whenever the text encoder does not train."""
    use_ema: bool = setting(False)
    """Keep an exponential moving average of the trained weights.  The final model and the samples are of the average;
    a checkpoint holds the raw weights, to go on from, and the average beside them in ema.safetensors."""
    ema_decay: float = setting(0.9999, gt=0, lt=1)
    """Decay of the moving average; it is warmed up as min(decay, (1 + update) / (10 + update))."""


class NewWordSettings(Settings):
    """New words, whose embeddings are learned: textual inversion (2208.01618), pivotal tuning beside the denoiser."""

    GROUP = "new-words"

    train_text_encoder_ti: bool = setting(False)
    """Train embeddings of new words, which stand in prompts for the subject, in place of the text encoders' weights."""
    token_abstraction: str = setting("TOK", example="TOK")
    """The new words, as prompts and captions have them: "TOK", or several with commas."""
    num_new_tokens_per_abstraction: int | None = setting(None, ge=1, example=2)
    """Tokens that each of them is spelt with; the default is 2."""
    initializer_concept: str | None = setting(None, example="dog")
    """Words whose embeddings the new ones begin as, in as many tokens; otherwise they begin at random."""
    train_text_encoder_ti_frac: float = setting(0.5, gt=0, le=1, example=1.0)
    """Share of the updates, from the first, in which the new words train."""
    train_transformer_frac: float = setting(1.0, ge=0, le=1, example=0.0)
    """Share of the updates, from the first, in which the denoiser trains beside new words; with 0 they train alone."""
    enable_t5_ti: bool = setting(False)
    """Train the new words in T5 too, and not in CLIP alone."""


class MemorySettings(Settings):
    """Memory against time."""

    GROUP = "memory"

    gradient_checkpointing: bool = setting(False, may_change=True)
    """Compute activations again in the backward pass: less memory, more time."""
    channels_last: bool = setting(False, may_change=True)
    """Keep the denoiser's images with their channels last in memory, as fast convolutions want them."""
    compile: bool = setting(False, may_change=True)
    """Compile the networks that train: minutes at the start of training, then faster updates."""
    cuda_graphs: bool = setting(False, may_change=True)
    """Replay the denoiser's passes as one CUDA graph for each shape: less for the host to do in an update, more memory;
    of one process, without text encoders that train."""
    placement: Literal["cuda", "cpu", "auto"] = setting("cuda", may_change=True, example="cpu")
    """Where what trains lies: cuda all on the device; cpu the weights on the device in the precision of the arithmetic,
    their float32 originals and the optimizer's state on the host, updated there; auto as much on the device as the plan
    of memory says fits."""
    offload_optim_frac: float = setting(1.0, ge=0, le=1, may_change=True, example=0.5)
    """Placement cpu: the share of the originals and the optimizer's state that lies on the host."""
    blocks_to_swap: int = setting(0, ge=0, may_change=True, example=18)
    """LoRA: blocks of the denoiser, the largest first, that wait on the host and come to the device for their turn."""
    fused_backward_pass: bool = setting(False, may_change=True)
    """Update weights while gradients arrive, so that never all gradients are there; without clipping, accumulation and
    fp16."""
    shard: Literal["none", "optimizer", "full"] = setting("none", may_change=True, example="optimizer")
    """Over several processes: optimizer lets each keep the optimizer's state of its share of the weights (ZeRO's first
    stage), in place of all of it; full shares out weights and gradients too (its third), LoRA's frozen ones among
    them, block by block."""
    ddp_comm_hook: Literal["no", "bf16"] = setting("no", may_change=True, example="bf16")
    """Over several processes: the precision in which gradients travel and are added up; no is their own, bf16 is half
    of float32's way."""
    ignore_memory_plan: bool = setting(False, may_change=True)
    """Begin although the plan of memory says that it does not suffice (`dreambooth plan`): it is a prediction."""
    enable_xformers_memory_efficient_attention: bool = setting(False, may_change=True)
    """Accepted for other trainers' command lines: the framework's own attention is as sparing of memory."""


class LossSettings(Settings):
    """The loss: how timesteps are drawn and weighed."""

    GROUP = "loss"

    snr_gamma: float | None = setting(None, gt=0, example=5)
    """γ of min-SNR weighting (arXiv 2303.09556); 5 is usual. Left out: every timestep weighs the same."""
    vae_encode_mode: Literal["sample", "mode"] = setting("sample")
    """What of the autoencoder's answer to a photograph is learnt from: a draw from its distribution, anew each time, or
    the most likely latents (mode)."""
    noise_offset: float = setting(0.0, ge=0, example=0.1)
    """Amount of noise that is constant over a channel; 0.1 is usual for very dark or bright images."""
    weighting_scheme: WeightingScheme | None = setting(None)
    """Flow matching: how timesteps are drawn or weighed; the family's default is logit_normal for SD3, else none."""
    logit_mean: float = setting(0.0)
    """Mean of logit_normal's normal: above 0 less noise, below 0 more."""
    logit_std: float = setting(1.0, gt=0)
    """Deviation of logit_normal's normal."""
    mode_scale: float = setting(1.29, ge=-1, le=1.75)
    """Scale of weighting scheme mode; beyond these bounds noise levels would lie outside 0 … 1 (2403.03206, eq. 20)."""
    precondition_outputs: bool = setting(False)
    """Flow matching: weigh the error in the clean latent in place of the velocity's, as diffusers' SD3 script does."""
    do_edm_style_training: bool = setting(False)
    """Weigh the error in the clean latent by 1/σ² (EDM, arXiv 2206.00364): for models that predict noise that is the
    loss they have anyway; EDM's own keep theirs."""
    resolution_shift: bool = setting(False)
    """Flow matching: train larger images at more noise, as their sampling begins with more."""
    guidance_scale: float = setting(3.5, ge=0)
    """Strength that a model with an input for it (Flux.1 dev) is told in training."""


class EncodingSettings(Settings):
    """How prompts are told to the model."""

    GROUP = "encoding"

    tokenizer_max_length: int | None = setting(None, ge=3, example=77)
    """Length in tokens that prompts of CLIP, and of DeepFloyd IF, are padded or cut to; the default is the tokenizer's
    own, 77 for IF."""
    max_sequence_length: int | None = setting(None, ge=3, may_change=True, example=256)
    """Length in tokens that the prompts of T5 or a language model are padded or cut to; the family's default is 256
    for SD3, 512 for Flux and most newer ones."""
    text_encoder_use_attention_mask: bool | None = setting(None)
    """DeepFloyd IF: let T5 look at a prompt's words alone and not at its padding, as IF's pipelines do; the default."""
    class_labels_conditioning: Literal["timesteps"] | None = setting(None, may_change=True)
    """DeepFloyd IF stage 2: what its denoiser is told of the low-resolution image's noise; timesteps, in any case."""


class MethodSettings(EncodingSettings, LossSettings, MemorySettings, NewWordSettings, NetworkSettings, LoraSettings):
    """What is trained, and how."""
