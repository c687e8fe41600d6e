"""Shows problems with a model's solutions, step by step, as text and as HTML."""

import dataclasses
import html
import itertools
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from data_gen.picture import figure, listing
from data_gen.solutions.grammar import MENDING_MARKERS
from data_gen.spec import Spec
from data_gen.text import lines
from data_gen.text.judge import split_sentences, standing_places
from data_gen.text.parser import parse
from data_gen.text.reader import read
from physlm import paths
from physlm.experiments.judging import SOLUTIONS_FILE

_WIDTH = 100
# Colours of a terminal: what is right, wrong, and taken back.
_CODES = {"right": "32", "wrong": "31", "back": "33"}

Record = Mapping[str, Any]


def solutions(evaluation: epath.Path, count: int, *, colour: bool) -> str:
    """The first problems of an evaluation with their solutions, taken from all cells in turn.

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


# The fields that a record needs to be shown; older versions wrote fewer.
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
    """The records of a file of solutions that can be shown; none where there is no file.

    Raises:
        ValueError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        found = [lines.value(line) for line in paths.read_bytes(path).splitlines()]
    except ValueError as error:
        raise ValueError(f"{path} is not what an evaluation writes ({error}).") from error
    return [record for record in found if isinstance(record, dict) and record.keys() >= _NEEDED]


def in_turn(records: Iterable[Record], count: int) -> list[Record]:
    """The first records, equally many of each cell as far as there are, in the order of cells."""
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(record["cell"], []).append(record)
    most = max(map(len, cells.values()), default=0)
    rows = list(cells.values())
    turns = [(n, at) for n in range(most) for at in range(len(rows)) if n < len(rows[at])]
    return [rows[at][n] for at, n in sorted((at, n) for n, at in turns[:count])]


def examples(evaluation: epath.Path) -> list[Record]:
    """A few solutions of the last cell, as HTML; none where solutions were deleted.

    They are the first wrong one, the first right one with retries, and the first right one without.
    """
    records = _read(evaluation / SOLUTIONS_FILE)
    last = [record for record in records if record["cell"] == records[-1]["cell"]]
    kinds = [
        [record for record in last if not record["correct"]],
        [record for record in last if record["correct"] and record.get("retries")],
        [record for record in last if record["correct"] and not record.get("retries")],
    ]
    return [found[0] for found in kinds if found]


@dataclasses.dataclass(frozen=True)
class Step:
    """A sentence of a solution, with the judge's verdict.

    Attributes:
        number: among the sentences that stand, from 1; None if it was taken back.
        text: the sentence.
        said: what is wrong with it; "" where nothing is known to be.
    """

    number: int | None
    text: str
    said: str = ""


def steps(record: Record) -> list[Step]:
    """The sentences that a model wrote for a problem, in their order."""
    text = record["written"]
    stands = {place: number for number, place in enumerate(standing_places(text))}
    kinds = [mistake["kind"] for mistake in record.get("mended", ())]
    found = []
    for place, sentence in enumerate(split_sentences(text)) if text.strip() else ():
        if place not in stands:
            # A marker ends what it takes back, which may be several sentences.
            marked = sentence.rstrip().endswith(tuple(MENDING_MARKERS.values()))
            kind = f": {kinds.pop(0)}" if marked and kinds else ""
            found.append(Step(None, sentence, f"taken back{kind}"))
        elif not record["correct"] and stands[place] == record["first_wrong_step"]:
            said = f"first wrong step: {record['reason']}"
            found.append(Step(stands[place] + 1, sentence, said))
        else:
            found.append(Step(stands[place] + 1, sentence))
    return found


def _verdict(record: Record) -> tuple[str, str]:
    """Right or wrong, and after how many retries."""
    retries = record.get("retries") or 0
    after = f" after {retries} retr{'y' if retries == 1 else 'ies'}" if retries else ""
    return "right" if record["correct"] else "wrong", after


def _answer(record: Record) -> str:
    said = f"Answer: {(record['written_answer'] or 'none').strip()}"
    if record["correct"]:
        return said
    written = [step.number for step in steps(record) if step.number]
    wrong_end = record["first_wrong_step"] not in [number - 1 for number in written]
    said += f" (the right one is {record['answer']}"
    return said + (f"; {record['reason']})" if wrong_end else ")")


def as_html(record: Record) -> str:
    """A problem and its solution as HTML.

    Each step is on its own line; sentences that were taken back are struck out, and the first wrong
    step has its reason. Text of the model is escaped.
    """
    verdict, after = _verdict(record)
    op, cell = (html.escape(str(record[name])) for name in ("op", "cell"))
    head = f'op {op} (cell {cell}): <span class="{verdict}">'
    parts = [f"<p>{head}{verdict}</span>{after}</p>"]
    for name in ("problem", "question"):
        parts.append(f"<p><b>{name.capitalize()}:</b> {html.escape(record[name].strip())}</p>")
    parts.append('<ol class="steps">')
    for step, same in itertools.groupby(steps(record)):
        times = len(list(same))
        said = "; ".join([*([step.said] if step.said else []), *([f"{times} times"][: times > 1])])
        kind = f' <span class="said">({html.escape(said)})</span>' if said else ""
        text = html.escape(step.text.strip())
        if step.number is None:
            parts.append(f'<li class="said"><span class="back">{text}.</span>{kind}</li>')
        else:
            shown = f'<span class="wrong">{text}.</span>' if step.said else f"{text}."
            parts.append(f'<li value="{step.number}">{shown}{kind}</li>')
    parts.append(f"</ol><p>{html.escape(_answer(record))}</p>")
    return "\n".join(parts)


def graphs(record: Record, spec: Spec) -> bytes | None:
    """The two graphs of a problem as SVG, with the model's solution below.

    Parameters have the numbers of the steps in which the model computed them.

    Args:
        record: of a solution.
        spec: the class of the run.

    Returns:
        None where the text does not fit the class's room.
    """
    texts = (record["layers"], record["problem"], record["question"])
    wide = dataclasses.replace(spec, max_op=max(spec.max_op, record["op"]), op=None)
    try:
        problem = parse(*texts, record["solution"], wide)
    except ValueError:
        return None
    listed = listing.rows(read(*texts, spec.modulus), record["written"])
    leaves = jax.tree.map(np.asarray, problem)
    return figure.data(figure.draw(leaves, wide, listed), "svg")


def solution(record: Record, *, colour: bool) -> str:
    """A problem and its solution as text.

    Each step that stands has its number. What was taken back is marked `<`, with the kind of
    mistake; the first wrong step is marked `x`, with its reason.
    """

    def painted(text: str, what: str) -> str:
        return f"\033[{_CODES[what]}m{text}\033[0m" if colour else text

    verdict, after = _verdict(record)
    lines = [f"op {record['op']} (cell {record['cell']}): {painted(verdict, verdict)}{after}"]
    for head, text in (("Problem", record["problem"]), ("Question", record["question"])):
        lines += _wrapped(f"{head}: ", text.strip())
    lines.append("Solution:")
    for step, same in itertools.groupby(steps(record)):
        times = len(list(same))
        more = f" ({times} times)" if times > 1 else ""
        said = f"{step.text}.  ({step.said})" if step.said else f"{step.text}."
        if step.number is None:
            lines += _wrapped("   < ", painted(said + more, "back"))
        elif step.said:
            lines += _wrapped(f" x{step.number:2} ", painted(said + more, "wrong"))
        else:
            lines += _wrapped(f"  {step.number:2} ", said + more)
    answer = _answer(record)
    lines.append(answer if record["correct"] else painted(answer, "wrong"))
    if "answers" in record:
        given = [(one or "none").strip() for one in record["answers"]]
        lines += _wrapped("All answers: ", ", ".join(given))
    return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)) or [
        head.rstrip()
    ]
