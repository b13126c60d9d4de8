"""Names of the files and folders that runs and models consist of, each once."""

from __future__ import annotations

from pathlib import Path

# A model, as diffusers lays it out; Paddle's beside it
INDEX = "model_index.json"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Endings of PyTorch's pickles; MindONE's files end in the first, too."""
ONE_FILE = (".safetensors", *PICKLES)
"""Endings of models that are one file."""
LORA_FILE = "pytorch_lora_weights.safetensors"
PADDLE_LORA_FILE = "paddle_lora_weights.safetensors"
LEARNED_FILE = "learned_embeds.safetensors"
"""A new word's embeddings where there is one text encoder, as diffusers' textual inversion calls them."""
RESERVED = (LORA_FILE, PADDLE_LORA_FILE, "model.safetensors", "diffusion_pytorch_model.safetensors")
PADDLE_WEIGHTS = "model_state.pdparams"

# A run's folder
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
STATUS = "status.json"
VALIDATION = "validation.jsonl"
LOG = "log.txt"
SAMPLES = "samples"
SUBJECT = "subject"
"""Copies of photographs that are no files, for the report."""
REPORT, REPORT_SHEET, REPORT_DATA = "report.html", "report.png", "report_data.json"
MODEL_CARD = "README.md"

# Its records
RECORDS = ".dreambooth"
"""Sub-folder in which a folder's runs keep their records: one that has it holds results, and no photographs."""
MANIFEST = "manifest.json"
FINAL = "final"
"""The finished model before it is published, among the records."""
LOCK = "lock"
"""Among them, held by the process that is at work in the folder."""
REQUESTS = "requests"
"""Sub-folder of the records: what is asked of a run from outside."""

# A checkpoint
BEST = "checkpoint-best"
"""The folder of the one that was best by a stated measure."""
STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
LORA_FACTORS_FILE = "lora_factors.safetensors"
EMA_FILE = "ema.safetensors"
EMBEDDINGS_FILE = "embeddings.safetensors"
"""Of new words, whose finished ones have names of their own: below."""

# A folder of class images, and one of generated images
CLASS_IMAGES = "class_images.json"
SHEET, GENERATED = "sheet.png", "pictures.json"
# An evaluation's folder
EVALUATION, EVALUATION_TABLE, EVALUATION_FIGURE = "evaluation.json", "evaluation.txt", "evaluation.png"


def embeddings_name(run: Path) -> str:
    """The embeddings of new words in all text encoders, as diffusers' scripts call them.

    >>> embeddings_name(Path("/runs/my dog"))
    'my dog_emb.safetensors'
    """
    stem = (run.resolve().name or "words").encode()[:200].decode(errors="ignore")
    return f"{stem}_emb.safetensors"


def lora_name(run: Path) -> str:
    """The LoRA file, among a run's results, that ComfyUI and A1111 show by its name: the folder's own.

    >>> lora_name(Path("/runs/my dog"))
    'my dog.safetensors'
    """
    stem = (run.resolve().name or "lora").encode()[:200].decode(errors="ignore")
    name = f"{stem}.safetensors"
    return f"{stem}-lora.safetensors" if name in RESERVED else name
