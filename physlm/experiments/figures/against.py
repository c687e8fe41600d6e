"""Figures of a quantity against a setting."""

import dataclasses
import itertools
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from data_gen.solutions import faults
from physlm.experiments import condition as condition_lib
from physlm.experiments import published
from physlm.experiments.condition import Condition
from physlm.experiments.figures import quantities
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.quantities import QUANTITIES, Choice
from physlm.experiments.figures.style import (
    DASHES,
    GREY,
    LEGEND,
    name,
    percent,
    plain,
    style,
    title,
)
from physlm.experiments.summary import Line, Share, cap_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (11.0, 5.6)

# More values than these leave no room for names side by side, nor turned ones for longer names.
_FEW, _LONG = 5, 32

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
        about = f"{what[0].upper()}{what[1:]} against {self._called}"
        chosen = dataclasses.replace(shown, lines=lines)
        drawing = draw(
            self.name,
            about,
            SIZE_INCHES,
            lambda figure: self._build(figure, chosen, curves, level, self.heading or about),
        )
        # Tables of their own have accuracies, and details the means of all others.
        if self.y != faults.SKIP:
            return drawing
        return dataclasses.replace(drawing, tables=[(f"{about}, %", _table(lines, self.y))])

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
        title(figure, heading, _about(shown, self.y), top=0.95)
        published_of = shown.beside.get(self.y, {})
        beside = [
            line
            for line in [*level, *(line for _, points in curves for _, line in points)]
            if line.label in published_of
        ]
        lines = shown.lines
        kinds = quantities.by_length(lines) | (quantities.reasked(lines) if self.reasked else {})
        panels = len(kinds) + (len(beside) > 1)
        ticks = _ticks(curves, self.values)
        # Turned names take room, and so do several lines of a legend.
        bottom = 0.25 if len(curves) + len(level) > 3 else 0.2
        if len(ticks) > _FEW and max(map(len, map(_written, ticks))) > 6:
            bottom = 0.33
        sides = {"left": 0.07, "right": 0.985, "bottom": bottom, "top": 0.8}
        grid = figure.add_gridspec(1, panels, wspace=0.2, **sides)
        # What has no order is not joined. Curves stand beside each other, as bars would hide bars.
        numbers = all(isinstance(value, int | float) for value in ticks)
        looks = [style(n) | ({} if numbers else {"linestyle": "none"}) for n in range(len(curves))]
        middle = (len(curves) - 1) / 2
        span = max(ticks.values()) - min(ticks.values())
        apart = 0.009 * span if numbers else 0.12
        shifts = [apart * (n - middle) for n in range(len(curves))]
        scale = 100.0 if share else 1.0
        drawn = []
        for number, (kind, chosen) in enumerate(kinds.items()):
            axes = figure.add_subplot(grid[0, number])
            drawn.append(axes)

            def height(line: Line, chosen: Choice = chosen) -> Share | None:
                return quantities.mean(line, self.y, chosen, lines)

            for place, (label, points) in enumerate(curves):
                here = {value: x + shifts[place] for value, x in ticks.items()}
                _curve(axes, points, here, height, scale, looks[place], label)
            for place, line in enumerate(level):
                dash = DASHES[1 + place % (len(DASHES) - 1)]
                _level(axes, line, height(line), scale, dash)
            self._frame(axes, kind, ticks, share=share)
        drawn[0].set_ylabel(what, fontsize=10.5)
        if panels > len(kinds):
            axes = figure.add_subplot(grid[0, -1])
            hardest = published_of[beside[0].label].hardest
            cell = published.AVERAGE if share else hardest
            where = "mean of 30 cells" if share else f"{hardest.partition(':')[2]} operations"
            self._frame(axes, f"in the paper, {where}", ticks, share=share)
            heights: list[float] = []
            for place, line in enumerate(level):
                found = published_of[line.label].cells.get(cell) if line in beside else None
                if found is not None:
                    heights.append(found)
                    dash = DASHES[1 + place % (len(DASHES) - 1)]
                    axes.axhline(found, color=GREY, linestyle=dash, linewidth=1.4)
            for (_, points), look, shift in zip(curves, looks, shifts, strict=True):
                known = [
                    (
                        ticks[value] + (0.0 if numbers else shift),
                        published_of[line.label].cells.get(cell),
                    )
                    for value, line in points
                    if line.label in published_of
                ]
                told = [(x, height) for x, height in known if height is not None]
                heights += [height for _, height in told]
                axes.plot([x for x, _ in told], [y for _, y in told], **look, markersize=5)
            if share and heights:
                low = max(0, int(min(heights) // 5) * 5 - 5)
                axes.set_ylim(low - 0.5, 101)
                axes.set_yticks(range(low, 101, 5), [f"{t}%" for t in range(low, 101, 5)])
        if len(curves) > 1 or level:
            handles, labels = drawn[0].get_legend_handles_labels()
            below: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.06, 0.005)}
            figure.legend(handles, labels, ncols=3, **LEGEND | {"fontsize": 9} | below)

    def _frame(self, axes: "Axes", heading: str, ticks: dict[Any, float], *, share: bool) -> None:
        plain(axes)
        name(axes, heading)
        if share:
            # Few solve much beyond the cap, where differences are what is looked for.
            percent(axes, axes.dataLim.y1 if axes.has_data() else 100.0)
        else:
            # Else small differences look like large ones.
            axes.set_ylim(bottom=0)
        words = [_written(value) for value in ticks]
        if max(map(len, words)) > 6 and len(words) > _FEW:
            short = [word if len(word) <= _LONG else f"{word[: _LONG - 1]}…" for word in words]
            turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
            axes.set_xticks(list(ticks.values()), short, fontsize=8.5, **turned)
        else:
            wrapped = [textwrap.fill(word, 11) for word in words]
            small = max(map(len, words)) > 6 or len(words) > _FEW
            axes.set_xticks(list(ticks.values()), wrapped, fontsize=8 if small else 9.5)
        axes.set_xlabel(self._called, fontsize=10.5)
        low, high = min(ticks.values()), max(ticks.values())
        axes.set_xlim(low - 0.07 * (high - low), high + 0.07 * (high - low))


def _about(shown: Shown, y: str) -> str:
    if y not in quantities.WITH_INTERVALS:
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
    """Shares up to the cap and beyond it, with their intervals."""
    cap = cap_of([point for line in lines for point in line.points])
    table = [["condition", f"op ≤ {cap}", f"op > {cap}"]]
    for line in lines:
        found = [
            quantities.mean(line, y, chosen, lines)
            for chosen in quantities.by_length(lines).values()
        ]
        table.append(
            [
                line.label,
                *(
                    f"{100 * one.mean:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"
                    if one
                    else "–"
                    for one in found
                ),
            ]
        )
    return table


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
