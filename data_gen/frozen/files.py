"""Rows of a frozen set in files: JSON lines or Parquet, in the layout of Hugging Face datasets.

The rows of a split are in `data/SPLIT-00000-of-00002.parquet`, …, as they are made: no more than
one group of rows is in memory. Files are counted after they are written.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

# Rows of a file at most: a quarter of a gigabyte of `med` as JSON lines.
FILE_ROWS = 1 << 17
# Rows of a group, which readers of Parquet read at once.
GROUP_ROWS = 1 << 12

Row = dict[str, Any]

# Columns and their types, as Hugging Face datasets and Arrow both call them.
COLUMNS = {
    "id": "string",
    "layers": "string",
    "problem": "string",
    "question": "string",
    "solution": "string",
    "answer": "int32",
    "op": "int32",
}
# Of each mistake in the column `mended`.
MENDED_COLUMNS = {"step": "int32", "kind": "string", "mending": "string", "late": "int32"}


class Writer(Protocol):
    """A file that rows are written to, group by group; used as a context manager."""

    def write(self, rows: list[Row]) -> None:
        """Appends rows."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Format(NamedTuple):
    """How rows stand in files.

    Attributes:
      suffix: of the files' names.
      open: a new file for rows, with the column `mended` or without.
      count: the rows that a file holds.
    """

    suffix: str
    open: Callable[[Path, bool], Writer]
    count: Callable[[Path], int]


class _Lines:
    """A file of JSON lines."""

    def __init__(self, path: Path, types: bool) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, rows: list[Row]) -> None:
        self._file.writelines(json.dumps(row) + "\n" for row in rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


class _Table:
    """A file of Parquet, a group of rows after each `write`."""

    def __init__(self, path: Path, types: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        def fields(columns: dict[str, str]) -> list[Any]:
            kinds = {"string": pa.string(), "int32": pa.int32()}
            return [pa.field(name, kinds[kind], nullable=False) for name, kind in columns.items()]

        mended = pa.field("mended", pa.list_(pa.struct(fields(MENDED_COLUMNS))), nullable=False)
        schema = pa.schema([*fields(COLUMNS), *([mended] if types else [])])
        self._read = lambda rows: pa.RecordBatch.from_pylist(rows, schema=schema)
        self._file = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, rows: list[Row]) -> None:
        self._file.write_batch(self._read(rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _count_table(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


FORMATS = {
    "jsonl": Format("jsonl", _Lines, _count_lines),
    "parquet": Format("parquet", _Table, _count_table),
}


def check(format: str) -> None:
    """Sees to it that a format can be written here.

    Raises:
      ValueError: it needs a package that is missing.
    """
    if format != "parquet":
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"format 'parquet' needs what the extra `parquet` brings ({error}): "
            "pip install -e '.[parquet]'."
        ) from error


def write(
    rows: Iterator[Row],
    directory: Path,
    *,
    split: str,
    count: int,
    format: str,
    types: bool,
) -> list[Path]:
    """Writes `count` rows of a split to files below a directory.

    Args:
      rows: at least so many.
      split: what readers call it.
      format: of `FORMATS`.
      types: whether rows have `mended`.

    Returns:
      The files, of at most `FILE_ROWS` rows each.

    Raises:
      OSError: a file cannot be written, or does not hold the rows that were written to it.
    """
    how, paths = FORMATS[format], []
    parts = -(-count // FILE_ROWS)
    (directory / "data").mkdir(exist_ok=True)
    for part in range(parts):
        size = min(FILE_ROWS, count - part * FILE_ROWS)
        path = directory / "data" / f"{split}-{part:05d}-of-{parts:05d}.{how.suffix}"
        with how.open(path, types) as file:
            for group in _groups(itertools.islice(rows, size)):
                file.write(group)
        if (found := how.count(path)) != size:
            raise OSError(f"{path.name} holds {found:,} rows instead of {size:,}.")
        paths.append(path)
    return paths


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while group := list(itertools.islice(rows, GROUP_ROWS)):
        yield group
