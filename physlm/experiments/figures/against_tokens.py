"""Figures of accuracy against generated tokens, by decoding strategy."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_gen import settings
from physlm.decoding import recipe
from physlm.experiments import condition
from physlm.experiments.condition import DECODE, PROBE
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.style import COLOURS, DASHES, GREY, MARKERS, plain, title
from physlm.experiments.summary import Line, Point, cap_of, pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (11.0, 5.6)

# Letters of a line of the legend.
_LETTERS = 38


class _Way(NamedTuple):
    """A way of decoding, but for how much it may spend."""

    name: str
    budget: str  # the setting that says how much that is; "" where there is none


@dataclasses.dataclass(frozen=True)
class AgainstTokens:
    """Accuracy against the tokens generated for a problem, including discarded ones.

    Ways of decoding that differ in how much they may spend alone (`BUDGET` of a strategy) are a
    curve, a marker each; what differs otherwise is not joined. Colours are what is trained on. Left
    problems of numbers of operations within training, right beyond.

    Attributes:
        name: of the picture's files.
    """

    name: str = "tokens"

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; None where ways of decoding do not differ, or tokens were not counted."""
        ways = {line.condition.get(DECODE) for line in shown.lines}
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
    data = [Line2D([], [], color=COLOURS[n % len(COLOURS)], linewidth=3) for n in range(len(known))]
    ways = [
        Line2D([], [], color=GREY, markersize=7, linewidth=1.4, **_style(number, joined=joined))
        for number, joined in enumerate(_joined(known))
    ]
    top = 1.03
    for heading, handles, names in (
        ("trained on", data, list(_data(known))),
        ("decoded by", ways, _named(known)),
    ):
        names = [textwrap.fill(each, _LETTERS) for each in names]
        legend = beside.legend(
            handles[: len(names)],
            names,
            title=heading,
            alignment="left",
            fontsize=8.5,
            title_fontsize=9,
            edgecolor="none",
            loc="upper left",
            bbox_to_anchor=(-0.12, top),
        )
        beside.add_artist(legend)
        drawn = legend.get_window_extent().transformed(beside.transAxes.inverted())
        top = drawn.y0 + 0.02


def _data(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The conditions by what they are trained on, in words."""
    trained = [_trained(line) for line in lines]
    found: dict[str, list[Line]] = {}
    for line, said in zip(lines, trained, strict=True):
        found.setdefault(condition.label(said, trained), []).append(line)
    return found


def _trained(line: Line) -> dict[str, Any]:
    meant = condition.meant(line.condition)
    return {name: value for name, value in meant.items() if name not in (DECODE, PROBE)}


def _ways(lines: Sequence[Line]) -> dict[_Way, list[Line]]:
    """The conditions by their ways of decoding, in the order of how much these may spend."""
    found: dict[_Way, list[Line]] = {}
    for line in lines:
        found.setdefault(_way(line), []).append(line)
    return {way: sorted(of, key=lambda line: _budget(line, way)) for way, of in found.items()}


def _recipe(line: Line) -> tuple[str, Any]:
    text = str(line.condition.get(DECODE, "greedy"))
    return text.partition(":")[0].rpartition(".")[2], recipe.parse(text)


def _way(line: Line) -> _Way:
    try:
        name, found = _recipe(line)
    except settings.RefusedError:
        # Results can be shown where the file of the user's own strategy is not.
        return _Way(str(line.condition[DECODE]), "")
    budget = getattr(found, "BUDGET", "")
    asked = f"a {found.asks} detector" if found.asks else ""
    if found.asks == "probe":
        asked = f"a {line.condition.get(PROBE, 'probe')}"
    said = [f"{name} by {asked}" if asked else name]
    for key, known in settings.of(found).items():
        value = getattr(found, key)
        if value != known.default and value != found.asks and key != budget:
            said.append(f"{key} {settings.written(value)}")
    return _Way(", ".join(said), budget)


def _budget(line: Line, way: _Way) -> float:
    return float(getattr(_recipe(line)[1], way.budget)) if way.budget else 0.0


def _named(lines: Sequence[Line]) -> list[str]:
    """The ways of decoding, each with what it may spend, from left to right."""
    names = []
    for way, of in _ways(lines).items():
        spent = dict.fromkeys(f"{_budget(line, way):g}" for line in of)
        names.append(f"{way.name}; {way.budget} {', '.join(spent)}" if way.budget else way.name)
    return names


def _joined(lines: Sequence[Line]) -> list[bool]:
    """Of each way of decoding, whether it has several points to join."""
    return [len({_budget(line, way) for line in of}) > 1 for way, of in _ways(lines).items()]


def _style(number: int, *, joined: bool = True) -> dict[str, Any]:
    return {
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)] if joined else "none",
    }


def _panel(axes: "Axes", name: str, lines: Sequence[Line], wanted: Callable[[Point], bool]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ticks: list[float] = []
    for colour, of_data in enumerate(_data(lines).values()):
        for number, of_way in enumerate(_ways(lines).values()):
            of_curve = [line for line in of_way if line in of_data]
            points = [point for line in of_curve if (point := _spent(line, wanted, lines))]
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
