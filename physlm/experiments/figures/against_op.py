"""Accuracy and retries by number of operations, a line for each condition."""

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from physlm.experiments import condition, published
from physlm.experiments.condition import PARENT, Condition
from physlm.experiments.figures import by_op
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.looks import are_probes, looks
from physlm.experiments.figures.panels import Panel, divided
from physlm.experiments.figures.style import LEGEND, name, percent, plain, style, title
from physlm.experiments.published import Published
from physlm.experiments.summary import Line, cap_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of a figure of one panel, and the width of one of several.
SIZE_INCHES = (11.0, 7.0)

# Lines that leave room for a legend beside them.
_FEW = 4

# How is decoded where a condition does not say it.
_GREEDY = "greedy"

# What a condition calls the task of a probe.
_TASK = "task"

# Heights in inches: of a row of several panels, of a line of their legend, and of what is over and
# under them.
_ROW, _ENTRY, _OVER, _UNDER = 5.3, 0.24, 1.25, 0.65
_GAPS = {"wspace": 0.15, "hspace": 0.5}

# Columns, by the number of panels; three for any other number.
_COLUMNS = {1: 1, 2: 2, 4: 2}

# Columns of a legend below, and the longest name that each has room for.
_NAMES = ((3, 40), (2, 64), (1, 130))


@dataclasses.dataclass(frozen=True)
class AgainstOp:
    """Accuracy and retries against the number of operations, and the paper's curves.

    Bars are 95% intervals over seeds and problems, small dots single seeds. Many conditions are
    divided into several panels (`physlm.experiments.figures.panels`), in which one colour is one
    thing; where rates of mistakes differ, colours have their order.

    Where conditions differ in decoding and are many, those that are decoded greedily are drawn.

    Attributes:
        name: of the picture's files.
        wanted: which conditions are drawn; all of them without it.
        which: these in words, where some are left out.
    """

    name: str = "accuracy"
    wanted: Callable[[Condition], bool] = lambda _: True
    which: str = ""

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; with fewer than two points there is less to see, but nothing fails."""
        lines = [line for line in shown.lines if self.wanted(line.condition)]
        if not lines:
            return None
        left_out = len(lines) < len(shown.lines) and self.which
        about = f"{shown.about}, {self.which}" if left_out else shown.about
        if greedy := _greedy(lines):
            lines, about = greedy, f"{about}, decoded greedily"
        heading = (_title(lines), _subtitle(lines, about))
        # Probes are shown by their tasks.
        panels = [] if are_probes(lines) else divided(lines)
        what = _alternative(lines)
        if len(panels) > 1:
            grid = _Grid(panels)
            return draw(self.name, what, grid.size_inches, lambda on: grid.build(on, heading))
        chosen = replace(shown, lines=lines)
        return draw(self.name, what, SIZE_INCHES, lambda on: _build(on, chosen, heading))


def _alternative(lines: Sequence[Line]) -> str:
    what = "questions answered" if are_probes(lines) else "problems solved"
    return f"Shares of {what} against the number of operations"


class _Grid:
    """Panels side by side: above the problems solved, below the steps taken back."""

    def __init__(self, panels: Sequence[Panel]) -> None:
        self._panels = panels
        self._named = {line.label: line for panel in panels for line in panel.lines}
        self._columns = _COLUMNS.get(len(panels), 3)
        self._rows = -(-len(panels) // self._columns)
        longest = max(map(len, self._named))
        self._names = next((count for count, most in _NAMES if longest <= most), 1)
        self._under = _UNDER + _ENTRY * (1 + -(-len(self._named) // self._names))
        height = _OVER + self._rows * _ROW + self._under
        self.size_inches = (SIZE_INCHES[0], height)

    def build(self, figure: "Figure", heading: tuple[str, str]) -> None:
        height = self.size_inches[1]
        title(figure, *heading, top=1 - 0.28 / height)
        look_of = dict(zip(self._named, looks(list(self._named.values())), strict=True))
        cap = cap_of([point for line in self._named.values() for point in line.points])
        grid = figure.add_gridspec(
            self._rows,
            self._columns,
            left=0.07,
            right=0.985,
            bottom=self._under / height,
            top=1 - _OVER / height,
            wspace=0.08,
            hspace=0.28,
        )
        handles: dict[str, Any] = {}
        lower = []
        for number, panel in enumerate(self._panels):
            row, column = divmod(number, self._columns)
            parts = grid[row, column].subgridspec(2, 1, height_ratios=(2.2, 1), hspace=0.12)
            above, below = figure.add_subplot(parts[0]), figure.add_subplot(parts[1])
            each = [look_of[line.label] for line in panel.lines]
            by_op.draw_lines(above, panel.lines, each, by_op.accuracy, cap=cap, words=True)
            by_op.draw_lines(below, panel.lines, each, by_op.retries, cap=cap)
            percent(above)
            for axes in (above, below):
                axes.tick_params(labelleft=not column)
            above.tick_params(labelbottom=False)
            above.set_title(panel.heading, fontsize=11.5, loc="left", pad=20)
            below.set_xlabel(by_op.AXIS, fontsize=9.5)
            if not column:
                above.set_ylabel("problems solved, every step right", fontsize=10)
                below.set_ylabel("steps taken back", fontsize=10)
            known, _ = above.get_legend_handles_labels()
            handles.update(zip([line.label for line in panel.lines], known, strict=True))
            lower.append(below)
        top = max(0.5, *(below.get_ylim()[1] for below in lower))
        for below in lower:
            below.set_ylim(-0.03 * top, top)
        figure.legend(
            [handles[label] for label in self._named],
            [textwrap.shorten(label, _NAMES[-1][1], placeholder="…") for label in self._named],
            ncols=self._names,
            title="trained on",
            alignment="left",
            **LEGEND | {"fontsize": 9.5, "loc": "lower left", "bbox_to_anchor": (0.055, 0.0)},
        )


def _build(figure: "Figure", shown: Shown, heading: tuple[str, str]) -> None:
    grid = figure.add_gridspec(
        2, 2, width_ratios=(2, 1), left=0.07, right=0.985, bottom=0.085, top=0.845, **_GAPS
    )
    title(figure, *heading)
    lines, others = _by_task(shown.lines)
    # More lines than these leave no room for their names among them, but for probes, whose answers
    # are right more often than not.
    many, each = len(lines) > _FEW and not others, looks(lines)
    theirs = shown.beside.get("accuracy", {})
    beside = [line for line in lines if line.label in theirs]
    beside_paper = len(beside) > 1 and not many
    accuracy = figure.add_subplot(grid[:, 0])
    retries = figure.add_subplot(grid[0, 1] if beside_paper or many or others else grid[:, 1])
    cap = cap_of([point for line in lines for point in line.points])
    probes = are_probes(lines)
    by_op.draw_lines(accuracy, lines, each, by_op.accuracy, cap=cap, words=True)
    by_op.draw_lines(retries, lines, each, by_op.auroc if probes else by_op.retries, cap=cap)
    percent(accuracy)
    accuracy.set_xlabel(by_op.AXIS, fontsize=10.5)
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
    elif len(lines) > _FEW:
        # Below the curves, as guesses are right more often than not.
        names = [textwrap.fill(line.label, 36) for line in lines]
        low = {"fontsize": 8.5, "loc": "lower left", "ncols": 2}
        accuracy.legend(handles, names, **legend | low)
    else:
        accuracy.legend(handles, names, **legend)
    retries.set_xlabel(by_op.AXIS, fontsize=9.5)
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
        of_line = dict(zip([line.label for line in lines], each, strict=True))
        _paper(figure.add_subplot(grid[1, 1]), beside, theirs, of_line)


def _greedy(lines: Sequence[Line]) -> list[Line]:
    """The lines decoded greedily, with shorter labels, where there are many strategies; else none.

    The others are points of the plot against tokens (`AgainstTokens`).
    """
    ways = [line.condition.get(condition.DECODE, _GREEDY) for line in lines]
    if len(lines) <= _FEW or len(set(ways)) < 2:
        return []
    kept = [line for line, way in zip(lines, ways, strict=True) if way == _GREEDY]
    conditions = [
        {key: value for key, value in line.condition.items() if key != condition.DECODE}
        for line in kept
    ]
    return [
        replace(line, label=condition.label(said, conditions))
        for line, said in zip(kept, conditions, strict=True)
    ]


def _by_task(lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """The lines of the most frequent probing task, and those of others, with shorter labels."""
    tasks = [line.condition.get(_TASK) for line in lines]
    if not are_probes(lines) or len(set(tasks)) < 2:
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
    named = [replace(line, label=str(line.condition[_TASK])) for line in lines]
    each = [style(number) for number in range(len(lines))]
    by_op.draw_lines(axes, named, each, by_op.accuracy, cap=cap)
    percent(axes)
    axes.set_ylim(45, 103)
    axes.set_xlabel(by_op.AXIS, fontsize=9.5)
    axes.legend(**LEGEND | {"fontsize": 9, "loc": "lower left", "ncols": 2})
    of = {str(line.condition.get(PARENT)) for line in lines}
    whose = f"of a model of {of.pop()} data" if len(of) == 1 else ""
    name(axes, "Other tasks, questions answered right", whose)


def _title(lines: Sequence[Line]) -> str:
    if are_probes(lines):
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


def _paper(
    axes: "Axes",
    lines: Sequence[Line],
    theirs: Mapping[str, Published],
    styles: dict[str, dict[str, Any]],
) -> None:
    """The published curves, in the colours of our conditions."""
    tops = []
    for line in lines:
        curve = theirs[line.label].by_op
        axes.plot(list(curve), list(curve.values()), **styles[line.label], markersize=4.5, lw=1.8)
        tops.append((curve[max(curve)], theirs[line.label].row, styles[line.label]["color"]))
    # Names stand at the curves' ends, and apart.
    place = 101.0
    for height, row, colour in sorted(tops, reverse=True):
        place = min(height, place - 11.0)
        text = "error-free" if row == "original" else textwrap.fill(row, 14)
        axes.text(max(curve) + 0.4, place, text, color=colour, va="center", fontsize=9.0)
    percent(axes)
    plain(axes)
    axes.set_xlim(min(curve) - 1.5, max(curve) + 4)
    axes.set_xticks(list(curve))
    axes.set_xlabel(by_op.AXIS, fontsize=9.5)
    by_op.border(axes, theirs[lines[0].label].cap + 0.5, words=False)
    name(axes, "Solved in the paper, for orientation", published.MODEL)
