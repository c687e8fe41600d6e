"""Results by condition: the runs of several seeds merged into one line of points each."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from physlm.experiments import condition as condition_lib
from physlm.experiments import inference, outcomes
from physlm.experiments.results import Row

# The counts of `Point.counts` that are of right and of wrong solutions alone, in this order.
AMONG = ("retries_right", "retries_wrong")


@dataclasses.dataclass(frozen=True, order=True)
class Share:
    """A share of problems, over all seeds of a condition.

    Attributes:
        mean: over seeds, in 0..1.
        low, high: its 95% interval over seeds and problems (`inference.of_share`).
        by_seed: that of each seed.
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Point:
    """The results of one condition on one cell, over all seeds; accuracies in 0..1.

    Attributes:
        cell: the cell's name, e.g. `<=4` or `5`.
        op: number of operations; the cap for a cell of all up to it.
        accuracy: strict accuracy, the mean over seeds.
        low, high: its 95% interval over seeds and problems (`inference.of_share`).
        by_seed: strict accuracy of each seed.
        answer_accuracy, retries, unnecessary: means over seeds.
        retries_within: 95% interval of the retries over seeds and problems; None where it is not
            known how many each problem took.
        counts: by quantity (`retries`, `retries_right`, `retries_wrong`): float [seed, problem],
            values from which the interval of the quantity's mean is computed; empty where unknown.
        n: number of problems.
        shared: of these, how many have a template that training may show.
        held_out: strict accuracy on the others; None where there are none, or where it is unknown.
        distinct, templates: how many different problems and templates there are among all; None
            where it is unknown.
        probe: for a probe, whose problems are questions: means over seeds of what `physlm.probing`
            says of its answers, with `own` before the names of those about a model's own steps.
        account: means over seeds of what solutions cost (`result.json`); None where it is unknown.
        wrong: shares of problems by the kind of their first wrong step (`data_gen.text.judge`);
            None where it is unknown.
    """

    cell: str
    op: int
    accuracy: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    answer_accuracy: float
    retries: float
    retries_within: tuple[float, float] | None
    unnecessary: float
    n: int
    shared: int
    held_out: float | None
    distinct: int | None
    templates: int | None
    probe: Mapping[str, float] | None = None
    account: Mapping[str, float] | None = None
    wrong: Mapping[str, Share] | None = None
    counts: Mapping[str, np.ndarray] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    def spent(self, name: str) -> float | None:
        """One of `counts` or of `account`, the mean over seeds; None where it is unknown.

        Counts come first, since they are there of all seeds or of none. Of fewer than two right, or
        wrong, solutions nothing is said.
        """
        if name in self.counts:
            return float(self.counts[name].mean())
        return None if self.has_too_few(name) else (self.account or {}).get(name)

    def has_too_few(self, name: str) -> bool:
        """Whether fewer than two of these problems were solved rightly, or wrongly, as named."""
        return bool(self.counts) and name in AMONG and name not in self.counts

    @property
    def inside(self) -> bool:
        """Whether the cell collects all problems up to its op."""
        return self.cell.startswith("<=")

    @property
    def reasked(self) -> bool:
        """Whether another question is asked than the one its problems were made for."""
        return self.cell.endswith("re")


@dataclasses.dataclass(frozen=True)
class Line:
    """The results of one condition.

    Attributes:
        label: the condition in words.
        condition: its settings.
        points: its cells: all up to the cap first, then the others by their op, and last those with
            other questions.
        judged: the run and the evaluation of each seed.
        seeds: in the order of `judged`.
    """

    label: str
    condition: Mapping[str, Any]
    points: tuple[Point, ...]
    judged: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]


def shown_cell(cell: str) -> str:
    """A cell's name as tables show it."""
    return cell.replace("<=", "≤ ")


def cap_of(points: Sequence[Point]) -> int | None:
    """The largest number of operations in training; None where no cell tells it."""
    return max((point.op for point in points if point.inside), default=None)


def pooled(
    line: Line,
    chosen: Callable[[Point], bool],
    lines: Sequence[Line] = (),
    of: Callable[[Point], tuple[float, ...]] = lambda point: point.by_seed,
) -> Share | None:
    """Averages a share over cells of one condition, with equal weights; None without any.

    Args:
        line: the condition.
        chosen: whether a cell counts. Seeds that lack one of these cells are left out.
        lines: all conditions of the study, over which the variance over seeds is pooled.
        of: the share of each seed on a cell; by default strict accuracy.
    """
    points = [point for point in line.points if chosen(point)]
    if not points:
        return None
    shares = _means_of_seeds(points, of)
    cells = {point.cell for point in points}
    others = [[p for p in other.points if p.cell in cells] for other in independent([line], lines)]
    low, high = inference.of_share(
        shares,
        sum(point.n for point in points),
        [_means_of_seeds(theirs, of) for theirs in others if len(theirs) == len(points)],
    )
    return Share(statistics.fmean(shares), low, high, tuple(shares))


def within(
    line: Line,
    chosen: Callable[[Point], bool],
    lines: Sequence[Line],
    what: str,
    mean: float,
) -> tuple[float, float] | None:
    """The 95% interval of a count over cells of one condition, with equal weights.

    Args:
        line: the condition.
        chosen: whether a cell counts.
        lines: all conditions of the study, over which the variance over seeds is pooled.
        what: the count, one of `Point.counts`.
        mean: of the count; the interval is placed around it.

    Returns:
        the ends, at least 0; None where a cell does not have the count of each problem. Cells with
        fewer than two solutions of the kind are left out, as of the mean.
    """
    points = [point for point in line.points if chosen(point) and not point.has_too_few(what)]
    cells = [point.cell for point in points]
    values_SxN = _of_cells(line, cells, what)
    if values_SxN is None:
        return None
    others = [_of_cells(other, cells, what) for other in independent([line], lines)]
    low, high = inference.of_mean(values_SxN, [each for each in others if each is not None])
    spread = (high - low) / 2
    return max(0.0, mean - spread), mean + spread


def _of_cells(line: Line, cells: Sequence[str], what: str) -> np.ndarray | None:
    """A count by seed and problem of several cells, scaled so that all cells weigh the same."""
    by_cell = {point.cell: point.counts.get(what) for point in line.points}
    known = [found for cell in cells if (found := by_cell.get(cell)) is not None]
    if not known or len(known) < len(cells) or len({len(each) for each in known}) > 1:
        return None
    mean_size = sum(each.shape[1] for each in known) / len(known)
    return np.concatenate([each * (mean_size / each.shape[1]) for each in known], axis=1)


def _means_of_seeds(
    points: Sequence[Point], of: Callable[[Point], tuple[float, ...]]
) -> list[float]:
    seeds = min(len(of(point)) for point in points)
    return np.array([of(point)[:seeds] for point in points]).mean(0).tolist()


def independent(known: Sequence[Line], lines: Sequence[Line]) -> list[Line]:
    """Conditions with several seeds and with runs of their own, which tell how seeds vary.

    A run that was judged in several ways counts in the first of its conditions alone, since it adds
    no further seed.

    Args:
        known: conditions whose runs are left out.
        lines: all conditions of a study.
    """
    taken = {run for line in known for run, _ in line.judged}
    found = []
    for line in lines:
        runs = [run for run, _ in line.judged]
        if len(set(runs)) == len(runs) > 1 and not taken & set(runs):
            taken |= set(runs)
            found.append(line)
    return found


def summarise(rows: Sequence[Row], found: outcomes.All | None = None) -> list[Line]:
    """One line a condition, in their order (`condition.order`): error-free ones first.

    Error-free conditions that differ only in settings of mistakes are one, as they have none.

    Args:
        rows: of `results.jsonl`; they may also have the fields of `results.PARTS`.
        found: the outcomes of every problem, as far as they are known.
    """
    groups: dict[str, dict[tuple[str, str, str], Row]] = {}
    for row in rows:
        key = json.dumps(condition_lib.meant(row["condition"]), sort_keys=True)
        place = (row["run"], row["evaluation"], row["cell"])
        groups.setdefault(key, {}).setdefault(place, row)
    merged = [list(group.values()) for group in groups.values()]
    conditions = [group[0]["condition"] for group in merged]
    lines = []
    for condition, group in zip(conditions, merged, strict=True):
        judged = {(row["run"], row["evaluation"]): row["seed"] for row in group}
        label, points = condition_lib.label(condition, conditions), _points(group)
        lines.append(Line(label, condition, points, tuple(judged), tuple(judged.values())))
    lines = sorted(lines, key=lambda line: condition_lib.order(line.condition))
    return [_with_intervals(line, lines, found or {}) for line in lines]


def _with_intervals(line: Line, lines: Sequence[Line], found: outcomes.All) -> Line:
    """The line with its intervals, for which all conditions together tell how seeds vary."""
    others = independent([line], lines)
    points = []
    for point in line.points:
        cell = point.cell
        theirs = [p.by_seed for other in others for p in other.points if p.cell == cell]
        low, high = inference.of_share(point.by_seed, point.n, theirs)
        ends = None
        if (counts_SxN := _retries(line, cell, found)) is not None:
            known = [_retries(other, cell, found) for other in others]
            ends = inference.of_mean(counts_SxN, [each for each in known if each is not None])
            ends = max(0.0, ends[0]), ends[1]
        told = dataclasses.replace(
            point,
            low=low,
            high=high,
            retries_within=ends,
            wrong=_wrong(line, others, point, found),
            counts=_counts(line, cell, found),
        )
        points.append(told)
    return dataclasses.replace(line, points=tuple(points))


def _wrong(
    line: Line, others: Sequence[Line], point: Point, found: outcomes.All
) -> dict[str, Share] | None:
    """The shares of problems by the kind of the first wrong step, with intervals."""
    mine = _kinds(line, point.cell, found)
    if mine is None:
        return None
    known = [_kinds(other, point.cell, found) for other in others]
    shares = {}
    for kind in sorted({kind for of_seed in mine for kind in of_seed}):
        by_seed, *theirs = [
            tuple(of_seed.get(kind, 0.0) for of_seed in each)
            for each in (mine, *known)
            if each is not None
        ]
        low, high = inference.of_share(by_seed, point.n, theirs)
        shares[kind] = Share(statistics.fmean(by_seed), low, high, by_seed)
    return shares


def _kinds(line: Line, cell: str, found: outcomes.All) -> list[dict[str, float]] | None:
    """Of each seed the share of problems by the kind of the first wrong step."""
    known = [found.get(judged, {}).get(cell) for judged in line.judged]
    shares = [
        {kind: number / len(one.correct_N) for kind, number in one.wrong.items()}
        for one in known
        if one is not None
    ]
    return shares if len(shares) == len(known) else None


def _retries(line: Line, cell: str, found: outcomes.All) -> np.ndarray | None:
    """The retries of each seed and problem; None unless all have them, for the same problems."""
    known = [found.get(judged, {}).get(cell) for judged in line.judged]
    counts = [one.retries_N for one in known if one is not None and one.retries_N is not None]
    same = len({one.problems for one in known if one is not None}) == 1
    return np.stack(counts) if len(counts) == len(known) and same else None


def _counts(line: Line, cell: str, found: outcomes.All) -> dict[str, np.ndarray]:
    """The values of `Point.counts`."""
    retries_SxN = _retries(line, cell, found)
    if retries_SxN is None:
        return {}
    right_SxN = np.stack([found[judged][cell].correct_N for judged in line.judged])
    counts = {"retries": retries_SxN.astype(float)}
    for name, chosen_SxN in zip(AMONG, (right_SxN, ~right_SxN), strict=True):
        if chosen_SxN.sum() > 1:
            counts[name] = _among(retries_SxN, chosen_SxN)
    return counts


def _among(counts_SxN: np.ndarray, chosen_SxN: np.ndarray) -> np.ndarray:
    """Values of all problems whose mean varies as that of the chosen ones does.

    The mean of the chosen ones is a ratio of two means over all problems, which is linearised
    (Cochran, Sampling Techniques, 1977, section 6.3). It needs at least two chosen ones, and makes
    intervals rather too narrow where there are few.
    """
    many, ratio = chosen_SxN.sum(), counts_SxN[chosen_SxN].mean()
    unbiased = np.sqrt(many / (many - 1))
    return ratio + unbiased * chosen_SxN * (counts_SxN - ratio) / chosen_SxN.mean()


def _points(rows: Sequence[Row]) -> tuple[Point, ...]:
    cells: dict[str, list[Row]] = {}
    for row in rows:
        cells.setdefault(row["cell"], []).append(row)
    points = [_point(group) for group in cells.values()]
    return tuple(sorted(points, key=lambda point: (not point.inside, point.reasked, point.op)))


def _point(rows: Sequence[Row]) -> Point:
    """Merges the seeds of one condition and cell."""

    def mean(field: str) -> float:
        return statistics.fmean(row[field] for row in rows)

    n = min(row["n"] for row in rows)
    apart = [row["held_out"]["accuracy"] for row in rows if row.get("held_out", {"n": 0})["n"]]
    known = [row["distinct"] for row in rows if "distinct" in row]
    return Point(
        cell=rows[0]["cell"],
        op=rows[0]["op"],
        accuracy=mean("accuracy"),
        low=mean("accuracy"),
        high=mean("accuracy"),
        by_seed=tuple(row["accuracy"] for row in rows),
        answer_accuracy=mean("answer_accuracy"),
        retries=mean("retries"),
        retries_within=None,
        unnecessary=mean("unnecessary"),
        n=n,
        shared=max(row.get("shared", {"n": 0})["n"] for row in rows),
        held_out=statistics.fmean(apart) if apart else None,
        distinct=min((found["problems"] for found in known), default=None),
        templates=min((found["templates"] for found in known), default=None),
        probe=_means([row["probe"] for row in rows if "probe" in row]),
        account=_means([row["account"] for row in rows if "account" in row]),
    )


def _means(found: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """The means over seeds of the numbers that all of them have."""
    if not found:
        return None
    flat = [flatten_dict(dict(one), sep=" ") for one in found]
    names = set.intersection(*(set(one) for one in flat))
    values = {n: [one[n] for one in flat if one[n] is not None] for n in flat[0] if n in names}
    return {name: statistics.fmean(known) for name, known in values.items() if known}
