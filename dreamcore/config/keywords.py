"""The settings as keyword arguments, for type checkers and editors alone: nothing imports this at run time.

Written from the settings themselves by `python -m tools.house.write_keywords`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from .concepts import Concept

# fmt: off


class SourceGroupKeywords(TypedDict, total=False):
    """Which model is loaded, and from where."""

    like: Literal["colossalai", "structured-lora", "mindone-sd2", "mindone", "ppdiffusers", "diffusers", "kohya"] | None
    """Take names, defaults and output layout as another trainer has them; a name that only one of them has says so by
    itself. `dreambooth configs` lists them, docs/moving.md says what each name means."""

    pretrained_model_name_or_path: str | Path
    """Model: a folder, one file (.safetensors), or an id on the Hugging Face Hub; the folder in diffusers layout, the
    file in the original one, HF_ENDPOINT for a mirror of the Hub; `tinyworld` is the embedded miniature."""
    model: str | Path
    """Another name of `pretrained_model_name_or_path`."""

    revision: str | None
    """Branch, tag or commit of the model on the Hub."""

    variant: str | None
    """Variant of the weight files, such as fp16."""

    pretrained_vae_model_name_or_path: str | Path | None
    """Folder or Hub id of an autoencoder, or one file with it, to use in place of the model's own."""

    pretrained_unet_name_or_path: str | Path | None
    """Folder of a denoiser (configuration and weights), or one file with it, to use in place of the model's own."""

    tokenizer_name: str | Path | None
    """Folder of a tokenizer to use in place of the model's first."""

    pretrained_text_encoder_4_name_or_path: str | Path | None
    """Folder or Hub id of the language model that HiDream is published without; meta-llama's Llama 3.1 by default."""

    pretrained_tokenizer_4_name_or_path: str | Path | None
    """The same of its tokenizer; by default where the language model is."""

    original_config: str | Path | None
    """What describes a model in one file where its shapes do not: a YAML file in the original layout (SD 1 and 2), or
    the folder, in diffusers layout, of a model that is built alike."""

    sd_version: Literal["1.5", "2.0", "2.0-v", "2.1", "2.1-v"] | None
    """Which Stable Diffusion 1 or 2 one file holds, where nothing else says it; v is v-prediction."""

    allow_pickle: bool
    """Read a model in one pickled file (.ckpt, .pt, .bin): tensors alone are taken, and nothing in it is run."""

    cache_dir: str | Path | None
    """Folder for what is fetched from the Hub; the default is its own cache."""

    drop_t5: bool
    """Leave the large T5 text encoder out, where the family can do without (SD3): zeros stand for its words."""

    text_encoder_out_layers: int | Sequence[int] | None
    """Hidden states of the language model that make up a prompt's words, where the family has them side by side
    (Flux.2); the family's own by default."""


class DeviceGroupKeywords(TypedDict, total=False):
    """What computes, where, and with numbers of which precision."""

    backend: str | None
    """torch, paddle or mindspore; may be left out where only one is installed."""

    device: str | None
    """Device in the backend's words (cpu, cuda, cuda:1 ...); the default is its accelerator, if it has one."""

    mixed_precision: Literal["no", "fp16", "bf16"]
    """Precision of the networks' arithmetic; trained weights and the loss stay in float32."""

    allow_tf32: bool
    """Compute float32 products in TensorFloat-32, of 10 bits, on NVIDIA GPUs that have it: several times faster."""

    enable_vae_slicing: bool
    """Let the autoencoder decode one image after the other: less memory where several are made at a time."""

    enable_vae_tiling: bool
    """Let the autoencoder decode large images tile by tile: less memory, and edges that may just show."""

    quantize_base: Literal["nf4", "int8", "fp8"] | None
    """Keep the frozen weights of the denoiser, under LoRA's factors, in 8 bits (int8, fp8: E4M3) or 4 (nf4, as QLoRA);
    images are made with them too. What is trained, and its file, are as ever."""

    quantize_text_encoders: Literal["nf4", "int8", "fp8"] | None
    """The same for the text encoders that do not train."""

    amp_level: Literal["O1", "O2"] | None
    """How far mixed precision goes on paddle: O1 (the default) casts what gains from it, O2 nearly everything."""

    mode: Literal["graph", "pynative"] | None
    """MindSpore: compile the step (graph; the default on Ascend) or run operator by operator (pynative; on a CPU)."""

    jit_level: Literal["O0", "O1"]
    """MindSpore: how far graph mode optimises: operator by operator, or with fused operators."""


class ModelGroupKeywords(SourceGroupKeywords, DeviceGroupKeywords, total=False):
    """Which model is loaded, by what, onto which device."""


class DataGroupKeywords(TypedDict, total=False):
    """The photographs."""

    instance_data_dir: str | Path | None
    """Folder with the photographs of the subject, or a .zip of one."""

    dataset_name: str | Path | None
    """Dataset with the photographs, in place of the folder: what `datasets` saved to disk, parquet or Arrow files, a
    folder (or a .zip) of images with metadata, or the id of one on the Hugging Face Hub; its split "train" is used."""

    dataset_config_name: str | None
    """Configuration of the dataset, where it has several."""

    image_column: str
    """Column of the images in the dataset."""

    cond_image_column: str | None
    """Column of reference images, of which the model learns to make the others; in a folder, NAME-cond.png is that of
    NAME.jpg."""

    instance_prompt: str | None
    """Words for the subject: an identifier and its class, "a photo of sks dog"; may hold {identifier} and {class}, as
    the presets' own does."""

    concepts: Sequence[Concept | Mapping[str, Any]] | None
    """Several subjects at once, each with folder, prompts, weight and repeats; in a configuration file only."""

    sub_folders: bool
    """Take the photographs of sub-folders too."""

    repeats: int
    """Times that each photograph counts in an epoch."""
    train_data_repeats: int
    """Another name of `repeats`."""

    validation_share: float
    """Share of the photographs that is held out of training; their loss, at fixed noise and timesteps, is logged."""


class WordGroupKeywords(TypedDict, total=False):
    """The words that each photograph is trained with."""

    use_captions: bool
    """Take each photograph's own words; the instance prompt serves those without."""

    caption_source: Literal["auto", "files", "metadata", "file_names"]
    """Where they are: NAME.txt or .caption beside it, metadata.jsonl or .csv, either of these, or its own name."""

    caption_column: str
    """Column of the captions in the metadata or the dataset; naming it turns a dataset's captions on."""

    missing_caption: Literal["prompt", "error"]
    """What a photograph without caption means: the instance prompt, or an error."""

    caption_template: str
    """Prompt of a photograph with caption, with places for {caption}, {identifier} and {class}."""

    identifier: str | None
    """The rare word for the subject, which {identifier} stands for."""

    class_word: str | None
    """What the subject is one of, which {class} stands for."""

    shuffle_tags: bool
    """Train with the tags of a caption (what its commas part) in several orders."""
    shuffle_caption: bool
    """Another name of `shuffle_tags`."""

    keep_tags: int
    """Tags at the caption's beginning that keep their places."""
    keep_tokens: int
    """Another name of `keep_tags`."""

    caption_variants: int
    """Orders drawn of each caption's tags."""

    caption_dropout: float
    """Share of samples trained with empty words, which teaches unconditional prediction."""

    clip_l_dropout_rate: float
    """Share of samples for which zeros stand for what the first CLIP answers, whatever the others do (2403.03206)."""

    clip_g_dropout_rate: float
    """Share of samples for which zeros stand for what the second CLIP answers."""

    t5_dropout_rate: float
    """Share of samples for which zeros stand for what T5 answers, as they do where it is left out."""


class ImageGroupKeywords(TypedDict, total=False):
    """How a photograph becomes a training image."""

    resolution: int | None
    """Side of the square training image in pixels; the default is the model's own."""

    height: int | None
    """Height of the training image in pixels, with `width`, in place of `resolution`."""

    width: int | None
    """Width of the training image in pixels, with `height`, in place of `resolution`."""

    image_interpolation_mode: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
    """How photographs are scaled."""

    center_crop: bool
    """Crop around the middle; otherwise each sample is cropped at random."""

    random_flip: bool
    """Mirror half of the samples left to right."""

    alpha_color: str
    """Colour behind transparent photographs: a name, or #rrggbb."""

    subject_crop: bool
    """Keep the subject inside the crop, where NAME-mask.png or an alpha channel shows it."""

    masked_loss: bool
    """Weigh the loss by place: 1 on the subject that the mask shows, `outside_weight` around it, scaled to mean 1."""

    outside_weight: float
    """Weight of the surroundings in a masked loss."""

    aspect_ratio_buckets: bool
    """Train each photograph in a shape near its own, of the same pixel count, so that little is cropped away."""
    enable_bucket: bool
    """Another name of `aspect_ratio_buckets`."""

    bucket_shapes: str | None
    """The buckets' heights and widths, "512,768;768,512"; the default is what `bucket_step` gives."""

    bucket_step: int
    """Sides of the buckets are multiples of this."""
    bucket_reso_steps: int
    """Another name of `bucket_step`."""

    cache_latents: bool
    """Encode each image variant once, before training; off means encoding anew in every update."""

    instance_variants: int
    """Random crops and flips kept of each instance image; 0 draws a new one for every sample."""

    class_variants: int
    """Random crops and flips kept of each class image; 0 draws a new one for every sample."""

    vae_batch_size: int
    """Images of one shape that the autoencoder encodes at once, where latents are kept: more give a card more to do.
    With 1 an image's latents do not depend on the others; with more their last bits do."""

    vae_precision: Literal["fp32", "bf16"]
    """Precision in which the autoencoder encodes images, PyTorch: bf16 moves half the bytes, and is refused where the
    first image's latents then lie more than 2.9 % of their deviation from float32's (root mean square)."""

    cache_memory_gb: float
    """Memory for cached latents in GiB; what goes beyond is kept on disk in the output folder during the run."""

    latent_cache_dir: str | Path | None
    """Folder that keeps cached latents for later runs, by content: image, transform, VAE and size."""


class PriorGroupKeywords(TypedDict, total=False):
    """Prior preservation (DreamBooth, arXiv 2208.12242, section 3.3)."""

    with_prior_preservation: bool
    """Train on images of the class beside the subject's; it is not forgotten then."""

    prior_loss_weight: float
    """Weight λ of the class images' loss."""

    class_data_dir: str | Path | None
    """Folder of class images; those that are missing are generated into it. Default: OUTPUT_DIR/class_images. Or a .zip
    with enough of them."""

    class_prompt: str | None
    """Words for the class without the identifier, "a photo of dog"; may hold {class}."""

    num_class_images: int
    """Class images to train on; the user's own in the folder count."""

    sample_batch_size: int
    """Images generated at a time, for class images and validation."""

    prior_num_inference_steps: int
    """Denoising steps for a class image."""

    prior_guidance_scale: float | None
    """Classifier-free guidance for class images; the default is the family's: 7.5 for SD and SDXL."""

    prior_generation_precision: Literal["no", "fp32", "fp16", "bf16"] | None
    """Precision in which class images are generated (no is fp32); the default is `mixed_precision`."""

    diff_output_preservation: bool
    """LoRA: keep what the model itself, without the factors, answers to the same noisy photographs under words for the
    class: no class images are needed, and they go with it. Captions say `class_word` in the place of the identifier."""

    diff_output_preservation_multiplier: float
    """Weight λ of that loss."""


class LoraGroupKeywords(TypedDict, total=False):
    """Low-rank factors in place of whole weights (LoRA, arXiv 2106.09685)."""

    use_lora: bool
    """Train low-rank factors and not the weights themselves, which stay frozen (LoRA, arXiv 2106.09685)."""

    lora_method: Literal["lora", "pissa", "loha", "lokr"]
    """What is made of the factors: lora their product; pissa the same, begun with the weights' largest singular values
    (arXiv 2404.02948) and published as LoRA of twice the rank; loha the product of two such products, number by number;
    lokr a Kronecker product (LyCORIS, arXiv 2309.14859)."""

    use_dora: bool
    """Train the lengths of the weights' rows as well, and let the factors change their directions (DoRA, arXiv
    2402.09353)."""

    use_rslora: bool
    """LoRA's scale is alpha / √rank, so that larger ranks learn as fast (rsLoRA, arXiv 2312.03732)."""

    lokr_factor: int | None
    """Side of LoKr's smaller matrix, where it divides the weight's; the default is near the root of each side."""

    rank: int
    """Rank of the LoRA factors; with `init_lora` the default is its file's."""
    lora_rank: int
    """Another name of `rank`."""

    lora_alpha: float | None
    """LoRA's scale is alpha / rank; the default alpha is the rank."""

    init_lora: str | Path | None
    """LoRA file, or the folder of a run that made one, whose factors training begins with."""

    lora_dropout: float
    """Dropout before the LoRA factors."""

    lora_layers: str | Sequence[str] | None
    """Endings of the denoiser's layer names that get factors; the default is the attention projections."""
    lora_target_modules: str | Sequence[str] | None
    """Another name of `lora_layers`."""

    lora_blocks: str | Sequence[str] | None
    """Blocks of the denoiser that get factors, by name: up_blocks.0.attentions.1, transformer_blocks.0-7,
    down_blocks.*.attentions; a number is that of a transformer block; of SDXL, content and style are B-LoRA's (arXiv
    2403.14572). The default is all of them."""


class NetworkGroupKeywords(TypedDict, total=False):
    """Which networks train, and their average."""

    train_text_encoder: bool
    """Train the text encoders (not T5) as well as the denoiser."""

    pre_compute_text_embeddings: bool
    """Embed the prompts once, before training; that is done whenever the text encoder does not train."""

    use_ema: bool
    """Keep an exponential moving average of the trained weights. The final model and the samples are of the average; a
    checkpoint holds the raw weights, to go on from, and the average beside them in ema.safetensors."""

    ema_decay: float
    """Decay of the moving average; it is warmed up as min(decay, (1 + update) / (10 + update))."""


class NewWordGroupKeywords(TypedDict, total=False):
    """New words, whose embeddings are learned: textual inversion (2208.01618), pivotal tuning beside the denoiser."""

    train_text_encoder_ti: bool
    """Train embeddings of new words, which stand in prompts for the subject, in place of the text encoders' weights."""

    token_abstraction: str
    """The new words, as prompts and captions have them: "TOK", or several with commas."""

    num_new_tokens_per_abstraction: int | None
    """Tokens that each of them is spelt with; the default is 2."""

    initializer_concept: str | None
    """Words whose embeddings the new ones begin as, in as many tokens; otherwise they begin at random."""

    train_text_encoder_ti_frac: float
    """Share of the updates, from the first, in which the new words train."""

    train_transformer_frac: float
    """Share of the updates, from the first, in which the denoiser trains beside new words; with 0 they train alone."""

    enable_t5_ti: bool
    """Train the new words in T5 too, and not in CLIP alone."""


class MemoryGroupKeywords(TypedDict, total=False):
    """Memory against time."""

    gradient_checkpointing: bool
    """Compute activations again in the backward pass: less memory, more time."""

    channels_last: bool
    """Keep the denoiser's images with their channels last in memory, as fast convolutions want them."""

    compile: bool
    """Compile the networks that train: minutes at the start of training, then faster updates."""

    cuda_graphs: bool
    """Replay the denoiser's passes as one CUDA graph for each shape: less for the host to do in an update, more memory;
    of one process, without text encoders that train."""

    placement: Literal["cuda", "cpu", "auto"]
    """Where what trains lies: cuda all on the device; cpu the weights on the device in the precision of the arithmetic,
    their float32 originals and the optimizer's state on the host, updated there; auto as much on the device as the plan
    of memory says fits."""

    offload_optim_frac: float
    """Placement cpu: the share of the originals and the optimizer's state that lies on the host."""

    blocks_to_swap: int
    """LoRA: blocks of the denoiser, the largest first, that wait on the host and come to the device for their turn."""

    fused_backward_pass: bool
    """Update weights while gradients arrive, so that never all gradients are there; without clipping, accumulation and
    fp16."""

    shard: Literal["none", "optimizer", "full"]
    """Over several processes: optimizer lets each keep the optimizer's state of its share of the weights (ZeRO's first
    stage), in place of all of it; full shares out weights and gradients too (its third), LoRA's frozen ones among them,
    block by block."""

    ddp_comm_hook: Literal["no", "bf16"]
    """Over several processes: the precision in which gradients travel and are added up; no is their own, bf16 is half
    of float32's way."""

    ignore_memory_plan: bool
    """Begin although the plan of memory says that it does not suffice (`dreambooth plan`): it is a prediction."""

    enable_xformers_memory_efficient_attention: bool
    """Accepted for other trainers' command lines: the framework's own attention is as sparing of memory."""


class LossGroupKeywords(TypedDict, total=False):
    """The loss: how timesteps are drawn and weighed."""

    snr_gamma: float | None
    """γ of min-SNR weighting (arXiv 2303.09556); 5 is usual. Left out: every timestep weighs the same."""

    vae_encode_mode: Literal["sample", "mode"]
    """What of the autoencoder's answer to a photograph is learnt from: a draw from its distribution, anew each time, or
    the most likely latents (mode)."""

    noise_offset: float
    """Amount of noise that is constant over a channel; 0.1 is usual for very dark or bright images."""

    weighting_scheme: Literal["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"] | None
    """Flow matching: how timesteps are drawn or weighed; the family's default is logit_normal for SD3, else none."""

    logit_mean: float
    """Mean of logit_normal's normal: above 0 less noise, below 0 more."""

    logit_std: float
    """Deviation of logit_normal's normal."""

    mode_scale: float
    """Scale of weighting scheme mode; beyond these bounds noise levels would lie outside 0 … 1 (2403.03206, eq. 20)."""

    precondition_outputs: bool
    """Flow matching: weigh the error in the clean latent in place of the velocity's, as diffusers' SD3 script does."""

    do_edm_style_training: bool
    """Weigh the error in the clean latent by 1/σ² (EDM, arXiv 2206.00364): for models that predict noise that is the
    loss they have anyway; EDM's own keep theirs."""

    resolution_shift: bool
    """Flow matching: train larger images at more noise, as their sampling begins with more."""

    guidance_scale: float
    """Strength that a model with an input for it (Flux.1 dev) is told in training."""


class EncodingGroupKeywords(TypedDict, total=False):
    """How prompts are told to the model."""

    tokenizer_max_length: int | None
    """Length in tokens that prompts of CLIP, and of DeepFloyd IF, are padded or cut to; the default is the tokenizer's
    own, 77 for IF."""

    max_sequence_length: int | None
    """Length in tokens that the prompts of T5 or a language model are padded or cut to; the family's default is 256 for
    SD3, 512 for Flux and most newer ones."""

    text_encoder_use_attention_mask: bool | None
    """DeepFloyd IF: let T5 look at a prompt's words alone and not at its padding, as IF's pipelines do; the default."""

    class_labels_conditioning: Literal["timesteps"] | None
    """DeepFloyd IF stage 2: what its denoiser is told of the low-resolution image's noise; timesteps, in any case."""


class MethodGroupKeywords(LoraGroupKeywords, NetworkGroupKeywords, NewWordGroupKeywords, MemoryGroupKeywords,
        LossGroupKeywords, EncodingGroupKeywords, total=False):
    """What is trained, and how."""


class AlgorithmGroupKeywords(TypedDict, total=False):
    """Which optimizer, and its own numbers."""

    optimizer: Literal[
        "adamw", "adamw8bit", "adamw_schedulefree", "adafactor", "came", "lion", "muon", "prodigy", "sgd"
    ]
    """The optimizer. prodigy finds the learning rate by itself; adafactor and came need least memory; the docs compare
    them."""

    adam_beta1: float | None
    """Decay of the first moment, or sgd's momentum; default 0.9. adafactor has a first moment where this is given."""

    adam_beta2: float | None
    """Decay of the second moment; default 0.999, of lion's moment 0.99."""

    adam_weight_decay: float | None
    """Decoupled weight decay; default 0.01 for adamw, adamw8bit and muon, else 0."""

    adam_weight_decay_text_encoder: float | None
    """Decoupled weight decay of the text encoders; the default is `adam_weight_decay`."""

    adam_epsilon: float | None
    """What is added to the root of the second moment, ε; default 1e-8."""

    use_8bit_adam: bool
    """Keep AdamW's moments in 8 bits (bitsandbytes, on a GPU): a quarter of their memory; as optimizer adamw8bit."""

    prodigy_beta3: float | None
    """Decay of the sums that Prodigy's step size comes from; the default is the root of `adam_beta2`."""

    prodigy_decouple: bool
    """Prodigy: decay weights beside the gradient, as AdamW does, and not as part of it."""

    prodigy_use_bias_correction: bool
    """Prodigy: correct the moments' bias, as Adam does; the first steps are smaller then."""

    prodigy_safeguard_warmup: bool
    """Prodigy: leave the learning rate out of the estimate's denominator, as a warm-up wants."""

    prodigy_d0: float
    """Prodigy's first estimate of the step size."""

    prodigy_d_coef: float
    """Factor of Prodigy's estimate: the way to make its steps larger or smaller, in 0.5 … 2."""

    adafactor_relative_step: bool
    """Adafactor: take its own learning rate, the smaller of 1/√update and 0.01 (arXiv 1804.04235, section 8)."""

    adafactor_scale_parameter: bool
    """Adafactor: multiply the rate by the root mean square of the weight, or 0.001 where that is less."""

    adafactor_warmup_init: bool
    """Adafactor's own rate begins at 1e-6 times the update in place of 0.01."""

    came_beta3: float
    """CAME: decay of the instability's mean."""

    muon_momentum: float
    """Muon's momentum; `adam_beta1` and `adam_beta2` are AdamW's, which it leaves biases, norms and tables to."""


class OptimizerGroupKeywords(AlgorithmGroupKeywords, total=False):
    """The updates: how many, how large, of how many samples."""

    seed: int
    """Everything random in the run is a function of this number."""

    train_batch_size: int
    """Instance samples of one device at a time; each brings its class sample with prior preservation."""

    gradient_accumulation_steps: int
    """Micro-batches summed into one update."""

    num_train_epochs: int | None
    """Passes over the data, in place of `max_train_steps`."""
    epochs: int | None
    """Another name of `num_train_epochs`."""

    max_train_steps: int | None
    """Updates in all; with neither, the family's usual number (400; 500 for LoRA), or the resumed run's own."""

    learning_rate: float | None
    """Learning rate; default 5e-6 for full fine-tuning, 1e-4 for LoRA."""

    text_encoder_lr: float | None
    """Learning rate of the text encoders; the default is `learning_rate`."""

    scale_lr: bool
    """Multiply the learning rate by batch size, accumulation and devices."""

    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
    """Course of the learning rate over the updates."""

    lr_warmup_steps: int
    """Updates over which the learning rate rises from 0."""

    lr_num_cycles: int
    """Restarts of cosine_with_restarts."""

    lr_power: float
    """Exponent of polynomial."""

    max_grad_norm: float
    """Gradients are scaled down to this norm over all trained weights; 0 turns clipping off."""
    clip_grad_norm: float
    """Another name of `max_grad_norm`."""


class ValidationGroupKeywords(TypedDict, total=False):
    """Images and losses along the way. They never disturb the training's random numbers."""

    validation_prompt: str | None
    """Prompt of images before update 1, along the way and at the end; they are made from the same seeds each time;
    {instance_prompt} stands for the first concept's words, {identifier} and {class} for its own. The presets have
    one."""

    validation_negative_prompt: str
    """What those images should not show."""

    num_validation_images: int
    """Images each time."""

    validation_images: str | Path | Sequence[str | Path] | None
    """Image files, all of one size, that a model which upscales (DeepFloyd IF stage 2) makes a validation image of
    each; or references of which Flux Kontext and Flux.2 make `num_validation_images` each."""

    validation_steps: int
    """Updates between validations."""

    validation_epochs: int | None
    """Epochs between validations, in place of `validation_steps`."""

    validation_num_inference_steps: int
    """Denoising steps of a validation image."""

    validation_guidance_scale: float | None
    """Classifier-free guidance of validation images; the default is the family's: 7.5 for SD and SDXL."""

    validation_scheduler: Literal["ddim", "pndm", "dpmsolver", "dpmsolver++", "euler", "unipc", "ddpm"] | None
    """Sampler of validation images; the default is dpmsolver++ where the noise levels admit it, else euler."""

    final_validation_prompt: str | None
    """Prompt of the images after the last update, in place of `validation_prompt`."""

    skip_final_inference: bool
    """Leave the validation after the last update out."""

    validation_data_dir: str | Path | None
    """Folder of photographs held out of training, or a .zip of one; their loss, at fixed noise and timesteps, is
    logged."""


class SelectionGroupKeywords(TypedDict, total=False):
    """The best checkpoint: by scores of the validation images, or by the loss on held-out photographs."""

    evaluate_steps: int | None
    """Updates between scorings of the validation images, which are made then; before update 1 and at the end there is
    one too. The best checkpoint is kept as checkpoint-best."""

    judge: str | Sequence[str] | None
    """Who scores: encoders, each dino (ViT-S/16), clip (ViT-B/32), dinov2 (ViT-B/14), a folder or an id on the Hub; or
    tinyworld, the miniature's own, which is its default. Of others it is dino and clip."""

    best_by: Literal["validation_loss", "subject", "words", "both"] | None
    """What checkpoint-best is the best by: validation_loss on held-out photographs (lowest), subject (likeness of the
    images to the photographs), words (truth to the prompt), or both, the geometric mean of these two. The default is
    both with evaluate_steps (subject where the judge knows no words), else with stop_when validation_loss."""

    stop_when: str | None
    """End the run, and write the finished model, after so many measurements in a row that are no better than the best:
    no_better_for=N."""


class OutputGroupKeywords(TypedDict, total=False):
    """The run folder, its checkpoints and its logs."""

    output_dir: str | Path
    """Folder of the run."""

    overwrite_output_dir: bool
    """Replace the run that the output folder holds."""

    checkpointing_steps: int
    """Updates between checkpoints; the last update is followed by one too."""
    save_steps: int
    """Another name of `checkpointing_steps`."""

    checkpointing_epochs: int | None
    """Epochs between checkpoints, in place of `checkpointing_steps`."""

    checkpoints_total_limit: int | None
    """Checkpoints kept; an older one goes only after a newer one is safely written, and with 0 the last one after the
    finished model is."""

    checkpoint_last: bool
    """Keep the checkpoint after the last update where no interval ends; else it goes once the finished model is
    written, unless it is the only one, and the limit does not count it."""

    resume_from_checkpoint: str | Path | None
    """`latest`, a checkpoint's name in the output folder, or a path."""

    reset_optimizer: bool
    """Resume with the checkpoint's weights and a fresh optimizer: needed after training with another one."""

    export_format: Literal["diffusers", "ppdiffusers"]
    """Layout of the finished model: `diffusers`, or `ppdiffusers` (model_state.pdparams), which only that reads."""

    save_precision: Literal["fp32", "fp16", "bf16"]
    """Precision of the numbers in the finished model's files; training itself and its checkpoints stay in float32."""

    skip_save_text_encoder: bool
    """Leave the text encoders out of the finished model, which can be loaded only where they are given."""

    layout: Literal["dreambooth", "colossalai", "structured-lora", "mindone-sd2", "mindone"]
    """Where images, log and checkpoints lie in the output folder: as another trainer has them, beside our records."""

    push_to_hub: bool
    """Publish the finished model on the Hugging Face Hub, with a card and its validation images; the token comes from
    HF_TOKEN or the login."""

    hub_model_id: str | None
    """OWNER/NAME of the model on the Hub; the default is the output folder's name, under your account."""

    hub_private_repo: bool
    """Keep the model on the Hub private."""

    logging_steps: int
    """Updates between copies of the losses from the device; every update is logged all the same."""

    logging_dir: str | Path
    """Folder for trackers' files, inside the output folder unless absolute."""

    report_to: str
    """Trackers beside metrics.jsonl: tensorboard, visualdl, wandb, several with commas, all, or none."""
    writer_type: str
    """Another name of `report_to`."""


class LoraFileGroupKeywords(TypedDict, total=False):
    """What LoRA files say of themselves in their headers, which other programs show."""

    lora_metadata: Literal["public", "all", "none"]
    """What stands there: how it was trained, its words and a small sample image; `all`: also captions and folders."""

    metadata_title: str | None
    """Title; the default is the output folder's name."""

    metadata_author: str | None
    """Who made it."""

    training_comment: str | None
    """A comment."""


class TrainKeywords(ModelGroupKeywords, DataGroupKeywords, WordGroupKeywords, ImageGroupKeywords, PriorGroupKeywords,
        MethodGroupKeywords, OptimizerGroupKeywords, ValidationGroupKeywords, SelectionGroupKeywords,
        OutputGroupKeywords, LoraFileGroupKeywords, total=False):
    """All settings of a training run. `from_mapping` checks them and names what is wrong."""


class GenerateKeywords(ModelGroupKeywords, total=False):
    """Images from a model folder, a finished run among them, with or without a LoRA file."""

    prompt: str | None
    """Words for the image."""

    prompt_file: str | Path | None
    """Text file with one prompt a line, in place of `prompt`; kohya's options behind a prompt (`--n WORDS --w 768 --h
    512 --d SEED --s STEPS --l GUIDANCE`) hold for its images."""

    negative_prompt: str
    """What the images should not show."""

    num_images: int
    """Images of each prompt; the k-th is made from seed + k."""

    seed: int
    """Seed of a prompt's first image: the same seed gives the same image, whatever the batch size."""

    num_inference_steps: int
    """Denoising steps."""

    guidance_scale: float | None
    """Classifier-free guidance (arXiv 2207.12598); 1 turns it off. The family's by default: 7.5 for SD, SDXL."""

    scheduler: Literal["ddim", "pndm", "dpmsolver", "dpmsolver++", "euler", "unipc", "ddpm"] | None
    """Sampler; the default is ddim where the model's noise levels admit it, else euler."""

    height: int | None
    """Height in pixels; the default is the model's own."""

    width: int | None
    """Width in pixels; the default is the model's own."""

    batch_size: int
    """Images made at a time."""

    image: str | Path | None
    """Image file of which a model that upscales (DeepFloyd IF stage 2) makes larger ones, stage 1's; or the reference
    that Flux Kontext and Flux.2 are told, of which the middle is taken in the size of the images."""

    noise_level: int
    """Timestep whose noise is added to `image` first: more of it leaves more to the model."""

    lora: str | Path | Sequence[str | Path] | None
    """LoRA files, or run folders that hold one; the first run's own configuration then says model and size."""

    lora_scale: float | Sequence[float]
    """Strength of the LoRA: one number for all files, or one for each."""

    embeddings: str | None
    """File of new words' embeddings (textual inversion), or the folder of a run that trained some; the default is what
    lies in the LoRA's folder. Prompts may then hold these words."""

    output_dir: str | Path
    """Folder for the images; those that are there stay, and numbers go on after them."""

    contact_sheet: bool
    """Write all images into one, sheet.png, as well."""


class EvaluateKeywords(ModelGroupKeywords, total=False):
    """What was learned of a subject, measured on pictures of it."""

    source: str | Path
    """What is judged: a run's folder, or a checkpoint of its LoRA, which knows its subject; a model or a LoRA; or a
    folder of pictures, an earlier evaluation's among them."""

    judge: str | Sequence[str] | None
    """Who judges: encoders, each dino (ViT-S/16), clip (ViT-B/32), dinov2 (ViT-B/14), a folder or an id on the Hub; or
    tinyworld, the miniature's own, which is its default. Of others it is dino and clip, as in the paper."""

    instance_data_dir: str | Path | None
    """Photographs of the subject, which pictures are to be like; a run's own by default."""

    validation_data_dir: str | Path | None
    """Photographs that were held out of training: likeness is measured to these, where there are any; a run's own by
    default."""

    identifier: str | None
    """The rare word for the subject; as the run was taught by default."""

    class_word: str | None
    """What the subject is one of; as the run was taught by default."""

    class_prompt: str | None
    """Words for the class without the subject; the run's by default, else "a photo of a" and the class."""

    protocol: Literal["objects", "live", "tinyworld"] | None
    """The paper's 25 prompts for objects, its 25 for live subjects, or five that tinyworld's words can say; live where
    the class is a living being that the list knows, else objects."""

    prompt_file: str | Path | None
    """Text file with prompts of your own in place of the protocol's, one a line, with places for {identifier} and
    {class}."""

    num_images: int
    """Pictures of each prompt; the k-th is made from seed + k."""

    num_class_images: int
    """Pictures of the class, by which PRES is measured; 0 measures none."""

    seed: int
    """Seed of each prompt's first picture."""

    num_inference_steps: int
    """Denoising steps."""

    guidance_scale: float | None
    """Classifier-free guidance (arXiv 2207.12598); the family's by default."""

    scheduler: Literal["ddim", "pndm", "dpmsolver", "dpmsolver++", "euler", "unipc", "ddpm"] | None
    """Sampler; as for `generate` by default."""

    height: int | None
    """Height in pixels; a LoRA run's, or the model's own, by default."""

    width: int | None
    """Width in pixels; likewise."""

    batch_size: int
    """Pictures made at a time."""

    output_dir: str | Path
    """New folder for the pictures, the table and the figure; where there is one already, the new one's name gets a
    number."""


class IdentifiersKeywords(ModelGroupKeywords, total=False):
    """Rare tokens to name a subject by."""

    class_word: str | None
    """What the subject is one of: the identifiers' effect is measured beside this word."""

    num_identifiers: int
    """Identifiers to suggest."""

    num_candidates: int
    """Rare tokens to measure, the rarest of the vocabulary."""

    grid: str | Path | None
    """PNG file for one image of each identifier beside the class word, from one seed; where there is one already, the
    new one's name gets a number."""

    num_inference_steps: int
    """Denoising steps of an image."""

    seed: int
    """Seed of the images."""

    batch_size: int
    """Images made at a time."""


class ReadingGroupKeywords(TypedDict, total=False):
    """How models and LoRA files are read."""

    variant: str | None
    """Variant of a model folder's weight files, such as fp16."""

    original_config: str | Path | None
    """What describes a model in one file where its shapes do not: a YAML file in the original layout, or a folder in
    diffusers' layout."""

    sd_version: Literal["1.5", "2.0", "2.0-v", "2.1", "2.1-v"] | None
    """Which Stable Diffusion a single file holds, where nothing else says it; v is v-prediction."""

    allow_pickle: bool
    """Read pickled weights (.ckpt, .bin, .pt): tensors alone are taken, and nothing in them is run."""


class WritingGroupKeywords(TypedDict, total=False):
    """What is written, and of what numbers."""

    target: str | Path
    """What to write: a new file, or a new or empty folder; nothing is ever overwritten."""

    save_precision: Literal["fp32", "fp16", "bf16"] | None
    """Type of the numbers written; the default keeps each as it is, and writes what is computed for a LoRA in fp32."""


class ConvertKeywords(ReadingGroupKeywords, WritingGroupKeywords, total=False):
    """A model or a LoRA in another form."""

    source: str | Path
    """Model folder (diffusers' or Paddle's), model in one file, or LoRA file in anyone's names; it tells which."""

    to: Literal["diffusers", "original", "paddle", "kohya", "peft", "mindone"] | None
    """Form of the target. Of a model: diffusers or paddle (folders), original (one .safetensors file) or mindone (one
    .ckpt file); the default follows from the target's ending. Of a LoRA: diffusers, peft, kohya (which ComfyUI and
    A1111 read), paddle or mindone."""

    pretrained_model_name_or_path: str | Path | None
    """Model that a LoRA is for, where its file does not tell."""
    model: str | Path | None
    """Another name of `pretrained_model_name_or_path`."""


class MergeKeywords(ReadingGroupKeywords, WritingGroupKeywords, total=False):
    """Several LoRAs in one, or LoRA in a model's weights."""

    lora: str | Path | Sequence[str | Path]
    """LoRA files, or run folders that hold one."""

    lora_scale: float | Sequence[float]
    """Strength of the LoRA: one number for all files, or one for each."""

    pretrained_model_name_or_path: str | Path | None
    """Model to merge into: a folder, a single file, or an id on the Hub. Without one, the target is a LoRA of all."""
    model: str | Path | None
    """Another name of `pretrained_model_name_or_path`."""

    rank: int | None
    """Rank of the merged LoRA, with the error that it costs; the default is exact: the sum of the ranks."""
    lora_rank: int | None
    """Another name of `rank`."""

    to: Literal["diffusers", "original", "paddle", "kohya", "peft", "mindone"] | None
    """Form of the target, as for `convert`; the default of a LoRA is the first one's own naming."""


class ResizeKeywords(WritingGroupKeywords, total=False):
    """A LoRA of another rank, the nearest there is."""

    source: str | Path
    """LoRA file, or the run folder that holds one."""

    rank: int
    """Rank to bring it to."""
    lora_rank: int
    """Another name of `rank`."""

    to: Literal["diffusers", "original", "paddle", "kohya", "peft", "mindone"] | None
    """Form of the target, as for `convert`; the default is the source's own naming."""

    pretrained_model_name_or_path: str | Path | None
    """Model that the LoRA is for, where its file does not tell."""
    model: str | Path | None
    """Another name of `pretrained_model_name_or_path`."""

    allow_pickle: bool
    """Read pickled weights (.ckpt, .bin, .pt): tensors alone are taken, and nothing in them is run."""


class ExtractKeywords(ReadingGroupKeywords, WritingGroupKeywords, total=False):
    """A LoRA that is nearest to the difference of two models."""

    pretrained_model_name_or_path: str | Path
    """The tuned model: a folder, a single file, or an id on the Hub."""
    model: str | Path
    """Another name of `pretrained_model_name_or_path`."""

    base: str | Path
    """The model that it was tuned from."""

    rank: int
    """Rank of the LoRA."""
    lora_rank: int
    """Another name of `rank`."""

    lora_layers: str | Sequence[str] | None
    """Endings of the denoiser's layer names that get factors, convolutions too; the default is training's."""
    lora_target_modules: str | Sequence[str] | None
    """Another name of `lora_layers`."""

    to: Literal["diffusers", "original", "paddle", "kohya", "peft", "mindone"] | None
    """Form of the target, as for `convert`; the default is kohya in a .safetensors file, diffusers in a folder."""


class DataKeywords(TrainKeywords, total=False):
    """What training would see of the photographs. A training run's own configuration serves as it is."""

    sheet: str | Path
    """File of the contact sheet; where there is one already, the new one's name gets a number."""
