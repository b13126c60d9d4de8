"""Photographs in the rows of parquet or Arrow files: one column of images, and perhaps one of words.

That is what Hugging Face's `datasets` saves (`save_to_disk`: Arrow) and its Hub holds (parquet).  pyarrow alone reads
both; `datasets` would bring it too, and a dozen packages besides.  An image is read when it is asked for, whatever the
size of the table.  Of a parquet file memory then holds about three times the images of one row group (pyarrow, like
most writers, makes them a single page); `datasets` writes groups of at most 100 images.  Arrow files are mapped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError, to_install

BUFFER = 1 << 20
"""Bytes that are read from a parquet file at a time."""
ENDINGS = (".parquet", ".arrow")


@dataclass(frozen=True)
class TableFile:
    """One file of a table."""

    path: Path
    """Where it is, for messages, and for reading unless `open` says how."""
    open: Callable[[], Any] | None = None
    """Opens it for reading by place, where it is not on this machine; parquet only."""


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    path: Path
    """File and number of the row, in words."""
    caption: str | None
    data: Callable[[], bytes]
    reference: Callable[[], bytes] | None = None


class Table:
    """The rows of several files.

    Args:
        name: what messages call it; the files lie below it.
        files: parquet or Arrow files of the same columns.
        image_column: the column of images: bytes, or a structure with `bytes`, as `datasets` writes it.
        caption_column: the column of words; None where they are not wanted.
        reference_column: the column of reference images; None without.

    Raises:
        ConfigError: pyarrow is not installed; a file is damaged, or has no such columns.
    """

    def __init__(
        self,
        name: Path,
        files: Sequence[TableFile],
        image_column: str,
        caption_column: str | None,
        reference_column: str | None = None,
    ):
        self.name, self.captioned = name, caption_column is not None
        self._parts = [_open(file, image_column, caption_column) for file in files]
        self._references: list[_Part] | None = None
        if reference_column is not None:
            self._references = [_open(file, reference_column, None, "cond_image_column") for file in files]

    def rows(self) -> Iterator[Row]:
        """Every row, in the order of the files."""
        for index, part in enumerate(self._parts):
            beside = None if self._references is None else self._references[index]
            for number, caption in enumerate(part.captions()):
                reference = None if beside is None else _reader(beside, number)
                yield Row(part.row_path(number), caption, _reader(part, number), reference)


class _Columns(Protocol):
    """One open file."""

    def words(self) -> Iterator[str | None]: ...

    def picture(self, number: int) -> bytes | None: ...


@dataclass(frozen=True)
class _Part:
    path: Path
    columns: _Columns
    beside: str = ""
    """Which of its images, in words, where those are not the photographs."""

    def row_path(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}, row {number}")

    def captions(self) -> Iterator[str | None]:
        with _explained(self.path):
            for words in self.columns.words():
                yield words.strip() or None if words is not None else None

    def data(self, number: int) -> bytes:
        where = self.row_path(number)
        with _explained(where):
            data = self.columns.picture(number)
        if data is None:
            raise ConfigError(
                f"{where}: holds no image{self.beside}, at most its name; save the dataset with its images inside"
            )
        return data


def _reader(part: _Part, number: int) -> Callable[[], bytes]:
    return lambda: part.data(number)


def _open(file: TableFile, image: str, caption: str | None, setting: str = "image_column") -> _Part:
    """A file of which a setting names the column of images."""
    _require_pyarrow(file.path)
    kind = _Parquet if file.path.suffix.lower() == ".parquet" else _Arrow
    with _explained(file.path):
        beside = "" if setting == "image_column" else f" in its column {image!r} ({setting})"
        return _Part(file.path, kind(file, image, caption, setting), beside)


class _Parquet:
    """A parquet file, read forwards from the beginning of a row group."""

    def __init__(self, file: TableFile, image: str, caption: str | None, setting: str):
        from pyarrow import parquet

        source = str(file.path) if file.open is None else file.open()
        self._file = parquet.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False)
        _check_columns(file.path, self._file.schema_arrow, image, caption, setting)
        self._image, self._caption = image, caption
        groups = self._file.metadata
        self._starts = [0]
        for group in range(groups.num_row_groups):
            self._starts.append(self._starts[-1] + groups.row_group(group).num_rows)
        self._next, self._batches = -1, iter(())

    def words(self) -> Iterator[str | None]:
        if self._caption is None:
            yield from [None] * self._starts[-1]
            return
        for batch in self._file.iter_batches(columns=[self._caption]):
            yield from batch.column(0).to_pylist()

    def picture(self, number: int) -> bytes | None:
        group = bisect_right(self._starts, number) - 1
        if not self._starts[group] < self._next <= number:  # the batches are another group's, or too far on
            self._next = self._starts[group]
            self._batches = self._file.iter_batches(batch_size=1, row_groups=[group], columns=[self._image])
        while self._next < number:
            next(self._batches)
            self._next += 1
        picture = _bytes(next(self._batches).column(0)[0])
        self._next += 1
        if self._next == self._starts[group + 1]:
            self._batches = iter(())  # which frees the group's memory
        return picture


class _Arrow:
    """An Arrow file, or the stream of batches that `datasets` writes, mapped into memory."""

    def __init__(self, file: TableFile, image: str, caption: str | None, setting: str):
        import pyarrow

        source = pyarrow.memory_map(str(file.path))
        try:
            self._table = pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:
            source.seek(0)
            self._table = pyarrow.ipc.open_file(source).read_all()
        _check_columns(file.path, self._table.schema, image, caption, setting)
        self._image, self._caption = image, caption

    def words(self) -> Iterator[str | None]:
        if self._caption is None:
            yield from [None] * self._table.num_rows
            return
        for chunk in self._table.column(self._caption).chunks:
            yield from chunk.to_pylist()

    def picture(self, number: int) -> bytes | None:
        return _bytes(self._table.column(self._image)[number])


def _bytes(value: Any) -> bytes | None:
    found = value.as_py()
    if isinstance(found, dict):
        found = found.get("bytes")
    return found or None


def _check_columns(path: Path, schema: Any, image: str, caption: str | None, of_images: str) -> None:
    from pyarrow import types

    def binary(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(f.name == "bytes" and binary(f.type) for f in kind)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def text(kind: Any) -> bool:
        return bool(types.is_string(kind) or types.is_large_string(kind))

    for setting, name, fits, what in (
        (of_images, image, binary, "images"),
        ("caption_column", caption, text, "text"),
    ):
        if name is None:
            continue
        others = ", ".join(repr(f.name) for f in schema if fits(f.type)) or "no column"
        if schema.get_field_index(name) < 0:
            columns = ", ".join(repr(n) for n in schema.names)
            raise ConfigError(f"{setting}: {path} has no column {name!r}; it has {columns}, and {what} in {others}")
        kind = schema.field(name).type
        if not fits(kind):
            raise ConfigError(f"{setting}: column {name!r} of {path} holds {kind}; expected {what}, as in {others}")


def _require_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"dataset_name: {path}: reading it needs pyarrow ({error}); {to_install('parquet')}"
        ) from None


@contextmanager
def _explained(where: Path) -> Iterator[None]:
    """Turn what pyarrow and the Hub's client raise into an error that names file and row."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, StopIteration, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{where}: damaged, or cannot be read: {reason}; fetch or save it anew") from error
