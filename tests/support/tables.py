"""Photographs as the rows of a table, laid out as `datasets` does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPTIONS = ("a dog on grass", "", None, "a dog in snow", "a dog at night")


def columns(photos: Path, **names: str) -> Any:
    """A pyarrow table of the photographs in a folder: `image` (bytes and path) and `text`; `names` renames them, and
    calls by `beside` the same images once more, where there is to be such a column; then every row has words."""
    import pyarrow

    files = sorted(photos.iterdir())
    pictures = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    words = [CAPTIONS[i % len(CAPTIONS)] or ("a dog" if "beside" in names else None) for i in range(len(files))]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    arrays = {"image": pyarrow.array(pictures, kind), "text": pyarrow.array(words, pyarrow.string())}
    table = pyarrow.table({names.get(name, name): array for name, array in arrays.items()})
    features = {names.get("image", "image"): {"_type": "Image"}}
    if beside := names.get("beside"):
        table = table.append_column(beside, table.column(names.get("image", "image")))
        features[beside] = {"_type": "Image"}
    features |= {names.get("text", "text"): {"dtype": "string", "_type": "Value"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def as_parquet(
    photos: Path, folder: Path, shards: Sequence[str] = ("data/train-00000-of-00001.parquet",), **names: str
) -> Path:
    """The photographs in parquet files, as in a repository of the Hub; `names` renames columns."""
    from pyarrow import parquet

    table = columns(photos, **names)
    each = -(-table.num_rows // len(shards))
    for number, name in enumerate(shards):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table.slice(number * each, each), folder / name, row_group_size=2)
    return folder


def as_saved(photos: Path, folder: Path) -> Path:
    """The photographs as `Dataset.save_to_disk` writes them: a stream of record batches, and state.json."""
    import pyarrow

    folder.mkdir(parents=True)
    table = columns(photos)
    with pyarrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "0", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder
