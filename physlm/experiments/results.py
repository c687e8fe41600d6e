"""`results.jsonl`: one line per run and cell, the contract between a sweep and its readers."""

import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

Row = dict[str, Any]

FILE = "results.jsonl"
RUN_FILE = "result.json"
CONFIG_FILE = "config.json"

# Names, in the order in which they are written, and kinds.
_SHARES = ("accuracy", "answer_accuracy", "ci_low", "ci_high")
_KINDS: dict[str, type] = {
    "study": str,
    "run": str,
    "condition": dict,
    "seed": int,
    "step": int,
    "tokens": int,
    "cell": str,
    "op": int,
    "n": int,
    "accuracy": float,
    "answer_accuracy": float,
    "ci_low": float,
    "ci_high": float,
    "retries": float,
    "unnecessary": float,
}
FIELDS = tuple(_KINDS)
RUN_FIELDS = ("study", "run", "condition", "seed", "step", "tokens")
CELL_FIELDS = tuple(name for name in FIELDS if name not in RUN_FIELDS)

_NAME_OF_KIND = {str: "a string", dict: "an object", int: "a whole number", float: "a number"}


def validate(row: Any, where: str) -> Row:
    """Returns `row` with its fields in the contract's order.

    Args:
        row: what was read, or is about to be written.
        where: how to call it in the error, e.g. `line 3 of results.jsonl`.

    Raises:
        ValueError: a field is missing, unknown, of the wrong kind or out of range.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} is not a JSON object.")
    for name in FIELDS:
        if name not in row:
            raise ValueError(f"{where} lacks the field {name!r}.")
    for name in row:
        if name not in _KINDS:
            raise ValueError(f"{where} has the unknown field {name!r}.")
    for name, kind in _KINDS.items():
        if not _is(row[name], kind):
            raise ValueError(f"{where} has {name} = {row[name]!r}, not {_NAME_OF_KIND[kind]}.")
    for name in _SHARES:
        if not 0.0 <= row[name] <= 1.0:
            raise ValueError(f"{where} has {name} = {row[name]!r}, outside 0..1.")
    for name in ("step", "tokens", "op", "n", "retries", "unnecessary"):
        if row[name] < 0:
            raise ValueError(f"{where} has {name} = {row[name]!r}, below 0.")
    return {name: row[name] for name in FIELDS}


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a `results.jsonl`, in the file's order.

    Raises:
        ValueError: a line is not valid JSON or breaks the contract; the line is named.
        OSError: the file cannot be read.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"line {number} of {path}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is not valid JSON ({error.msg}).") from error
        rows.append(validate(row, where))
    return rows


def write(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Replaces `path` by `rows` at once: a reader, or a crash, never sees half a file.

    Raises:
        ValueError: a row breaks the contract; nothing is written then.
    """
    lines = [
        json.dumps(validate(row, f"row {number} for {path}"), allow_nan=False)
        for number, row in enumerate(rows, start=1)
    ]
    write_atomically(path, "".join(line + "\n" for line in lines))


def rows_of_run(path: pathlib.Path) -> list[Row]:
    """The rows of one finished run, from its `result.json`.

    Raises:
        ValueError: the file is not what a run writes.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        run_fields = {name: result[name] for name in RUN_FIELDS}
        cells = [dict(cell) for cell in result["cells"]]
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not the result of a run ({error}); remove it to have the run done again."
        ) from error
    return [
        validate({**run_fields, **cell}, f"cell {number} of {path}")
        for number, cell in enumerate(cells, start=1)
    ]


def collect(workdir: pathlib.Path) -> list[Row]:
    """The rows of every finished run below `workdir`, in an order that only they decide.

    Conditions come in increasing order of their values, then seeds, then run names; a run's
    cells stay in the order of its evaluation.
    """
    runs = [rows_of_run(path) for path in workdir.glob(f"*/{RUN_FILE}")]
    runs = [rows for rows in runs if rows]
    runs.sort(key=lambda rows: _order(rows[0]))
    return [row for rows in runs for row in rows]


def refuse_other_study(workdir: pathlib.Path, study: str) -> None:
    """Sees to it that no result in `workdir` belongs to another study.

    Raises:
        ValueError: it holds results of another study, or a results file that is not one.
    """
    path = workdir / FILE
    try:
        rows = read(path) if path.exists() else []
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    for row in [*rows, *collect(workdir)]:
        if row["study"] != study:
            raise ValueError(
                f"{workdir} holds results of the study {row['study']!r}, not of {study!r}: "
                "choose another --workdir."
            )


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that it is there whole or, after a crash, as it was before."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _order(row: Row) -> tuple[Any, ...]:
    condition = tuple((name, *_rank(value)) for name, value in sorted(row["condition"].items()))
    return condition, row["seed"], row["run"]


def _rank(value: Any) -> tuple[int, float, str]:
    """Numbers by size before everything else by its text: values of mixed kinds have an order."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, json.dumps(value, sort_keys=True)
