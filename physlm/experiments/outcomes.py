"""What became of every test problem, as evaluations write it beside their results."""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from data_gen.text import lines
from physlm.experiments.execution import SOLUTIONS_FILE


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """The problems of a cell, and what the model of one run made of them.

    Attributes:
        problems: a hash of their texts in their order.
        correct_N: bool, whether the whole solution is right.
        retries_N: int, sentences taken back; None from before this was written.
        wrong: how many solutions are wrong first in which way (`data_gen.text.judge`).
    """

    problems: str
    correct_N: np.ndarray
    retries_N: np.ndarray | None
    wrong: Mapping[str, int] = dataclasses.field(default_factory=dict)


# Of an evaluation, by cell; and of many, by the run's name and the evaluation's.
OfCells = Mapping[str, Outcomes]
All = Mapping[tuple[str, str], OfCells]


_KEPT = ("problem", "question", "retries", "kind")


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
                cells.setdefault(whole["cell"], []).append(kept | {"correct": whole["correct"]})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # What is no object has neither fields nor a cell.
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
    )
