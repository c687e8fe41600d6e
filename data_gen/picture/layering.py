"""Layered graph layout: the order of nodes in their rows, and the course of edges."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# Sweeps down and up that order the rows, and that then move their cells sideways.
ORDER_SWEEPS = 24
PLACE_SWEEPS = 200
# The share of a node's width over which the lines that arrive are spread.
DOCK = 0.6


class Link(NamedTuple):
    """A line from one row to the next; an edge that spans several rows is as many links."""

    source: int  # the node where the line begins
    to: int | None  # the node where it arrives, or None where it goes on
    targets: frozenset[int]  # all nodes that it leads to
    row: int  # the row that it leaves
    start: float  # horizontal, where it leaves
    end: float  # horizontal, in the next row


class Placement(NamedTuple):
    """Where nodes and lines stand horizontally, counted from the left edge of the leftmost node.

    The unit is that of the widths which `place` was given.
    """

    centre: dict[int, float]  # of each node
    links: tuple[Link, ...]
    width: float


class _Cell(NamedTuple):
    """A cell of a row: a node, or a place where edges of a node pass the row.

    `via` is the number of the row that is passed, and -1 for the node itself.
    """

    node: int
    via: int = -1


def place(
    widths: Mapping[int, float],
    rows: Mapping[int, int],
    edges: Iterable[tuple[int, int]],
    gap: float,
) -> Placement:
    """Orders the nodes of each row so that few lines cross, and gives them places.

    Rows are ordered by barycentres, swept down and up; the order with the fewest crossings is
    kept. Lines of one node share their way for as long as they can.

    Args:
      widths: of each node, at least one.
      rows: of each node, from 0.
      edges: (upper, lower) nodes, the lower in a later row.
      gap: least room between neighbours.
    """
    targets: dict[int, set[int]] = {}
    for upper, lower in edges:
        targets.setdefault(upper, set()).add(lower)
    cells: list[list[_Cell]] = [[] for _ in range(max(rows.values()) + 1)]
    for node in widths:
        cells[rows[node]].append(_Cell(node))
    joins: list[list[tuple[_Cell, _Cell]]] = [[] for _ in cells]
    for node, reached in targets.items():
        above = _Cell(node)
        for row in range(rows[node] + 1, max(rows[n] for n in reached) + 1):
            joins[row] += [(above, _Cell(n)) for n in sorted(reached) if rows[n] == row]
            if any(rows[n] > row for n in reached):
                bend = _Cell(node, row)
                cells[row].append(bend)
                joins[row].append((above, bend))
                above = bend
    ordered = _ordered(cells, joins)
    centre = _centres(ordered, joins, widths, gap)
    left = min(x - _width(cell, widths) / 2 for cell, x in centre.items())
    right = max(x + _width(cell, widths) / 2 for cell, x in centre.items())
    centre = {cell: x - left for cell, x in centre.items()}
    links = _links(joins, centre, widths, rows, targets)
    nodes = {cell.node: x for cell, x in centre.items() if cell.via < 0}
    return Placement(nodes, tuple(links), right - left)


def crossings(row: Sequence[tuple[float, float]]) -> int:
    """How many pairs of lines (upper place, lower place) cross between two rows."""
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in itertools.combinations(row, 2))


def spread(wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """The positions nearest to the wanted ones, with order and gaps kept.

    Nearest by weighted least squares: pools of neighbours that would be too close are moved as
    one (isotonic regression).

    Args:
      wanted, weights: one for each, weights above 0.
      gaps: one less, between neighbours.
    """
    offsets = [0.0, *itertools.accumulate(gaps)]
    pools: list[tuple[float, float, int]] = []  # weighted sum, weight, members
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        pools.append((weight * (want - offset), weight, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            (a, b, c), (d, e, f) = pools.pop(), pools.pop()
            pools.append((a + d, b + e, c + f))
    means = [total / weight for total, weight, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _width(cell: _Cell, widths: Mapping[int, float]) -> float:
    return widths[cell.node] if cell.via < 0 else 0.0


def _neighbours(
    joins: Sequence[Sequence[tuple[_Cell, _Cell]]],
) -> tuple[dict[_Cell, list[_Cell]], dict[_Cell, list[_Cell]]]:
    above: dict[_Cell, list[_Cell]] = {}
    below: dict[_Cell, list[_Cell]] = {}
    for upper, lower in itertools.chain.from_iterable(joins):
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    return above, below


def _ordered(
    cells: Sequence[Sequence[_Cell]], joins: Sequence[Sequence[tuple[_Cell, _Cell]]]
) -> list[list[_Cell]]:
    above, below = _neighbours(joins)
    rows = [list(row) for row in cells]
    best, fewest = rows, _crossings(rows, joins)
    for sweep in range(ORDER_SWEEPS):
        near, turn = (
            (above, range(len(rows))) if sweep % 2 == 0 else (below, range(len(rows))[::-1])
        )
        rows = [list(row) for row in rows]
        for row in turn:
            at = {cell: n / len(line) for line in rows for n, cell in enumerate(line)}
            barycentre = {c: _mean([at[n] for n in near.get(c, [c])]) for c in rows[row]}
            rows[row].sort(key=barycentre.__getitem__)
        count = _crossings(rows, joins)
        if count < fewest:
            best, fewest = rows, count
    return best


def _crossings(
    rows: Sequence[Sequence[_Cell]], joins: Sequence[Sequence[tuple[_Cell, _Cell]]]
) -> int:
    at = {cell: float(n) for line in rows for n, cell in enumerate(line)}
    return sum(crossings([(at[a], at[b]) for a, b in row]) for row in joins)


def _centres(
    rows: Sequence[Sequence[_Cell]],
    joins: Sequence[Sequence[tuple[_Cell, _Cell]]],
    widths: Mapping[int, float],
    gap: float,
) -> dict[_Cell, float]:
    above, below = _neighbours(joins)
    centre = {cell: float(n) for row in rows for n, cell in enumerate(row)}
    for sweep in range(PLACE_SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            near = [above.get(cell, []) + below.get(cell, []) or [cell] for cell in row]
            wanted = [_mean([centre[n] for n in cells]) for cells in near]
            # Where lines pass they had better run straight.
            weights = [
                len(cells) * (1 if cell.via < 0 else 4)
                for cell, cells in zip(row, near, strict=True)
            ]
            gaps = [
                gap + (_width(a, widths) + _width(b, widths)) / 2
                for a, b in itertools.pairwise(row)
            ]
            centre.update(zip(row, spread(wanted, weights, gaps), strict=True))
    return centre


def _links(
    joins: Sequence[Sequence[tuple[_Cell, _Cell]]],
    centre: Mapping[_Cell, float],
    widths: Mapping[int, float],
    rows: Mapping[int, int],
    targets: Mapping[int, set[int]],
) -> list[Link]:
    above, _ = _neighbours(joins)
    found = []
    for row, pairs in enumerate(joins):
        for upper, lower in pairs:
            end, to = centre[lower], None
            reached = {n for n in targets[upper.node] if rows[n] >= row}
            if lower.via < 0:
                # Lines that arrive at one node do so side by side, in the order they come from.
                arriving = sorted(above[lower], key=lambda cell: centre[cell])
                share = (arriving.index(upper) + 0.5) / len(arriving) - 0.5
                end, to = end + share * DOCK * widths[lower.node], lower.node
                reached = {lower.node}
            else:
                reached = {n for n in reached if rows[n] > row}
            found.append(Link(upper.node, to, frozenset(reached), row - 1, centre[upper], end))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
