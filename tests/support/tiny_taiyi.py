"""A small random Stable Diffusion 1 whose text encoder is a BERT, laid out as Taiyi's are published."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path

from .tiny import WORDS, write_json, write_tiny_model

WINDOW = 32
"""Tokens that this one sees; Taiyi's 512 would take a miniature seconds."""
CHARACTERS = "一张只的小狗猫照片在上雪草地红杯子训练"
MARKS = ("[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_taiyi(folder: Path) -> Path:
    """Write it; the weights' file holds position numbers too, as those of 2022 do."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertModel

    write_tiny_model(folder, seed=6)
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / name)
    pieces = write_wordpiece(folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        encoder = BertModel(BertConfig(vocab_size=len(pieces), max_position_embeddings=WINDOW, **sizes))
        with torch.no_grad():  # embeddings of the size of a trained model's, so that words matter
            encoder.embeddings.word_embeddings.weight.normal_(0.0, 0.5)
    encoder.save_pretrained(folder / "text_encoder")
    file = folder / "text_encoder" / "model.safetensors"
    numbers = {"embeddings.position_ids": torch.arange(WINDOW)[None]}
    save_file(load_file(file) | numbers, file, metadata={"format": "pt"})
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index |= {"text_encoder": ["transformers", "BertModel"], "tokenizer": ["transformers", "BertTokenizer"]}
    write_json(folder / "model_index.json", index)
    return folder


def write_wordpiece(folder: Path, *, lower: bool = True) -> list[str]:
    """Write BERT's tokenizer: marks, punctuation, characters, words, letters within words; returns its pieces."""
    letters = string.ascii_lowercase + string.digits + ("" if lower else string.ascii_uppercase)
    pieces = [*MARKS, *string.punctuation, "，", "。", *letters, *CHARACTERS]
    pieces += [*(word for word in WORDS if len(word) > 1), "qzt", *(f"##{letter}" for letter in letters), "##ing"]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    special = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), MARKS[:1] + MARKS[2:], strict=True)
    )
    write_json(folder / "special_tokens_map.json", special)
    more = {"strip_accents": None, "tokenize_chinese_chars": True, "do_basic_tokenize": True, "never_split": None}
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower, "model_max_length": WINDOW}
    write_json(folder / "tokenizer_config.json", settings | more | special)
    return pieces
