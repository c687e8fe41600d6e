"""Other questions about a problem, and solutions in any order."""

import dataclasses

import numpy as np
import pytest
from drawn import SMALL, drawn, facts_of

from data_gen.spec import Spec
from data_gen.text.judge import judge

pytestmark = pytest.mark.slow

ASKED = dataclasses.replace(SMALL, reask=True, letters=14)
ANY = dataclasses.replace(SMALL, solution="any", letters=14)


def judged(spec):
    found = drawn(spec)[2]
    return found, [
        judge(facts_of(record, spec), record["solution"], f" {record['answer']}")
        for record in found
    ]


def test_reasking_asks_another_parameter_of_the_same_problem():
    first = drawn(SMALL)[2]
    found, verdicts = judged(ASKED)
    assert all(verdict.correct and not verdict.unnecessary for verdict in verdicts)
    for before, after, verdict in zip(first, found, verdicts, strict=True):
        assert before["problem"] == after["problem"]
        assert before["question"] != after["question"]
        assert after["op"] == verdict.op <= ASKED.letters
    assert max(record["op"] for record in found) > SMALL.max_op


def test_reasked_parameters_are_uniform():
    """Of a problem's other parameters, with enough letters for all, each comes equally often."""
    problems, _, found = drawn(ASKED)
    before = drawn(SMALL)[0]
    ranks, counts = [], []
    for n, record in enumerate(found):
        facts = facts_of(record, ASKED)
        exists = [name for name in facts.needs if f"each {name} equals" in record["problem"]]
        categories = {layer[0] for layer in record["layers"]}
        exists += [name for name in facts.needs if name.split("'s ")[1] in categories]
        asked = [name for name in exists if name != facts_of(drawn(SMALL)[2][n], SMALL).query]
        ranks.append(asked.index(facts.query) / len(asked) + 0.5 / len(asked))
        counts.append(len(asked))
    assert min(counts) > 2 and (problems.op != before.op).mean() > 0.3
    # The mean of a uniform variable over 512 draws; 4.5 deviations.
    assert abs(np.mean(ranks) - 0.5) < 4.5 / np.sqrt(12 * len(ranks))


def test_any_order_is_valid_and_may_hold_unneeded_steps():
    first = drawn(SMALL)[2]
    found, verdicts = judged(ANY)
    for before, after, verdict in zip(first, found, verdicts, strict=True):
        assert verdict.correct, verdict
        assert (before["problem"], before["question"]) == (after["problem"], after["question"])
        assert verdict.op == after["op"] >= before["op"]
        assert after["op"] - before["op"] >= verdict.unnecessary
    assert np.mean([verdict.unnecessary > 0 for verdict in verdicts]) > 0.3
    assert any(a["solution"] != b["solution"] for a, b in zip(first, found, strict=True))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"solution": "longest"}, "solution is 'longest'; it must be one of shortest, any"),
        ({"reask": 1}, "reask is 1; it must be true or false"),
    ],
)
def test_unknown_settings_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Spec(**fields)
