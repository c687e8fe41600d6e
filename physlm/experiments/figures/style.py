"""The style of all figures: colours, markers, frames, and how the paper's numbers look."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which the colour-blind tell apart, with a grey that can be seen on a dark
# ground in place of its black; markers and dashes say it again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8A8A8A")
# More of them than colours, so that what has the same colour has another marker.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES = ("-", "--", ":", "-.")
# What stands for the dashes where there are no lines: which part of a marker is filled.
_FILLS = ("full", "none", "left", "bottom")
GREY = "#777777"

# From few to many, light to dark, all of which can be seen on both grounds.
RAMP = ("#E3B23C", "#E6943A", "#E0743F", "#D1524F", "#B83B6B", "#973088", "#70309C")

# Ends of axes in percent, with the steps of their ticks.
_SCALES = ((20, 5), (30, 5), (50, 10), (100, 20))

# Letters of a line of a value's name side by side with others, and of a turned name.
_LINE, _LONG = 14, 40

# Beside a panel more names than these could not be read, and more lines of them than those have
# smaller letters.
_NAMED, _NAMED_LINES = 14, 19

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


def marks(look: Mapping[str, Any]) -> dict[str, Any]:
    """The same for marks without a line."""
    fill = _FILLS[DASHES.index(look["linestyle"])]
    return {**look, "linestyle": "none", "fillstyle": fill, "markerfacecoloralt": "none"}


def title(figure: Any, heading: str, about: str, *, top: float = 0.96) -> None:
    """A heading over a figure, and a smaller line under it."""
    height = figure.get_figheight()
    figure.text(0.012, top, heading, fontsize=15, fontweight="bold", va="center")
    room = 0.976 * figure.get_figwidth()
    size = 10.0 * min(1.0, room / _width_inches(about, 10.0))
    figure.text(0.012, top - 0.29 / height, about, fontsize=size, color=GREY, va="center")


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


@dataclasses.dataclass(frozen=True)
class Words:
    """The names of values on an axis, so that they do not meet.

    Attributes:
        texts: of each value, in lines.
        size: of letters, points.
        are_turned: they do not fit side by side.
        inches: how much they need below the axis.
    """

    texts: list[str]
    size: float
    are_turned: bool
    inches: float


def fitted(words: Sequence[str], places: Sequence[float], inches: float, beyond: float) -> Words:
    """Writes names of values side by side, in smaller letters or turned where there is no room.

    Args:
        words: a name for each value.
        places: of the values on the axis.
        inches: from the first value to the last.
        beyond: inches from the last value to the edge of the figure.
    """
    texts = [_in_lines(word) for word in words]
    scale = inches / ((max(places) - min(places)) or 1.0)
    lines = max(text.count("\n") for text in texts)
    for size in (9.5, 8.5, 7.5):
        wide = sorted(zip(places, (_width_inches(text, size) for text in texts), strict=True))
        gaps = [
            scale * (right - left) - (one + other) / 2
            for (left, one), (right, other) in itertools.pairwise(wide)
        ]
        if min(gaps, default=1.0) > 0.35 * size / 72 and wide[-1][1] / 2 + 0.05 < beyond:
            return Words(texts, size, are_turned=False, inches=(1 + lines) * 1.4 * size / 72)
    short = [word if len(word) <= _LONG else f"{word[: _LONG - 1]}…" for word in words]
    needed = max(_width_inches(word, 8.5) for word in short) / 2 + 0.12
    return Words(short, 8.5, are_turned=True, inches=needed)


def _in_lines(word: str) -> str:
    """Breaks a name between words, or after a comma."""
    parts = word.replace(",", ",\0").replace(" ", " \0").split("\0")
    lines = [""]
    for part in parts:
        if lines[-1] and len((lines[-1] + part).strip()) > _LINE:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def _width_inches(text: str, size: float) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    of, font = TextToPath().get_text_width_height_descent, FontProperties(size=size)
    return float(max(of(line, font, ismath=False)[0] for line in text.split("\n")) / 72)


def legend_beside(
    axes: "Axes", handles: Sequence[Any], names: Sequence[str], **others: Any
) -> None:
    """A legend to the right of a panel; of many names it has the first, and how many more."""
    from matplotlib.lines import Line2D

    handles, shown = [*handles[:_NAMED]], [*names[:_NAMED]]
    if len(names) > _NAMED:
        handles.append(Line2D([], [], linestyle="none"))
        shown.append(f"and {len(names) - _NAMED} more")
    lines = sum(1 + name.count("\n") for name in shown)
    size = 8.5 * min(1.0, _NAMED_LINES / max(lines, 1))
    place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.02), "fontsize": size}
    axes.legend(handles, shown, **LEGEND | place | others)


def percent(axes: "Axes", highest: float = 100.0) -> None:
    """A vertical axis from 0 to 20, 30, 50 or 100%, whichever the highest value needs."""
    top, step = next((pair for pair in _SCALES if highest <= pair[0]), _SCALES[-1])
    axes.set_ylim(-0.02 * top, 1.03 * top)
    ticks = range(0, top + 1, step)
    axes.set_yticks(ticks, [f"{value}%" for value in ticks])
