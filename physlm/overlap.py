"""Counts test problems that occur in training, by generating its windows again.

A test problem can occur in training in two ways. Its template, by which problems are split, may be
shown; and its text, all that the model reads before it writes, may stand there word for word. Where
templates are those of solutions as they are written, the second does not need the first: a problem
can be solved in two orders.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
import numpy as np

from data_gen import device, keys
from data_gen.keys import Purpose
from data_gen.problems.problem import Problem
from data_gen.problems.template import templates
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.windows import stream
from data_gen.windows.configuration import Windows
from data_gen.windows.tokenizer import Tokenizer, tokenizer
from physlm import cells as cells_lib
from physlm.cells import EvalConfig
from physlm.progress import Reporter

# Odd, so that its powers have inverses modulo 2**64.
_BASE = int.from_bytes(hashlib.shake_128(b"places").digest(8), "little") | 1
# Entries to be sorted in at once, at least.
_MANY = 1 << 20


@dataclasses.dataclass(frozen=True)
class CellOverlap:
    """Test problems of a cell that occur in training.

    Attributes:
      cell: the cell's name.
      n: its problems.
      distinct: how many of these differ.
      template: of the n, those whose template is on the side of training, or was drawn there.
      text: of the n, those that stand in training word for word.
    """

    cell: str
    n: int
    distinct: int
    template: int
    text: int


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Overlap of test problems with training data.

    Attributes:
      windows: training windows that were read.
      problems: problems in them, but for those that are cut before their solution begins.
      distinct: how many of these differ.
      cut: problems of which a window holds the beginning alone.
      templates: how many different templates were drawn for these windows.
      cells: the test problems.
    """

    windows: int
    problems: int
    distinct: int
    cut: int
    templates: int
    cells: tuple[CellOverlap, ...]


def count(
    spec: Spec,
    mistakes: Mistakes,
    windows: Windows,
    *,
    seed: int,
    first: int,
    config: EvalConfig,
    progress: Callable[[str, int, str], AbstractContextManager[Reporter]],
) -> Overlap:
    """Compares the test problems of all cells with the first windows of a training stream.

    Texts are compared token by token, so that none is found that is not there. Of different
    training problems fewer would be counted where two of 64-bit hashes are equal.

    Args:
      spec: the class that was trained on.
      mistakes: those in its solutions.
      windows: how documents are laid into windows.
      seed: of the training's data.
      first: how many windows to read, from the stream's beginning.
      config: what is tested on.
      progress: makes a progress display of (title, total, unit).

    Raises:
      ValueError: no problem of a cell fits a window, or hardly any document of training does.
    """
    sets = cells_lib.test_sets(spec, config, windows.window, progress)
    table = tokenizer(spec)
    texts_of = [_texts(tests) for _, tests in sets]
    tested = np.unique(np.concatenate([_Prompts(t.prompts_NxP, table).hashed for _, t in sets]))
    shown: set[bytes] = set()
    distinct, drawn = _Distinct(np.uint64), _Distinct(np.uint32)
    problems = cut = 0
    root = keys.root(seed, Purpose.TRAINING)
    segments = -(-first // stream.SEGMENT)
    # As many at once as a stream makes, so that nothing is compiled for this alone.
    block = min(segments, stream.BLOCK_WINDOWS // stream.SEGMENT)
    with progress("overlap", first, "window") as reporter, jax.default_device(device.of_data()):
        for begin in range(0, segments, block):
            numbers_Q = begin + np.arange(block, dtype=np.int32)
            mine_N = np.repeat(numbers_Q < segments, stream.CHUNK)

            def see(made: Problem, mine_N: np.ndarray = mine_N) -> None:
                hashed_N = np.asarray(templates(made, spec).hashed)
                drawn.add(hashed_N[np.asarray(made.ok) & mine_N])

            packed = stream.segments(
                root, numbers_Q, spec=spec, mistakes=mistakes, windows=windows, drawn=see
            )
            tokens_KxS = np.asarray(packed.tokens_KxS).reshape(-1, windows.window + 1)
            read = _Prompts(tokens_KxS[: first - begin * stream.SEGMENT], table)
            problems, cut = problems + len(read.hashed), cut + read.cut
            distinct.add(read.hashed)
            found = np.flatnonzero(np.isin(read.hashed, tested)).tolist()
            shown |= {read.text(number) for number in found}
            reporter.update(min((begin + block) * stream.SEGMENT, first), problems=problems)
    cells = [
        CellOverlap(
            cell=cell.name,
            n=len(texts),
            distinct=len(set(texts)),
            template=int((tests.shared_N | np.isin(tests.template_N, drawn.values())).sum()),
            text=sum(text in shown for text in texts),
        )
        for (cell, tests), texts in zip(sets, texts_of, strict=True)
    ]
    return Overlap(first, problems, len(distinct.values()), cut, len(drawn.values()), tuple(cells))


def _texts(tests: cells_lib.TestSet) -> list[bytes]:
    """The tokens of each test problem, up to where the solution begins."""
    rows = zip(tests.prompts_NxP, tests.lengths_N, strict=True)
    return [ids[:length].tobytes() for ids, length in rows]


class _Prompts:
    """The problems in windows: from each one's marker to that of its solution.

    Attributes:
      hashed: uint64, a hash of the tokens of each.
      cut: how many more there are whose solution is not in their window.
    """

    def __init__(self, tokens_KxS: np.ndarray, table: Tokenizer) -> None:
        self._tokens = tokens_KxS.reshape(-1)
        begin = np.flatnonzero(self._tokens == table.problem)
        end = np.append(np.flatnonzero(self._tokens == table.solution), len(self._tokens)) + 1
        end = end[np.searchsorted(end, begin + 1)]
        # A window begins with a problem, so that no problem reaches into the next window.
        whole = end <= np.append(begin[1:], len(self._tokens))
        self._begin, self._end = begin[whole], end[whole]
        self.cut = len(begin) - len(self._begin)
        self.hashed = _hashes(self._tokens, self._begin, self._end)

    def text(self, number: int) -> bytes:
        """The tokens of a problem."""
        return self._tokens[self._begin[number] : self._end[number]].tobytes()


@functools.lru_cache(maxsize=8)
def _mixed(count: int) -> np.ndarray:
    """uint64[count]: a word for each token; those of fewer tokens are the first of these."""
    return np.frombuffer(hashlib.shake_128(b"tokens").digest(8 * count), "<u8").astype(np.uint64)


def _hashes(tokens: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """uint64: of tokens[begin:end] each, the sum of f(token) * BASE**place modulo 2**64."""
    word = _mixed(1 << int(tokens.max(initial=0)).bit_length())[tokens]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(word * _powers(_BASE, len(word)))])
    return (sums[end] - sums[begin]) * _powers(pow(_BASE, -1, 1 << 64), len(word))[begin]


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


class _Distinct:
    """A set of numbers in an array, which takes 4 or 8 bytes for each."""

    def __init__(self, dtype: type) -> None:
        self._known: np.ndarray = np.zeros(0, dtype)
        self._new: list[np.ndarray] = []

    def add(self, numbers: np.ndarray) -> None:
        self._new.append(numbers)
        # As many as there are already, so that each is sorted a few times alone.
        if sum(map(len, self._new)) > max(_MANY, len(self._known)):
            self.values()

    def values(self) -> np.ndarray:
        self._known = np.unique(np.concatenate([self._known, *self._new]))
        self._new = []
        return self._known
