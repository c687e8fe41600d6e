"""Problems that several test modules look at, drawn once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import records, stream
from data_gen.mistakes import Mistakes
from data_gen.problem import problem_key
from data_gen.reader import read
from data_gen.spec import Spec

SMALL = Spec(
    max_op=4, max_edges=6, max_depth=3, max_width=2, modulus=5, hierarchies=2, subcategories=2,
    names=4, letters=8,
)  # fmt: skip
COUNT = 512  # one number of problems everywhere: one compilation a class
ROOM = 1024
ERROR_FREE = Mistakes()


def keys(count):
    return jax.vmap(functools.partial(problem_key, 0))(jnp.arange(count))


@functools.cache
def drawn(spec, mistakes=ERROR_FREE):
    """COUNT problems of a class: (problems, documents, records) as NumPy."""
    keys_N = keys(COUNT)
    problems = stream.problems(keys_N, spec=spec)
    write = jax.jit(functools.partial(stream.documents, size=ROOM, spec=spec, mistakes=mistakes))
    documents = write(keys_N, problems)
    problems, documents = jax.tree.map(np.asarray, (problems, documents))
    return problems, documents, records.records(problems, documents, spec)


def facts_of(record, spec):
    return read(record["layers"], record["problem"], record["question"], spec.modulus)
