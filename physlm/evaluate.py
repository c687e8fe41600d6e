"""Accuracy by cell: fresh problems are decoded greedily and every solution is judged whole."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax.numpy as jnp
import numpy as np

from data_gen.spec import Spec
from data_gen.text.answers import judge_many, split
from data_gen.text.judge import Verdict
from data_gen.windows.tokenizer import tokenizer
from physlm import cells as cells_lib
from physlm import decode
from physlm.cells import Cell, EvalConfig, TestSet
from physlm.metrics import wilson_interval
from physlm.model import ModelConfig, Params
from physlm.progress import Reporter


def _batches(tests: TestSet, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, prompts and lengths of equal shapes; the last batch repeats its last row."""
    count = len(tests.lengths_N)
    # One width for all batches of a cell: one compilation.
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        yield rows, tests.prompts_NxP[rows], tests.lengths_N[rows]


def evaluate(
    params: Params,
    *,
    model: ModelConfig,
    spec: Spec,
    config: EvalConfig,
    progress: Callable[[str, int, str], AbstractContextManager[Reporter]],
    keep: Callable[[list[dict[str, Any]], list[Verdict]], None] | None = None,
) -> list[dict[str, Any]]:
    """Decodes and judges every cell.

    Args:
      params: of the model.
      model: its configuration.
      spec: the class that it was trained on; tests are of the other templates.
      config: what to test on.
      progress: makes a progress display of (title, total, unit).
      keep: takes each cell's problems with what was written, and the verdicts.

    Returns:
      a dictionary per cell of `test_sets`: cell, op, n, accuracy (whole solutions, in 0..1),
      answer_accuracy, ci_low and ci_high (95% Wilson interval of accuracy), retries and unnecessary
      (steps, a problem); held_out and shared, dictionaries of n and accuracy (None where n is 0) of
      the problems whose templates training never shows and of the others (`Spec.unsplit_op`); and
      distinct, a dictionary of how many different problems (prompts) and templates the n are.
    """
    sets = cells_lib.test_sets(spec, config, model.window, progress)
    spec = cells_lib.test_spec(spec, config)
    # Prompts of all cells are padded alike, to a multiple that changes little between seeds.
    width = max(tests.prompts_NxP.shape[1] for _, tests in sets)
    width = -(-width // 32) * 32
    total = sum(len(tests.lengths_N) for _, tests in sets)
    end = tokenizer(spec).end
    rows_done, found = 0, []
    with progress("evaluate", total, "problem") as shown:
        for cell, tests in sets:

            def done(count: int, before: int = rows_done) -> None:
                shown.update(before + count)

            written_NxM = written(
                params, tests, model=model, config=config, end=end, width=width, done=done
            )
            rows_done += len(written_NxM)
            judged = judge_many(tests.records, written_NxM, tokenizer(spec), spec.modulus)
            found.append(_summary(cell, judged, tests))
            if keep is not None:
                keep(_answered(cell, tests.records, written_NxM, judged, spec), judged)
    return found


def written(
    params: Params,
    tests: TestSet,
    *,
    model: ModelConfig,
    config: EvalConfig,
    end: int,
    width: int | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """What a model writes after the prompts of a cell, int32[N, max_new_tokens].

    Args:
      params: of the model.
      tests: the cell's problems.
      model: its configuration.
      config: how many problems at once, and how many tokens at most.
      end: the id of the marker that ends a text.
      width: to pad prompts to.
      done: told how many problems are done.
    """
    count, most = tests.prompts_NxP.shape
    width = most if width is None else width
    written_NxM = np.zeros((count, config.max_new_tokens), np.int32)
    for rows, prompts, lengths in _batches(tests, config.batch):
        prompts = np.pad(prompts, ((0, 0), (0, width - most)), constant_values=end)
        written_NxM[rows] = np.asarray(
            decode.greedy(
                model,
                params,
                jnp.asarray(prompts),
                jnp.asarray(lengths),
                max_new_tokens=config.max_new_tokens,
                stop=end,
            )
        )
        done(int(rows.max()) + 1)
    return written_NxM


def _answered(
    cell: Cell,
    problems: list[dict[str, Any]],
    written_NxM: np.ndarray,
    judged: list[Verdict],
    spec: Spec,
) -> list[dict[str, Any]]:
    """The records of a cell's problems, each with the model's solution and its verdict."""
    table, found = tokenizer(spec), []
    for record, ids, verdict in zip(problems, written_NxM, judged, strict=True):
        written, answer = split(ids, table)
        said = {
            "written": written,
            "written_answer": answer,
            "correct": verdict.correct,
            "reason": verdict.reason,
            "first_wrong_step": verdict.first_wrong_step,
            "kind": verdict.kind,
            "retries": verdict.retries,
            "unnecessary": verdict.unnecessary,
            "mended": [mistake._asdict() for mistake in verdict.mended],
        }
        found.append({"cell": cell.name, **record, **said})
    return found


def _summary(cell: Cell, judged: list[Verdict], tests: TestSet) -> dict[str, Any]:
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
    }


def _share(right_N: np.ndarray) -> dict[str, Any]:
    """How many problems there are and which share of them is right."""
    count = len(right_N)
    return {"n": count, "accuracy": float(right_N.mean()) if count else None}
