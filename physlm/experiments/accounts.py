"""`accounts.jsonl`: what a report knows of solutions and training beside `results.jsonl`.

It lies beside `results.jsonl` and has two kinds of lines. One for each run, evaluation and cell:
the parts of a `result.json` that rows of `results.jsonl` have no field for (`results.PARTS`), such
as tokens, passes and returns of solutions, how many were cut off, which problems were held out, and
how a probe answered. And one for each run: the size of its model, its losses during training, by
which versions it was trained, and what tells it from a run that only looks like another seed of it.

With it, tables and figures can be made again without the store, and those of several stores
together, by appending one file to the other. Results that are no seeds of one condition are shown
apart then, too.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from data_gen.text import lines
from physlm import paths
from physlm.experiments import results

FILE = "accounts.jsonl"

# The fields of a part that tables read without a check.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "held_out": ("n", "accuracy"),
    "shared": ("n",),
    "distinct": ("problems", "templates"),
    "probe": (),
    "account": ("tokens", "capped"),
}


@dataclasses.dataclass(frozen=True)
class Training:
    """What is known of a run's training.

    Attributes:
        parameters: of its model; None where that is not known.
        losses: pairs of tokens seen and the recent mean of the loss (nats a token), in order.
        made_by: of `versions.json`, what a report tells; empty where that is not known.
        versions: what tells apart results that are no seeds of one condition, by the names of
            evaluations (`material.Material`); those are missing of which it is not known.
    """

    parameters: int | None = None
    losses: Sequence[tuple[float, float]] = ()
    made_by: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Accounts:
    """What is known of evaluations and of runs.

    Attributes:
        cells: the parts of each cell by their names, keyed by the names of run, evaluation and
            cell.
        runs: training, keyed by the run's name.
    """

    cells: Mapping[tuple[str, str, str], Mapping[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    runs: Mapping[str, Training] = dataclasses.field(default_factory=dict)


def kept(path: epath.Path) -> tuple[Accounts, int]:
    """Reads an `accounts.jsonl`.

    Of two lines about the same thing the later one counts.

    Returns:
        what it holds, and how many of its lines are not such as `text` writes.

    Raises:
        OSError: the file is there and cannot be read.
    """
    cells: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    runs: dict[str, Training] = {}
    damaged = 0
    for line in paths.read_bytes(path).splitlines() if path.exists() else ():
        try:
            row = lines.value(line)
            if "cell" in row:
                run, evaluation, cell = (_text(row[n]) for n in ("run", "evaluation", "cell"))
                told = {name: row[name] for name in results.PARTS if name in row}
                for name, part in told.items():
                    _check(name, part)
                cells[run, evaluation, cell] = told
            else:
                runs[_text(row["run"])] = _training(row)
        except (ValueError, KeyError, TypeError):
            damaged += 1
    return Accounts(cells, runs), damaged


def text(found: Accounts) -> str:
    """The lines of an `accounts.jsonl`, of runs and of cells."""
    rows: list[dict[str, Any]] = [
        {
            "run": run,
            "parameters": one.parameters,
            "made_by": one.made_by,
            "versions": one.versions,
            "losses": [list(point) for point in one.losses],
        }
        for run, one in found.runs.items()
        if one != Training()
    ]
    rows += [
        {"run": run, "evaluation": evaluation, "cell": cell, **parts}
        for (run, evaluation, cell), parts in found.cells.items()
        if parts
    ]
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError("a name is no text")
    return name


def _training(row: Mapping[str, Any]) -> Training:
    parameters = row["parameters"]
    if parameters is not None and (not _is_number(parameters) or parameters < 1):
        raise ValueError("it is no number of parameters")
    losses = [(tokens, loss) for tokens, loss in row["losses"]]
    if not all(_is_number(number) for point in losses for number in point):
        raise ValueError("a loss is no number")
    # Files of before 29 November 2026 have neither.
    made_by, versions = row.get("made_by", {}), row.get("versions", {})
    for said in (made_by, versions):
        if not isinstance(said, dict) or not all(isinstance(v, str | None) for v in said.values()):
            raise ValueError("a version is no text")
    return Training(parameters, losses, made_by, versions)


def _check(name: str, part: Any) -> None:
    """Checks that a part maps names to numbers and has those that tables need.

    Raises:
        ValueError: it does not.
    """
    if not (isinstance(part, dict) and all(number in part for number in _NEEDED[name])):
        raise ValueError(f"{name} lacks what it should have")
    # None is the share of an empty set; counts by kind of mistake are a dictionary inside the part.
    below = [one for value in part.values() if isinstance(value, dict) for one in value.values()]
    flat = [value for value in part.values() if not isinstance(value, dict)]
    if not all(value is None or _is_number(value) for value in [*flat, *below]):
        raise ValueError(f"{name} has something else than numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
