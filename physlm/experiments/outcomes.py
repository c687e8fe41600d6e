"""The outcome of every test problem: as evaluations write it, and as a report keeps it.

The directory of an evaluation has the solutions themselves. `outcomes.jsonl`, beside
`results.jsonl`, has what statistics need of them, for each run, evaluation and cell. So results can
be compared without their store, and those of several stores together, by appending one file to the
other.
"""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from data_gen.text import lines
from physlm import paths
from physlm.experiments.judging import SOLUTIONS_FILE

FILE = "outcomes.jsonl"


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """The problems of a cell, and how the model of one run solved them.

    Attributes:
        problems: a hash of their texts in their order.
        correct_N: bool, whether the whole solution is right.
        retries_N: int, sentences taken back; None in files of earlier versions, without it.
        wrong: how many solutions have a first wrong step of each kind (`data_gen.text.judge`).
        taken_back: how many solutions are right in the end and how many are not, by the first
            sentence that they take back: `right` or a kind of mistake.
    """

    problems: str
    correct_N: np.ndarray
    retries_N: np.ndarray | None
    wrong: Mapping[str, int] = dataclasses.field(default_factory=dict)
    taken_back: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


# Of an evaluation, by cell; and of many, by the run's name and the evaluation's.
OfCells = Mapping[str, Outcomes]
All = Mapping[tuple[str, str], OfCells]


# Of a solution.
_KEPT = ("problem", "question", "retries", "kind")

_MARKS = {"0": False, "1": True}


def read(evaluation: epath.Path) -> dict[str, Outcomes]:
    """The outcomes in an evaluation's directory; none where the solutions are no longer there.

    Raises:
        ValueError: the file is not what an evaluation writes.
    """
    path = evaluation / SOLUTIONS_FILE
    if not path.exists():
        return {}
    cells: dict[str, list[dict[str, Any]]] = {}
    number = 0
    try:
        with path.open("rb") as written:
            for number, line in enumerate(written, start=1):  # noqa: B007
                whole = lines.value(line)
                kept = {name: whole.get(name) for name in _KEPT}
                kept["correct"] = whole["correct"]
                kept["taken_back"] = [one["kind"] for one in whole.get("mended") or ()]
                cells.setdefault(whole["cell"], []).append(kept)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # A line that is no JSON object has no fields.
        why = str(error) if isinstance(error, ValueError) else "it is no solution of a problem"
        raise ValueError(
            f"line {number} of {path} is not what an evaluation writes ({why}); remove its "
            "directory to have the run judged again."
        ) from error
    return {cell: _outcomes(rows) for cell, rows in cells.items()}


def _outcomes(rows: Sequence[Mapping[str, Any]]) -> Outcomes:
    texts = json.dumps([[row["problem"], row["question"]] for row in rows])
    counted = all(row["retries"] is not None for row in rows)
    return Outcomes(
        problems=hashlib.sha256(texts.encode()).hexdigest(),
        correct_N=np.array([row["correct"] for row in rows], bool),
        retries_N=np.array([row["retries"] for row in rows]) if counted else None,
        wrong=collections.Counter(
            row["kind"] for row in rows if row["kind"] and not row["correct"]
        ),
        taken_back=_taken_back(rows),
    )


def _taken_back(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    counts = collections.Counter(
        (row["taken_back"][0], bool(row["correct"])) for row in rows if row["taken_back"]
    )
    kinds = sorted({kind for kind, _ in counts})
    return {kind: (counts[kind, True], counts[kind, False]) for kind in kinds}


def kept(path: epath.Path) -> tuple[dict[tuple[str, str], dict[str, Outcomes]], int]:
    """Reads an `outcomes.jsonl`.

    Of two lines about the same cell of a run the later one counts.

    Returns:
        what it holds, and how many of its lines are not such as `text` writes.

    Raises:
        OSError: the file is there and cannot be read.
    """
    found: dict[tuple[str, str], dict[str, Outcomes]] = {}
    damaged = 0
    for line in paths.read_bytes(path).splitlines() if path.exists() else ():
        try:
            row = lines.value(line)
            names = [row[name] for name in ("run", "evaluation", "cell", "problems")]
            if not all(isinstance(name, str) for name in names):
                raise ValueError("a name is no text")
            run, evaluation, cell, problems = names
            found.setdefault((run, evaluation), {})[cell] = Outcomes(
                problems=problems,
                correct_N=np.array([_MARKS[mark] for mark in row["correct"]], bool),
                retries_N=_retries(row["retries"], len(row["correct"])),
                wrong={kind: int(number) for kind, number in row["wrong"].items()},
                # Files of earlier versions lack it.
                taken_back={
                    kind: (int(solved), int(lost))
                    for kind, (solved, lost) in row.get("taken_back", {}).items()
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            damaged += 1
    return found, damaged


def _retries(counts: Sequence[int] | None, size: int) -> np.ndarray | None:
    if counts is None:
        return None
    counts_N = np.array(counts)
    if counts_N.shape != (size,) or counts_N.dtype.kind != "i":
        raise ValueError("it has not a number of retries for each problem")
    return counts_N


def text(found: All) -> str:
    """An `outcomes.jsonl`: a line for each run, evaluation and cell.

    `correct` has a 1 for each problem that is solved, in order, and a 0 for each other one.
    """
    rows = [
        {
            "run": run,
            "evaluation": evaluation,
            "cell": cell,
            "problems": one.problems,
            "correct": "".join("01"[right] for right in one.correct_N.tolist()),
            "retries": None if one.retries_N is None else one.retries_N.tolist(),
            "wrong": dict(sorted(one.wrong.items())),
            "taken_back": {kind: list(of) for kind, of in sorted(one.taken_back.items())},
        }
        for (run, evaluation), cells in found.items()
        for cell, one in cells.items()
    ]
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
