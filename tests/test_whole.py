"""Documents with as much room as they need: who decides how much that is."""

import jax.numpy as jnp
import pytest
from drawn import TINY

from data_gen.problems.problem import Problem
from data_gen.settings import RefusedError
from data_gen.solutions.document import Document
from data_gen.solutions.mistakes import Mistakes
from data_gen.windows import documents


@pytest.fixture
def rooms(monkeypatch):
    """The rooms that documents of 5, 40 and, of no problem, a million symbols are written in."""
    seen = []

    def write(keys_N, problems_N, *, size, spec, mistakes):
        seen.append(size)
        blank_NxS = jnp.zeros((3, size), jnp.int32)
        length_N = jnp.array([5, 40, 1_000_000])
        return Document(blank_NxS, blank_NxS, blank_NxS, blank_NxS, length_N, jnp.full(3, 2))

    monkeypatch.setattr(documents, "_write", write)
    return seen


def problems(*ok):
    return Problem(jnp.array(ok), *[None] * (len(Problem._fields) - 1))


def test_room_is_doubled_until_all_documents_of_problems_fit(rooms):
    found = documents.whole_documents(None, problems(True, True, False), spec=TINY, room=8)
    assert rooms == [8, 16, 32, 64]
    assert found.tokens_N.shape[-1] == 64


def test_what_fits_is_written_once(rooms):
    documents.whole_documents(None, problems(True, False, False), spec=TINY, room=8)
    assert rooms == [8]


def test_mistakes_that_never_fit_are_refused(rooms):
    mistakes = Mistakes("retry", 0.9)
    with pytest.raises(RefusedError, match=r"rate is 0\.9; it must be lower, or the seed"):
        documents.whole_documents(
            None, problems(True, True, True), spec=TINY, mistakes=mistakes, room=1024
        )
    assert max(rooms) == documents.MOST_ROOM
