"""Accuracy by cell: decodes solutions of test problems, and judges every step of them."""

import collections
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import numpy as np

from data_gen import keys
from data_gen.keys import Purpose
from data_gen.spec import Spec
from data_gen.text.answers import judge_many, split
from data_gen.text.judge import Verdict
from data_gen.windows.tokenizer import tokenizer
from physlm import cells as cells_lib
from physlm import detection, probe
from physlm import model as model_lib
from physlm.architecture import ModelConfig
from physlm.cells import Cell, EvalConfig, TestSet
from physlm.decoding import detectors, engine
from physlm.decoding.engine import Written
from physlm.metrics import wilson_interval
from physlm.model import Params
from physlm.progress import Reporter


class Solutions(NamedTuple):
    """A model's solutions of the N problems of a cell.

    Attributes:
      tokens_NxM: int32, the selected solution of each problem; after its end there is only padding.
      written: all solutions, and what they took.
      chosen_N: int, the index of a problem's selected solution.
      answers: of each problem, the answers of all solutions; None where there is none.
    """

    tokens_NxM: np.ndarray
    written: Written
    chosen_N: np.ndarray
    answers: list[list[str | None]]

    def of_chosen(self, x_NxS: np.ndarray) -> np.ndarray:
        """The values of the selected solutions, [N]."""
        return np.take_along_axis(x_NxS, self.chosen_N[:, None], 1)[:, 0]


def evaluate(
    params: Params,
    *,
    model: ModelConfig,
    spec: Spec,
    config: EvalConfig,
    progress: Callable[[str, int, str], AbstractContextManager[Reporter]],
    probed: Params | None = None,
    keep: Callable[[list[dict[str, Any]], list[Verdict]], None] | None = None,
) -> list[dict[str, Any]]:
    """Decodes and judges every cell.

    Args:
      params: of the model.
      model: its configuration.
      spec: the class that it was trained on; tests have other templates.
      config: what to test on, and how.
      progress: makes a progress display of (title, total, unit).
      probed: the model joined with the probe that decoding asks, where it asks one.
      keep: called for each cell with its problems, each with the solution, and the verdicts.

    Returns:
      a dictionary per cell of `test_sets`: cell, op, n, accuracy (whole solutions, in 0..1),
      answer_accuracy, ci_low and ci_high (95% Wilson interval of accuracy), retries and unnecessary
      (steps, a problem); held_out and shared, dictionaries of n and accuracy (None where n is 0) of
      the problems whose templates training never shows and of the others (`Spec.unsplit_op`);
      distinct, a dictionary of the numbers of different problems (prompts) and templates among the
      n; and account, the dictionary of `_account`.
    """
    sets = cells_lib.test_sets(spec, config, model.window, progress)
    spec = cells_lib.test_spec(spec, config)
    # Prompts of all cells are padded alike, to a multiple that changes little between seeds.
    width = max(tests.prompts_NxP.shape[1] for _, tests in sets)
    width = -(-width // 32) * 32
    total = sum(len(tests.lengths_N) for _, tests in sets)
    rows_done, found = 0, []
    with progress("evaluate", total, "problem") as shown:
        for cell, tests in sets:

            def done(count: int, before: int = rows_done) -> None:
                shown.update(before + count)

            written = solved(
                params,
                cell,
                tests,
                model=model,
                spec=spec,
                config=config,
                probed=probed,
                width=width,
                done=done,
            )
            rows_done += len(tests.lengths_N)
            judged = judge_many(tests.records, written.tokens_NxM, tokenizer(spec), spec.modulus)
            found.append(_summary(cell, judged, tests, written))
            if keep is not None:
                keep(_answered(cell, tests.records, written, judged, spec), judged)
    return found


def solved(
    params: Params,
    cell: Cell,
    tests: TestSet,
    *,
    model: ModelConfig,
    spec: Spec,
    config: EvalConfig,
    probed: Params | None = None,
    width: int = 0,
    done: Callable[[int], None] = lambda _: None,
) -> Solutions:
    """Decodes a model's solutions of a cell.

    Args:
      params: of the model.
      cell: which problems these are.
      tests: the problems.
      model: its configuration.
      spec: `test_spec` of the class.
      config: how tokens are chosen, how many problems at once, and how many tokens at most.
      probed: as for `evaluate`.
      width: to pad prompts to, at least.
      done: told how many problems are done.
    """
    end = tokenizer(spec).end
    recipe = config.recipe
    pad = ((0, 0), (0, max(0, width - tests.prompts_NxP.shape[1])))
    resources_N: Any = ()
    if recipe.asks == "perfect":
        resources_N = detectors.known(jax.tree.map(np.asarray, tests.problems_N), spec=spec)
    written = engine.decode(
        model,
        params,
        np.pad(tests.prompts_NxP, pad, constant_values=end),
        tests.lengths_N,
        strategy=recipe.bound(spec, model),
        max_new_tokens=config.max_new_tokens,
        stop=end,
        key=keys.numbered(keys.root(config.seed, Purpose.DECODING), cell.number),
        rows=config.batch,
        ids_N=tests.index_N,
        resources=_read(model, probed),
        resources_N=resources_N,
        done=done,
    )
    return _chosen(written, tests, model, spec, config, probed)


def _read(config: ModelConfig, probed: Params | None) -> Any:
    return () if probed is None else model_lib.unrolled(config, probed)


def _chosen(
    written: Written,
    tests: TestSet,
    model: ModelConfig,
    spec: Spec,
    config: EvalConfig,
    probed: Params | None,
) -> Solutions:
    """The solutions, with the selected one of each problem."""
    table, recipe = tokenizer(spec), config.recipe
    count, samples = written.score_NxS.shape
    answers = [[split(ids, table)[1] for ids in row] for row in written.tokens_NxSxM]
    chosen_N = np.zeros(count, int)
    if samples > 1:
        trusts: Sequence[np.ndarray | None] = [None] * count
        if recipe.asks:
            detect = None if probed is None else probe.detector(model, probed)
            if detect is not None:
                written = written._replace(passes_NxS=written.passes_NxS + 1)
            trust = [
                detection.trust(detect, tests, written.tokens_NxSxM[:, n], spec, config.batch)
                for n in range(samples)
            ]
            trusts = list(np.stack(trust, axis=1))
        rows = zip(answers, written.score_NxS, trusts, strict=True)
        chosen_N = np.array([recipe.select(*row) for row in rows])
    tokens_NxM = written.tokens_NxSxM[np.arange(count), chosen_N]
    return Solutions(tokens_NxM, written, chosen_N, answers)


def _answered(
    cell: Cell,
    problems: list[dict[str, Any]],
    solutions: Solutions,
    judged: list[Verdict],
    spec: Spec,
) -> list[dict[str, Any]]:
    """The records of a cell's problems, each with the model's solution and its verdict."""
    table, found = tokenizer(spec), []
    for number, (record, verdict) in enumerate(zip(problems, judged, strict=True)):
        written, answer = split(solutions.tokens_NxM[number], table)
        said: dict[str, Any] = {
            "written": written,
            "written_answer": answer,
            "correct": verdict.correct,
            "reason": verdict.reason,
            "first_wrong_step": verdict.first_wrong_step,
            "kind": verdict.kind,
            "retries": verdict.retries,
            "unnecessary": verdict.unnecessary,
            "mended": [mistake._asdict() for mistake in verdict.mended],
            "tokens": int(solutions.written.spent_NxS[number].sum()),
            "returns": int(solutions.written.returns_NxS[number].sum()),
        }
        if len(solutions.answers[number]) > 1:
            said["answers"] = solutions.answers[number]
        found.append({"cell": cell.name, **record, **said})
    return found


def _summary(
    cell: Cell, judged: list[Verdict], tests: TestSet, solutions: Solutions
) -> dict[str, Any]:
    count = len(judged)
    right_N = np.array([verdict.correct for verdict in judged])
    right = int(right_N.sum())
    low, high = wilson_interval(right, count)
    return {
        "cell": cell.name,
        "op": cell.op,
        "n": count,
        "accuracy": right / count,
        "answer_accuracy": sum(verdict.answer_correct for verdict in judged) / count,
        "ci_low": low,
        "ci_high": high,
        "retries": sum(verdict.retries for verdict in judged) / count,
        "unnecessary": sum(verdict.unnecessary for verdict in judged) / count,
        "held_out": _share(right_N[~tests.shared_N]),
        "shared": _share(right_N[tests.shared_N]),
        "distinct": cells_lib.distinct(tests),
        "account": _account(judged, tests.records, solutions),
    }


def _account(
    judged: Sequence[Verdict], problems: Sequence[dict[str, Any]], solutions: Solutions
) -> dict[str, Any]:
    """Statistics of the solutions: tokens, forward passes, retries, kinds of errors.

    Returns:
      tokens, passes, returns: a problem, summed over all of its solutions. Tokens count all that
        were generated, discarded ones too; passes are forward passes, as if the problem's solutions
        were made one after the other; returns are how often decoding went back. A pass reads all
        that is known at once, of all beams of a solution: its prompt is one pass, every token one,
        every question to a probe during decoding one, and where a probe weights votes one more
        reads the whole solution. Perfect detectors take none.
      capped: of the selected solutions the share that was cut off at the most tokens.
      retries_right, retries_wrong: a solution, in right and in wrong ones (None without any).
      unnecessary_right, operations_right: in right solutions, steps that the query does not need,
        and operations more than the problem takes.
      wrong: how many first wrong steps there are of each kind.
      wrong_step: how many there are at each place, from 0.
    """
    written = solutions.written
    right_N = np.array([verdict.correct for verdict in judged])
    length_N = solutions.of_chosen(written.length_NxS)
    most = written.tokens_NxSxM.shape[-1]
    ended_N = np.array([answers[at] is not None for answers, at in zip(
        solutions.answers, solutions.chosen_N, strict=True)])  # fmt: skip
    retries_N = np.array([verdict.retries for verdict in judged])
    unneeded_N = np.array([verdict.unnecessary for verdict in judged])
    more_N = np.array([v.op - r["op"] for v, r in zip(judged, problems, strict=True)])
    wrong = [verdict for verdict in judged if not verdict.correct]

    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if len(values) else None

    def counts(values: Any) -> dict[str, int]:
        return {str(key): n for key, n in sorted(collections.Counter(values).items())}

    return {
        "tokens": mean(written.spent_NxS.sum(1)),
        "passes": mean(written.passes_NxS.sum(1)),
        "returns": mean(written.returns_NxS.sum(1)),
        "capped": mean((length_N >= most) & ~ended_N),
        "retries_right": mean(retries_N[right_N]),
        "retries_wrong": mean(retries_N[~right_N]),
        "unnecessary_right": mean(unneeded_N[right_N]),
        "operations_right": mean(more_N[right_N]),
        "wrong": counts(verdict.kind for verdict in wrong),
        "wrong_step": counts(verdict.first_wrong_step for verdict in wrong),
    }


def _share(right_N: np.ndarray) -> dict[str, Any]:
    """How many problems there are and which share of them is right."""
    count = len(right_N)
    return {"n": count, "accuracy": float(right_N.mean()) if count else None}
