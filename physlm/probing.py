"""Evaluates probes, on the test problems of every cell and on a model's own steps.

A probe is asked about prefixes of given solutions, as in its training. A probe of the task
`can_next` is also asked about each step of the probed model's own solutions: whether what the step
names could be computed, given the text before it. That is what it does as a detector.
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.windows import questions
from physlm import cells as cells_lib
from physlm import detection, probe
from physlm import evaluate as evaluate_lib
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
      probed: of the model without the probe, if its own solutions are asked about too, or None.
      model: its configuration.
      spec: the class that it was trained on; tests have other templates.
      mistakes: in the solutions whose prefixes are asked about.
      asked: the task, and how many questions a problem.
      config: the problems.
      progress: makes a progress display of (title, total, unit).

    Returns:
      a dictionary per cell, as `physlm.evaluate.evaluate` gives, of questions in place of problems.
      Its `probe` is the dictionary of `Answered.summary`, with that of `_own` under `own`.
    """
    sets = cells_lib.test_sets(spec, config, model.window, progress)
    tested = cells_lib.test_spec(spec, config)
    found = []
    with progress("probe", len(sets), "cell") as shown:
        for number, (cell, tests) in enumerate(sets):
            answered = _answers(params, cell, tests, model, tested, mistakes, asked, config)
            summary = answered.summary()
            if probed is not None and asked.task == "can_next":
                written = evaluate_lib.solved(
                    probed, cell, tests, model=model, spec=tested, config=config
                )
                detect = probe.detector(model, params)
                summary["own"] = _own(detect, tests, written.tokens_NxM, tested, config.batch)
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
    for rows in detection.batches(len(tests.index_N), config.batch):
        part = {name: value[rows] for name, value in batch.items()}
        shares.append(np.asarray(probe.probabilities(model, params, part)))
    share_NxQxC = np.concatenate(shares)[: len(tests.index_N)]
    return Answered(right_NxQ[asks_NxQ], share_NxQxC[asks_NxQ])


def _own(
    detect: Detector, tests: TestSet, written_NxM: np.ndarray, spec: Spec, batch: int
) -> dict[str, Any]:
    """A detector's accuracy on a model's own steps, up to the first wrong one.

    Returns:
      n steps, and the accuracy on them; false_alarms, the share of right steps that it calls wrong;
      too_early, how many first wrong steps name what cannot be computed next; and caught, the share
      of those that it calls wrong (None where there are none).
    """
    by_row = [
        detection.steps(record, ids, spec, upto_wrong=True)
        for record, ids in zip(tests.records, written_NxM, strict=True)
    ]
    steps = [step for found in by_row for step in found]
    if not steps:
        return {"n": 0, "accuracy": None, "false_alarms": None, "too_early": 0, "caught": None}
    shares = detection.shares(detect, tests, written_NxM, by_row, spec, batch)
    said_S = np.concatenate(shares) >= 0.5
    can_S = np.array([step.can for step in steps])
    early_S = np.array([step.wrong and not step.can for step in steps])
    return {
        "n": len(steps),
        "accuracy": float((said_S == can_S).mean()),
        "false_alarms": float((~said_S[can_S]).mean()) if can_S.any() else None,
        "too_early": int(early_S.sum()),
        "caught": float((~said_S[early_S]).mean()) if early_S.any() else None,
    }
