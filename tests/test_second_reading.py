"""The judge beside a reading that shares nothing with it, on solutions damaged in many ways."""

import collections
import random

import pytest
from damaged_markers import DAMAGES
from drawn import SMALL, drawn, facts_of
from second_reading import Reading

from data_gen.spec import MED
from data_gen.text.judge import judge


def compared(found, spec, each, seed):
    """Judges every damage of some solutions twice; returns counts, and where the two differ."""
    rng = random.Random(seed)
    counts, differing = collections.Counter(), []
    for record in found:
        asked = record["layers"], record["problem"], record["question"]
        facts, reading = facts_of(record, spec), Reading(*asked, spec.modulus)
        sentences = record["solution"].strip().removesuffix(".").split(". ")
        answer = f" {record['answer']}"
        for name in each:
            made = DAMAGES[name](rng, sentences)
            if made is None:
                continue
            text = made if isinstance(made, str) else "".join(f" {s}." for s in made)
            if rng.random() < 0.1:
                answer = rng.choice([" 7", " 0", "", f" 0{record['answer']}"])
            judged, read = judge(facts, text, answer), reading.right(text, answer)
            counts[name, read] += 1
            if judged.correct != read:
                differing.append((name, read, judged.reason, text, record))
            answer = f" {record['answer']}"
    return counts, differing


def test_right_solutions_are_read_as_right():
    _, _, found = drawn(SMALL)
    for record in found:
        reading = Reading(record["layers"], record["problem"], record["question"], SMALL.modulus)
        assert reading.value(reading.query) == record["answer"]
        assert reading.right(record["solution"], f" {record['answer']}")


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_judged_as_it_is_read(name):
    _, _, found = drawn(SMALL)
    counts, differing = compared(found, SMALL, [name], 0)
    assert not differing, differing[0]
    assert counts.total() > 5


@pytest.mark.slow
def test_damaged_solutions_of_the_papers_class_are_judged_as_they_are_read():
    _, _, found = drawn(MED)
    counts, differing = compared(found, MED, DAMAGES, 1)
    assert not differing, differing[0]
    assert counts.total() > 20_000 and len(DAMAGES) >= 28
    both = {name for name in DAMAGES if counts[name, True] and counts[name, False]}
    assert len(both) > 10, "some damage leaves a solution right"
