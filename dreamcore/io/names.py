"""Names of the files and folders that runs and models consist of, each once."""

from __future__ import annotations

# A model, as diffusers lays it out; Paddle's beside it
INDEX = "model_index.json"
LORA_FILE = "pytorch_lora_weights.safetensors"
PADDLE_LORA_FILE = "paddle_lora_weights.safetensors"
PADDLE_WEIGHTS = "model_state.pdparams"

# A run's folder
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
VALIDATION = "validation.jsonl"
LOG = "log.txt"
SAMPLES = "samples"
SUBJECT = "subject"
"""Copies of photographs that are no files, for the report."""
REPORT, REPORT_SHEET, REPORT_DATA = "report.html", "report.png", "report_data.json"

# Its records
RECORDS = ".dreambooth"
"""Sub-folder in which a folder's runs keep their records: one that has it holds results, and no photographs."""
MANIFEST = "manifest.json"
FINAL = "final"
"""The finished model before it is published, among the records."""

# A checkpoint
STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
LORA_FACTORS_FILE = "lora_factors.safetensors"
EMA_FILE = "ema.safetensors"

# A folder of class images, and one of generated images
CLASS_IMAGES = "class_images.json"
SHEET, GENERATED = "sheet.png", "pictures.json"
