"""A detector's verdicts on the steps of solutions that a model has written.

Names as in `physlm.branches`, and N: solutions, M: tokens of a solution, S: steps of one.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.solutions.grammar import STOP
from data_gen.spec import Spec
from data_gen.text.answers import split
from data_gen.text.judge import defined_in, judge, named_in, split_sentences, standing_places
from data_gen.text.parser import slot_names
from data_gen.text.reader import Facts, read
from data_gen.windows import questions
from data_gen.windows.table import Tokenizer
from data_gen.windows.tokenizer import tokenizer
from physlm.cells import TestSet
from physlm.probe import Detector


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a solution: a sentence that names a parameter and is not taken back."""

    cut: int  # tokens of what was written before it
    slot: int
    can: bool  # what it names can be computed next
    wrong: bool  # it is the first wrong step


def steps(record: dict[str, Any], ids: np.ndarray, spec: Spec, *, upto_wrong: bool) -> list[Step]:
    """The steps of a solution.

    Args:
      record: its problem, as `data_gen.text.records` gives it.
      ids: its tokens, answer and end included.
      spec: the class.
      upto_wrong: leave out what comes after the first wrong step.
    """
    table = tokenizer(spec)
    facts = read(record["layers"], record["problem"], record["question"], spec.modulus)
    text, answer = split(ids, table)
    verdict = judge(facts, text, answer or "")
    slots = {name: slot for slot, name in slot_names(record["layers"], spec).items()}
    sentences, starts = split_sentences(text), _starts(text, ids, table)
    done: set[str] = set()
    found = []
    for number, place in enumerate(standing_places(text)):
        sentence = sentences[place]
        named = named_in(sentence)
        wrong = number == verdict.first_wrong_step
        if named in slots and named in facts.needs:
            can = facts.needs[named] <= done and named not in done
            found.append(Step(starts[place], slots[named], can, wrong))
        if wrong and upto_wrong:
            break
        if defined := defined_in(sentence):
            done.add(defined[0])
    return found


def _starts(text: str, ids: np.ndarray, table: Tokenizer) -> list[int]:
    """For each sentence of what was written, how many tokens come before it."""
    ends = np.cumsum([len(table.decode(np.array([i]))) for i in ids])
    at, found = len(text) - len(text.lstrip()), []
    for sentence in split_sentences(text):
        found.append(int(np.searchsorted(ends, at, side="right")))
        at += len(sentence) + len(STOP) + 1
    return found


def shares(
    detect: Detector,
    tests: TestSet,
    written_NxM: np.ndarray,
    by_row: Sequence[Sequence[Step]],
    spec: Spec,
    batch: int,
) -> list[np.ndarray]:
    """The probability of each step of each solution, by a detector, that it can come next.

    Args:
      detect: the detector.
      tests: the problems.
      written_NxM: int32, a solution of each.
      by_row: its steps.
      spec: the class.
      batch: solutions at once.
    """
    table = tokenizer(spec)
    asked_NxPxA, ends_NxP = map(np.asarray, _names(tests.problems_N, spec=spec))
    # As wide as the longest prefix, and a multiple that changes little.
    longest = max(
        length + max((step.cut for step in found), default=0)
        for length, found in zip(tests.lengths_N, by_row, strict=True)
    )
    width, most = -(-int(longest) // 32) * 32, max(1, *map(len, by_row))
    said: list[np.ndarray] = []
    for rows in batches(len(by_row), batch):
        texts = np.full((len(rows), width), table.end, np.int32)
        cuts, slots = (np.zeros((len(rows), most), np.int32) for _ in range(2))
        for place, row in enumerate(rows):
            length, found = tests.lengths_N[row], by_row[row]
            text = np.concatenate([tests.prompts_NxP[row, :length], written_NxM[row]])[:width]
            texts[place, : len(text)] = text
            # Padding: where there are fewer steps, the question stands at the end of the prompt.
            cuts[place] = length
            cuts[place, : len(found)] = [length + step.cut for step in found]
            slots[place, : len(found)] = [step.slot for step in found]
        yes_RxQ = detect(
            texts, cuts, asked_NxPxA[rows[:, None], slots], ends_NxP[rows[:, None], slots]
        )
        for place, row in enumerate(rows[: len(by_row) - len(said)]):
            said.append(yes_RxQ[place, : len(by_row[row])])
    return said


def trust(
    detect: Detector | None, tests: TestSet, written_NxM: np.ndarray, spec: Spec, batch: int
) -> np.ndarray:
    """float64 [N]: the probability of each solution that none of its steps comes too early.

    It is the product of the detector's probabilities for the steps; 0 where there is no step.

    Args:
      detect: the detector; None is the perfect one, which knows the problem.
      tests, written_NxM, spec, batch: as for `shares`.
    """
    by_row = [
        steps(record, ids, spec, upto_wrong=False)
        for record, ids in zip(tests.records, written_NxM, strict=True)
    ]
    if detect is None:
        return np.array([float(bool(found) and all(s.can for s in found)) for found in by_row])
    said = shares(detect, tests, written_NxM, by_row, spec, batch)
    return np.array([float(np.prod(yes, dtype=np.float64)) if len(yes) else 0.0 for yes in said])


def batches(count: int, batch: int) -> list[np.ndarray]:
    """Batches of equal size; the last one is padded with copies of the last row."""
    starts = range(0, count, batch)
    return [np.minimum(np.arange(start, start + batch), count - 1) for start in starts]


@functools.partial(jax.jit, static_argnames="spec")
def _names(problems_N: Problem, *, spec: Spec) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda problem: questions.names(problem, spec))(problems_N)


def perfect(facts: Sequence[Facts], table: Tokenizer) -> Detector:
    """The detector that reads the problem: 1 where what is named can be computed next, else 0.

    Args:
      facts: of the problem of each row that it will be given.
      table: what tokens stand for.
    """

    def detect(
        tokens_BxT: np.ndarray,
        cuts_BxQ: np.ndarray,
        names_BxQxA: np.ndarray,
        ends_BxQ: np.ndarray,
    ) -> np.ndarray:
        found_BxQ = np.zeros(cuts_BxQ.shape, np.float32)
        for row, (known, ids) in enumerate(zip(facts, tokens_BxT, strict=True)):
            begin = int(np.flatnonzero(ids == table.solution)[0]) + 1
            for place, cut in enumerate(cuts_BxQ[row]):
                text = table.decode(ids[begin:cut])
                sentences = split_sentences(text)
                standing = [sentences[at] for at in standing_places(text)]
                done = {defined[0] for one in standing if (defined := defined_in(one))}
                name = names_BxQxA[row, place, 1 : ends_BxQ[row, place] - 1]
                named = table.decode(name).strip()
                can = named in known.needs and known.needs[named] <= done and named not in done
                found_BxQ[row, place] = can
        return found_BxQ

    return detect
