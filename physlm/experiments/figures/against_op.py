"""Accuracy and retries by number of operations, a line for each condition."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from physlm.experiments import condition, published
from physlm.experiments.condition import PARENT, TRAINED
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.style import (
    COLOURS,
    GREY,
    LEGEND,
    name,
    percent,
    plain,
    style,
    title,
)
from physlm.experiments.summary import Line, Point, cap_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (11.0, 7.0)

# Lines that leave room for a legend beside them.
_FEW = 4

# What a condition calls the task of a probe.
_TASK = "task"

_OPERATIONS = "operations that a problem takes"
_GAPS = {"wspace": 0.15, "hspace": 0.5}

# What a panel shows of a point: its height, and the ends of its interval where there is one.
_Height = tuple[float, tuple[float, float] | None]


@dataclasses.dataclass(frozen=True)
class AgainstOp:
    """Accuracy and retries against the number of operations, and the paper's curves.

    Cells of one op each are joined. A cell of all problems up to the cap stands, unjoined, left of
    them, unless there are cells below the cap, which say more. Bars are 95% intervals over seeds
    and problems, small dots single seeds.

    Where conditions differ in decoding and are many, those that are decoded greedily are drawn.

    Attributes:
        name: of the picture's files.
    """

    name: str = "accuracy"

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; with fewer than two points there is less to see, but nothing fails."""
        if not shown.lines:
            return None
        return draw(self.name, _alternative(shown.lines), SIZE_INCHES, lambda on: _build(on, shown))


def _alternative(lines: Sequence[Line]) -> str:
    what = "questions answered" if _are_probes(lines) else "problems solved"
    return f"Shares of {what} against the number of operations"


def _build(figure: "Figure", shown: Shown) -> None:
    lines, about = shown.lines, shown.about
    if greedy := _greedy(lines):
        lines, about = greedy, f"{about}, decoded greedily"
    grid = figure.add_gridspec(
        2, 2, width_ratios=(2, 1), left=0.07, right=0.985, bottom=0.085, top=0.845, **_GAPS
    )
    title(figure, _title(lines), _subtitle(lines, about))
    lines, others = _by_task(lines)
    # More lines than these leave no room for their names among them, but for probes, whose answers
    # are right more often than not.
    many, styles = len(lines) > _FEW and not others, _styles(lines)
    beside = [line for line in lines if line.label in shown.beside]
    beside_paper = len(beside) > 1 and not many
    accuracy = figure.add_subplot(grid[:, 0])
    retries = figure.add_subplot(grid[0, 1] if beside_paper or many or others else grid[:, 1])
    drawn = [_drawn(line) for line in lines]
    cap = cap_of([point for line in lines for point in line.points])
    probes = _are_probes(lines)
    for axes, of in ((accuracy, _accuracy), (retries, _auroc if probes else _retries)):
        _frame(axes, [point for points in drawn for point in points])
        if cap is not None:
            _border(axes, cap + 0.5, words=axes is accuracy)
        for number, (line, points) in enumerate(zip(lines, drawn, strict=True)):
            shift = min(0.08, 0.5 / len(lines)) * (number - (len(lines) - 1) / 2)
            _draw(axes, line.label, points, styles[number], shift, of)
    percent(accuracy)
    accuracy.set_xlabel(_OPERATIONS, fontsize=10.5)
    what = "questions answered right" if probes else "problems solved, every step right"
    if others:
        what = f"{lines[0].condition[_TASK]}: {what}"
    accuracy.set_ylabel(what, fontsize=10.5)
    legend = LEGEND | {"title": "probe" if probes else "trained on", "alignment": "left"}
    handles = accuracy.get_legend_handles_labels()[0]
    names = [textwrap.fill(line.label, 52 if many else 40) for line in lines]
    if many:
        corner = figure.add_subplot(grid[1, 1])
        corner.set_axis_off()
        size = min(9.5, 98.0 / len(lines))
        corner.legend(
            handles,
            names,
            **legend | {"fontsize": size, "loc": "upper left", "bbox_to_anchor": (-0.12, 1.12)},
        )
    else:
        accuracy.legend(handles, names, **legend)
    retries.set_xlabel(_OPERATIONS, fontsize=9.5)
    if probes:
        name(retries, "Area under the ROC curve", "0.5 is a guess")
        retries.set_ylim(0.38, 1.02)
    else:
        name(retries, "Steps taken back in a solution")
        top = max(0.5, retries.get_ylim()[1])
        retries.set_ylim(-0.03 * top, top)
    if others:
        _other_tasks(figure.add_subplot(grid[1, 1]), others, cap)
    if beside_paper:
        of_line = dict(zip([line.label for line in lines], styles, strict=True))
        _paper(figure.add_subplot(grid[1, 1]), beside, shown, of_line)


def _are_probes(lines: Sequence[Line]) -> bool:
    return any(point.probe is not None for line in lines for point in line.points)


def _greedy(lines: Sequence[Line]) -> list[Line]:
    """The lines decoded greedily, with shorter labels, where there are many strategies; else none.

    The others are points of the plot against tokens (`physlm.experiments.cost`).
    """
    ways = {line.condition.get(condition.DECODE) for line in lines}
    kept = [line for line in lines if line.condition.get(condition.DECODE) == "greedy"]
    if len(lines) <= _FEW or len(ways) < 2:
        return []
    conditions = [line.condition for line in kept]
    return [replace(line, label=condition.label(line.condition, conditions)) for line in kept]


def _by_task(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """The lines of the most frequent probing task, and those of others, with shorter labels."""
    tasks = [line.condition.get(_TASK) for line in lines]
    if not _are_probes(lines) or len(set(tasks)) < 2:
        return list(lines), []
    most = max(tasks, key=tasks.count)
    parts = [
        [line for line in lines if (line.condition.get(_TASK) == most) == main]
        for main in (True, False)
    ]
    named = [
        [replace(one, label=condition.label(one.condition, [x.condition for x in part]))
         for one in part]
        for part in parts
    ]  # fmt: skip
    return named[0], named[1]


def _other_tasks(axes: "Axes", lines: Sequence[Line], cap: int | None) -> None:
    """The lines of other probing tasks, by task."""
    shown = [_drawn(line) for line in lines]
    _frame(axes, [point for points in shown for point in points])
    if cap is not None:
        _border(axes, cap + 0.5, words=False)
    for number, (line, points) in enumerate(zip(lines, shown, strict=True)):
        _draw(axes, str(line.condition[_TASK]), points, style(number), 0.0, _accuracy)
    percent(axes)
    axes.set_ylim(45, 103)
    axes.set_xlabel(_OPERATIONS, fontsize=9.5)
    axes.legend(**LEGEND | {"fontsize": 9, "loc": "lower left", "ncols": 2})
    of = {str(line.condition.get(PARENT)) for line in lines}
    whose = f"of a model of {of.pop()} data" if len(of) == 1 else ""
    name(axes, "Other tasks, questions answered right", whose)


def _title(lines: Sequence[Line]) -> str:
    if _are_probes(lines):
        return "What frozen models know of a parameter, as probes read it off them"
    if _has_both(lines):
        return "Problems solved by models trained with and without mistakes in their data"
    return "Problems solved, by the number of operations that they take"


def _subtitle(lines: Sequence[Line], about: str) -> str:
    counts = sorted({len(point.by_seed) for line in lines for point in line.points})
    seeds = "–".join(str(number) for number in {counts[0]: 0, counts[-1]: 0})
    over = "problems, and dots single seeds" if counts[-1] > 1 else "problems"
    if counts[-1] > 1:
        over = f"seeds and {over}"
    plural = "s" if counts[-1] > 1 else ""
    return f"{about}, {seeds} seed{plural} a condition; bars are 95% intervals over {over}"


def _has_both(lines: Sequence[Line]) -> bool:
    kinds = {condition.is_error_free(line.condition) for line in lines if _rate(line) is not None}
    return kinds == {True, False}


def _rate(line: Line) -> float | None:
    return line.condition.get(condition.RATE)


def _drawn(line: Line) -> list[Point]:
    cap = cap_of(line.points)
    points = [point for point in line.points if not point.reasked]
    below = [point for point in points if not point.inside and cap and point.op < cap]
    return [point for point in points if not (point.inside and below)]


def _accuracy(point: Point) -> _Height:
    return 100 * point.accuracy, (100 * point.low, 100 * point.high)


def _auroc(point: Point) -> _Height:
    return (point.probe or {}).get("auroc", float("nan")), None


def _retries(point: Point) -> _Height:
    return point.retries, point.retries_within


def _position(point: Point) -> float:
    return point.op - 1.0 if point.inside else float(point.op)


def _styles(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """A style for each line: colours for ways of training where these differ, dashes for data."""
    ways = [line.condition.get(TRAINED, "") for line in lines]
    # Probes of several models differ in their parents.
    if len(set(ways)) == 1 or (_are_probes(lines) and len(lines) <= len(COLOURS)):
        return [style(number) for number in range(len(lines))]
    data = [str(_without(line.condition, TRAINED, PARENT)) for line in lines]
    colours, dashes = list(dict.fromkeys(ways)), list(dict.fromkeys(data))
    return [
        style(colours.index(way), dashes.index(one)) for way, one in zip(ways, data, strict=True)
    ]


def _without(found: condition.Condition, *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


def _dot(look: dict[str, Any]) -> dict[str, Any]:
    return {"color": look["color"], "linewidths": 0, "zorder": 2}


def _draw(
    axes: "Axes",
    label: str,
    points: Sequence[Point],
    look: dict[str, Any],
    shift: float,
    of: Callable[[Point], _Height],
) -> None:
    for joined in (True, False):
        drawn = [point for point in points if point.inside != joined]
        if not (drawn or joined):
            continue
        x = [_position(point) + shift for point in drawn]
        y = [of(point)[0] for point in drawn]
        ends = [of(point)[1] or (of(point)[0],) * 2 for point in drawn]
        axes.errorbar(
            x,
            y,
            yerr=[
                [max(0.0, mean - low) for mean, (low, _) in zip(y, ends, strict=True)],
                [max(0.0, high - mean) for mean, (_, high) in zip(y, ends, strict=True)],
            ],
            **look | ({} if joined else {"linestyle": "none"}),
            markersize=6,
            markerfacecolor=look["color"] if joined else axes.get_facecolor(),
            linewidth=2,
            elinewidth=1.2,
            capsize=3,
            label=label if joined else None,
        )
        if of is _accuracy:
            for place, point in zip(x, drawn, strict=True):
                if len(point.by_seed) > 1:
                    seeds = [100 * share for share in point.by_seed]
                    axes.scatter([place] * len(seeds), seeds, s=12, alpha=0.5, **_dot(look))


def _frame(axes: "Axes", points: Sequence[Point]) -> None:
    ticks = {_position(point): point.cell.replace("<=", "all ≤") for point in points}
    axes.set_xticks(sorted(ticks), [ticks[place] for place in sorted(ticks)])
    axes.set_xlim(min(ticks) - 0.5, max([*ticks, *(point.op for point in points)]) + 0.5)
    plain(axes)


def _border(axes: "Axes", border: float, *, words: bool) -> None:
    """Marks the largest number of operations in training."""
    left, right = axes.get_xlim()
    axes.axvspan(left, border, color=GREY, alpha=0.1, linewidth=0, zorder=0)
    axes.axvline(border, color="#777777", linewidth=1.2, linestyle="--", zorder=1)
    axes.set_xlim(left, right)
    room = (right - border) / (right - left)
    longer = "longer than in training" if room > 0.2 else "longer"
    sides = [("lengths in training", "right", -6), (longer, "left", 6)] if words else []
    for text, side, away in sides[: 2 if room > 0 else 1]:
        axes.annotate(
            text,
            (border, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(away, 4),
            textcoords="offset points",
            ha=side,
            fontsize=9.5,
            color=GREY,
        )


def _paper(
    axes: "Axes", lines: Sequence[Line], shown: Shown, styles: dict[str, dict[str, Any]]
) -> None:
    """The published curves, in the colours of our conditions."""
    tops = []
    for line in lines:
        curve = shown.beside[line.label].by_op
        axes.plot(list(curve), list(curve.values()), **styles[line.label], markersize=4.5, lw=1.8)
        tops.append((curve[max(curve)], shown.beside[line.label].row, styles[line.label]["color"]))
    # Names stand at the curves' ends, and apart.
    place = 101.0
    for height, row, colour in sorted(tops, reverse=True):
        place = min(height, place - 11.0)
        text = "error-free" if row == "original" else textwrap.fill(row, 14)
        axes.text(max(curve) + 0.4, place, text, color=colour, va="center", fontsize=9.0)
    percent(axes)
    plain(axes)
    axes.set_xlim(13.5, max(curve) + 4)
    axes.set_xticks(list(curve))
    axes.set_xlabel(_OPERATIONS, fontsize=9.5)
    _border(axes, published.CAP + 0.5, words=False)
    name(axes, "Solved in the paper, for orientation", published.MODEL)
