"""Random keys: what is drawn for one purpose tells nothing about what is drawn for another."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from drawn import COUNT, TINY, writer

from data_gen import keys
from data_gen.frozen import rows
from data_gen.keys import Purpose
from data_gen.solutions.mistakes import Mistakes
from data_gen.solutions.render import SOLUTION
from data_gen.windows import stream
from physlm import cells

pytestmark = pytest.mark.slow

# Of this kind there is a mistake to make before the first step of every problem.
MISTAKES = Mistakes("retry_miss", rate=0.5)
BATCHES = 8


def of_training():
    segments_Q = np.arange(BATCHES * COUNT // stream.CHUNK)
    return stream._chunk_keys(keys.root(0, Purpose.TRAINING), segments_Q, 0)


def of_a_test_cell():
    root = keys.numbered(keys.root(0, Purpose.TESTING), 0)
    return keys.all_numbered(root, np.arange(BATCHES * COUNT))


def of_a_frozen_set():
    return rows.row_keys(dataclasses.replace(TINY, split="train"), 0, np.arange(BATCHES * COUNT))


@pytest.mark.parametrize("made", [of_training, of_a_test_cell, of_a_frozen_set])
def test_mistakes_do_not_depend_on_the_target(made):
    """Half of all solutions begin with a mistake, at every number of operations."""
    counts = np.zeros((2, TINY.max_op), int)
    for keys_N in made().reshape(BATCHES, COUNT):
        problems = stream.problems(keys_N, spec=TINY)
        documents = writer(TINY, MISTAKES)(keys_N, problems)
        name_N = np.asarray(documents.prompt) + 1
        wrong_N = np.asarray(documents.role_N)[np.arange(COUNT), name_N] != SOLUTION
        np.add.at(counts, (wrong_N.astype(int), np.asarray(problems.op) - 1), 1)
        # The targets that a cell gives its problems are the ones that they draw.
        goals = cells._goals(keys_N, cap=TINY.max_op, fixed=False, spec=TINY)
        np.testing.assert_array_equal(goals.target, problems.op)
    assert abs(counts[1].sum() / counts.sum() - 0.5) < 0.03
    assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3
