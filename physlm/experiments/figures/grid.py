"""A quantity as a table in colours, for studies of more conditions than curves can tell apart."""

import dataclasses
import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from physlm.experiments import condition as condition_lib
from physlm.experiments import published
from physlm.experiments.condition import RATE, Condition
from physlm.experiments.figures import quantities
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.quantities import Choice
from physlm.experiments.figures.style import GREY, title
from physlm.experiments.summary import Line, Share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 11.0

# Inches: of the heading and the columns' names, of a row, and of what is below; and the parts of
# the width that rows' names and the space between tables take.
_OVER, _ROW, _UNDER = 1.5, 0.36, 0.15
_LEFT, _RIGHT, _BETWEEN = 0.185, 0.99, 0.06

# Letters of a line of a row's name.
_LETTERS = 28

# Better and worse than error-free data, on both grounds, and how opaque the largest difference is.
_BETTER, _WORSE, _OPAQUE = "#0072B2", "#D55E00", 0.6

# A column: the settings that have a group of their own, in words, and the rate of mistakes.
_Column = tuple[str, float]

# What stands in the cell of a condition.
_Value = Callable[[Line], Share | None]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Accuracy by a setting, a row each, and by the rate of mistakes, a column each.

    Columns are grouped by all that conditions differ in otherwise. Left the problems of as many
    operations as in training, then those of more, and the paper's numbers where it has them.
    Colours say how much better or worse than error-free data a condition is; error-free conditions
    are rows of one cell.

    Attributes:
        row: the setting, a function of the condition; None for conditions that are not drawn.
        reads: what of a condition such a function looks at.
        rows: its values in their order; those that are not here come last.
        name: of the picture's files.
        heading: over all.
    """

    row: Callable[[Condition], str | None]
    reads: tuple[str, ...]
    rows: Sequence[str] = ()
    name: str = "grid"
    heading: str = "Problems solved"

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; None where there are fewer than two rows."""
        free = [line for line in shown.lines if condition_lib.is_error_free(line.condition)]
        cells = self._cells([line for line in shown.lines if line not in free])
        rows = sorted(dict.fromkeys(row for row, _ in cells), key=self._rank)
        if len(rows) < 2:
            return None
        height = _OVER + _ROW * (len(free) + len(rows)) + _UNDER
        return draw(
            self.name,
            f"{self.heading}, as a table in colours",
            (WIDTH_INCHES, height),
            lambda figure: self._build(figure, shown, free, rows, cells),
        )

    def _rank(self, row: str) -> int:
        return list(self.rows).index(row) if row in self.rows else len(self.rows)

    def _cells(self, lines: Sequence[Line]) -> dict[tuple[str, _Column], Line]:
        """The conditions with mistakes by row and column."""
        meant = [condition_lib.meant(line.condition) for line in lines]
        rest = [
            {key: value for key, value in said.items() if key not in (RATE, *self.reads)}
            for said in meant
        ]
        found = {}
        for line, said, other in zip(lines, meant, rest, strict=True):
            group = condition_lib.label(other, rest) if any(one != other for one in rest) else ""
            if (row := self.row(said)) is not None:
                found[row, (group, float(said[RATE]))] = line
        return found

    def _build(
        self,
        figure: "Figure",
        shown: Shown,
        free: Sequence[Line],
        rows: Sequence[str],
        cells: Mapping[tuple[str, _Column], Line],
    ) -> None:
        height = figure.get_figheight()
        about = f"{shown.about}; %, ± half of the 95% interval"
        blue = "; blue is better than error-free data, orange worse" if free else ""
        title(figure, self.heading, about + blue, top=1 - 0.28 / height)
        kinds = quantities.by_length(shown.lines)
        theirs = shown.beside.get("accuracy", {})
        published_too = sum(line.label in theirs for line in cells.values()) > 1
        grid = figure.add_gridspec(
            1,
            len(kinds) + published_too,
            left=_LEFT,
            right=_RIGHT,
            bottom=_UNDER / height,
            top=1 - _OVER / height,
            wspace=_BETWEEN,
        )
        groups = list(dict.fromkeys(group for _, (group, _) in cells))
        columns = sorted({column for _, column in cells}, key=lambda c: (groups.index(c[0]), c[1]))

        def measured(line: Line, chosen: Choice) -> Share | None:
            return quantities.mean(line, "accuracy", chosen, shown.lines)

        panels: list[tuple[str, _Value]] = [
            (kind, functools.partial(measured, chosen=chosen)) for kind, chosen in kinds.items()
        ]
        if published_too:
            panels.append(("in the paper, mean of 30 cells", lambda line: _published(line, theirs)))
        names = [textwrap.fill(each, _LETTERS) for each in (*(x.label for x in free), *rows)]
        for number, (heading, value) in enumerate(panels):
            axes = figure.add_subplot(grid[0, number])
            _panel(axes, free, rows, columns, cells, value)
            axes.set_title(heading, fontsize=10.5, loc="left", y=1.0, pad=35)
            _heads(axes, columns, 1 - len(free) / len(names))
            axes.set_yticks(range(len(names)), [""] * len(names) if number else names)
            axes.tick_params(length=0, labelsize=9)


def _published(line: Line, theirs: Mapping[str, Any]) -> Share | None:
    row = theirs.get(line.label)
    found = row.cells.get(published.AVERAGE) if row else None
    return None if found is None else Share(found / 100, found / 100, found / 100, ())


def _heads(axes: "Axes", columns: Sequence[_Column], top: float) -> None:
    """Rates over the columns, over these what groups have in common, and a line between groups.

    Args:
        axes: of a table.
        columns: its columns.
        top: where the rows with a cell for each column end, as a part of the height.
    """
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), [f"{rate:g}" for _, rate in columns])
    groups = [group for group, _ in columns]
    for group in dict.fromkeys(groups):
        first = groups.index(group)
        heading = f"{group}, rate" if group else "rate"
        axes.annotate(
            heading,
            (first - 0.45, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 18),
            textcoords="offset points",
            fontsize=9,
            color=GREY,
        )
        if first:
            axes.axvline(first - 0.5, ymax=top, color=GREY, linewidth=1.0)


def _panel(
    axes: "Axes",
    free: Sequence[Line],
    rows: Sequence[str],
    columns: Sequence[_Column],
    cells: Mapping[tuple[str, _Column], Line],
    value: _Value,
) -> None:
    from matplotlib.patches import Rectangle

    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(free) + len(rows) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    levels = [value(line) for line in free]
    middle = (len(columns) - 1) / 2
    for place, level in enumerate(levels):
        _write(axes, middle, place, level)
    found = {key: value(line) for key, line in cells.items()}
    base = next((level.mean for level in levels if level), None)
    known = [share.mean for share in found.values() if share]
    most = max((abs(mean - base) for mean in known), default=0.0) if base is not None else 0.0
    for (row, column), share in found.items():
        x, y = columns.index(column), len(free) + rows.index(row)
        if share and base is not None and most:
            apart = (share.mean - base) / most
            axes.add_patch(
                Rectangle(
                    (x - 0.48, y - 0.47),
                    0.96,
                    0.94,
                    color=_BETTER if apart > 0 else _WORSE,
                    alpha=_OPAQUE * abs(apart),
                    linewidth=0,
                )
            )
        _write(axes, x, y, share)
    if free:
        axes.axhline(len(free) - 0.5, color=GREY, linewidth=1.0)


def _write(axes: "Axes", x: float, y: float, share: Share | None) -> None:
    if share is None:
        axes.text(x, y, "–", ha="center", va="center", fontsize=8, color=GREY)
        return
    half = 50 * (share.high - share.low)
    axes.text(x, y - (0.16 if half else 0), f"{100 * share.mean:.1f}", ha="center", va="center",
              fontsize=8)  # fmt: skip
    if half:
        axes.text(x, y + 0.24, f"±{half:.1f}", ha="center", va="center", fontsize=6)
