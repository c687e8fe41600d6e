"""Problems that several test modules look at, drawn once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.keys import problem_key
from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.spec import Spec
from data_gen.text import records
from data_gen.text.reader import read
from data_gen.windows import stream

SMALL = Spec(
    max_op=4, max_edges=6, max_depth=3, max_width=2, modulus=5, hierarchies=2, subcategories=2,
    names=4, letters=8,
)  # fmt: skip
# The least that has all stages, for what needs compilations of its own.
TINY = Spec(
    max_op=3, max_edges=4, max_depth=2, max_width=2, modulus=5, hierarchies=2, subcategories=2,
    names=4, letters=8,
)  # fmt: skip
COUNT = 512  # one number of problems everywhere: one compilation a class
ROOM = 1024


def first_keys(count, start=0):
    return jax.vmap(functools.partial(problem_key, 0))(start + jnp.arange(count))


@functools.cache
def writer(spec, mistakes):
    return jax.jit(functools.partial(stream.documents, size=ROOM, spec=spec, mistakes=mistakes))


@functools.cache
def written(spec, mistakes=ERROR_FREE, batch=0):
    """COUNT problems of a class, and their documents, as NumPy; the others in further batches."""
    keys_N = first_keys(COUNT, batch * COUNT)
    problems = stream.problems(keys_N, spec=spec)
    documents = writer(spec, mistakes)(keys_N, problems)
    return jax.tree.map(np.asarray, (problems, documents))


@functools.cache
def drawn(spec, mistakes=ERROR_FREE):
    """The first COUNT problems of a class: (problems, documents, records)."""
    problems, documents = written(spec, mistakes)
    return problems, documents, records.records(problems, documents, spec)


def facts_of(record, spec):
    return read(record["layers"], record["problem"], record["question"], spec.modulus)
