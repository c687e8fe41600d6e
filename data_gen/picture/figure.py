"""A picture of a problem: its structure graph, and what is computed from what."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from data_gen.picture import layering, listing
from data_gen.picture.relations import DISTRACTOR, NECESSARY, QUERY, Relations, relate
from data_gen.settings import RefusedError
from data_gen.solutions.grammar import QUESTION
from data_gen.spec import Spec
from data_gen.text import records
from data_gen.text.reader import name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from data_gen.problems.problem import Problem

SUFFIXES = (".png", ".svg")

# Inches, points and dots.
DOTS_PER_INCH = 200
MARGIN = 0.2
GUTTER = 0.45  # between the two graphs
HEAD = 0.4  # of a graph, for its title
GAP = 0.16  # between neighbours in a row
PAD = 0.08  # between a label and its outline
TIP = 0.12  # of a hexagon, beyond a rectangle
TWICE = 0.035  # between two outlines
BOX_HEIGHT = 0.36  # two lines of a label
ROOM = 0.46  # for lines between two rows of the dependency graph, and more an inch they span
ROOM_AN_INCH = 0.07
STRUCTURE_PITCH = 1.1
LEGEND_PITCH = 0.32
ARROW = 0.075
LABEL_POINTS = 7.0
TEXT_POINTS = 8.0
TITLE_POINTS = 9.5


class _Look(NamedTuple):
    said: str
    fill: str
    line: str
    text: str
    dash: str
    width: float


# Okabe and Ito's hues, which the colour-blind tell apart, at lightnesses that grey tells apart.
# Outlines say it again: hexagons are abstract, two lines the query's, dashes not needed.
_LOOKS = {
    (QUERY, False): _Look("query", "#8F3A00", "#8F3A00", "white", "-", 1.2),
    (QUERY, True): _Look("query, abstract", "#8F3A00", "#8F3A00", "white", "-", 1.2),
    (NECESSARY, False): _Look("necessary", "#7CC4EC", "#00507D", "black", "-", 1.2),
    (NECESSARY, True): _Look("necessary, abstract", "#F5E663", "#6B6100", "black", "-", 1.2),
    (DISTRACTOR, False): _Look("not needed (distractor)", "white", "#777777", "#444444", "--", 0.8),
    (DISTRACTOR, True): _Look("not needed, abstract", "#E9E4D8", "#777777", "#444444", "--", 0.8),
}
_SWATCH, _SWATCH_HEIGHT = 0.45, 0.19
_STRONG, _WEAK = ("#222222", "-", 1.3), ("#A0A0A0", "--", 0.8)


def draw(problem: Problem, spec: Spec, listed: Sequence[listing.Row] = ()) -> Figure:
    """Draws one problem: left its structure graph, right what is computed from what.

    The question stands above the graphs where the spec puts it first, else below them.

    Args:
      problem: one, with NumPy leaves.
      spec: its class.
      listed: the sentences of a solution, to stand below all (`data_gen.picture.listing`). What
        they compute has their numbers in the dependency graph.

    Returns:
      a figure of its own, as large as the graphs want it, without pyplot's global state.
    """
    from matplotlib.figure import Figure

    found = relate(problem, spec)
    layers = records.layers(problem, spec)
    left, right = _structure(found, layers), _dependency(found, listing.numbers(listed))
    used = sorted({(n.role, n.abstract) for n in found.nodes}, key=list(_LOOKS).index)
    question = _question(found, int(problem.op))
    lines = sorted({strong for *_, strong, _ in (*left.lines, *right.lines)}, reverse=True)
    legend = HEAD + LEGEND_PITCH * (len(used) + len(lines))
    inner = max(left.height + legend, right.height)
    left_width = max(left.width, 2.6)
    width = left_width + GUTTER + right.width + 2 * MARGIN
    width = max(width, _text_width(question, TITLE_POINTS) + 2 * MARGIN)
    top = MARGIN + (HEAD if spec.order == "qp" else 0.0)
    list_width, list_height = listing.size(listed) if listed else (0.0, 0.0)
    width = max(width, list_width + 2 * MARGIN)
    list_at = inner + HEAD + 2 * MARGIN
    height = list_at + (list_height + MARGIN if listed else 0.0)

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    # One inch is one unit, downwards as on a page: what is measured is what is drawn.
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    at_question = MARGIN + 0.1 if spec.order == "qp" else list_at - MARGIN - 0.1
    axes.text(MARGIN, at_question, question, fontsize=TITLE_POINTS, va="center")
    _put(axes, left, MARGIN, top)
    _put(axes, right, MARGIN + left_width + GUTTER, top)
    _legend(axes, used, lines, MARGIN, top + left.height + HEAD)
    listing.put(axes, listed, MARGIN, list_at)
    return figure


def check_out(path: str | Path) -> str:
    """The format that a file's name asks for, "png" or "svg".

    Raises:
      RefusedError: the name ends otherwise, or there can be no such file.
    """
    suffix, directory = Path(path).suffix.lower(), Path(path).parent
    if suffix not in SUFFIXES:
        raise RefusedError("out", str(path), f"a file that ends in {' or '.join(SUFFIXES)}")
    if not directory.is_dir():
        raise RefusedError("out", str(path), f"in a directory that there is; {directory} is none")
    if Path(path).is_dir():
        raise RefusedError("out", str(path), "a file, and is a directory")
    if not os.access(Path(path) if Path(path).exists() else directory, os.W_OK):
        raise RefusedError("out", str(path), "where one may write")
    return suffix[1:]


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure, the same bytes each time, in the format that the file's name asks for.

    Raises:
      RefusedError: the name ends neither in .png nor in .svg.
      OSError: the file cannot be written.
    """
    Path(path).write_bytes(data(figure, check_out(path)))


def data(figure: Figure, kind: str) -> bytes:
    """A figure as a "png" or "svg", the same bytes each time."""
    import matplotlib

    buffer = io.BytesIO()
    # SVG has its date and random names of its parts otherwise.
    with matplotlib.rc_context({"svg.hashsalt": "data_gen"}):
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


class _Box(NamedTuple):
    x: float  # of the centre
    y: float
    width: float
    label: str
    look: _Look
    shape: str  # "round", "square" or "hexagon"
    twice: bool  # outlined twice
    height: float = BOX_HEIGHT


class _Panel(NamedTuple):
    """A graph laid out, in inches from its upper left corner."""

    title: str
    boxes: tuple[_Box, ...]
    lines: tuple[tuple[tuple[float, float], tuple[float, float], bool, bool], ...]  # strong, arrow
    words: tuple[tuple[float, float, str], ...]
    width: float
    height: float


_ITEM = _Look("", "white", "#444444", "black", "-", 0.8)


def _structure(found: Relations, layers: list[list[Any]]) -> _Panel:
    number = {item: n for n, item in enumerate(found.items)}
    label = {n: layers[g][1][j].replace(" ", "\n", 1) for (g, j), n in number.items()}
    widths = {n: _box_width(text) for n, text in label.items()}
    rows = {n: g for (g, _), n in number.items()}
    strong = {(number[a], number[b]): needed for (a, b), needed in found.belongs.items()}
    placed = layering.place(widths, rows, strong, GAP)
    row_middle = [HEAD + BOX_HEIGHT / 2 + STRUCTURE_PITCH * g for g in range(len(layers))]
    words = [(0.0, y, name) for y, (name, _) in zip(row_middle, layers, strict=True)]
    shift = max(_text_width(name, TEXT_POINTS) for name, _ in layers) + GAP
    middle = {n: row_middle[g] for n, g in rows.items()}
    boxes = tuple(
        _Box(shift + placed.centre[n], middle[n], widths[n], label[n], _ITEM, "round", False)
        for n in rows
    )
    lines = tuple(
        (
            (shift + placed.centre[a], middle[a] + BOX_HEIGHT / 2),
            (shift + placed.centre[b], middle[b] - BOX_HEIGHT / 2),
            needed,
            False,
        )
        for (a, b), needed in strong.items()
    )
    height = HEAD + BOX_HEIGHT + STRUCTURE_PITCH * (len(layers) - 1)
    return _Panel("Structure graph", boxes, lines, tuple(words), shift + placed.width, height)


def _dependency(found: Relations, steps: Mapping[str, int]) -> _Panel:
    label = {}
    for node in found.nodes:
        number = steps.get(name(node.owner, node.thing))
        label[node.slot] = f"{number}: " * (number is not None) + f"{node.owner}'s\n{node.thing}"
    widths = {
        node.slot: _box_width(label[node.slot])
        + 2 * (TIP * node.abstract + TWICE * (node.role == QUERY))
        for node in found.nodes
    }
    rows = {node.slot: node.depth for node in found.nodes}
    needed = {node.slot for node in found.nodes if node.role != DISTRACTOR}
    placed = layering.place(widths, rows, found.edges, GAP)
    span = [0.0] * (max(rows.values()) + 1)
    for link in placed.links:
        span[link.row + 1] = max(span[link.row + 1], abs(link.end - link.start))
    middle = [HEAD + BOX_HEIGHT / 2]
    for longest in span[1:]:
        middle.append(middle[-1] + BOX_HEIGHT + ROOM + ROOM_AN_INCH * longest)
    boxes = tuple(
        _Box(
            placed.centre[node.slot],
            middle[node.depth],
            widths[node.slot],
            label[node.slot],
            _LOOKS[node.role, node.abstract],
            *_shape(node.role, node.abstract),
        )
        for node in found.nodes
    )
    lines = []
    for link in placed.links:
        strong = bool(link.targets & needed)
        high, low = middle[link.row] + BOX_HEIGHT / 2, middle[link.row + 1] - BOX_HEIGHT / 2
        lines.append(((link.start, high), (link.end, low), strong, link.to is not None))
        if link.to is None:
            lines.append(((link.end, low), (link.end, low + BOX_HEIGHT), strong, False))
    height = middle[-1] + BOX_HEIGHT / 2
    return _Panel("Dependency graph", boxes, tuple(lines), (), placed.width, height)


def _question(found: Relations, op: int) -> str:
    query = next(node for node in found.nodes if node.role == QUERY)
    count = f"{op} operation{'s' if op != 1 else ''}"
    return f"{QUESTION.write(thing=query.thing, owner=query.owner)}  ({count})"


def _put(axes: Axes, panel: _Panel, x: float, y: float) -> None:
    axes.text(x, y + 0.1, panel.title, fontsize=TITLE_POINTS, weight="bold", va="center")
    # Those that matter lie above the others.
    for start, end, strong, arrow in sorted(panel.lines, key=lambda line: line[2]):
        _line(axes, (x + start[0], y + start[1]), (x + end[0], y + end[1]), strong, arrow)
    for box in panel.boxes:
        _box(axes, box._replace(x=x + box.x, y=y + box.y))
    for at_x, at_y, text in panel.words:
        axes.text(x + at_x, y + at_y, text, fontsize=TEXT_POINTS, style="italic", va="center")


def _line(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], strong: bool, arrow: bool
) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Way

    colour, dash, width = _STRONG if strong else _WEAK
    (x, y), (to_x, to_y) = start, end
    tail = to_y - ARROW if arrow else to_y
    middle = (y + tail) / 2
    way = Way(
        [(x, y), (x, middle), (to_x, middle), (to_x, tail)],
        [Way.MOVETO, Way.CURVE4, Way.CURVE4, Way.CURVE4],
    )
    layer = 2 if strong else 1
    axes.add_patch(
        PathPatch(way, fill=False, edgecolor=colour, linestyle=dash, linewidth=width, zorder=layer)
    )
    if arrow:
        half = ARROW * 0.42
        corners = [(to_x, to_y), (to_x - half, tail), (to_x + half, tail)]
        axes.add_patch(Polygon(corners, facecolor=colour, linewidth=0, zorder=layer))


def _box(axes: Axes, box: _Box) -> None:
    look = box.look
    for inset in (0.0, TWICE) if box.twice else (0.0,):
        outline = _outline(box, inset)
        outline.set(
            facecolor="white" if box.twice and not inset else look.fill,
            edgecolor=look.line,
            linestyle=look.dash,
            linewidth=look.width,
            zorder=3,
        )
        axes.add_patch(outline)
    axes.text(
        box.x,
        box.y,
        box.label,
        color=look.text,
        fontsize=LABEL_POINTS,
        linespacing=1.1,
        ha="center",
        va="center",
        zorder=4,
    )


def _outline(box: _Box, inset: float) -> Patch:
    from matplotlib.patches import FancyBboxPatch, Polygon

    width, height = box.width - 2 * inset, box.height - 2 * inset
    left, top = box.x - width / 2, box.y - height / 2
    if box.shape == "hexagon":
        right, low = left + width, top + height
        corners = [
            (left, box.y), (left + TIP, top), (right - TIP, top),
            (right, box.y), (right - TIP, low), (left + TIP, low),
        ]  # fmt: skip
        return Polygon(corners, closed=True)
    style = "square,pad=0" if box.shape == "square" else f"round,pad=0,rounding_size={0.09 - inset}"
    return FancyBboxPatch((left, top), width, height, boxstyle=style)


def _legend(
    axes: Axes, used: list[tuple[str, bool]], lines: list[bool], x: float, y: float
) -> None:
    """Says what outlines, fills and lines mean, of those in use."""
    words_at = x + _SWATCH + GAP
    for n, key in enumerate(used):
        middle = y + LEGEND_PITCH * n
        shape, twice = _shape(*key)
        at = x + _SWATCH / 2
        _box(axes, _Box(at, middle, _SWATCH, "", _LOOKS[key], shape, twice, _SWATCH_HEIGHT))
        axes.text(words_at, middle, _LOOKS[key].said, fontsize=TEXT_POINTS, va="center")
    for n, strong in enumerate(lines):
        middle = y + LEGEND_PITCH * (len(used) + n)
        colour, dash, width = _STRONG if strong else _WEAK
        axes.plot([x, x + _SWATCH], [middle] * 2, color=colour, linestyle=dash, linewidth=width)
        said = "needed by the query" if strong else "not needed"
        axes.text(words_at, middle, said, fontsize=TEXT_POINTS, va="center")


def _shape(role: str, abstract: bool) -> tuple[str, bool]:
    """An outline and whether it is drawn twice."""
    return "hexagon" if abstract else "square" if role == DISTRACTOR else "round", role == QUERY


def _box_width(label: str) -> float:
    return max(_text_width(line, LABEL_POINTS) for line in label.split("\n")) + 2 * PAD


@functools.lru_cache(maxsize=4096)
def _text_width(text: str, points: float) -> float:
    """Inches that a line of text is wide in the figure's font."""
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=points).get_extents().width / 72
