"""The plot of a study: strict accuracy against the number of operations, one line a condition."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from physlm.experiments.summary import Line, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (8.0, 4.5)
DOTS_PER_INCH = 150

# Okabe and Ito's palette, which the colour-blind tell apart; markers and dashes say it again.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")


def accuracy_against_op(lines: Sequence[Line], title: str) -> bytes:
    """Draws the conditions and returns a PNG.

    Cells of one op each are joined; a cell of all problems up to the cap stands, unjoined, left of
    them. Bars are the 95% Wilson intervals or, with several seeds, reach from the lowest to the
    highest seed.
    """
    # Matplotlib takes a second to import and is needed here alone. A figure of its own, without
    # pyplot, is drawn off screen and leaves no global state behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _frame(axes, lines)
    for number, line in enumerate(lines):
        _draw(axes, line, number, shift=0.06 * (number - (len(lines) - 1) / 2))
    # Above the two words on the regions, which stand on the frame.
    axes.set_title(title, loc="left", fontsize=12, pad=24)
    _explain(axes, lines)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _position(point: Point) -> float:
    return point.op - 1.0 if point.inside else float(point.op)


def _draw(axes: "Axes", line: Line, number: int, shift: float) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    marker = _MARKERS[number % len(_MARKERS)]
    dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    for joined in (True, False):
        points = [point for point in line.points if point.inside != joined]
        x = [_position(point) + shift for point in points]
        y = [100 * point.accuracy for point in points]
        low, high = zip(*(_ends(point) for point in points), strict=True) if points else ((), ())
        axes.errorbar(
            x,
            y,
            yerr=[
                [max(0.0, mean - end) for mean, end in zip(y, low, strict=True)],
                [max(0.0, end - mean) for mean, end in zip(y, high, strict=True)],
            ],
            color=colour,
            marker=marker,
            markersize=6,
            markerfacecolor=colour if joined else "white",
            linestyle=dash if joined else "none",
            linewidth=1.8,
            elinewidth=1.2,
            capsize=3,
            label=line.label if joined else None,
        )
        for place, point in zip(x, points, strict=True):
            if len(point.by_seed) > 1:
                seeds = [100 * share for share in point.by_seed]
                axes.scatter([place] * len(seeds), seeds, s=8, color=colour, alpha=0.6, zorder=3)


def _explain(axes: "Axes", lines: Sequence[Line]) -> None:
    """The legend, inside where few lines leave room for it."""
    seeds = sorted({len(point.by_seed) for line in lines for point in line.points})
    count = "–".join(str(number) for number in {seeds[0]: 0, seeds[-1]: 0})
    inside = len(lines) <= 6
    axes.legend(
        title=f"mean and range of {count} seeds" if seeds[-1] > 1 else None,
        fontsize=10 if inside else 9,
        title_fontsize=9,
        alignment="left",
        frameon=inside,
        framealpha=0.9,
        edgecolor="none",
        loc="best" if inside else "center left",
        bbox_to_anchor=None if inside else (1.0, 0.5),
    )


def _ends(point: Point) -> tuple[float, float]:
    if len(point.by_seed) > 1:
        return 100 * min(point.by_seed), 100 * max(point.by_seed)
    return 100 * point.low, 100 * point.high


def _frame(axes: "Axes", lines: Sequence[Line]) -> None:
    """Axes, ticks, and the border of what training has seen."""
    points = [point for line in lines for point in line.points]
    ticks = {_position(point): point.cell.replace("<=", "≤") for point in points}
    axes.set_xticks(sorted(ticks), [ticks[place] for place in sorted(ticks)])
    caps = [point.op for point in points if point.inside]
    left, right = min(ticks) - 0.5, max([*ticks, *caps]) + 0.5
    axes.set_xlim(left, right)
    axes.set_ylim(-2, 102)
    axes.set_yticks(range(0, 101, 20), [f"{percent}%" for percent in range(0, 101, 20)])
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("operations a problem takes (op)")
    axes.set_ylabel("problems solved, every step right")
    if caps:
        border = max(caps) + 0.5
        axes.axvspan(left, border, color="#f0f0f0", linewidth=0, zorder=0)
        axes.axvline(border, color="#888888", linewidth=1, linestyle="--", zorder=1)
        sides = [("as in training", "right")]
        if right > border:
            sides.append(("longer than any in training", "left"))
        for words, side in sides:
            axes.annotate(
                words,
                (border, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-6 if side == "right" else 6, 4),
                textcoords="offset points",
                ha=side,
                fontsize=9,
                color="#555555",
            )
