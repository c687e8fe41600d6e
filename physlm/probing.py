"""What a probe has learnt: its answers about the problems of every cell, and about a model's steps.

A probe is asked about prefixes of written solutions, as in its training, and, where it tells
whether a parameter can be computed next, about the steps of the probed model's own solutions: after
what stands before each, whether what it names could be computed. That is what a detector is for.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.solutions.grammar import STOP
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.text.answers import split
from data_gen.text.judge import defined_in, judge, named_in, split_sentences, standing_places
from data_gen.text.parser import slot_names
from data_gen.text.reader import Facts, read
from data_gen.windows import questions
from data_gen.windows.table import Tokenizer
from data_gen.windows.tokenizer import tokenizer
from physlm import cells as cells_lib
from physlm import evaluate as evaluate_lib
from physlm import probe
from physlm.adaptation import Params
from physlm.architecture import ModelConfig
from physlm.cells import Cell, EvalConfig, TestSet
from physlm.metrics import auroc, wilson_interval
from physlm.probe import Detector, ProbeConfig
from physlm.progress import Reporter


@dataclasses.dataclass(frozen=True)
class Answered:
    """Answers to N questions.

    Attributes:
      right_N: int, the right answers.
      share_NxC: the probability of each.
    """

    right_N: np.ndarray
    share_NxC: np.ndarray

    def summary(self) -> dict[str, Any]:
        """Accuracy, balanced accuracy (the mean over the right answers there are) and, of
        yes-or-no questions, the area under the ROC curve and the share of yes."""
        correct_N = self.share_NxC.argmax(-1) == self.right_N
        by_answer = [correct_N[self.right_N == answer].mean() for answer in np.unique(self.right_N)]
        found: dict[str, Any] = {
            "n": len(correct_N),
            "accuracy": float(correct_N.mean()),
            "balanced": float(np.mean(by_answer)),
        }
        if self.share_NxC.shape[1] == 2:
            found["auroc"] = auroc(self.share_NxC[:, 1], self.right_N == 1)
            found["yes"] = float((self.right_N == 1).mean())
        return found


def evaluate(
    params: Params,
    probed: Params | None,
    *,
    model: ModelConfig,
    spec: Spec,
    mistakes: Mistakes,
    asked: ProbeConfig,
    config: EvalConfig,
    progress: Callable[[str, int, str], AbstractContextManager[Reporter]],
) -> list[dict[str, Any]]:
    """Asks a probe about the test problems of every cell.

    Args:
      params: of the joined model, with the head.
      probed: of the model as it is without the probe, where its own solutions are asked about too;
        None where they are not.
      model: its configuration.
      spec: the class that it was trained on; tests are of the other templates.
      mistakes: in the solutions that the questions go on from.
      asked: the task, and how many questions a problem.
      config: the problems.
      progress: makes a progress display of (title, total, unit).

    Returns:
      a dictionary per cell, as `physlm.evaluate.evaluate` gives, of questions in place of problems.
      Its `probe` has what `Answered.summary` says, and for `own` what `_own` says.
    """
    sets = cells_lib.test_sets(spec, config, model.window, progress)
    tested = cells_lib.test_spec(spec, config)
    found = []
    with progress("probe", len(sets), "cell") as shown:
        for number, (cell, tests) in enumerate(sets):
            answered = _answers(params, cell, tests, model, tested, mistakes, asked, config)
            summary = answered.summary()
            if probed is not None and asked.task == "can_next":
                written_NxM = evaluate_lib.written(
                    probed, tests, model=model, config=config, end=tokenizer(tested).end
                )
                detect = probe.detector(model, params)
                summary["own"] = _own(detect, tests, written_NxM, tested, config.batch)
            found.append(_row(cell, summary))
            shown.update(number + 1)
    return found


def _row(cell: Cell, summary: dict[str, Any]) -> dict[str, Any]:
    count, right = summary["n"], round(summary["accuracy"] * summary["n"])
    low, high = wilson_interval(right, count)
    return {
        "cell": cell.name,
        "op": cell.op,
        "n": count,
        "accuracy": summary["accuracy"],
        "answer_accuracy": summary["accuracy"],
        "ci_low": low,
        "ci_high": high,
        "retries": 0.0,
        "unnecessary": 0.0,
        "probe": summary,
    }


def _answers(
    params: Params,
    cell: Cell,
    tests: TestSet,
    model: ModelConfig,
    spec: Spec,
    mistakes: Mistakes,
    asked: ProbeConfig,
    config: EvalConfig,
) -> Answered:
    made = questions.questions(
        cells_lib.keys_of(cell, config, tests.index_N),
        jax.tree.map(jnp.asarray, tests.problems_N),
        size=model.window,
        task=asked.task,
        count=asked.questions,
        spec=spec,
        mistakes=mistakes,
    )
    batch = {name: np.asarray(value) for name, value in questions.in_batch(made).items()}
    asks_NxQ, right_NxQ = batch.pop("weights") > 0, batch.pop("answers")
    shares = []
    for rows in _rows(len(tests.index_N), config.batch):
        part = {name: value[rows] for name, value in batch.items()}
        shares.append(np.asarray(probe.probabilities(model, params, part)))
    share_NxQxC = np.concatenate(shares)[: len(tests.index_N)]
    return Answered(right_NxQ[asks_NxQ], share_NxQxC[asks_NxQ])


def _rows(count: int, batch: int) -> list[np.ndarray]:
    """Rows of equal numbers; the last ones repeat the last row."""
    starts = range(0, count, batch)
    return [np.minimum(np.arange(start, start + batch), count - 1) for start in starts]


@dataclasses.dataclass(frozen=True)
class _Step:
    """A sentence of a model's solution that is asked about."""

    cut: int  # tokens of what was written before it
    slot: int
    can: bool  # what it names can be computed next
    wrong: bool  # it is the first wrong step


def _own(
    detect: Detector, tests: TestSet, written_NxM: np.ndarray, spec: Spec, batch: int
) -> dict[str, Any]:
    """How a detector does on a model's own steps, up to the first wrong one.

    Returns:
      n steps and the accuracy on them; of the right ones the share called wrong (false_alarms);
      and how many first wrong steps name what cannot be computed next (too_early), and which share
      of those is called so (caught; None where there are none).
    """
    table = tokenizer(spec)
    by_row = [
        _steps(record, ids, table, spec)
        for record, ids in zip(tests.records, written_NxM, strict=True)
    ]
    steps = [step for found in by_row for step in found]
    if not steps:
        return {"n": 0, "accuracy": None, "false_alarms": None, "too_early": 0, "caught": None}
    asked_NxPxA, ends_NxP = map(np.asarray, _names(tests.problems_N, spec=spec))
    # As wide as the longest prefix, and a multiple that changes little.
    longest = max(
        length + max((step.cut for step in found), default=0)
        for length, found in zip(tests.lengths_N, by_row, strict=True)
    )
    width, most = -(-int(longest) // 32) * 32, max(map(len, by_row))
    said: list[np.ndarray] = []
    for rows in _rows(len(by_row), batch):
        texts = np.full((len(rows), width), table.end, np.int32)
        cuts, slots = (np.zeros((len(rows), most), np.int32) for _ in range(2))
        for place, row in enumerate(rows):
            length, found = tests.lengths_N[row], by_row[row]
            text = np.concatenate([tests.prompts_NxP[row, :length], written_NxM[row]])[:width]
            texts[place, : len(text)] = text
            # Places that are not asked about repeat the prompt's end.
            cuts[place] = length
            cuts[place, : len(found)] = [length + step.cut for step in found]
            slots[place, : len(found)] = [step.slot for step in found]
        yes_RxQ = detect(
            texts, cuts, asked_NxPxA[rows[:, None], slots], ends_NxP[rows[:, None], slots]
        )
        for place, row in enumerate(rows[: len(by_row) - len(said)]):
            said.append(yes_RxQ[place, : len(by_row[row])])
    said_S = np.concatenate(said) >= 0.5
    can_S = np.array([step.can for step in steps])
    early_S = np.array([step.wrong and not step.can for step in steps])
    return {
        "n": len(steps),
        "accuracy": float((said_S == can_S).mean()),
        "false_alarms": float((~said_S[can_S]).mean()) if can_S.any() else None,
        "too_early": int(early_S.sum()),
        "caught": float((~said_S[early_S]).mean()) if early_S.any() else None,
    }


@functools.partial(jax.jit, static_argnames="spec")
def _names(problems_N: Problem, *, spec: Spec) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda problem: questions.names(problem, spec))(problems_N)


def _steps(record: dict[str, Any], ids: np.ndarray, table: Tokenizer, spec: Spec) -> list[_Step]:
    """The sentences of a solution that stand and name a parameter, up to the first wrong one."""
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
            found.append(_Step(starts[place], slots[named], can, wrong))
        if wrong:
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
