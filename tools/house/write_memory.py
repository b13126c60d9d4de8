"""Write the table of docs/memory.md from plans of the presets: `python -m tools.house.write_memory`, beside PyTorch."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from dreamcore.config import TrainConfig, load_config
from dreamcore.models.folder import ModelFolder
from dreamcore.placement.machine import Machine
from dreamcore.placement.plan import CONTEXT, GIB, Plan
from dreamcore.placement.stages import make_plan
from dreamcore.placement.workload import Workload
from dreamcore.training.settings import settle_defaults
from tests.support.paths import ROOT
from tools.house.published import write_published

FILE = ROOT / "docs" / "memory.md"
BEGIN, END = "<!-- table: memory -->\n", "<!-- end -->\n"
CARDS = (8, 12, 16, 24)
ROOM = 0.9
"""Share of a card that a run may fill without being tight."""
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("sd15-lora", {}),
    ("sd15-lora", {"mixed_precision": "bf16"}),
    ("sd15-full", {"mixed_precision": "bf16", "use_8bit_adam": True}),
    ("sd15-full", {"mixed_precision": "bf16", "placement": "cpu", "sample_batch_size": 1}),
    ("sd15-full", {}),
    ("sd15-face", {"mixed_precision": "bf16", "use_8bit_adam": True}),
    ("sd15-face", {}),
    ("sd21-full", {"mixed_precision": "bf16", "use_8bit_adam": True}),
    ("sd21-full", {}),
    ("sdxl-lora", {"resolution": 768}),
    ("sdxl-lora", {}),
    ("sd3-lora", {"drop_t5": True}),
    ("sd3-lora", {}),
    ("flux-lora", {"blocks_to_swap": 19}),
    ("flux-lora", {"validation_prompt": None}),
    ("flux-lora", {}),
]
"""Preset, and settings besides it."""
YOURS = {"instance_data_dir": "photos", "instance_prompt": "a photo of sks dog", "output_dir": "out"}
PHOTOGRAPHS = 5


def plans() -> list[tuple[str, dict[str, Any], Plan]]:
    """A plan for each row: PyTorch, an NVIDIA card that nothing else uses, five photographs."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        models = {preset: Path(folder) / preset.partition("-")[0] for preset, _ in ROWS}
        for preset, path in models.items():
            if not path.exists():
                write_published(path, preset)
        for preset, more in ROWS:
            config = load_config(TrainConfig, preset, YOURS | more)
            made.append((preset, more, _plan(config, ModelFolder.open(str(models[preset])))))
    return made


def _plan(config: TrainConfig, model: ModelFolder) -> Plan:
    config, _ = settle_defaults(config, model.family)
    side = config.resolution or model.native_resolution
    variants = PHOTOGRAPHS * config.instance_variants
    if config.with_prior_preservation:
        variants += config.num_class_images * config.class_variants
    work = Workload(side, side, 3, variants, config.with_prior_preservation)
    huge = Machine("cuda:0", 1 << 40, 1 << 40, 1 << 40)
    return make_plan(config.model_copy(update={"resolution": side}), model, work, huge, "torch")


def document() -> str:
    """The page, with the table as it would be today."""
    text = FILE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + "\n" + "".join(_table()) + "\n" + END + after


def _table() -> list[str]:
    cards = " | ".join(f"{card} GB" for card in CARDS)
    lines = [f"| preset | most at once | while | {cards} | host |\n", "|---" * (4 + len(CARDS)) + "|\n"]
    for preset, more, plan in plans():
        worst = plan.worst("device")
        needed = worst.bytes("device") + CONTEXT
        said = "".join(f" `--{n}`" if v is True else f" `--{n} {'none' if v is None else v}`" for n, v in more.items())
        fits = " | ".join(
            "yes" if needed <= card * ROOM * GIB else "tight" if needed <= card * GIB else "no" for card in CARDS
        )
        host = plan.worst("host").bytes("host") / GIB
        lines.append(f"| `{preset}`{said} | {needed / GIB:.1f} GiB | {worst.name} | {fits} | {host:.1f} GiB |\n")
    return lines


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
