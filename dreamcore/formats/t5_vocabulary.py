"""T5's tokenizer as a folder of files, made from Google's SentencePiece model, which this package carries.

Stable Diffusion 3 and Flux have this tokenizer; files that hold weights alone leave it out.

Source of the message's fields: google/sentencepiece `src/sentencepiece_model.proto`.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from pathlib import Path
from typing import Any

from .protobuf import message_fields

PIECES = Path(__file__).with_name("t5_pieces") / "spiece.model.gz"
"""Its source and licence lie beside it."""
EXTRA = 100
"""Tokens <extra_id_0> ... that follow the pieces, the last of them first; T5 learned to fill gaps with them."""
PADDED = 32_128
"""Rows of T5's table, of which the last 28 are no token's."""
WINDOW = 512
"""Tokens of a prompt that SD 3 and Flux take at most."""
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
_PIECE, _NORMALIZER, _TEXT, _SCORE, _CHARACTERS = 1, 3, 1, 2, 2
"""Numbers of fields: of the model, of a piece, of the normaliser."""
_SPACE = "\u2581"


def write_t5_tokenizer(folder: Path) -> None:
    """Write the tokenizer into a new folder, as transformers and paddlenlp load it."""
    folder.mkdir()
    model = gzip.decompress(PIECES.read_bytes())
    (folder / "spiece.model").write_bytes(model)
    marks = {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    extra = {"additional_special_tokens": [f"<extra_id_{number}>" for number in range(EXTRA)]}
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": WINDOW, "extra_ids": EXTRA, "legacy": True}
    _write(folder / "special_tokens_map.json", extra | marks)
    _write(folder / "tokenizer_config.json", settings | {"clean_up_tokenization_spaces": True} | extra | marks)
    _write(folder / "tokenizer.json", _in_one(model))


def pieces() -> list[tuple[str, float]]:
    """The pieces and the logarithms of their probabilities, and the extra tokens; 32,100 altogether."""
    return _pieces(gzip.decompress(PIECES.read_bytes()))


def _pieces(model: bytes) -> list[tuple[str, float]]:
    found = []
    for number, start, end in message_fields(model, 0, len(model)):
        if number == _PIECE:
            said = {n: model[a:b] for n, a, b in message_fields(model, start, end)}
            found.append((said[_TEXT].decode("utf-8"), struct.unpack("<f", said[_SCORE])[0] if _SCORE in said else 0.0))
    return [*found, *((f"<extra_id_{number}>", 0.0) for number in reversed(range(EXTRA)))]


def _characters(model: bytes) -> bytes:
    """The compiled table that normalises characters."""
    for number, start, end in message_fields(model, 0, len(model)):
        if number == _NORMALIZER:
            for field, a, b in message_fields(model, start, end):
                if field == _CHARACTERS:
                    return model[a:b]
    return b""


def _in_one(model: bytes) -> dict[str, Any]:
    """tokenizer.json."""
    vocabulary = _pieces(model)
    special = [*range(3), *range(len(vocabulary) - EXTRA, len(vocabulary))]
    spaces = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
    text, end = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    normalizers = [
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(_characters(model)).decode("ascii")},
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": _SPACE},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(number, vocabulary[number][0], number > 2) for number in special],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": spaces,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [text, end],
            "pair": [text, end, second, end],
            "special_tokens": {END: {"id": END, "ids": [1], "tokens": [END]}},
        },
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary, "byte_fallback": False},
    }


def _added(number: int, content: str, stripped: bool) -> dict[str, Any]:
    sides = {"single_word": False, "lstrip": stripped, "rstrip": stripped, "normalized": False, "special": True}
    return {"id": number, "content": content, **sides}


def _write(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
