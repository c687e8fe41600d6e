"""Accuracy by cell: fresh problems are decoded greedily and every solution is judged whole."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import keys, settings
from data_gen.keys import Purpose, Stage
from data_gen.problems import structure
from data_gen.problems.problem import Problem
from data_gen.problems.template import Template, templates
from data_gen.solutions.document import Document
from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.spec import Spec
from data_gen.text import records
from data_gen.text.answers import judge_many, split
from data_gen.text.judge import Verdict
from data_gen.windows import stream
from data_gen.windows.tokenizer import tokenizer
from physlm import decode
from physlm.metrics import wilson_interval
from physlm.model import ModelConfig, Params
from physlm.progress import Reporter

# Rounds of drawing after which a cell makes do with the problems that fit the window.
_ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What a model is tested on. It decides the numbers of an evaluation, and no run's weights.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    problems: int = settings.whole(
        4096,
        "Problems of a cell. Those whose error-free document exceeds the training window are left "
        "out (Part 2.2, Appendix) and others drawn in their place.",
        low=1,
        of_member=True,
    )
    batch: int = settings.whole(
        512, "Prompts decoded at once.", low=1, decides=False, of_member=True
    )
    beyond: tuple[int, ...] = settings.wholes(
        (20, 21, 22, 23),
        "Numbers of operations past the training cap (data.max_op), a cell each.",
        low=1,
        of_member=True,
    )
    within: tuple[int, ...] = settings.wholes(
        (),
        "Numbers of operations up to the training cap (data.max_op), a cell each beside the cap's "
        "own, which is always there. One that has no test problem, as may be where a small class "
        "has few templates, gets no cell.",
        low=1,
        of_member=True,
        added=True,
    )
    max_new_tokens: int = settings.whole(
        1280,
        "Tokens at which decoding stops; a solution that has not ended by then is wrong. The paper "
        "generates up to 2048 tokens, up to a window of which are the problem's.",
        low=1,
        of_member=True,
    )
    checkpoint: str = settings.choice(
        "final",
        "Which model of a run a study judges: that after the last step, or that of the checkpoint "
        "with the lowest recent loss (best). The paper takes the best in one place and the last in "
        "another.",
        ("final", "best"),
        of_member=True,
        added=True,
    )
    seed: int = settings.whole(
        0,
        "Seed of the problems, one for all runs, so that these are compared on the same ones.",
        high=2**31 - 1,
        of_member=True,
    )

    def __post_init__(self) -> None:
        settings.check(self)


class NoProblemsError(ValueError):
    """A cell has no test problem."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A set of test problems."""

    name: str
    op: int  # the cap, or the one number of operations
    fixed: bool


def cells(spec: Spec, config: EvalConfig) -> list[Cell]:
    """The paper's cells, op up to the cap, at the cap and at each number beyond it; and `within`.

    The first collects all up to the cap, as the class draws them; the others follow by their op,
    those beyond as given.
    """
    inside = sorted({*config.within, spec.max_op})
    fixed = [Cell(str(op), op, True) for op in (*inside, *config.beyond)]
    return [Cell(f"<={spec.max_op}", spec.max_op, False), *fixed]


def test_spec(spec: Spec, config: EvalConfig) -> Spec:
    """The class that all cells are drawn from: the other split, with room for every op.

    Raises:
      ValueError: an op beyond the cap is out of the class's reach, or its letters too few.
    """
    return dataclasses.replace(
        spec, split="test", op=None, max_op=max(spec.max_op, *config.beyond, 1)
    )


@dataclasses.dataclass(frozen=True)
class TestSet:
    """Problems of a cell, ready to be decoded and judged."""

    prompts_NxP: np.ndarray  # int32, padded on the right
    lengths_N: np.ndarray  # int32
    shared_N: np.ndarray  # bool: training on the split "train" may show the problem's template
    template_N: np.ndarray  # uint32: its hash
    index_N: np.ndarray  # int32: the number of its key in the cell
    problems_N: Problem
    records: list[dict[str, Any]]


@functools.partial(jax.jit, static_argnames=("cap", "fixed", "spec"))
def _goals(keys_N: jax.Array, *, cap: int, fixed: bool, spec: Spec) -> structure.Goal:
    if fixed:
        op_N = jnp.full(keys_N.shape, cap, jnp.int32)
        return structure.Goal(op_N, op_N)
    draw = functools.partial(structure.goal_up_to, cap=cap, spec=spec)
    return jax.vmap(lambda key: draw(keys.named(key, Stage.GOAL)))(keys_N)


def test_set(cell: Cell, spec: Spec, config: EvalConfig, window: int) -> TestSet:
    """Draws a cell's problems; problem i is a function of (seed, cell, i) and the spec.

    Args:
      cell: which problems.
      spec: `test_spec` of the class trained on.
      config: how many, and the seed.
      window: in tokens; problems with longer documents are left out.

    Raises:
      NoProblemsError: no problem of the cell is found, or none fits the window.
    """
    root = keys.root(config.seed, Purpose.TESTING)
    root = keys.numbered(root, cell.op if cell.fixed else 0)
    prompts: list[np.ndarray] = []
    sides: list[Template] = []
    drawn: list[tuple[np.ndarray, Problem]] = []
    kept: list[dict[str, Any]] = []
    for turn in range(_ROUNDS):
        indices_N = turn * config.problems + np.arange(config.problems, dtype=np.int32)
        keys_N = keys.all_numbered(root, indices_N)
        goals_N = _goals(keys_N, cap=cell.op, fixed=cell.fixed, spec=spec)
        problems = stream.problems(keys_N, goals_N, spec=spec)
        documents, tokens = _write(keys_N, problems, size=window, spec=spec)
        found = (problems, documents, tokens, templates(problems, spec))
        found = jax.tree.map(np.asarray, found)
        some = found[0].ok.any()
        fits = np.flatnonzero(found[2].length <= window)[: config.problems - len(prompts)]
        problems, documents, tokens, side_N = jax.tree.map(lambda x, fits=fits: x[fits], found)
        lengths = tokens.prompt.tolist()
        prompts += [ids[:n] for ids, n in zip(tokens.tokens_N, lengths, strict=True)]
        sides.append(side_N)
        drawn.append((indices_N[fits], problems))
        kept += records.records(problems, documents, spec)
        # Where no search found any, all have tried long enough; others would find none either.
        if len(prompts) == config.problems or not some:
            break
    if not prompts:
        raise NoProblemsError(
            f"No problem of the cell {cell.name} fits a window of {window} tokens."
        )
    lengths_N = np.array([len(ids) for ids in prompts], np.int32)
    prompts_NxP = np.full((len(prompts), lengths_N.max()), tokenizer(spec).end, np.int32)
    for row, ids in zip(prompts_NxP, prompts, strict=True):
        row[: len(ids)] = ids
    side_N, (index_N, problems_N) = (
        jax.tree.map(lambda *parts: np.concatenate(parts), *found) for found in (sides, drawn)
    )
    return TestSet(prompts_NxP, lengths_N, side_N.shared, side_N.hashed, index_N, problems_N, kept)


def test_sets(
    spec: Spec,
    config: EvalConfig,
    window: int,
    progress: Callable[[str, int, str], AbstractContextManager[Reporter]],
) -> list[tuple[Cell, TestSet]]:
    """The problems of all cells, but for those of `within` that have none.

    Args:
      spec: the class that was trained on. Where that is not the split "train", training may show
        any template of the tests.
      config: what to test on.
      window: in tokens; problems with longer documents are left out.
      progress: makes a progress display of (title, total, unit).

    Raises:
      NoProblemsError: another cell has none.
    """
    todo, drawn_from = cells(spec, config), test_spec(spec, config)
    sets: list[tuple[Cell, TestSet]] = []
    with progress("problems", len(todo), "cell") as shown:
        for number, cell in enumerate(todo):
            try:
                tests = test_set(cell, drawn_from, config, window)
                shared_N = tests.shared_N | (spec.split != "train")
                sets.append((cell, dataclasses.replace(tests, shared_N=shared_N)))
            except NoProblemsError:
                if cell.op >= spec.max_op:
                    raise
            shown.update(number + 1)
    return sets


@functools.partial(jax.jit, static_argnames=("size", "spec"))
def _write(
    keys_N: jax.Array, problems_N: Problem, *, size: int, spec: Spec
) -> tuple[Document, Document]:
    """Error-free documents, in symbols and in tokens."""
    room = tokenizer(spec).symbols(size)
    written = stream.documents(keys_N, problems_N, size=room, spec=spec, mistakes=ERROR_FREE)
    return written, stream.encoded(written, size=size, spec=spec)


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
    sets = test_sets(spec, config, model.window, progress)
    spec = test_spec(spec, config)
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
        "distinct": distinct(tests),
    }


def distinct(tests: TestSet) -> dict[str, int]:
    """How many different problems and templates there are in a cell.

    A class that is small draws the same ones again and again.
    """
    return {
        "problems": len(np.unique(tests.prompts_NxP, axis=0)),
        "templates": len(np.unique(tests.template_N)),
    }


def _share(right_N: np.ndarray) -> dict[str, Any]:
    """How many problems there are and which share of them is right."""
    count = len(right_N)
    return {"n": count, "accuracy": float(right_N.mean()) if count else None}
