"""Whole documents: problems and their solutions in symbols, with as much room as they need."""

import jax
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.settings import RefusedError
from data_gen.solutions.document import Document
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.spec import Spec
from data_gen.windows import stream

# Symbols that there is room for at first; nearly all documents need less.
ROOM = 1024
# No document is as long: one that does not fit here has more mistakes than its script has room for.
MOST_ROOM = 1 << 17

_write = jax.jit(stream.documents, static_argnames=("size", "spec", "mistakes"))


def whole_documents(
    keys_N: jax.Array,
    problems_N: Problem,
    *,
    spec: Spec,
    mistakes: Mistakes = ERROR_FREE,
    room: int = ROOM,
) -> Document:
    """Writes N problems, with room that is doubled until every document fits.

    Args:
      keys_N: the keys of the problems, from which their mistakes are drawn.
      problems_N: the problems. Those that are not `ok` have no document, and need no room.
      spec: their class.
      mistakes: the mistakes that their solutions have.
      room: symbols to begin with.

    Returns:
      The documents (leading axis N), none longer than the room that it has, but for those of
      problems that are not `ok`.

    Raises:
      RefusedError: a solution has more mistakes than there is room for.
    """
    while True:
        documents = _write(keys_N, problems_N, size=room, spec=spec, mistakes=mistakes)
        if not np.any(np.asarray(problems_N.ok) & (np.asarray(documents.length) > room)):
            return documents
        if room >= MOST_ROOM:
            raise RefusedError(
                "rate",
                mistakes.rate,
                f"lower, or the seed another: mistakes of kind {mistakes.kind!r} leave one of "
                "these solutions no room",
            )
        room *= 2
