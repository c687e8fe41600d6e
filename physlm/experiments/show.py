"""What a model wrote, to be looked at: problems with its solutions, step by step."""

import itertools
import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from data_gen.solutions.grammar import MENDING_MARKERS
from data_gen.text.judge import split_sentences, standing_places
from physlm.experiments.execution import SOLUTIONS_FILE

_WIDTH = 100
# Colours of a terminal: what is right, wrong, and taken back.
_CODES = {"right": "32", "wrong": "31", "back": "33"}

Record = Mapping[str, Any]


def solutions(evaluation: epath.Path, count: int, *, colour: bool) -> str:
    """The first problems of an evaluation with their solutions, of all cells in turn.

    Args:
        evaluation: its directory.
        count: how many.
        colour: for a terminal.

    Raises:
        ValueError: there are none to show, or the file is damaged.
    """
    records = _read(evaluation / SOLUTIONS_FILE)
    if not records:
        raise ValueError(
            f"{evaluation} has no {SOLUTIONS_FILE} to show: remove it to have the run judged again."
        )
    return "\n\n".join(solution(record, colour=colour) for record in in_turn(records, count))


# What a record must have to be shown; older versions wrote less.
_NEEDED = frozenset(
    [
        "cell",
        "problem",
        "question",
        "op",
        "answer",
        "written",
        "written_answer",
        "correct",
        "reason",
        "first_wrong_step",
    ]
)


def _read(path: epath.Path) -> list[Record]:
    """The records that can be shown of a file of solutions, none where there is no file.

    Raises:
        ValueError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8") as lines:
            found = [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not what an evaluation writes ({error}).") from error
    return [record for record in found if isinstance(record, dict) and record.keys() >= _NEEDED]


def in_turn(records: Iterable[Record], count: int) -> list[Record]:
    """The first ones, an equal number of each cell as far as there are, in the cells' order."""
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(record["cell"], []).append(record)
    most = max(map(len, cells.values()), default=0)
    rows = list(cells.values())
    turns = [(n, at) for n in range(most) for at in range(len(rows)) if n < len(rows[at])]
    return [rows[at][n] for at, n in sorted((at, n) for n, at in turns[:count])]


def examples(evaluation: epath.Path) -> str:
    """A few solutions of the last cell, as text: the first wrong one, the first right one with
    retries, and the first right one without; nothing where solutions are no longer there."""
    records = _read(evaluation / SOLUTIONS_FILE)
    last = [record for record in records if record["cell"] == records[-1]["cell"]]
    kinds = [
        [record for record in last if not record["correct"]],
        [record for record in last if record["correct"] and record.get("retries")],
        [record for record in last if record["correct"] and not record.get("retries")],
    ]
    return "\n\n".join(solution(found[0], colour=False) for found in kinds if found)


def solution(record: Record, *, colour: bool) -> str:
    """A problem and its solution: each step that stands with its number; what was taken back,
    marked `<`, with the kind of mistake; the first wrong step, marked `x`, with its reason."""

    def painted(text: str, what: str) -> str:
        return f"\033[{_CODES[what]}m{text}\033[0m" if colour else text

    verdict = painted("right", "right") if record["correct"] else painted("wrong", "wrong")
    retries = record.get("retries") or 0
    after = f" after {retries} retr{'y' if retries == 1 else 'ies'}" if retries else ""
    lines = [f"op {record['op']} (cell {record['cell']}): {verdict}{after}"]
    for head, text in (("Problem", record["problem"]), ("Question", record["question"])):
        lines += _wrapped(f"{head}: ", text.strip())
    lines.append("Solution:")
    text = record["written"]
    stands = {place: number for number, place in enumerate(standing_places(text))}
    kinds = [mistake["kind"] for mistake in record.get("mended", ())]
    steps: list[tuple[str, str, str]] = []  # mark, text, and in which colour
    for place, sentence in enumerate(split_sentences(text)) if text.strip() else ():
        if place not in stands:
            # A marker ends what it takes back, which may be several sentences.
            marked = sentence.rstrip().endswith(tuple(MENDING_MARKERS.values()))
            kind = f": {kinds.pop(0)}" if marked and kinds else ""
            steps.append(("   < ", f"{sentence}.  (taken back{kind})", "back"))
        elif not record["correct"] and stands[place] == record["first_wrong_step"]:
            reason = f"{sentence}.  (first wrong step: {record['reason']})"
            steps.append((f" x{stands[place] + 1:2} ", reason, "wrong"))
        else:
            steps.append((f"  {stands[place] + 1:2} ", f"{sentence}.", ""))
    for (mark, said, what), same in itertools.groupby(steps):
        times = len(list(same))
        more = f" ({times} times)" if times > 1 else ""
        lines += _wrapped(mark, painted(said + more, what) if what else said)
    answer = (record["written_answer"] or "none").strip()
    said = f"Answer: {answer}"
    if not record["correct"]:
        wrong_end = record["first_wrong_step"] not in stands.values()
        said += f" (the right one is {record['answer']}"
        said += f"; {record['reason']})" if wrong_end else ")"
        said = painted(said, "wrong")
    lines.append(said)
    if "answers" in record:
        given = [(one or "none").strip() for one in record["answers"]]
        lines += _wrapped("All answers: ", ", ".join(given))
    return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)) or [
        head.rstrip()
    ]
