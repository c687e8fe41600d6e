"""The law of the problems is that of the public generator, whose histograms lie beside this."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from benchmarks.fidelity import NOT_COMPARED, compare
from drawn import drawn, written

from data_gen.solutions.features import Features, measure, table
from data_gen.spec import HARD, MED, Spec

pytestmark = pytest.mark.slow

HISTOGRAMS = json.loads(pathlib.Path(__file__).with_name("histograms.json").read_text())
CLASSES = {"med": MED, "hard": HARD, "med op=20": Spec(op=20, order="qp")}


@functools.cache
def counted(name, batches=4):
    """Features of `batches` times COUNT problems; the first of them are `drawn`."""
    spec = CLASSES[name]
    count = jax.jit(jax.vmap(functools.partial(measure, spec=spec)))
    found = [count(*written(spec, batch=batch)) for batch in range(batches)]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


@pytest.mark.parametrize("name", CLASSES)
def test_features_agree_with_the_public_generator(name):
    found = counted(name)
    columns = [column for column in Features._fields if column not in NOT_COMPARED]
    for column in columns:
        histogram = HISTOGRAMS[name][column]
        theirs = np.repeat([float(value) for value in histogram], list(histogram.values()))
        p_values = compare(theirs, getattr(found, column))
        assert min(p_values) > 1e-3 / (2 * len(columns) * len(CLASSES)), (column, p_values)


def test_the_comparison_notices_a_difference():
    theirs = np.repeat([float(v) for v in HISTOGRAMS["med"]["refs1"]],
                       list(HISTOGRAMS["med"]["refs1"].values()))  # fmt: skip
    ours = counted("med").refs1
    assert max(compare(theirs, ours + (np.arange(len(ours)) % 2 == 0))) < 1e-6


def test_features_are_what_the_text_shows():
    _, _, found = drawn(MED)
    counts = counted("med")
    for n, record in enumerate(found):
        text, question = record["problem"], record["question"]
        rights = [part.split(" equals ")[1] for part in text.strip().rstrip(".").split(". ")]
        assert counts.sentences[n] == counts.edges[n] == len(rights)
        assert counts.depth[n] == len(record["layers"])
        assert counts.items[n] == sum(len(items) for _, items in record["layers"])
        for refs in range(5):
            assert getattr(counts, f"refs{refs}")[n] == sum(
                right.count("each ") == refs for right in rights
            )
        for column, phrase in (
            ("more", " more than "),
            ("times", " times as much as "),
            ("difference", "the difference of"),
        ):
            assert getattr(counts, column)[n] == text.count(phrase)
        assert counts.words[n] == len((text + question).split())
        assert counts.solution_words[n] == len(record["solution"].split())
        assert counts.op[n] == record["solution"].count(";")
        assert counts.steps[n] == record["solution"].count("Define")
        assert counts.answer[n] == record["answer"]
        categories = [layer[0] for layer in record["layers"]]
        asked = any(f" How many {category} does" in question for category in categories)
        assert counts.query_abstract[n] == asked
        defined = sum(record["solution"].count(f"'s {category} as") for category in categories)
        assert counts.abstract_steps[n] == defined
        ends = (",", ".", " and ")
        named = sum(text.count(f"'s {c}{end}") for c in categories for end in ends)
        assert counts.abstract_refs[n] == named
        assert np.isclose(counts.necessary_share[n], (counts.steps[n] - defined) / len(rights))


def test_table_has_a_line_a_feature():
    lines = table(counted("med")).splitlines()
    assert [line.split()[0] for line in lines] == ["feature", *Features._fields]
    assert lines[4].split()[:2] == ["op", f"{counted('med').op.mean():.3f}"]
