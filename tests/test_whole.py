"""Documents with as much room as they need: who decides how much that is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from drawn import COUNT, TINY, facts_of, first_keys

from data_gen.problems.problem import Problem
from data_gen.settings import RefusedError
from data_gen.solutions import sentences
from data_gen.solutions.document import Document
from data_gen.solutions.mistakes import RESTARTS, Mistakes
from data_gen.spec import MED
from data_gen.text import records
from data_gen.text.judge import judge
from data_gen.windows import documents, stream


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


@pytest.mark.slow
def test_documents_whose_lines_find_no_room_say_so(monkeypatch):
    """Those that do not are whole; none is written with lines left out."""
    size, mistakes = 512, Mistakes("calculation", 0.5)
    monkeypatch.setattr(sentences, "_line_room", lambda *_: TINY.op_room)
    keys_N = first_keys(COUNT)
    problems = stream.problems(keys_N, spec=TINY)
    write = functools.partial(stream.documents, size=size, spec=TINY, mistakes=mistakes)
    problems, written = jax.tree.map(np.asarray, (problems, jax.jit(write)(keys_N, problems)))
    room_N = written.length <= size
    assert (written.length[~room_N] == size + 1).all()
    assert 10 < (~room_N).sum() < COUNT // 2
    kept = jax.tree.map(lambda x: x[room_N], (problems, written))
    for record in records.records(*kept, TINY):
        verdict = judge(facts_of(record, TINY), record["solution"], f" {record['answer']}")
        assert verdict.correct, verdict.reason


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("mend", ["back", "restart"])
def test_sentences_have_room_for_all_but_one_solution_in_ten_million(rate, late, mend):
    """Each step, again after each new beginning, and each mistake with what rests on it."""
    mistakes = Mistakes("calculation", rate, late=late, mend=mend)
    most = int(scipy.stats.nbinom.isf(1e-7, MED.op_room, 1 - rate))
    beginnings = 1 + RESTARTS * (mend == "restart")
    assert mistakes.sentence_cap(MED) == MED.op_room * beginnings + most * (1 + late)
