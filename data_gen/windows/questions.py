"""Questions about parameters after prefixes of solutions, for probes.

V-probing (Part 2.1, Section 4; Part 2.2, Section 3) shows a model a problem with the beginning of
its solution, and then the name of a parameter in brackets; a probe answers at the closing one. Here
the marker of an answer opens and the marker of an end closes, which both stand nowhere else in what
comes before.

Names: N problems, T tokens of a document, Q questions about it, A tokens of a question, P slots.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import keys
from data_gen.keys import Purpose, Stage
from data_gen.problems import draws
from data_gen.problems.parameters import parameters
from data_gen.problems.problem import Problem
from data_gen.solutions import render
from data_gen.solutions.document import OUTSIDE, Document
from data_gen.solutions.grammar import PARAMETER
from data_gen.solutions.labels import labels, token_labels
from data_gen.solutions.language import MARKER, vocabulary
from data_gen.solutions.mistakes import Mistakes
from data_gen.solutions.script import Script
from data_gen.spec import Spec
from data_gen.windows import stream
from data_gen.windows.blocks import Blocks
from data_gen.windows.table import encode
from data_gen.windows.tokenizer import tokenizer

# What is asked, and in words. Of a pair of parameters, of one before the solution begins, or of one
# after each of its sentences.
TASKS: Mapping[str, str] = {
    "can_next": "whether it is not known and all that it needs is",
    "nece": "whether the query needs it",
    "known": "whether a step has computed it",
    "nece_next": "whether the query needs it and it can be computed next",
    "dep": "whether it needs another one, however indirectly",
    "val": "its value, or that it is not known",
}
_OF_PAIRS, _AT_THE_BEGINNING = ("dep",), ("dep", "nece")

# Problems that are made at once.
BLOCK = 512


class Questions(NamedTuple):
    """Documents and questions about them (leading axis N)."""

    tokens_NxT: jax.Array  # int32: the documents, padded with the end marker
    cut_NxQ: jax.Array  # int32: tokens of the document that a question goes on from
    asked_NxQxA: jax.Array  # int32: the tokens of the question, padded with the end marker
    length_NxQ: jax.Array  # int32: how many they are; the last one is where it is answered
    answer_NxQ: jax.Array  # int32: the right answer
    asks_NxQ: jax.Array  # bool: whether it is asked; not where the document has no room
    slot_NxQ: jax.Array  # int32: the parameter
    moment_NxQ: jax.Array  # int32: steps before it


def answers(task: str, spec: Spec) -> int:
    """How many answers there are to a task's questions; to yes-or-no questions 1 is yes."""
    return spec.modulus + 1 if task == "val" else 2


def room(task: str, spec: Spec) -> int:
    """A: tokens that a question takes at most."""
    names = 2 if task in _OF_PAIRS else 1
    return (2 + names * len(PARAMETER)) * int(tokenizer(spec).lengths_V.max())


def names(problem: Problem, spec: Spec) -> tuple[jax.Array, jax.Array]:
    """The questions about each parameter of a problem that ask for no other one.

    Returns:
      int32[P, A] tokens and int32[P] how many they are.
    """
    slot_P = jnp.arange(spec.slots)
    return _encoded(problem, slot_P[:, None], spec, room("can_next", spec))


def _encoded(
    problem: Problem, slots_QxM: jax.Array, spec: Spec, size: int
) -> tuple[jax.Array, jax.Array]:
    """The tokens of questions about M parameters each, and how many these are."""
    vocab, table = vocabulary(spec), tokenizer(spec)
    words = render.words_of(problem, vocab, spec)
    owned = jnp.full(slots_QxM.shape, vocab.ids[PARAMETER.symbols[1]])
    parts_QxMx3 = jnp.stack([words.owner_P[slots_QxM], owned, words.thing_P[slots_QxM]], -1)
    inner_QxS = parts_QxMx3.reshape(len(slots_QxM), -1)
    around = ((0, 0), (1, 1))
    symbols_QxS = jnp.pad(inner_QxS, around, constant_values=vocab.end).at[:, 0].set(vocab.answer)
    count = symbols_QxS.shape[1]

    def one(symbols_S: jax.Array) -> Document:
        nothing = jnp.zeros(count, jnp.int32)
        document = Document(
            symbols_S, nothing + OUTSIDE, nothing + MARKER, nothing, jnp.int32(count), jnp.int32(0)
        )
        return encode(document, table, size)

    found = jax.vmap(one)(symbols_QxS)
    tokens_QxA = found.tokens_N
    if tokens_QxA.shape[1] < size:
        pad = ((0, 0), (0, size - tokens_QxA.shape[1]))
        tokens_QxA = jnp.pad(tokens_QxA, pad, constant_values=table.end)
    return tokens_QxA, found.length


def about(
    key: jax.Array,
    problem: Problem,
    document: Document,
    script: Script,
    *,
    task: str,
    count: int,
    spec: Spec,
) -> Questions:
    """Draws the questions about one problem; `vmap` for more.

    Each asks for a parameter that the problem has, after a sentence of its solution, mistakes
    included, or before the first one; all of these are as likely.

    Args:
      key: of the problem.
      problem: what is asked about.
      document: it, in tokens.
      script: by which its solution was written.
      task: of `TASKS`.
      count: Q.
      spec: the class.
    """
    size = document.tokens_N.shape[0]
    known, aligned = labels(problem, spec), token_labels(document, script, problem)
    exists_P = parameters(problem, spec).exists_P
    at_T = np.arange(size)
    sentence_T = document.sentence_N
    before_T = jnp.concatenate([jnp.full(1, -1), sentence_T[:-1]])
    begins_T = at_T == document.prompt
    if task not in _AT_THE_BEGINNING:
        ended_T = (before_T >= 0) & (before_T != sentence_T) & (at_T < document.length)
        begins_T |= ended_T & (at_T > document.prompt)
    source = draws.source(keys.named(key, Stage.QUESTIONS))
    word_Qx3 = source.word(jnp.arange(3 * count)).reshape(count, 3)
    # A place is drawn by its number: there may be more than a draw of a member allows.
    turn_Q = draws.below(word_Qx3[:, 0], begins_T.sum())
    cut_Q = jnp.searchsorted(jnp.cumsum(begins_T), turn_Q + 1).astype(jnp.int32)
    slot_Q = jax.vmap(lambda word: draws.pick(word, exists_P))(word_Qx3[:, 1])
    slots_QxM = slot_Q[:, None]
    moment_Q = aligned.moment_N[jnp.minimum(cut_Q, size - 1)]
    if task == "dep":
        others_QxP = exists_P & (jnp.arange(spec.slots) != slot_Q[:, None])
        other_Q = jax.vmap(draws.pick)(word_Qx3[:, 2], others_QxP)
        slots_QxM = jnp.stack([slot_Q, other_Q], -1)
        answer_Q = known.dep_PxP[slot_Q, other_Q]
    else:
        answer_Q = {
            "can_next": known.can_next_XxP[moment_Q, slot_Q],
            "nece": known.nece_P[slot_Q],
            "known": known.known_XxP[moment_Q, slot_Q],
            "nece_next": known.nece_next_XxP[moment_Q, slot_Q],
            "val": known.value_XxP[moment_Q, slot_Q],
        }[task]
    asked_QxA, length_Q = _encoded(problem, slots_QxM, spec, room(task, spec))
    fits = (document.length <= size) & problem.ok
    return Questions(
        tokens_NxT=document.tokens_N,
        cut_NxQ=cut_Q,
        asked_NxQxA=asked_QxA,
        length_NxQ=length_Q,
        answer_NxQ=answer_Q.astype(jnp.int32),
        asks_NxQ=jnp.full(count, fits),
        slot_NxQ=slot_Q,
        moment_NxQ=moment_Q,
    )


@functools.partial(jax.jit, static_argnames=("size", "task", "count", "spec", "mistakes"))
def questions(
    keys_N: jax.Array,
    problems_N: Problem,
    *,
    size: int,
    task: str,
    count: int,
    spec: Spec,
    mistakes: Mistakes,
) -> Questions:
    """Writes N problems, with room for `size` tokens each, and asks about them.

    Args:
      keys_N: of the problems.
      problems_N: what is asked about.
      size: T.
      task: of `TASKS`.
      count: Q.
      spec: the class.
      mistakes: those in the solutions that the questions go on from.
    """
    table = tokenizer(spec)

    def one(key: jax.Array, problem: Problem) -> Questions:
        document, script = stream.scripted(
            key,
            problem,
            sentences=mistakes.sentence_cap(spec),
            size=table.symbols(size),
            spec=spec,
            mistakes=mistakes,
        )
        document = encode(document, table, size)
        return about(key, problem, document, script, task=task, count=count, spec=spec)

    return jax.vmap(one)(keys_N, problems_N)


class QuestionStream:
    """Batches of questions; batch `step` is about problems step * batch, … of the seed.

    Batches are made in blocks on a thread of the stream's own.
    """

    def __init__(
        self,
        spec: Spec,
        mistakes: Mistakes,
        *,
        window: int,
        task: str,
        count: int,
        seed: int,
        batch: int,
        rows: Sequence[int] | np.ndarray | None = None,
        device: jax.Device | None = None,
    ) -> None:
        """Prepares a stream; nothing is compiled before the first batch.

        Args:
          spec: the class of problems.
          mistakes: those in the solutions that the questions go on from.
          window: T, room for a document.
          task: of `TASKS`.
          count: Q, questions about a problem.
          seed: of the problems.
          batch: problems of a batch.
          rows: those of every batch that `batch` returns, in increasing order; None is all.
          device: where they are made, which changes none of them; None is JAX's default.
        """
        self._device = device
        self._make = functools.partial(
            questions, size=window, task=task, count=count, spec=spec, mistakes=mistakes
        )
        self._spec, self._batch = spec, batch
        self._rows = np.arange(batch) if rows is None else np.asarray(rows)
        self._root_of = functools.partial(keys.root, seed, Purpose.PROBING)
        self._steps = max(1, BLOCK // batch)
        self._blocks = Blocks(self._load, "questions")

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step, or its `rows`, by what `Questions` names.

        tokens [B, T], cuts [B, Q], asked [B, Q, A], ends [B, Q], answers [B, Q], all int32, and
        weights float32 [B, Q], 1 for each question that is asked.
        """
        number, at = divmod(step, self._steps)
        made = self._blocks[number]
        rows = at * self._batch + self._rows
        return {name: value[rows] for name, value in made.items()}

    def _load(self, block: int) -> dict[str, np.ndarray]:
        count = self._steps * self._batch
        numbers_N = block * count + np.arange(count, dtype=np.int32)
        with jax.default_device(self._device):
            keys_N = keys.all_numbered(self._root_of(), numbers_N)
            made = self._make(keys_N, stream.problems(keys_N, spec=self._spec))
        return {name: np.asarray(value) for name, value in in_batch(made).items()}

    def close(self) -> None:
        """Stops the stream's thread."""
        self._blocks.close()


def in_batch(made: Questions) -> dict[str, jax.Array]:
    """Questions as a batch, by the names of `QuestionStream.batch`."""
    return {
        "tokens": made.tokens_NxT,
        "cuts": made.cut_NxQ,
        "asked": made.asked_NxQxA,
        "ends": made.length_NxQ,
        "answers": made.answer_NxQ,
        "weights": made.asks_NxQ.astype(jnp.float32),
    }
