"""Figures of a quantity against a setting."""

import dataclasses
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from physlm.experiments import condition as condition_lib
from physlm.experiments import published
from physlm.experiments.condition import Condition
from physlm.experiments.figures import quantities
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.looks import looks
from physlm.experiments.figures.quantities import QUANTITIES, Choice
from physlm.experiments.figures.style import (
    DASHES,
    GREY,
    LEGEND,
    Words,
    fitted,
    name,
    percent,
    plain,
    title,
)
from physlm.experiments.summary import Line, Share, cap_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 11.0

# Inches of the heading and of panels, and of a line of a legend and what is between its names.
_OVER, _PANEL, _LINE, _GAP = 1.12, 3.5, 0.15, 0.06

# Columns of the legend; parts of the figure beside panels, and of a panel between them; and how
# much longer an axis is than from its first value to its last.
_COLUMNS, _SIDES, _BETWEEN, _RANGE = 3, {"left": 0.07, "right": 0.985}, 0.2, 1.14

# One curve: what it is called, and a point for each value of the setting.
_Curve = tuple[str, list[tuple[Any, Line]]]


@dataclasses.dataclass(frozen=True)
class Against:
    """A quantity against a setting; conditions that differ otherwise are separate curves.

    Left the problems of as many operations as in training, then those of more, and the paper's
    numbers where it has them. Error-free conditions, which no setting of mistakes touches, are the
    rate 0 of every curve; against another setting, a dashed line.

    Attributes:
        x: the setting, by its name in a condition, or a function of the condition that returns its
            value, or None for conditions that are not drawn.
        x_name: the setting in words.
        reads: what of a condition such a function looks at.
        y: one of `QUANTITIES`.
        name: of the picture's files.
        heading: over all; "" for one that says what is drawn.
        values: the setting's values in the order of the axis; without it as they come.
        reasked: whether problems with another question than their own are drawn, too.
        wanted: which conditions are drawn; all of them without it.
    """

    x: str | Callable[[Condition], Any]
    x_name: str = ""
    reads: tuple[str, ...] = ()
    y: str = "accuracy"
    name: str = "against"
    heading: str = ""
    values: Sequence[Any] = ()
    reasked: bool = False
    wanted: Callable[[Condition], bool] = lambda _: True

    def __post_init__(self) -> None:
        if self.y not in QUANTITIES:
            raise ValueError(f"y is {self.y!r}; it must be one of {', '.join(QUANTITIES)}.")

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; None where the setting has fewer than two values."""
        lines = [line for line in shown.lines if self.wanted(line.condition)]
        curves, level = self._curves(lines)
        values = list(dict.fromkeys(value for _, points in curves for value, _ in points))
        measured = [line for _, points in curves for _, line in points]
        if len(values) < 2 or not any(quantities.is_known(line, self.y) for line in measured):
            return None
        what = QUANTITIES[self.y].words
        about = f"{what[0].upper()}{what[1:]}{',' * (',' in what)} against {self._called}"
        chosen = dataclasses.replace(shown, lines=lines)
        drawing = draw(
            self.name,
            about,
            (WIDTH_INCHES, self._layout(chosen, curves, level).height),
            lambda figure: self._build(figure, chosen, curves, level, self.heading or about),
        )
        # Tables of their own have accuracies, and details the means of all others.
        if self.y == "accuracy" or not quantities.has_intervals(lines, self.y):
            return drawing
        head = f"{about}{', %' if QUANTITIES[self.y].is_share else ''} [95% interval]"
        return dataclasses.replace(drawing, tables=[(head, _table(lines, self.y))])

    @property
    def _called(self) -> str:
        return self.x_name or (self.x.replace("_", " ") if isinstance(self.x, str) else "a setting")

    def _value(self, said: Condition) -> Any:
        meant = condition_lib.meant(said)
        return meant.get(self.x) if isinstance(self.x, str) else self.x(meant)

    def _curves(self, lines: Sequence[Line]) -> tuple[list[_Curve], list[Line]]:
        """The curves, and the error-free conditions that are on none."""
        rates = self.x == condition_lib.RATE
        free = [
            line
            for line in lines
            if condition_lib.is_error_free(line.condition)
            and (rates or self._value(line.condition) is None)
        ]
        drawn = [
            line for line in lines if line not in free and self._value(line.condition) is not None
        ]
        apart = [self._beside(line.condition) for line in drawn]
        found: dict[str, list[tuple[Any, Line]]] = {}
        for line, said in zip(drawn, apart, strict=True):
            alone = all(other == said for other in apart)
            label = "" if alone else condition_lib.label(said, apart)
            found.setdefault(label, []).append((self._value(line.condition), line))
        if not rates:
            return list(found.items()), free
        for points in found.values():
            beside = self._beside(points[0][1].condition)
            equal = [
                line for line in free if self._beside(line.condition).items() <= beside.items()
            ]
            points[:0] = [(0.0, line) for line in equal]
        return list(found.items()), []

    def _beside(self, said: Condition) -> Condition:
        """The condition without the setting on the axis."""
        read = (self.x,) if isinstance(self.x, str) else self.reads
        meant = condition_lib.meant(said)
        return {key: known for key, known in meant.items() if key not in read}

    def _build(
        self,
        figure: "Figure",
        shown: Shown,
        curves: Sequence[_Curve],
        level: Sequence[Line],
        heading: str,
    ) -> None:
        what, share = QUANTITIES[self.y]
        layout = self._layout(shown, curves, level)
        top = 1 - _OVER / layout.height
        title(figure, heading, _about(shown, self.y), top=1 - 0.28 / layout.height)
        beside, kinds, ticks = layout.beside, layout.kinds, layout.ticks
        sides = {**_SIDES, "bottom": layout.under / layout.height, "top": top}
        grid = figure.add_gridspec(1, layout.panels, wspace=_BETWEEN, **sides)
        # What has no order is not joined. Curves stand beside each other, as bars would hide bars.
        numbers = all(isinstance(value, int | float) for value in ticks)
        looked = looks([self._without(points[0][1]) for _, points in curves])
        each = [look | ({} if numbers else {"linestyle": "none"}) for look in looked]
        middle = (len(curves) - 1) / 2
        span = max(ticks.values()) - min(ticks.values())
        apart = 0.009 * span if numbers else min(0.12, 0.7 / len(curves))
        shifts = [apart * (n - middle) for n in range(len(curves))]
        scale = 100.0 if share else 1.0
        drawn = []
        for number, (kind, chosen) in enumerate(kinds.items()):
            axes = figure.add_subplot(grid[0, number])
            drawn.append(axes)

            def height(line: Line, chosen: Choice = chosen) -> Share | None:
                return quantities.mean(line, self.y, chosen, shown.lines)

            for place, (label, points) in enumerate(curves):
                here = {value: x + shifts[place] for value, x in ticks.items()}
                _curve(axes, points, here, height, scale, each[place], label)
            for place, line in enumerate(level):
                _level(axes, line, height(line), scale, _dash(place))
            self._frame(axes, kind, layout, share=share)
        drawn[0].set_ylabel(what, fontsize=10.5)
        if layout.panels > len(kinds):
            axes = figure.add_subplot(grid[0, -1])
            theirs = shown.beside[self.y]
            hardest = theirs[beside[0].label].hardest
            cell = published.AVERAGE if share else hardest
            where = "mean of 30 cells" if share else f"{hardest.partition(':')[2]} operations"
            heights: list[float] = []
            for place, line in enumerate(level):
                found = theirs[line.label].cells.get(cell) if line in beside else None
                if found is not None:
                    heights.append(found)
                    axes.axhline(found, color=GREY, linestyle=_dash(place), linewidth=1.4)
            for (_, points), look, shift in zip(curves, each, shifts, strict=True):
                known = [
                    (ticks[value] + (0.0 if numbers else shift), theirs[line.label].cells.get(cell))
                    for value, line in points
                    if line.label in theirs
                ]
                told = [(x, height) for x, height in known if height is not None]
                heights += [height for _, height in told]
                axes.plot([x for x, _ in told], [y for _, y in told], **look, markersize=5)
            self._frame(axes, f"in the paper, {where}", layout, share=share)
            if share and heights:
                low = max(0, int(min(heights) // 5) * 5 - 5)
                axes.set_ylim(low - 0.5, 101)
                axes.set_yticks(range(low, 101, 5), [f"{t}%" for t in range(low, 101, 5)])
        if layout.names:
            handles, labels = drawn[0].get_legend_handles_labels()
            below: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.03, 0.005)}
            # Long enough for dashes beside a marker.
            look = {"fontsize": 9, "handlelength": 3.0, "columnspacing": 0.8}
            figure.legend(handles, labels, ncols=_COLUMNS, **LEGEND | look | below)

    def _without(self, line: Line) -> Line:
        return dataclasses.replace(line, condition=self._beside(line.condition))

    def _layout(self, shown: Shown, curves: Sequence[_Curve], level: Sequence[Line]) -> "_Layout":
        lines = shown.lines
        kinds = quantities.by_length(lines) | (quantities.reasked(lines) if self.reasked else {})
        theirs = shown.beside.get(self.y, {})
        measured = [*level, *(line for _, points in curves for _, line in points)]
        beside = [line for line in measured if line.label in theirs]
        panels = len(kinds) + (len(beside) > 1)
        ticks = _ticks(curves, self.values)
        room = (_SIDES["right"] - _SIDES["left"]) * WIDTH_INCHES
        room /= panels + _BETWEEN * (panels - 1)
        beyond = (1 - 1 / _RANGE) / 2 * room + (1 - _SIDES["right"]) * WIDTH_INCHES
        texts = [_written(value) for value in ticks]
        words = fitted(texts, list(ticks.values()), room / _RANGE, beyond)
        names = [line.label for line in level] + [label for label, _ in curves if label]
        names = [textwrap.fill(each, 44) for each in names]
        return _Layout(kinds, beside, panels, ticks, words, names)

    def _frame(self, axes: "Axes", heading: str, layout: "_Layout", *, share: bool) -> None:
        plain(axes)
        name(axes, heading)
        if share:
            # Few solve much beyond the cap, where differences are what is looked for.
            percent(axes, axes.dataLim.y1 if axes.has_data() else 100.0)
        else:
            # Else small differences look like large ones.
            highest = axes.get_ylim()[1]
            axes.set_ylim(-0.02 * highest, highest)
        places, words = list(layout.ticks.values()), layout.words
        turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(
            places, words.texts, fontsize=words.size, **turned if words.are_turned else {}
        )
        axes.set_xlabel(self._called, fontsize=10.5)
        margin = (_RANGE - 1) / 2 * (max(places) - min(places))
        axes.set_xlim(min(places) - margin, max(places) + margin)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What stands where.

    Attributes:
        kinds: of problems, one panel each.
        beside: conditions that the paper has, too.
        panels: how many there are, that of the paper among them.
        ticks: the places of values.
        words: how these are written.
        names: of curves, wrapped.
    """

    kinds: Mapping[str, Choice]
    beside: Sequence[Line]
    panels: int
    ticks: Mapping[Any, float]
    words: Words
    names: Sequence[str]

    @property
    def under(self) -> float:
        """Inches under the panels: ticks, the axis' name, and a legend of three columns."""
        columns = [
            sum(_LINE * (1 + each.count("\n")) + _GAP for each in self.names[start:end])
            for start, end in itertools.pairwise(_split(len(self.names)))
        ]
        return 0.45 + self.words.inches + max(columns) + (0.1 if self.names else 0.0)

    @property
    def height(self) -> float:
        """Inches of the whole figure."""
        return _OVER + _PANEL + self.under


def _split(count: int) -> list[int]:
    """Where the columns of a legend begin and end; the first ones are longer, if any."""
    sizes = [count // _COLUMNS + (n < count % _COLUMNS) for n in range(_COLUMNS)]
    return [0, *itertools.accumulate(sizes)]


def _dash(place: int) -> str:
    return DASHES[1 + place % (len(DASHES) - 1)]


def _about(shown: Shown, y: str) -> str:
    if not quantities.has_intervals(shown.lines, y):
        return shown.about
    seeds = {len(point.by_seed) for line in shown.lines for point in line.points}
    over = "problems, one seed" if max(seeds) == 1 else "seeds and problems"
    return f"{shown.about}; bars are 95% intervals over {over}"


def _ticks(curves: Sequence[_Curve], order: Sequence[Any] = ()) -> dict[Any, float]:
    """The position of each value on the axis: numbers to scale, others evenly spaced."""
    found = list(dict.fromkeys(value for _, points in curves for value, _ in points))
    values = [*(value for value in order if value in found), *(v for v in found if v not in order)]
    if all(isinstance(value, int | float) for value in values):
        values = sorted(values)
        steps = [b - a for a, b in itertools.pairwise(values)]
        # Sizes that double would crowd at one end.
        if max(steps) <= 12 * min(steps):
            return {value: float(value) for value in values}
    return {value: float(number) for number, value in enumerate(values)}


def _table(lines: Sequence[Line], y: str) -> list[list[str]]:
    """Means up to the cap and beyond it, with their intervals."""
    cap = cap_of([point for line in lines for point in line.points])
    table = [["condition", f"op ≤ {cap}", f"op > {cap}"]]
    for line in lines:
        found = [
            quantities.mean(line, y, chosen, lines)
            for chosen in quantities.by_length(lines).values()
        ]
        table.append([line.label, *(_in_words(one, y) if one else "–" for one in found)])
    return table


def _in_words(found: Share, y: str) -> str:
    scale, digits = (100.0, 1) if QUANTITIES[y].is_share else (1.0, 2)
    mean, low, high = (f"{scale * x:.{digits}f}" for x in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]" if found.high > found.low else mean


def _curve(
    axes: "Axes",
    points: Sequence[tuple[Any, Line]],
    ticks: dict[Any, float],
    height: Callable[[Line], Share | None],
    scale: float,
    look: dict[str, Any],
    label: str,
) -> None:
    known = [(ticks[value], height(line)) for value, line in points]
    shown = sorted((x, found) for x, found in known if found is not None)
    if not shown:
        return
    heights = [scale * found.mean for _, found in shown]
    ends = [
        [scale * (found.mean - found.low) for _, found in shown],
        [scale * (found.high - found.mean) for _, found in shown],
    ]
    axes.errorbar(
        [x for x, _ in shown],
        heights,
        yerr=ends,
        **look,
        markersize=6,
        linewidth=2,
        elinewidth=1.2,
        capsize=3,
        label=textwrap.fill(label, 44) or None,
    )
    for x, found in shown:
        if len(found.by_seed) > 1:
            dots = [scale * value for value in found.by_seed]
            axes.scatter([x] * len(dots), dots, s=12, alpha=0.5, color=look["color"], linewidths=0)


def _level(axes: "Axes", line: Line, found: Share | None, scale: float, dash: str) -> None:
    """A horizontal line for a condition without the setting."""
    if found is None:
        return
    look: dict[str, Any] = {"color": GREY, "linestyle": dash, "linewidth": 1.4}
    axes.axhline(scale * found.mean, **look, label=textwrap.fill(line.label, 44))
    if found.high > found.low:
        axes.axhspan(scale * found.low, scale * found.high, color=GREY, alpha=0.15, linewidth=0)


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
