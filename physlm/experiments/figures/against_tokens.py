"""Figures of accuracy against generated tokens, by decoding strategy."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from physlm.decoding import recipe
from physlm.experiments import condition
from physlm.experiments.condition import PROBE
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.style import COLOURS, DASHES, GREY, MARKERS, plain, title
from physlm.experiments.summary import Line, Point, cap_of, pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (11.0, 5.6)


@dataclasses.dataclass(frozen=True)
class AgainstTokens:
    """Accuracy against the tokens generated for a problem, including discarded ones.

    Ways of decoding that differ in how much they may spend are a curve, a marker each; colours are
    what is trained on. Left problems of numbers of operations within training, right beyond.

    Attributes:
        name: of the picture's files.
    """

    name: str = "tokens"

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; None where ways of decoding do not differ, or tokens were not counted."""
        ways = {line.condition.get(condition.DECODE) for line in shown.lines}
        known = [line for line in shown.lines if all(point.account for point in line.points)]
        if len(ways) < 2 or not known:
            return None
        alternative = "Shares of problems solved against the tokens written for each"
        return draw(self.name, alternative, SIZE_INCHES, lambda on: _build(on, known, shown.about))


def _build(figure: "Figure", known: Sequence[Line], about: str) -> None:
    from matplotlib.lines import Line2D

    several = any(len(point.by_seed) > 1 for line in known for point in line.points)
    bars = (
        f"bars are 95% intervals over {'seeds and problems' if several else 'problems, one seed'}"
    )
    title(figure, "Problems solved, by what is written for them", f"{about}; {bars}", top=0.955)
    grid = figure.add_gridspec(
        1, 3, width_ratios=(1, 1, 0.8), left=0.075, right=0.99, bottom=0.11, top=0.83, wspace=0.2
    )
    cap = cap_of([point for line in known for point in line.points])

    def beyond(point: Point) -> bool:
        return cap is not None and point.op > cap and not (point.inside or point.reasked)

    axes = [figure.add_subplot(grid[0, number]) for number in range(2)]
    _panel(axes[0], f"up to {cap} operations, as in training", known, lambda point: point.inside)
    _panel(axes[1], "more operations than in training", known, beyond)
    axes[0].set_ylabel("problems solved, every step right", fontsize=10.5)
    beside = figure.add_subplot(grid[0, 2])
    beside.set_axis_off()
    families, data = _names(known)
    handles = [Line2D([], [], color=COLOURS[n], linewidth=3) for n in range(len(data))]
    handles += [
        Line2D([], [], color=GREY, markersize=7, linewidth=1.4, **_style(number))
        for number in range(len(families))
    ]
    names = [f"data with{one[4:]}" if one[:4] == "with" else f"{one} data" for one in data]
    names = [f"trained on {name}" for name in names]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (-0.12, 1.03)}
    beside.legend(handles, [*names, *families], fontsize=8.5, edgecolor="none", **place)


def _names(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """The decoding strategies, and the training data."""
    return list(dict.fromkeys(map(_family, lines))), list(dict.fromkeys(map(_data, lines)))


def _family(line: Line) -> str:
    """The key by which decoding strategies are grouped into curves."""
    text = str(line.condition.get(condition.DECODE, "greedy"))
    found: Any = recipe.parse(text)
    name = text.partition(":")[0].rpartition(".")[2]
    said = [getattr(found, "pick", ""), f"by a {found.asks} detector" if found.asks else ""]
    if found.asks == "probe":
        said[-1] = f"by a {line.condition.get(PROBE, 'probe')}"
    return ", ".join([name, *(word for word in said if word)])


def _data(line: Line) -> str:
    return "error-free" if condition.is_error_free(line.condition) else "with mistakes"


def _style(number: int) -> dict[str, Any]:
    return {
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def _panel(axes: "Axes", name: str, lines: Sequence[Line], wanted: Callable[[Point], bool]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    families, data = _names(lines)
    ticks: list[float] = []
    for number, family in enumerate(families):
        for colour, one in enumerate(data):
            of_curve = [x for x in lines if _family(x) == family and _data(x) == one]
            points = sorted(filter(None, (_spent(line, wanted, lines) for line in of_curve)))
            if not points:
                continue
            x, y, low, high = (np.array(column) for column in zip(*points, strict=True))
            ticks += x.tolist()
            axes.errorbar(
                x,
                100 * y,
                yerr=[100 * (y - low), 100 * (high - y)],
                color=COLOURS[colour % len(COLOURS)],
                **_style(number),
                markersize=7,
                linewidth=1.4,
                elinewidth=0.9,
                capsize=2,
                alpha=0.9,
            )
    axes.set_xscale("log")
    axes.set_title(name, fontsize=10.5, loc="left")
    axes.set_xlabel("tokens written for a problem", fontsize=10.5)
    plain(axes)
    if ticks:
        marks = [mark for mark in (30, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
                 if min(ticks) / 1.5 <= mark <= max(ticks) * 1.5]  # fmt: skip
        axes.set_xticks(marks, [f"{mark:,}" for mark in marks])
        axes.minorticks_off()
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(0.0, bottom), min(100.0, top))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}%"))


def _spent(
    line: Line, wanted: Callable[[Point], bool], lines: Sequence[Line]
) -> tuple[float, float, float, float] | None:
    """Tokens, accuracy and its interval, as means over the chosen cells."""
    if (accuracy := pooled(line, wanted, lines)) is None:
        return None
    tokens = [(point.account or {})["tokens"] for point in line.points if wanted(point)]
    return float(np.mean(tokens)), accuracy.mean, accuracy.low, accuracy.high
