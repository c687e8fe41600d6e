"""Paired comparisons, problem by problem, of conditions that differ in one setting.

Those with mistakes are compared with error-free ones, and where a study says so (`VERSUS`), those
that differ in one setting with that which has a certain value of it. The statistics are those of
`physlm.experiments.inference`; `physlm.experiments.verdicts` puts into words what is found.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physlm.experiments import condition, inference, outcomes
from physlm.experiments.condition import PROBE
from physlm.experiments.inference import Difference
from physlm.experiments.summary import Line, cap_of, independent

ERROR_FREE = "error-free solutions"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of one condition with another.

    Attributes:
        label: of the condition.
        against: what it, and others of its kind, are compared with, in words.
        cells: the differences by what they are on, in order: a cell, or `beyond 5` for all cells
            beyond the cap together. None where the runs had different problems.
        adjusted: p by cell after Holm's correction (Scandinavian Journal of Statistics 6, 1979) for
            the number of conditions that are compared on this cell.
        why_not: why nothing could be compared; "" where it could.
        rates: how many rates of mistakes are averaged over; 1 for a single condition.
        by_seed: by cell the difference in each seed, in the order of seeds; empty where the two
            conditions have different seeds, or one.
        seeds: which seeds are compared, in words, where some are on one side only; else "".
        base: the label of what it is compared with, where `against` is that of another; else "".
    """

    label: str
    against: str
    cells: Mapping[str, Difference | None]
    adjusted: Mapping[str, float] = dataclasses.field(default_factory=dict)
    why_not: str = ""
    rates: int = 1
    by_seed: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    seeds: str = ""
    base: str = ""


def compare(
    lines: Sequence[Line], found: outcomes.All, versus: Mapping[str, Any] | None = None
) -> list[Comparison]:
    """Compares conditions with mistakes to error-free ones, and others as the study asks.

    Conditions that differ only in the rate of mistakes are compared one by one and, where any has
    several seeds, also together: the mean over rates is less noisy.

    Args:
        lines: of a study.
        found: the outcomes of every problem, as far as they are known.
        versus: names of settings, each with a value. A condition with another value of the setting
            is also compared with the condition that has this value and is otherwise equal.

    Returns:
        the comparisons, also those that cannot be made (`why_not`).
    """
    compared = _without_baseline(lines)
    for pairs, against in _pairs(lines, versus or {}):
        kind = [_compared(line, base, lines, found, against) for line, base in pairs]
        together = [_rates_together(group, lines, found, against) for group in _by_rate(pairs)]
        compared += _corrected(kind) + _corrected([one for one in together if one is not None])
    return compared


def _pairs(
    lines: Sequence[Line], versus: Mapping[str, Any]
) -> list[tuple[list[tuple[Line, Line]], str]]:
    numbers = condition.baselines([line.condition for line in lines])
    known = [(lines[n], lines[base]) for n, base in numbers.items() if base is not None]
    found = [(known, ERROR_FREE)]
    for name, value in versus.items():
        bases = [line for line in lines if line.condition.get(name) == value]
        pairs = [
            (line, base)
            for line in lines
            for base in bases
            if line is not base and _with(line.condition, name, value) == dict(base.condition)
        ]
        found.append((pairs, f"the same, {condition.setting(name, value)}"))
    return found


def _without_baseline(lines: Sequence[Line]) -> list[Comparison]:
    """Conditions that have none, where others have one."""
    bases = condition.baselines([line.condition for line in lines])
    if not any(base is not None for base in bases.values()):
        return []
    why = "no error-free condition has otherwise equal settings"
    alone = [lines[number] for number, base in bases.items() if base is None]
    return [Comparison(line.label, ERROR_FREE, {}, why_not=why) for line in alone]


def _with(said: condition.Condition, name: str, value: Any) -> dict[str, Any]:
    """The condition with one setting changed."""
    kept = {key: known for key, known in said.items() if name != condition.DECODE or key != PROBE}
    return {**kept, name: value}


def _compared(
    line: Line, base: Line, lines: Sequence[Line], found: outcomes.All, against: str
) -> Comparison:
    if why := _why_not(line, base, found):
        return Comparison(line.label, against, {}, why_not=why)
    cells: dict[str, Difference | None] = {}
    by_seed: dict[str, tuple[float, ...]] = {}
    for name, members in _cells(line, base).items():
        cells[name], by_seed[name] = _difference(members, line, base, lines, found)
    return Comparison(
        line.label,
        against,
        cells,
        by_seed=by_seed,
        seeds=_some_seeds([(line, base)], lines),
        base=_told(base, lines, against),
    )


def _told(base: Line, lines: Sequence[Line], against: str) -> str:
    """The label of `base`, where `against` is the label of another line; else ""."""
    other = base.label != against and any(line.label == against for line in lines)
    return base.label if other else ""


def _some_seeds(pairs: Sequence[tuple[Line, Line]], lines: Sequence[Line]) -> str:
    """The seeds that are compared, in words, where some lines lack some of them."""
    every = _words(sorted({seed for line in lines for seed in line.seeds}))
    mine, theirs = _seeds([line for line, _ in pairs]), _seeds([base for _, base in pairs])
    if mine == theirs:
        return "" if mine == every else f"of {mine} alone"
    return f"of {mine} against {theirs}"


def _seeds(lines: Sequence[Line]) -> str:
    """The seeds of each line; one entry where all have the same."""
    return " and ".join(dict.fromkeys(_words(sorted(set(line.seeds))) for line in lines))


def _words(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _by_rate(pairs: Sequence[tuple[Line, Line]]) -> list[list[tuple[Line, Line]]]:
    """Pairs whose conditions differ in the rate of mistakes alone, where there are several."""
    groups: dict[str, list[tuple[Line, Line]]] = {}
    for line, base in pairs:
        if not condition.is_error_free(line.condition) and condition.RATE in line.condition:
            groups.setdefault(json.dumps(_without_rate(line)), []).append((line, base))
    return [group for group in groups.values() if len({id(line) for line, _ in group}) > 1]


def _without_rate(line: Line) -> dict[str, Any]:
    meant = condition.meant(line.condition)
    return {name: meant[name] for name in sorted(meant) if name != condition.RATE}


def _rates_together(
    group: Sequence[tuple[Line, Line]],
    lines: Sequence[Line],
    found: outcomes.All,
    against: str,
) -> Comparison | None:
    """The mean over rates; None where seeds are too few to estimate its error."""
    if any(_why_not(line, base, found) for line, base in group):
        return None
    every = [_without_rate(line) for line in lines if condition.RATE in line.condition]
    rest = condition.label(_without_rate(group[0][0]), every)
    label = f"{len(group)} rates together{'' if rest == 'all' else f', {rest}'}"
    # One error-free condition may be the other side of every pair.
    shown = list({id(line): line for pair in group for line in pair}.values())
    weights = [_weight(line, group) for line in shown]
    cells, by_seed = {}, {}
    for name, members in _cells(*group[0]).items():
        known = [solved for line in shown if (solved := _solved(members, line, found)) is not None]
        if len(known) < len(shown) or len({solved.problems for solved in known}) > 1:
            continue
        parts = [solved.correct_SxN for solved in known]
        others = _same_problems(known[0], members, shown, lines, found)
        if (one := inference.contrast(parts, weights, others)) is not None:
            cells[name] = one
            by_seed[name] = _by_seed(shown, parts, weights)
    if not cells:
        return None
    return Comparison(
        label,
        against,
        cells,
        rates=len(group),
        by_seed=by_seed,
        seeds=_some_seeds(group, lines),
        base=_told(group[0][1], lines, against),
    )


def _weight(line: Line, group: Sequence[tuple[Line, Line]]) -> float:
    return sum((one is line) - (base is line) for one, base in group) / len(group)


def _by_seed(
    shown: Sequence[Line], parts: Sequence[np.ndarray], weights: Sequence[float]
) -> tuple[float, ...]:
    """The weighted sum in each seed; none where conditions have different ones, or one each."""
    seeds = sorted(shown[0].seeds)
    if len(seeds) == 1 or any(sorted(line.seeds) != seeds for line in shown):
        return ()
    ordered = [p[np.argsort(line.seeds)].mean(1) for line, p in zip(shown, parts, strict=True)]
    return tuple(np.dot(weights, ordered).tolist())


def _corrected(compared: Sequence[Comparison]) -> list[Comparison]:
    names = dict.fromkeys(name for one in compared for name in one.cells)
    by_cell: dict[str, dict[str, float]] = {}
    for name in names:
        known = {one.label: each.p for one in compared if (each := one.cells.get(name)) is not None}
        by_cell[name] = dict(zip(known, inference.holm(list(known.values())), strict=True))
    return [
        dataclasses.replace(
            one,
            adjusted={n: by_cell[n][one.label] for n in names if one.label in by_cell[n]},
        )
        for one in compared
    ]


def _why_not(line: Line, base: Line, found: outcomes.All) -> str:
    for one in (line, base):
        if any(not found.get(judged) for judged in one.judged):
            return (
                "what the models made of each problem is neither in the store nor in "
                f"{outcomes.FILE}"
            )
        if len({run for run, _ in one.judged}) < len(one.judged):
            return "a run is there by several evaluations"
    return ""


def _cells(line: Line, base: Line) -> dict[str, tuple[str, ...]]:
    """The cells to compare, by name: those that both have, and all beyond the cap together."""
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
    cells: Sequence[str], line: Line, base: Line, lines: Sequence[Line], found: outcomes.All
) -> tuple[Difference | None, tuple[float, ...]]:
    """The difference, and that in each seed."""
    mine, theirs = _solved(cells, line, found), _solved(cells, base, found)
    if mine is None or theirs is None or mine.problems != theirs.problems:
        return None, ()
    same = _same_problems(mine, cells, [line, base], lines, found)
    one, other = mine.correct_SxN, theirs.correct_SxN
    by_seed = _by_seed([line, base], [one, other], [1.0, -1.0])
    return inference.difference(one, other, same), by_seed


def _same_problems(
    mine: "_Solved",
    cells: Sequence[str],
    known: Sequence[Line],
    lines: Sequence[Line],
    found: outcomes.All,
) -> list[np.ndarray]:
    """What runs of further conditions solved of the same problems."""
    others = [_solved(cells, other, found) for other in independent(known, lines)]
    return [one.correct_SxN for one in others if one is not None and one.problems == mine.problems]


@dataclasses.dataclass(frozen=True)
class _Solved:
    problems: tuple[str, ...]
    correct_SxN: np.ndarray


def _solved(cells: Sequence[str], line: Line, found: outcomes.All) -> _Solved | None:
    """What the runs of a condition solved; None where their problems differ or are not known."""
    problems, correct = set(), []
    for judged in line.judged:
        known = [found.get(judged, {}).get(cell) for cell in cells]
        of_cells = [of_cell for of_cell in known if of_cell is not None]
        if len(of_cells) < len(known):
            return None
        problems.add(tuple(of_cell.problems for of_cell in of_cells))
        correct.append(np.concatenate([of_cell.correct_N for of_cell in of_cells]))
    return _Solved(problems.pop(), np.stack(correct)) if len(problems) == 1 else None
