"""What goes wrong first in solutions, against the number of operations."""

import collections
import dataclasses
import functools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_gen.solutions import faults
from physlm.experiments.figures import by_op
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.looks import looks
from physlm.experiments.figures.panels import LINES
from physlm.experiments.figures.style import LEGEND, name, percent, title
from physlm.experiments.summary import Line, Point, cap_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_INCHES = 11.0

# Inches: of the heading, of panels, of what is below them, and of a line of the legend.
_OVER, _PANEL, _UNDER, _LINE = 1.3, 2.3, 0.95, 0.22

# Kinds of first wrong steps that have a panel, the most frequent ones.
_KINDS = 3

# The kinds of first wrong steps.
IN_WORDS = {
    faults.SKIP: "computes what cannot be computed yet",
    faults.CALCULATION: "a wrong result",
    faults.VALUE: "a wrong number for a letter",
    faults.REFERENCE: "uses what does not belong there",
    faults.MISSING: "leaves out what belongs there",
    faults.OPERATOR: "a wrong operation",
    faults.MISREAD: "a constant misread",
    faults.FORM: "cannot be read",
    faults.UNKNOWN: "a parameter that is not there",
    faults.UNDEFINED: "a letter that stands for nothing",
    "end": "stops too early, or never",
}


@dataclasses.dataclass(frozen=True)
class FirstWrong:
    """Shares of problems whose solution is wrong first in a certain way, a panel for each way.

    It tells what a condition changes: mistakes of one kind in training may teach to avoid this
    kind, and not others. Bars are 95% intervals over seeds and problems.

    Attributes:
        name: of the picture's files.
    """

    name: str = "first_wrong"

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; None with more conditions than can be told apart, or with nothing wrong."""
        lines = shown.lines
        kinds = _most_frequent(lines)
        if not kinds or len(lines) > LINES:
            return None
        return draw(
            self.name,
            "Shares of problems by what goes wrong first in their solutions",
            (WIDTH_INCHES, _height(lines)),
            lambda on: _build(on, lines, kinds, shown.about),
        )


def _most_frequent(lines: Sequence[Line]) -> list[str]:
    """The kinds that most problems are lost to; none unless they are known of all conditions."""
    total: collections.Counter[str] = collections.Counter()
    for line in lines:
        for point in by_op.visible(line):
            if point.wrong is None:
                return []
            total.update({kind: share.mean for kind, share in point.wrong.items()})
    return [kind for kind, _ in total.most_common(_KINDS)]


def _height(lines: Sequence[Line]) -> float:
    return _OVER + _PANEL + _UNDER + _LINE * -(-len(lines) // 2)


def _build(figure: "Figure", lines: Sequence[Line], kinds: Sequence[str], about: str) -> None:
    several = any(len(point.by_seed) > 1 for line in lines for point in line.points)
    over = "seeds and problems" if several else "problems, one seed"
    height = _height(lines)
    title(
        figure,
        "What goes wrong first in solutions",
        f"{about}; bars are 95% intervals over {over}",
        top=1 - 0.3 / height,
    )
    each = looks(lines)
    cap = cap_of([point for line in lines for point in line.points])
    grid = figure.add_gridspec(
        1,
        len(kinds),
        left=0.07,
        right=0.985,
        bottom=1 - (_OVER + _PANEL) / height,
        top=1 - _OVER / height,
        wspace=0.08,
    )
    panels = [figure.add_subplot(grid[0, number]) for number in range(len(kinds))]
    for number, (axes, kind) in enumerate(zip(panels, kinds, strict=True)):
        by_op.draw_lines(axes, lines, each, functools.partial(_share, kind), cap=cap)
        name(axes, kind, IN_WORDS.get(kind, ""))
        axes.set_xlabel(by_op.AXIS, fontsize=9.5)
        if not number:
            axes.set_ylabel("problems lost to it", fontsize=10)
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        percent(axes, min(top, 100.0))
        axes.tick_params(labelleft=axes is panels[0])
    handles = panels[0].get_legend_handles_labels()[0]
    figure.legend(
        handles,
        [textwrap.shorten(line.label, 64, placeholder="…") for line in lines],
        ncols=2,
        title="trained on",
        alignment="left",
        **LEGEND | {"fontsize": 9.5, "loc": "lower left", "bbox_to_anchor": (0.055, 0.0)},
    )


def _share(kind: str, point: Point) -> by_op.Height:
    share = (point.wrong or {}).get(kind)
    if share is None:
        return 0.0, None
    return 100 * share.mean, (100 * share.low, 100 * share.high)
