"""`results.jsonl`: a line for each run, evaluation and cell. Readers rely on its fields."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from data_gen.text import lines
from physlm import paths

Row = dict[str, Any]

FILE = "results.jsonl"

# Names, in the order in which they are written, and kinds.
_SHARES = ("accuracy", "answer_accuracy", "ci_low", "ci_high")
_KINDS: dict[str, type] = {
    "study": str,
    "run": str,
    "evaluation": str,
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
STUDY_FIELDS = ("study", "condition")  # what a study says of a result, beside the result itself
RESULT_FIELDS = ("run", "evaluation", "seed", "step", "tokens")
CELL_FIELDS = tuple(name for name in FIELDS if name not in (*STUDY_FIELDS, *RESULT_FIELDS))

# What a result says of a cell beyond a row's fields: accuracy on problems whose templates training
# may have shown, and on the others; how many problems differ; how a probe answered; and what
# solutions cost.
PARTS = ("held_out", "shared", "distinct", "probe", "account")

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


def read(path: epath.Path) -> list[Row]:
    """The rows of a `results.jsonl`, in the file's order.

    Raises:
        ValueError: a line is not valid JSON or breaks the contract; the line is named.
        OSError: the file cannot be read.
    """
    return [
        _row(line, f"line {number} of {path}")
        for number, line in enumerate(paths.read_bytes(path).splitlines(), start=1)
    ]


def read_whole(path: epath.Path) -> tuple[list[Row], int]:
    """The rows of a `results.jsonl` that are whole, and how many of its lines are not JSON.

    A copy that broke off leaves such a line.

    Raises:
        ValueError: a line breaks the contract; the line is named.
        OSError: the file cannot be read.
    """
    rows, cut = [], 0
    for number, line in enumerate(paths.read_bytes(path).splitlines(), start=1):
        try:
            row = lines.value(line)
        except ValueError:
            cut += 1
            continue
        rows.append(validate(row, f"line {number} of {path}"))
    return rows, cut


def _row(line: bytes, where: str) -> Row:
    try:
        row = lines.value(line)
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON ({error}).") from error
    return validate(row, where)


def write(path: epath.Path, rows: Iterable[Row]) -> None:
    """Replaces `path` by `rows` at once: a reader, or a crash, never sees half a file.

    Raises:
        ValueError: a row breaks the contract; nothing is written then.
    """
    lines = [
        json.dumps(validate(row, f"row {number} for {path}"), allow_nan=False)
        for number, row in enumerate(rows, start=1)
    ]
    paths.write_atomically(path, "".join(line + "\n" for line in lines))


def cells(path: epath.Path) -> list[Row]:
    """All that the `result.json` of an evaluation says of each cell.

    Those are a row's fields but for those that a study adds, and the `PARTS`.

    Raises:
        ValueError: the file is not what an evaluation writes.
    """
    try:
        result = lines.value(paths.read_bytes(path))
        shared = {name: result[name] for name in RESULT_FIELDS}
        found = [{**shared, **cell} for cell in result["cells"]]
    except (KeyError, TypeError, ValueError) as error:
        # What is no object has no fields.
        why = str(error) if isinstance(error, ValueError | KeyError) else "it is none"
        raise ValueError(
            f"{path} is not the result of an evaluation ({why}); "
            "remove it to have the run judged again."
        ) from error
    for number, cell in enumerate(found, start=1):
        row("", {}, cell, f"cell {number} of {path}")
    return found


def row(study: str, condition: Mapping[str, Any], cell: Row, where: str) -> Row:
    """The row of a cell, as a study shows it.

    Raises:
        ValueError: the cell, which is called `where`, breaks the contract.
    """
    told = {name: value for name, value in cell.items() if name not in PARTS}
    return validate({"study": study, "condition": dict(condition), **told}, where)


def ordered(groups: Iterable[Sequence[Row]]) -> list[Row]:
    """The rows of many evaluations in a canonical order.

    Conditions come in increasing order of their values, then seeds, runs and evaluations; the cells
    of an evaluation stay in their order.
    """
    found = sorted((rows for rows in groups if rows), key=lambda rows: _order(rows[0]))
    return [row for rows in found for row in rows]


def refuse_other_study(path: epath.Path, study: str) -> str:
    """Raises where a row of a `results.jsonl` belongs to another study; reports damage.

    Returns:
        what is wrong with the first row that a sweep would not write; empty where nothing is. That
        is no error, as all rows can be made again from the results of runs.

    Raises:
        ValueError: one does, or the file cannot be read.
    """
    try:
        written = paths.read_bytes(path).splitlines() if path.exists() else []
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    damage = ""
    for number, line in enumerate(written, start=1):
        where = f"line {number} of {path}"
        try:
            row = lines.value(line)
        except ValueError as error:
            damage = damage or f"{where} is not valid JSON ({error})"
            continue
        other = row.get("study") if isinstance(row, dict) else None
        if isinstance(other, str) and other != study:
            raise ValueError(
                f"{path.parent} holds results of the study {other!r}, not of {study!r}: "
                "choose another --workdir."
            )
        try:
            validate(row, where)
        except ValueError as error:
            damage = damage or str(error).rstrip(".")
    return damage


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _order(row: Row) -> tuple[Any, ...]:
    condition = tuple((name, *_rank(value)) for name, value in sorted(row["condition"].items()))
    return condition, row["seed"], row["run"], row["evaluation"]


def _rank(value: Any) -> tuple[int, float, str]:
    """A sort key for values of mixed types: numbers by size, then all else by its text."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, json.dumps(value, sort_keys=True)
