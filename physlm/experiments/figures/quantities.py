"""Quantities that can be drawn, and their means over problems of some lengths."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from data_gen.solutions import faults
from physlm.experiments.summary import Line, Point, Share, cap_of, pooled, within


class Quantity(NamedTuple):
    """What can be drawn of a study's results."""

    words: str
    is_share: bool  # of problems or solutions, drawn as percent


QUANTITIES = {
    "accuracy": Quantity("problems solved, every step right", True),
    "answer_accuracy": Quantity("right answers", True),
    faults.SKIP: Quantity("problems lost to a step taken too early", True),
    "retries": Quantity("steps taken back in a solution", False),
    "retries_right": Quantity("steps taken back in a right solution", False),
    "retries_wrong": Quantity("steps taken back in a wrong solution", False),
    "unnecessary": Quantity("unneeded steps in a solution", False),
    "unnecessary_right": Quantity("unneeded steps in a right solution", False),
    "operations_right": Quantity("operations too many in a right solution", False),
    "capped": Quantity("solutions cut off", True),
    "tokens": Quantity("tokens written for a problem", False),
}

Choice = Callable[[Point], bool]


def by_length(lines: Sequence[Line]) -> dict[str, Choice]:
    """Problems as long as in training, and longer ones, by what a panel of each is called."""
    cap = cap_of([point for line in lines for point in line.points])

    def beyond(point: Point) -> bool:
        return cap is not None and point.op > cap and not (point.inside or point.reasked)

    return {
        f"up to {cap} operations, as in training": lambda point: point.inside,
        "more operations than in training": beyond,
    }


def reasked(lines: Sequence[Line]) -> dict[str, Choice]:
    """Problems with another question than their own, as `by_length`; empty where there are none."""
    ops = sorted({point.op for line in lines for point in line.points if point.reasked})
    if not ops:
        return {}
    name = f"another question, {', '.join(map(str, ops))} operations"
    return {name: lambda point: point.reasked}


def is_known(line: Line, quantity: str) -> bool:
    """Whether any point of a condition has the quantity."""
    return any(_of(point, quantity) is not None for point in line.points)


def mean(line: Line, quantity: str, chosen: Choice, lines: Sequence[Line]) -> Share | None:
    """The mean of a condition's quantity over the chosen points, with its interval where known.

    Args:
        line: the condition.
        quantity: one of `QUANTITIES`.
        chosen: which points; None is returned where no such point has the quantity.
        lines: of all conditions, whose seeds say how far seeds differ.
    """
    if quantity in WITH_INTERVALS and is_known(line, quantity):
        known = [other for other in lines if is_known(other, quantity)]
        return pooled(line, chosen, known, WITH_INTERVALS[quantity])
    points = [point for point in line.points if chosen(point)]
    values = [value for point in points if (value := _of(point, quantity)) is not None]
    if not values:
        return None
    found = sum(values) / len(values)
    ends = within(line, chosen, lines, quantity, found) or (found, found)
    return Share(found, *ends, ())


def has_intervals(lines: Sequence[Line], quantity: str) -> bool:
    """Whether it is known of any condition how the quantity varies."""
    points = [point for line in lines for point in line.points]
    return quantity in WITH_INTERVALS or any(quantity in point.counts for point in points)


def _of(point: Point, quantity: str) -> float | None:
    if quantity in ("accuracy", "answer_accuracy", "retries", "unnecessary"):
        return float(getattr(point, quantity))
    if quantity == faults.SKIP:
        return None if point.wrong is None else sum(_skipped(point)) / len(point.by_seed)
    return point.spent(quantity)


def _skipped(point: Point) -> tuple[float, ...]:
    """The share of each seed that is lost to a step taken too early."""
    found = (point.wrong or {}).get(faults.SKIP)
    return found.by_seed if found else (0.0,) * len(point.by_seed)


# Shares of each seed, of which it is known how they vary.
WITH_INTERVALS: dict[str, Callable[[Point], tuple[float, ...]]] = {
    "accuracy": lambda point: point.by_seed,
    faults.SKIP: _skipped,
}
