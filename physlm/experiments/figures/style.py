"""The style of all figures: colours, markers, frames, and how the paper's numbers look."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which the colour-blind tell apart, with a grey that can be seen on a dark
# ground in place of its black; markers and dashes say it again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8A8A8A")
# More of them than colours, so that what has the same colour has another marker.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES = ("-", "--", ":", "-.")
GREY = "#777777"

# From few to many, light to dark, all of which can be seen on both grounds.
RAMP = ("#E3B23C", "#E6943A", "#E0743F", "#D1524F", "#B83B6B", "#973088", "#70309C")

# Ends of axes in percent, with the steps of their ticks.
_SCALES = ((20, 5), (30, 5), (50, 10), (100, 20))

LEGEND: dict[str, Any] = {"fontsize": 10, "title_fontsize": 10, "edgecolor": "none"}


def style(number: int, dash: int | None = None) -> dict[str, Any]:
    """Colour, marker and dash of line `number`; the dash can be another line's."""
    dash = number // len(COLOURS) if dash is None else dash
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[dash % len(DASHES)],
    }


def ordered(rank: int, count: int, dash: int) -> dict[str, Any]:
    """The same for the value of this rank among `count`, whose colours have their order."""
    step = (len(RAMP) - 1) / max(count - 1, 1)
    return {
        "color": RAMP[round(rank * step)],
        "marker": MARKERS[(1 + rank) % len(MARKERS)],
        "linestyle": DASHES[dash % len(DASHES)],
    }


def title(figure: Any, heading: str, about: str, *, top: float = 0.96) -> None:
    """A heading over a figure, and a smaller line under it."""
    height = figure.get_figheight()
    figure.text(0.012, top, heading, fontsize=15, fontweight="bold", va="center")
    figure.text(0.012, top - 0.29 / height, about, fontsize=10, color=GREY, va="center")


def name(axes: "Axes", heading: str, about: str = "") -> None:
    """A heading over a panel, and a smaller one under it."""
    axes.set_title(heading, fontsize=10.5, loc="left", pad=18 if about else 6)
    axes.text(0, 1.025, about, transform=axes.transAxes, fontsize=9, color=GREY)


def plain(axes: "Axes") -> None:
    """Thin horizontal lines, and no frame above and to the right."""
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9.5)


def percent(axes: "Axes", highest: float = 100.0) -> None:
    """A vertical axis from 0 to 20, 30, 50 or 100%, whichever the highest value needs."""
    top, step = next((pair for pair in _SCALES if highest <= pair[0]), _SCALES[-1])
    axes.set_ylim(-0.02 * top, 1.03 * top)
    ticks = range(0, top + 1, step)
    axes.set_yticks(ticks, [f"{value}%" for value in ticks])
