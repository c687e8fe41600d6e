"""Results by condition: the runs of several seeds merged into one line of points each."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from physlm import metrics
from physlm.experiments.results import Row


@dataclasses.dataclass(frozen=True)
class Point:
    """One condition on one cell, over all its seeds; accuracies in 0..1.

    Attributes:
        cell: the cell's name, e.g. `<=4` or `5`.
        op: number of operations; the cap for a cell of all up to it.
        accuracy: strict accuracy, the mean over seeds.
        low, high: its 95% Wilson interval. All seeds are tested on the same problems, so that more
            seeds make it no narrower.
        by_seed: strict accuracy of each seed.
        answer_accuracy, retries, unnecessary: means over seeds.
        n: number of problems.
        shared: of these, how many have a template that training may show.
        held_out: strict accuracy on the others; None where there are none, or where it is unknown.
        distinct, templates: how many different problems and templates there are among all; None
            where it is unknown.
    """

    cell: str
    op: int
    accuracy: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    answer_accuracy: float
    retries: float
    unnecessary: float
    n: int
    shared: int
    held_out: float | None
    distinct: int | None
    templates: int | None

    @property
    def inside(self) -> bool:
        """Whether the cell collects all problems up to its op."""
        return self.cell.startswith("<=")


@dataclasses.dataclass(frozen=True)
class Line:
    """One condition: its label, what it is, and its points in the order of the cells."""

    label: str
    condition: Mapping[str, Any]
    points: tuple[Point, ...]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """One line a condition, in the order of the rows.

    Args:
        rows: of `results.jsonl`; those that say it may tell held-out and shared problems apart
            and say how many problems differ (`results.PARTS`).
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["condition"], sort_keys=True), []).append(row)
    conditions = [group[0]["condition"] for group in groups.values()]
    return [
        Line(_label(condition, conditions), condition, _points(group))
        for condition, group in zip(conditions, groups.values(), strict=True)
    ]


def _points(rows: Sequence[Row]) -> tuple[Point, ...]:
    cells: dict[str, list[Row]] = {}
    for row in rows:
        cells.setdefault(row["cell"], []).append(row)
    return tuple(_point(group) for group in cells.values())


def _point(rows: Sequence[Row]) -> Point:
    """Merges the seeds of one condition and cell."""

    def mean(field: str) -> float:
        return statistics.fmean(row[field] for row in rows)

    n = min(row["n"] for row in rows)
    low, high = rows[0]["ci_low"], rows[0]["ci_high"]
    if len(rows) > 1:
        low, high = metrics.wilson_interval(round(mean("accuracy") * n), n)
    apart = [row["held_out"]["accuracy"] for row in rows if row.get("held_out", {"n": 0})["n"]]
    known = [row["distinct"] for row in rows if "distinct" in row]
    return Point(
        cell=rows[0]["cell"],
        op=rows[0]["op"],
        accuracy=mean("accuracy"),
        low=low,
        high=high,
        by_seed=tuple(row["accuracy"] for row in rows),
        answer_accuracy=mean("answer_accuracy"),
        retries=mean("retries"),
        unnecessary=mean("unnecessary"),
        n=n,
        shared=max(row.get("shared", {"n": 0})["n"] for row in rows),
        held_out=statistics.fmean(apart) if apart else None,
        distinct=min((found["problems"] for found in known), default=None),
        templates=min((found["templates"] for found in known), default=None),
    )


def _label(condition: Mapping[str, Any], conditions: Sequence[Mapping[str, Any]]) -> str:
    """The condition in words, without what all conditions share."""
    parts = []
    for name, value in condition.items():
        if len(conditions) > 1 and all(other.get(name) == value for other in conditions):
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        parts.append(f"{name.replace('_', ' ')} {text}")
    return ", ".join(parts) or "all"
