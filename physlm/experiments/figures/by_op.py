"""One panel of conditions against the number of operations."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from physlm.experiments.figures.style import GREY, plain
from physlm.experiments.summary import Line, Point, cap_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXIS = "operations that a problem takes"

# What a panel shows of a point: its height, and the ends of its interval where there is one.
Height = tuple[float, tuple[float, float] | None]

# Colour, marker and dashes of each line.
Looks = Sequence[dict[str, Any]]

# Words left and right of the end of training, and the inches that they need; and the width of a
# panel whose ticks want short names.
_WITHIN = (("lengths in training", 1.35), ("training", 0.65))
_BEYOND = (("longer than in training", 1.55), ("longer", 0.5))
_NARROW = 3.5

# Lines of which more have to be thin.
_FEW = 6


def accuracy(point: Point) -> Height:
    """Strict accuracy in percent."""
    return 100 * point.accuracy, (100 * point.low, 100 * point.high)


def retries(point: Point) -> Height:
    """Steps taken back in a solution."""
    return point.retries, point.retries_within


def auroc(point: Point) -> Height:
    """The area under a probe's ROC curve."""
    return (point.probe or {}).get("auroc", float("nan")), None


def draw_lines(
    axes: "Axes",
    lines: Sequence[Line],
    looks: Looks,
    of: Callable[[Point], Height],
    *,
    cap: int | None,
    words: bool = False,
) -> None:
    """Draws a line for each condition, with bars, on a frame that marks the end of training.

    Cells of one op each are joined. A cell of all problems up to the cap stands, unjoined, left of
    them, unless there are cells below the cap, which say more. Small dots are single seeds.

    Args:
        axes: an empty panel.
        lines: the conditions.
        looks: how each is drawn, in their order.
        of: what of a point.
        cap: the largest number of operations in training, where it is known.
        words: whether it is said which side of it is which.
    """
    drawn = [visible(line) for line in lines]
    thin = len(lines) > _FEW
    _frame(axes, [point for points in drawn for point in points])
    if cap is not None:
        border(axes, cap + 0.5, words=words)
    for number, (line, points, look) in enumerate(zip(lines, drawn, looks, strict=True)):
        # Bars stand beside each other, as they would hide each other.
        shift = min(0.08, 0.5 / len(lines)) * (number - (len(lines) - 1) / 2)
        _line(axes, line.label, points, look, shift, of, thin=thin)


def border(axes: "Axes", place: float, *, words: bool) -> None:
    """Marks the largest number of operations in training."""
    left, right = axes.get_xlim()
    axes.axvspan(left, place, color=GREY, alpha=0.1, linewidth=0, zorder=0)
    axes.axvline(place, color="#777777", linewidth=1.2, linestyle="--", zorder=1)
    axes.set_xlim(left, right)
    if not words:
        return
    inches = _width_inches(axes) / (right - left)
    sides = ((_WITHIN, place - left, "right", -6), (_BEYOND, right - place, "left", 6))
    for choices, room, side, away in sides:
        text = next((text for text, needed in choices if needed < room * inches), "")
        axes.annotate(
            text,
            (place, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(away, 4),
            textcoords="offset points",
            ha=side,
            fontsize=9.5,
            color=GREY,
        )


def _width_inches(axes: "Axes") -> float:
    figure = axes.get_figure()
    return float(axes.bbox.width / figure.dpi) if figure else 0.0


def visible(line: Line) -> list[Point]:
    """The points of a condition that are drawn."""
    cap = cap_of(line.points)
    points = [point for point in line.points if not point.reasked]
    below = [point for point in points if not point.inside and cap and point.op < cap]
    return [point for point in points if not (point.inside and below)]


def _position(point: Point) -> float:
    return point.op - 1.0 if point.inside else float(point.op)


def _frame(axes: "Axes", points: Sequence[Point]) -> None:
    narrow = _width_inches(axes) < _NARROW
    up_to = "≤" if narrow else "all ≤"
    ticks = {_position(point): point.cell.replace("<=", up_to) for point in points}
    axes.set_xticks(sorted(ticks), [ticks[place] for place in sorted(ticks)])
    axes.set_xlim(min(ticks) - 0.5, max([*ticks, *(point.op for point in points)]) + 0.5)
    plain(axes)
    if narrow:
        axes.tick_params(axis="x", labelsize=8)


def _line(
    axes: "Axes",
    label: str,
    points: Sequence[Point],
    look: dict[str, Any],
    shift: float,
    of: Callable[[Point], Height],
    *,
    thin: bool,
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
            markersize=4 if thin else 6,
            markerfacecolor=look["color"] if joined else axes.get_facecolor(),
            linewidth=1.4 if thin else 2,
            elinewidth=0.8 if thin else 1.2,
            capsize=2 if thin else 3,
            label=label if joined else None,
        )
        if of is accuracy:
            dot = {"color": look["color"], "linewidths": 0, "zorder": 2}
            for place, point in zip(x, drawn, strict=True):
                if len(point.by_seed) > 1:
                    seeds = [100 * share for share in point.by_seed]
                    axes.scatter([place] * len(seeds), seeds, s=12, alpha=0.5, **dot)
