"""Derivation of all random keys; no other module splits keys or folds data into them.

Keys are a tree. Below a key stand its named children, which say what they are for, and its
numbered ones (a problem of a seed, a draft of a problem). No two of them are equal: names stand
for numbers in the upper half of 32 bits, and numbers lie in the lower half. Bare integers would
collide as soon as two places give them out, and `jax.random.split` gives them out too: with JAX's
partitionable threefry `split(key, n)[i]` is `fold_in(key, i)`.

    seed ── Purpose ── number … ── Stage ── (words, by `data_gen.problems.draws`)
"""

import enum
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

# Names stand for numbers from here on.
_NAMES = 1 << 31


class Purpose(enum.Enum):
    """The purposes of a seed, each with a key of its own."""

    SAMPLE = "problems of any template, of the command line and of notebooks, by index"
    TRAINING = "training windows, by segment and document"
    TESTING = "test sets, by operations and index"
    FROZEN = "problems of templates for training, of the command line, by operations and index"
    CORRECTION = "letters of a model's mended solutions, by line"
    PARAMETERS = "initial parameters of a model"
    DROPOUT = "dropout, by step and row"
    ADAPTER_DROPOUT = "dropout of adapters, by step"
    PROBING = "problems that a probe is trained on, by index"
    PRACTICE = "problems of the training split that a model's own mistakes are of, by number"
    RESAMPLING = "what is drawn again to see how far a fit may be off"
    DECODING = "tokens of solutions, by problem, sample and number"


class Stage(enum.Enum):
    """The stages of sampling a problem, a solution or a model, each with a key of its own."""

    GOAL = "operations that a problem is to have"
    DRAFTS = "attempts at a problem, by plan and structure"
    PLAN = "what an attempt aims at"
    STRUCTURES = "structures of a plan, by number"
    STRUCTURE = "layers, items and edges"
    CHOICE = "parameters that the answer uses"
    ORDER = "their order"
    TERMS = "what right sides add up"
    OPERATORS = "how right sides combine it"
    DISTRACTORS = "parameters that the query does not need"
    CONSTANTS = "numbers of right sides"
    NAMES = "names of items"
    SENTENCES = "order of a problem's sentences"
    LETTERS = "letters of a solution's results"
    QUESTION = "another question about a problem"
    SOLUTION_ORDER = "another order of a solution"
    MISTAKES = "mistakes of a solution"
    SOURCE = "whether a training document is one of records, and which"
    FRAME = "parameters outside of blocks"
    BLOCKS = "parameters of blocks, by layer"
    ADAPTERS = "adapters and the head of a probe, by number"
    QUESTIONS = "questions to a probe about a problem"


def _number_of(name: enum.Enum) -> np.uint32:
    text = f"{type(name).__name__}.{name.name}"
    return np.uint32(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) | _NAMES)


_NUMBERS = {name: _number_of(name) for names in (Purpose, Stage) for name in names}
assert len(set(_NUMBERS.values())) == len(_NUMBERS)


def root(seed: int | jax.Array, purpose: Purpose) -> jax.Array:
    """The root key of a seed for one purpose."""
    return jax.random.fold_in(jax.random.key(seed), _NUMBERS[purpose])


def named(key: jax.Array, stage: Stage) -> jax.Array:
    """The child of a key for a stage."""
    return jax.random.fold_in(key, _NUMBERS[stage])


def numbered(key: jax.Array, number: int | jax.Array | np.ndarray) -> jax.Array:
    """Child `number` (below 2**31) of a key."""
    return jax.random.fold_in(key, jnp.asarray(number).astype(jnp.uint32))


def all_numbered(key: jax.Array, numbers_N: jax.Array | np.ndarray) -> jax.Array:
    """The children of a key with these numbers (leading axis N)."""
    return jax.vmap(lambda number: numbered(key, number))(jnp.asarray(numbers_N))


def problem_key(seed: int | jax.Array, index: int | jax.Array) -> jax.Array:
    """The key of problem `index` (below 2**31) of a seed, as `data_gen sample` has it.

    For the problems of one side of a split see `data_gen.frozen.rows.row_keys`.
    """
    return numbered(root(seed, Purpose.SAMPLE), index)
