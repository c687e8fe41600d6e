"""The sentences of a solution as lines of a picture: what stands, and what was taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from data_gen.solutions.grammar import MENDING_MARKERS, STOP
from data_gen.text.judge import defined_in, judge, split_sentences, standing_places

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from data_gen.text.reader import Facts

# Inches and points.
PITCH = 0.17
POINTS = 7.0
NUMBER_WIDTH = 0.28
LETTER_WIDTH = 0.0602 * POINTS / 7.0  # of the monospaced font
TAKEN_BACK = "#8F3A00"
NOTE = "#5A5A5A"


class Row(NamedTuple):
    """A sentence of a solution, which takes one line of the picture."""

    number: int | None  # of the step, from 1; None where the sentence was taken back
    text: str
    # The kind of the mistake that the sentence takes back, or what is wrong with the first wrong
    # step; "" for others.
    note: str


def rows(facts: Facts, solution: str) -> list[Row]:
    """All sentences of a solution in order, with what the judge says of those taken back and of the
    first wrong one."""
    places, verdict = standing_places(solution), judge(facts, solution)
    mended = list(verdict.mended)
    found = []
    for at, sentence in enumerate(split_sentences(solution)):
        if at in places:
            number = places.index(at)
            note = f"wrong: {verdict.reason}" if number == verdict.first_wrong_step else ""
            found.append(Row(number + 1, f"{sentence}{STOP}", note))
            continue
        note = ""
        if sentence.endswith(tuple(MENDING_MARKERS.values())):
            mistake = mended.pop(0)
            late = f", noticed {mistake.late} sentences later" if mistake.late else ""
            note = f"{mistake.kind}{late}"
        found.append(Row(None, f"{sentence}{STOP}", note))
    return found


def numbers(listed: Sequence[Row]) -> dict[str, int]:
    """The number of the step that computes a parameter, by the parameter's name."""
    steps = [(row.number, defined_in(row.text)) for row in listed]
    return {defined[0]: number for number, defined in reversed(steps) if number and defined}


def size(listed: Sequence[Row]) -> tuple[float, float]:
    """Width and height that the lines take, in inches."""
    longest = max(len(row.text) + (len(row.note) + 3 if row.note else 0) for row in listed)
    return NUMBER_WIDTH + longest * LETTER_WIDTH, PITCH * len(listed)


def put(axes: Axes, listed: Sequence[Row], x: float, y: float) -> None:
    """Writes the lines from (x, y), their upper left corner, downwards."""
    for n, row in enumerate(listed):
        middle = y + PITCH * (n + 0.5)
        colour = TAKEN_BACK if row.note or not row.number else "black"
        number = f"{row.number}" if row.number else "×"
        place = x + NUMBER_WIDTH
        style: dict[str, Any] = {"fontsize": POINTS, "family": "monospace", "va": "center"}
        axes.text(place - 0.1, middle, number, color=colour, ha="right", **style)
        axes.text(place, middle, row.text, color=colour, **style)
        if row.note:
            note_at = place + (len(row.text) + 2) * LETTER_WIDTH
            axes.text(note_at, middle, row.note, color=NOTE, **(style | {"style": "italic"}))
