"""Test sets: cells of fresh problems, by number of operations."""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import device, keys, settings
from data_gen.keys import Purpose, Stage
from data_gen.problems import structure
from data_gen.problems.problem import Problem
from data_gen.problems.template import templates
from data_gen.solutions.document import Document
from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.spec import Spec
from data_gen.text import records
from data_gen.windows import gpt2, stream
from data_gen.windows.tokenizer import tokenizer
from physlm.decoding.recipe import parse
from physlm.decoding.strategy import Recipe
from physlm.progress import Reporter

# Whose tokens the length of a problem is counted in: the model's own, or GPT-2's.
WINDOW_TOKENS = ("own", "gpt2")

# Added to the number of a cell whose questions are others.
_REASKED = 1 << 16

# Rounds of drawing, after which a cell may have fewer problems than asked for.
_ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The test sets and the way of decoding; these never change a run's weights.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    problems: int = settings.whole(
        4096,
        "Problems of a cell. Those whose error-free document exceeds the training window are left "
        "out (Part 2.2, Appendix; see window_tokens) and others drawn in their place.",
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
    reasked: tuple[int, ...] = settings.wholes(
        (),
        "Numbers of operations of problems about which another question is asked than the one they "
        "were made for, a cell each. The paper has 20 for iGSM-med and 28 for iGSM-hard.",
        low=1,
        of_member=True,
        added=True,
    )
    decode: str = settings.text(
        "greedy",
        "How tokens are chosen: greedy, sample, beam or regret, with settings behind a colon, as "
        "sample:temperature=0.8,n=16 or beam:4 (`python -m physlm.experiments.evaluate --help` "
        "says which there are); or a strategy of one's own, package.module.Class.",
        "a strategy",
        of_member=True,
        added=True,
    )
    probe: str = settings.text(
        "",
        "The run whose probe of the task can_next is asked, where decode has one for a detector.",
        of_member=True,
        added=True,
    )
    window_tokens: str = settings.choice(
        "own",
        "Which tokens count where problems that exceed the training window are left out: those "
        "that the model reads (own), or GPT-2's whatever it reads (gpt2), as published. Of 23 "
        "operations the latter leave out half.",
        WINDOW_TOKENS,
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
        "Seed of the problems, and of what decoding draws, one for all runs, so that these are "
        "compared on the same ones.",
        high=2**31 - 1,
        of_member=True,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        for name in ("beyond", "reasked"):
            asked = getattr(self, name)
            if len(set(asked)) < len(asked):
                raise settings.RefusedError(name, asked, "numbers of which none stands there twice")
        if self.batch < (least := getattr(self.recipe, "beams", 1)):
            allowed = f"at least {least}, the rows that work on a problem with {self.decode}"
            raise settings.RefusedError("batch", self.batch, allowed)
        asks = self.recipe.asks
        if (asks == "probe") != bool(self.probe):
            allowed = f"the run of a probe, since the strategy {self.decode} asks one"
            if self.probe:
                allowed = f"empty, since the strategy {self.decode} asks no probe"
            raise settings.RefusedError("probe", self.probe, allowed)

    @property
    def recipe(self) -> Recipe:
        """The parsed strategy of `decode`."""
        return parse(self.decode)


class NoProblemsError(ValueError):
    """A cell has no test problem."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A set of test problems."""

    name: str
    op: int  # the cap, or the one number of operations
    fixed: bool
    reask: bool = False  # another question is asked than the one the problem was made for

    @property
    def number(self) -> int:
        """The number by which a cell's random keys differ from those of other cells."""
        return (self.op if self.fixed else 0) + (_REASKED if self.reask else 0)


def of(spec: Spec, config: EvalConfig) -> list[Cell]:
    """The cells: all problems up to the cap, those of each number of operations, and re-asked ones.

    The first has all up to the cap, as the class draws them. Then come single numbers of
    operations: those of `within` and the cap itself in order, and those of `beyond` as given. Last
    are those with another question, named as `20re`.
    """
    inside = sorted({*config.within, spec.max_op})
    fixed = [Cell(str(op), op, True) for op in (*inside, *config.beyond)]
    reasked = [Cell(f"{op}re", op, True, reask=True) for op in config.reasked]
    return [Cell(f"<={spec.max_op}", spec.max_op, False), *fixed, *reasked]


def test_spec(spec: Spec, config: EvalConfig) -> Spec:
    """The class that all cells are drawn from: the test split, with a cap that admits every cell.

    Raises:
      ValueError: an op beyond the cap is out of the class's reach, or its letters too few.
    """
    return dataclasses.replace(
        spec,
        split="test",
        op=None,
        max_op=max(spec.max_op, *config.beyond, *config.reasked, 1),
    )


@dataclasses.dataclass(frozen=True)
class TestSet:
    """The problems of a cell, with prompts to decode and facts to judge by."""

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


def keys_of(cell: Cell, config: EvalConfig, indices_N: np.ndarray) -> jax.Array:
    """The keys of a cell's problems of these numbers."""
    root = keys.root(config.seed, Purpose.TESTING)
    return keys.all_numbered(keys.numbered(root, cell.number), indices_N)


def test_set(cell: Cell, spec: Spec, config: EvalConfig, window: int) -> TestSet:
    """Draws a cell's problems; problem i is a function of (seed, cell, i) and the spec.

    Args:
      cell: which problems.
      spec: `test_spec` of the class trained on.
      config: how many, and the seed.
      window: in tokens, the model's or GPT-2's (`window_tokens`); problems with longer documents
        are left out.

    Raises:
      NoProblemsError: no problem of the cell is found, or none fits the window.
    """
    spec = dataclasses.replace(spec, reask=cell.reask)
    kept: list[TestSet] = []
    left = config.problems
    for turn in range(_ROUNDS):
        indices_N = turn * config.problems + np.arange(config.problems, dtype=np.int32)
        keys_N = keys_of(cell, config, indices_N)
        goals_N = _goals(keys_N, cap=cell.op, fixed=cell.fixed, spec=spec)
        found, some = fitting(
            keys_N,
            indices_N,
            spec,
            window,
            goals_N=goals_N,
            most=left,
            counted=config.window_tokens,
        )
        kept.append(found)
        left -= len(found.lengths_N)
        # If no search of a round found a problem, further rounds would find none either.
        if not (left and some):
            break
    if left == config.problems:
        raise NoProblemsError(
            f"No problem of the cell {cell.name} fits a window of {window} tokens."
        )
    width = max(found.prompts_NxP.shape[1] for found in kept)
    end = tokenizer(spec).end

    def joined(name: str) -> Any:
        parts = [getattr(found, name) for found in kept]
        return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)

    return TestSet(
        prompts_NxP=np.concatenate([_padded(found.prompts_NxP, width, end) for found in kept]),
        lengths_N=joined("lengths_N"),
        shared_N=joined("shared_N"),
        template_N=joined("template_N"),
        index_N=joined("index_N"),
        problems_N=joined("problems_N"),
        records=[record for found in kept for record in found.records],
    )


def fitting(
    keys_N: jax.Array,
    indices_N: np.ndarray,
    spec: Spec,
    window: int,
    *,
    goals_N: structure.Goal | None = None,
    most: int | None = None,
    counted: str = WINDOW_TOKENS[0],
) -> tuple[TestSet, bool]:
    """The problems of some keys whose error-free documents fit a window.

    Args:
      keys_N: their keys.
      indices_N: int32, the numbers of these.
      spec: the class.
      window: in tokens.
      goals_N: how many operations each is to have; by default as the class draws them.
      most: how many are kept, the first ones; None keeps all.
      counted: whose tokens the window is counted in, one of `WINDOW_TOKENS`.

    Returns:
      these problems, and whether any was found, fitting or not.
    """
    problems = stream.problems(keys_N, goals_N, spec=spec)
    documents, tokens = _write(keys_N, problems, size=window, spec=spec)
    found = (problems, documents, tokens, templates(problems, spec))
    found = jax.tree.map(np.asarray, found)
    some = bool(found[0].ok.any())
    fits_N = found[2].length <= window
    if counted == "gpt2" and spec.tokenizer != "gpt2":
        fits_N &= _gpt2_length(found[1], spec) <= window
    fits = np.flatnonzero(fits_N)[:most]
    problems, documents, tokens, side_N = jax.tree.map(lambda x: x[fits], found)
    lengths_N = tokens.prompt.astype(np.int32)
    width = int(lengths_N.max(initial=0))
    prompts_NxP = np.full((len(fits), width), tokenizer(spec).end, np.int32)
    for row, ids, length in zip(prompts_NxP, tokens.tokens_N, lengths_N, strict=True):
        row[:length] = ids[:length]
    made = records.records(problems, documents, spec)
    sides = (side_N.shared, side_N.hashed)
    return TestSet(prompts_NxP, lengths_N, *sides, indices_N[fits], problems, made), some


def _gpt2_length(documents_N: Document, spec: Spec) -> np.ndarray:
    """How many of GPT-2's tokens documents of symbols take, int [N]."""
    live_NxS = np.arange(documents_N.tokens_N.shape[-1]) < documents_N.length[:, None]
    length_NxS = gpt2.lengths(vocabulary(spec))[documents_N.tokens_N]
    return np.where(live_NxS, length_NxS, 0).sum(-1)


def _padded(rows_NxP: np.ndarray, width: int, end: int) -> np.ndarray:
    return np.pad(rows_NxP, ((0, 0), (0, width - rows_NxP.shape[1])), constant_values=end)


# The sets drawn last, as a sweep judges run after run on the same problems. Drawing problems of few
# operations, which have few templates, takes as long as solving them.
_drawn: dict[Any, list[tuple[Cell, TestSet]]] = {}


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
    todo, drawn_from = of(spec, config), test_spec(spec, config)
    counted = config.window_tokens
    asked = (spec, drawn_from, tuple(todo), config.problems, config.seed, window, counted)
    if asked in _drawn:
        return list(_drawn[asked])
    found: dict[Cell, TestSet] = {}
    with progress("problems", len(todo), "cell") as shown, jax.default_device(device.of_data()):
        # Problems of few operations take longest, since few of their templates are on the side of
        # tests. Drawn first, they do not distort the estimate of the time left.
        for number, cell in enumerate(sorted(todo, key=lambda cell: cell.op)):
            try:
                tests = test_set(cell, drawn_from, config, window)
                shared_N = tests.shared_N | (spec.split != "train")
                found[cell] = dataclasses.replace(tests, shared_N=shared_N)
            except NoProblemsError:
                if cell.op >= spec.max_op:
                    raise
            shown.update(number + 1)
    sets = [(cell, found[cell]) for cell in todo if cell in found]
    _drawn.clear()
    _drawn[asked] = sets
    return list(sets)


@functools.partial(jax.jit, static_argnames=("size", "spec"))
def _write(
    keys_N: jax.Array, problems_N: Problem, *, size: int, spec: Spec
) -> tuple[Document, Document]:
    """Error-free documents, in symbols and in tokens."""
    room = tokenizer(spec).symbols(size)
    written = stream.documents(keys_N, problems_N, size=room, spec=spec, mistakes=ERROR_FREE)
    return written, stream.encoded(written, size=size, spec=spec)


def distinct(tests: TestSet) -> dict[str, int]:
    """How many different problems and templates there are in a cell.

    A small class draws the same ones again and again.
    """
    return {
        "problems": len(np.unique(tests.prompts_NxP, axis=0)),
        "templates": len(np.unique(tests.template_N)),
    }
