"""Conditions with mistakes against error-free ones of otherwise equal settings, problem by problem.

The statistics are those of `physlm.experiments.inference`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from physlm.experiments import condition, inference, outcomes
from physlm.experiments.inference import Difference
from physlm.experiments.summary import Line, cap_of


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A condition against the error-free one.

    Attributes:
        label: of the condition.
        cells: what they are compared on, in order: a cell, or `beyond 5` for all beyond the cap
            together. None in place of a difference where the runs had different problems.
        why_not: why there is none at all; "" where there is.
    """

    label: str
    cells: dict[str, Difference | None]
    why_not: str = ""


def compare(lines: Sequence[Line], found: outcomes.All) -> list[Comparison]:
    """All conditions with mistakes against the error-free ones.

    Args:
        lines: of a study.
        found: what became of every problem, as far as it is known.
    """
    conditions = [line.condition for line in lines]
    compared = []
    for line in lines:
        if condition.is_error_free(line.condition) or condition.RATE not in line.condition:
            continue
        number = condition.baseline(line.condition, conditions)
        if number is None:
            continue
        base = lines[number]
        if why := _why_not(line, base, found):
            compared.append(Comparison(line.label, {}, why))
            continue
        cells = {
            name: _difference(members, line, base, found)
            for name, members in _cells(line, base).items()
        }
        compared.append(Comparison(line.label, cells))
    return compared


def _why_not(line: Line, base: Line, found: outcomes.All) -> str:
    for one in (line, base):
        if any(not found.get(judged) for judged in one.judged):
            return "what the models wrote for each problem is not in the store any more"
        if len({run for run, _ in one.judged}) < len(one.judged):
            return "a run is there by several evaluations"
    return ""


def _cells(line: Line, base: Line) -> dict[str, tuple[str, ...]]:
    """What is compared, by name: the cells that both have, and those beyond the cap as one."""
    theirs = {point.cell for point in base.points}
    points = [point for point in line.points if point.cell in theirs]
    cells: dict[str, tuple[str, ...]] = {point.cell: (point.cell,) for point in points}
    cap = cap_of(points)
    if cap is not None:
        beyond = tuple(p.cell for p in points if p.op > cap and not p.reasked)
        if len(beyond) > 1:
            cells[f"beyond {cap}"] = beyond
    return cells


def _difference(
    cells: Sequence[str], line: Line, base: Line, found: outcomes.All
) -> Difference | None:
    sides = []
    problems = set()
    for one in (line, base):
        for judged in one.judged:
            mine = [found[judged].get(cell) for cell in cells]
            known = [of_cell for of_cell in mine if of_cell is not None]
            if len(known) < len(mine):
                return None
            problems.add(tuple(of_cell.problems for of_cell in known))
            sides.append(np.concatenate([of_cell.correct_N for of_cell in known]))
    if len(problems) > 1:
        return None
    first = len(line.judged)
    return inference.difference(np.stack(sides[:first]), np.stack(sides[first:]))


def table(compared: Sequence[Comparison]) -> list[list[str]] | None:
    """Cells by conditions: difference in points, its 95% interval and p; None where there is none.

    Args:
        compared: what `compare` found.
    """
    shown = [one for one in compared if one.cells]
    names = list(dict.fromkeys(name for one in shown for name in one.cells))
    rows = [[name, *(_text(one.cells.get(name)) for one in shown)] for name in names]
    return [["op", *(one.label for one in shown)], *rows] if rows else None


def notes(compared: Sequence[Comparison]) -> list[str]:
    """How the table is to be read, and what is not in it."""
    found = [one for each in compared for one in each.cells.values()]
    tested = [one for one in found if one is not None]
    told = []
    if tested:
        kinds = {one.over_seeds for one in tested}
        how = {
            True: "t tests over seeds and problems, paired by problem",
            False: "McNemar's exact tests over problems of two models, of one seed each, which say "
            "nothing of other seeds",
        }
        told.append(
            "Differences from error-free solutions are in points of strict accuracy: "
            f"{'; or '.join(how[kind] for kind in sorted(kinds, reverse=True))}. "
            "Where nothing differs, p < 0.05 has a chance of one in twenty, for each of the "
            f"{len(tested)} comparisons."
        )
    if None in found:
        told.append("Conditions whose runs were judged on different problems are not compared.")
    told += [f"Not compared: {one.label} ({one.why_not})." for one in compared if one.why_not]
    return told


def _text(one: Difference | None) -> str:
    if one is None:
        return "–"
    value, low, high = (f"{100 * share:+.1f}" for share in (one.value, one.low, one.high))
    p = "p < 0.001" if one.p < 0.001 else f"p = {one.p:.3f}"
    return f"{value} [{low}, {high}], {p}"
