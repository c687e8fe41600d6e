"""Classes whose right sides add up fewer terms: what the text of their problems says."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from drawn import SMALL, drawn, facts_of

from data_gen.spec import Spec
from data_gen.text.judge import judge
from data_gen.text.parser import parse
from data_gen.text.reader import right_sides

pytestmark = pytest.mark.slow

CLASSES = {
    **{f"small, {n}": dataclasses.replace(SMALL, max_terms=n) for n in (1, 2, 3)},
    "wide, 2": Spec(max_op=8, max_edges=12, max_terms=2, modulus=7, letters=16, order="qp"),
    "held out, 2": dataclasses.replace(SMALL, max_terms=2, split="test"),
    "any order, 2": dataclasses.replace(
        SMALL, max_terms=2, solution="any", reask=True, letters=16, split="train"
    ),
}


@functools.cache
def stated(name):
    """Of each problem, its right sides, read from the text."""
    spec = CLASSES[name]
    found = drawn(spec)[2]
    return [right_sides(record["layers"], record["problem"], spec.modulus) for record in found]


def terms(side):
    return len(side.refs) + (side.number is not None)


@pytest.mark.parametrize("name", CLASSES)
def test_right_sides_have_as_many_terms_as_the_class_allows(name):
    counts = np.bincount([terms(side) for sides in stated(name) for side in sides.values()])
    assert len(counts) == CLASSES[name].max_terms + 1 and counts[0] == 0
    assert (counts[1:] > counts.sum() / 50).all()


@pytest.mark.parametrize("name", CLASSES)
def test_the_text_is_right_and_says_what_the_arrays_say(name):
    """The judge recomputes solutions from the text; the reader, all values of a problem."""
    spec = CLASSES[name]
    problems, _, found = drawn(spec)
    assert problems.ok.all()
    for n, record in enumerate(found):
        verdict = judge(facts_of(record, spec), record["solution"], f" {record['answer']}")
        assert verdict.correct and verdict.op == problems.op[n], (record, verdict)
        texts = (record["problem"], record["question"], record["solution"])
        read = jax.tree.map(np.asarray, parse(record["layers"], *texts, spec))
        for field in ("refs_IxR", "constant_I", "value_P", "order_T"):
            np.testing.assert_array_equal(getattr(problems, field)[n], getattr(read, field))
    if not spec.reask:
        assert set(problems.op) == set(range(1, spec.max_op + 1))


def test_sums_over_things_have_a_term_for_each():
    """The cap is on what a problem states: an item with two things has a sum of two."""
    found = drawn(CLASSES["small, 1"])[2]
    assert any(" + " in record["solution"] for record in found)
    for record, sides in zip(found, stated("small, 1"), strict=True):
        for sentence in record["solution"].split(". "):
            name = sentence.strip().removeprefix("Define ").split(" as ")[0]
            assert name not in sides or sentence.count(";") == 1
