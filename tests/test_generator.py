"""iGSM problems: what would be false if the sampler were wrong."""

import dataclasses
import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from drawn import COUNT, ROOM, SMALL, TINY, drawn, facts_of, first_keys, writer, written

from data_gen.problems import search, structure
from data_gen.problems.search import sample
from data_gen.problems.template import table, templates
from data_gen.solutions import language
from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.spec import HARD, MED, Spec, reachable_op
from data_gen.text import records
from data_gen.text.judge import judge
from data_gen.windows import stream

pytestmark = pytest.mark.slow

CLASSES = {
    "small": SMALL,
    "med": MED,
    "hard": HARD,
    "one wide": Spec(max_op=3, max_edges=3, min_depth=2, max_depth=2, min_width=1, max_width=1 + 1,
                     modulus=2, names=2, letters=3),
    "fixed op, qp": Spec(op=20, order="qp"),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_every_solution_is_judged_right(name):
    """The judge reads the text alone: values, order, references and numbers are all recomputed."""
    spec = CLASSES[name]
    problems, documents, found = drawn(spec)
    assert problems.ok.all()
    assert (documents.length <= documents.tokens_N.shape[1]).all()
    for n, record in enumerate(found):
        facts = facts_of(record, spec)
        verdict = judge(facts, record["solution"], f" {record['answer']}")
        assert verdict.correct, (record, verdict)
        assert verdict.unnecessary == verdict.retries == 0
        assert verdict.op == record["op"] == problems.op[n] == record["solution"].count(";")
        assert facts.answer == record["answer"]
        # The solution is the shortest: its steps are what the query needs.
        assert record["solution"].count("Define") == len(facts.necessary)
        assert len(record["problem"].split(". ")) <= spec.max_edges


@pytest.mark.parametrize(("name", "batches"), [("med", 10), ("hard", 10)])
def test_ten_thousand_solutions_are_judged_right(name, batches):
    """As the test before, on more problems: what is one in a thousand has to be right, too."""
    spec = CLASSES[name]
    for batch in range(1, 1 + batches):
        problems, documents = written(spec, batch=batch)
        assert problems.ok.all() and documents.length.max() <= ROOM
        for record in records.records(problems, documents, spec):
            verdict = judge(facts_of(record, spec), record["solution"], f" {record['answer']}")
            assert verdict.correct and not verdict.unnecessary, (record, verdict)
            assert verdict.op == record["op"]


def test_op_follows_its_law_and_fixed_op_is_exact():
    problems, _, _ = drawn(MED)
    counts = np.bincount(problems.op, minlength=16)[1:]
    expected = len(problems.op) * (2 * (15 - np.arange(15)) - 1) / 225
    # The rare ones together, so that each class has ten or more.
    counts, expected = (np.append(x[:12], x[12:].sum()) for x in (counts, expected))
    assert ((counts - expected) ** 2 / expected).sum() < 32.9  # 12 degrees, p = 0.001
    assert (drawn(CLASSES["fixed op, qp"])[0].op == 20).all()


def test_op_is_uniform_where_the_class_says_so():
    spec = dataclasses.replace(SMALL, op_draw="uniform")
    problems, _, found = drawn(spec)
    counts = np.bincount(problems.op, minlength=5)[1:]
    assert (counts == np.bincount([r["solution"].count(";") for r in found], minlength=5)[1:]).all()
    assert problems.ok.all() and scipy.stats.chisquare(counts).pvalue > 1e-3
    # That is a question of frequency alone: a problem of a given number is what it was.
    goals = structure.Goal(*(jnp.asarray(x) for x in (problems.op, np.full(COUNT, 4))))
    published = stream.problems(first_keys(COUNT), goals, spec=SMALL)
    jax.tree.map(np.testing.assert_array_equal, problems, jax.tree.map(np.asarray, published))
    fixed = stream.problems(first_keys(16), spec=dataclasses.replace(spec, op=2))
    assert (fixed.op == 2).all()


def test_many_equal_one_by_one():
    """Lanes, batch size and neighbours do not matter: problem i is a function of its key."""
    many, _, _ = drawn(TINY)
    alone = jax.jit(jax.vmap(functools.partial(sample, spec=TINY)))(first_keys(48))
    some = stream.problems(first_keys(12, 7), spec=TINY)
    for a, b, c in zip(*map(jax.tree.leaves, (many, alone, some)), strict=True):
        np.testing.assert_array_equal(a[:48], b)
        np.testing.assert_array_equal(a[7:19], c)


@pytest.mark.parametrize("wanted", [0, 3, 47])
def test_searches_that_are_not_asked_for_find_nothing(wanted):
    key_N, goal = first_keys(64), structure.Goal(*2 * [jnp.full(64, 2)])
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, 64), search._beginning())
    find = jax.jit(functools.partial(search.find_many, spec=TINY))
    (all_N, _), (some_N, _) = (find(key_N, goal, start, wanted=n) for n in (64, wanted))
    assert all_N.accepted.all()
    assert (np.asarray(some_N.accepted) == (np.arange(64) < wanted)).all()
    for whole, part in zip(*map(jax.tree.leaves, (all_N, some_N)), strict=True):
        np.testing.assert_array_equal(part[:wanted], whole[:wanted])


_SHARDED = """
import functools, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from data_gen.keys import problem_key
from data_gen.problems.search import sample_many
from data_gen.spec import Spec
spec = Spec(max_op=3, max_edges=4, max_depth=2, max_width=2, letters=4, names=2)
keys = jax.vmap(functools.partial(problem_key, 0))(jnp.arange(32))
make = functools.partial(sample_many, spec=spec)
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
sharded = jax.jit(
    jax.shard_map(make, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
)
for a, b in zip(*map(jax.tree.leaves, (jax.jit(make)(keys), sharded(keys))), strict=True):
    assert len(b.sharding.device_set) == 2
    np.testing.assert_array_equal(a, b)
"""


def test_sharded_equals_unsharded():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", _SHARDED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def template(record):
    """The solution without names, numbers and letters: written independently of the hash."""
    text = record["solution"]
    categories = {layer[0] for layer in record["layers"]}
    letters = {}

    def parameter(found):
        return "Define abstract as" if found[2] in categories else "Define instance as"

    text = re.sub(r"Define (.+?)'s (.+?) as", parameter, text)
    text = re.sub(r"\b\d+\b", "0", text)
    return re.sub(
        r"\b[a-zA-Z]\b", lambda found: letters.setdefault(found[0], f"<{len(letters)}>"), text
    )


@pytest.mark.parametrize("max_terms", [4, 2])
def test_train_and_test_share_no_template(max_terms):
    small = dataclasses.replace(SMALL, max_terms=max_terms)
    train, test = (dataclasses.replace(small, split=split) for split in ("train", "test"))
    seen = [{template(record) for record in drawn(spec)[2]} for spec in (train, test)]
    assert min(map(len, seen)) > 20
    assert not seen[0] & seen[1]
    # All numbers of operations are on both sides.
    for spec in (train, test):
        assert {record["op"] for record in drawn(spec)[2]} == {1, 2, 3, 4}


def test_written_solutions_share_no_template():
    """Also of problems that ask for another parameter, and in any order, unneeded steps and all."""
    asked = dataclasses.replace(TINY, solution="any", reask=True, letters=14)
    seen, key_N = [], first_keys(COUNT)
    for split in ("train", "test"):
        spec = dataclasses.replace(asked, split=split)
        problems = stream.problems(key_N, spec=spec)
        assert problems.ok.all()
        # A document does not depend on the split.
        documents = writer(asked, ERROR_FREE)(key_N, problems)
        found = records.records(*jax.tree.map(np.asarray, (problems, documents)), asked)
        seen.append({template(record) for record in found})
        assert np.mean(problems.op > TINY.max_op) > 0.1
        sides = templates(problems, spec)
        assert (sides.for_training == (split == "train")).all()
        assert (sides.shared == (split == "train")).all()
    assert min(map(len, seen)) > 20
    assert not seen[0] & seen[1]
    # A problem is searched for until it is on its side, alone or among others.
    alone = jax.jit(jax.vmap(functools.partial(sample, spec=spec)))(key_N[:16])
    for one, many in zip(*map(jax.tree.leaves, (alone, problems)), strict=True):
        np.testing.assert_array_equal(one, many[:16])


def test_ops_without_templates_to_spare_are_on_both_sides():
    specs = [dataclasses.replace(TINY, split=split, unsplit_op=3) for split in ("train", "test")]
    seen = [{template(record) for record in drawn(spec)[2] if record["op"] == 3} for spec in specs]
    assert len(seen[0] & seen[1]) > 10
    # Training may show all of them, whichever half they are in.
    sides = templates(drawn(specs[1])[0], specs[1])
    assert sides.shared.all() and 0 < sides.for_training.mean() < 1


def test_templates_are_told_apart_as_in_the_text():
    """Equal templates have equal hashes, unequal ones have not; 17 in 23 are for training."""
    problems, _, found = drawn(SMALL)
    sides = templates(problems, SMALL)
    texts = [template(record) for record in found]
    pairs = set(zip(texts, np.asarray(sides.hashed).tolist(), strict=True))
    assert len(pairs) == len(set(texts)) == len({hashed for _, hashed in pairs}) > 50
    half = dict(zip(texts, np.asarray(sides.for_training).tolist(), strict=True))
    assert 0.6 < np.mean(list(half.values())) < 0.85
    for split in ("train", "test"):
        for record in drawn(dataclasses.replace(SMALL, split=split))[2]:
            assert half.get(template(record), split == "train") == (split == "train")


def problem_template(record):
    """What the answer is computed from, read off the solution; abstract sums have no order."""
    categories, known = {layer[0] for layer in record["layers"]}, {}
    for sentence in record["solution"].strip().rstrip(".").split(". "):
        thing = re.match(r"Define .+?'s (.+?) as", sentence)[1]
        letter = ""
        for letter, side in re.findall(r"\b([a-zA-Z]) = ([^=;]+)", sentence):
            first, *rest = side.split()
            one = known.get(first, "0")
            if not rest:
                known[letter] = one
                continue
            operator, second = rest[0], known.get(rest[1], "0")
            if thing in categories and operator == "+":
                terms = [*one.split(" & "), *second.split(" & ")]
                known[letter] = " & ".join(sorted(terms))
            else:
                known[letter] = f"({one} {operator} {second})"
        kind = "sum" if thing in categories else "given"
        known[letter] = f"{kind}({known[letter]})".replace(" & ", " and ")
    return known[letter]


def test_templates_of_problems_have_no_order():
    """They tell apart what problems ask, and not in which order it is solved."""
    problems, _, found = drawn(SMALL)
    by_problem = dataclasses.replace(SMALL, split_by="problem")
    sides = templates(problems, by_problem)
    texts = [problem_template(record) for record in found]
    pairs = set(zip(texts, np.asarray(sides.hashed).tolist(), strict=True))
    assert len(pairs) == len(set(texts)) == len({hashed for _, hashed in pairs}) > 50
    assert len(set(texts)) < len({template(record) for record in found})
    half = dict(zip(texts, np.asarray(sides.for_training).tolist(), strict=True))
    assert 0.6 < np.mean(list(half.values())) < 0.85
    for split in ("train", "test"):
        records_of = drawn(dataclasses.replace(by_problem, split=split))[2]
        assert {record["op"] for record in records_of} == {1, 2, 3, 4}
        for record in records_of:
            known = half.get(problem_template(record), split == "train")
            assert known == (split == "train")


def statement_template(record):
    """All that a problem states, read off its text, without names, numbers and the order."""
    facts = facts_of(record, SMALL)

    def of(parameter):
        side = facts.sides.get(parameter)
        if side is None:
            products = ["*".join(map(of, filter(None, pair))) for pair in facts.sums[parameter]]
            return f"sum({', '.join(sorted(products))})"
        return (
            f"{side.number is None}{side.times}{side.difference}({', '.join(map(of, side.refs))})"
        )

    return f"{sorted(map(of, facts.sides))}? {of(facts.query)}"


def test_few_operations_are_split_by_what_problems_state():
    problems, _, found = drawn(SMALL)
    few = dataclasses.replace(SMALL, statement_op=2)
    sides, by_solution = templates(problems, few), templates(problems, SMALL)
    more = np.asarray(problems.op) > 2
    np.testing.assert_array_equal(sides.hashed[more], by_solution.hashed[more])
    mine = np.flatnonzero(~more)
    texts = [statement_template(found[n]) for n in mine]
    pairs = set(zip(texts, np.asarray(sides.hashed)[mine].tolist(), strict=True))
    assert len(pairs) == len(set(texts)) == len({hashed for _, hashed in pairs}) > 50
    half = dict(zip(texts, np.asarray(sides.for_training)[mine].tolist(), strict=True))
    assert 0.6 < np.mean(list(half.values())) < 0.85
    seen = []
    for split in ("train", "test"):
        mine = [r for r in drawn(dataclasses.replace(few, split=split))[2] if r["op"] <= 2]
        assert {record["op"] for record in mine} == {1, 2}
        seen.append({statement_template(record) for record in mine})
        assert all(half.get(text, split == "train") == (split == "train") for text in seen[-1])
    assert min(map(len, seen)) > 20 and not seen[0] & seen[1]


def test_templates_are_counted_by_operations():
    problems, _, found = drawn(SMALL)
    lines = table(templates(problems, SMALL), problems.op).splitlines()
    assert len(lines) == 5
    for line, op in zip(lines[1:], range(1, 5), strict=True):
        mine = [template(record) for record in found if record["op"] == op]
        cells = list(map(int, line.split()))
        assert cells[:3] == [op, len(mine), len(set(mine))] and sum(cells[3:]) == cells[2]


def test_a_search_gives_up_and_can_be_taken_up_again(monkeypatch):
    spec, goal = dataclasses.replace(TINY, split="test"), structure.Goal(jnp.int32(2), jnp.int32(3))

    def found(tries, start):
        monkeypatch.setattr(search, "TRIES", tries)
        look = functools.partial(search.find, goal=goal, spec=spec)
        drawn, place = jax.jit(jax.vmap(lambda key, start: look(key, start=start)))(keys_N, start)
        return np.asarray(drawn.accepted), np.asarray(drawn.key_data), place

    keys_N = first_keys(64)
    start_N = search.Place(*(jnp.zeros(64, jnp.int32),) * 3)
    early_N, early_data, place_N = found(8, start_N)
    assert 0 < early_N.sum() < 64 and (np.asarray(place_N.tries)[~early_N] == 8).all()
    all_N, data, whole_N = found(1 << 14, start_N)
    assert all_N.all() and (data[early_N] == early_data[early_N]).all()
    # Those that had given up come upon the same draft, the others upon a later one.
    _, again, later_N = found(1 << 14, place_N)
    assert (again[~early_N] == data[~early_N]).all()
    assert (again[early_N] != data[early_N]).any(-1).all()
    assert (later_N.tries > whole_N.tries)[early_N].all()


def test_structure_keeps_its_caps():
    problems, _, _ = drawn(HARD)
    graph = problems.structure
    edges = graph.edges_GxWxW.sum((1, 2, 3))
    assert edges.max() <= 28 and edges.min() >= 2
    for n in range(len(edges)):
        sizes = graph.sizes_D[n, : graph.depth[n]]
        assert ((sizes >= 2) & (sizes <= 4)).all()
        for layer in range(graph.depth[n] - 1):
            inside = graph.edges_GxWxW[n, layer, : sizes[layer], : sizes[layer + 1]]
            assert inside.any(0).all(), "every item below the top has a parent"
            assert inside.sum() == graph.edges_GxWxW[n, layer].sum()


def test_constants_and_terms():
    problems, _, _ = drawn(MED)
    count = (problems.refs_IxR >= 0).sum(-1)
    stated = np.zeros_like(problems.constant_I)
    for n, slots_E in enumerate(problems.sentences_E):
        stated[n, slots_E[slots_E >= 0]] = True
    terms = (count + problems.constant_I)[stated]
    assert terms.min() == 1 and terms.max() == 4
    factor = stated & problems.constant_I & problems.times_I & (count > 0)
    assert set(problems.number_I[factor]) == set(range(1, 23))
    assert set(problems.number_I[stated & problems.constant_I & ~factor]) == set(range(23))
    # No parameter is named twice on one right side.
    for row in problems.refs_IxR.reshape(-1, 4):
        named = row[row >= 0]
        assert len(set(named)) == len(named)


def test_about_half_of_the_distractors_are_independent():
    """Step 9: with probability one half, from earlier independent distractors alone."""
    _, _, found = drawn(HARD)
    apart = total = 0
    for record in found:
        facts = facts_of(record, HARD)
        stated = re.findall(r"The number of each (.+?'s .+?) equals", record["problem"])
        for parameter in set(stated) - facts.necessary:
            reached, stack = {parameter}, [parameter]
            while stack:
                more = facts.needs[stack.pop()] - reached
                reached |= more
                stack += more
            total += 1
            apart += not reached & facts.necessary
    # Those that are not independent may still draw a constant alone or independent ones.
    assert total > 2000 and 0.5 < apart / total < 0.8


def test_decoding_is_the_text():
    _, documents, found = drawn(MED)
    vocab = language.vocabulary(MED)
    text = vocab.decode(documents.tokens_N[0, : documents.length[0]])
    record = found[0]
    assert text == (
        f"<|problem|>{record['problem']}{record['question']}<|solution|>{record['solution']}"
        f"<|answer|> {record['answer']}<|end|>"
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_edges": 300}, "max_edges is 300; it must be a whole number in 1..255."),
        (
            {"max_edges": 1},
            "max_edges is 1; it must be at least 2, for the 2 layers (min_depth",
        ),
        ({"modulus": 1}, "modulus is 1; it must be a whole number in 2..256."),
        ({"max_depth": 5}, "max_depth is 5; it must be a whole number in 2..4."),
        ({"max_op": 40, "max_edges": 4, "max_depth": 2}, "max_op is 40; it must be at most "),
        ({"names": 3}, "names is 3; it must be at least max_width, 4, so"),
        ({"max_terms": 0}, "max_terms is 0; it must be a whole number in 1..4."),
        ({"max_terms": 5}, "max_terms is 5; it must be a whole number in 1..4."),
        (
            {"max_terms": 2, "max_edges": 4, "max_depth": 2, "max_width": 2},
            "max_op is 15; it must be at most 6, what max_edges=4, max_depth=2, max_width=2 and "
            "max_terms=2 leave room for.",
        ),
        ({"op_draw": "even"}, "op_draw is 'even'; it must be one of lesser, uniform."),
        ({"order": "qqp"}, "order is 'qqp'; it must be one of pq, qp."),
        ({"letters": 10}, "letters is 10; it must be at least max_op, 15, so"),
        ({"letters": 10, "op": 12}, "letters is 10; it must be at least op, 12, so"),
        ({"min_depth": 4, "max_depth": 3}, "max_depth is 3; it must be at least min_depth, 4."),
        ({"min_width": 4, "max_width": 3}, "max_width is 3; it must be at least min_width, 4."),
        ({"names_file": 3}, "names_file is 3; it must be the text of a path."),
        ({"split": "dev"}, "split is 'dev'; it must be one of train, test, all."),
    ],
)
def test_impossible_specs_are_refused(fields, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Spec(**fields)


# Two sums of two children cost 1 each, and four instance parameters 1, 1, 2 and 3, where the terms
# suffice for that.
@pytest.mark.parametrize(("max_terms", "reach"), [(4, 9), (3, 8), (2, 6), (1, 6)])
def test_reachable_op_is_met_and_not_passed(max_terms, reach, monkeypatch):
    caps = {"max_edges": 4, "max_depth": 2, "max_width": 2, "names": 2, "max_terms": max_terms}
    assert reachable_op(Spec(max_op=reach, **caps)) == reach
    said = f"max_op is {reach + 1}; it must be at most {reach}, what max_edges=4"
    with pytest.raises(ValueError, match=said):
        Spec(max_op=reach + 1, **caps)
    problems, _, _ = drawn(Spec(op=reach, **caps))
    assert problems.ok.all() and (problems.op == reach).all()
    if max_terms < 4:
        # No search finds what is refused.
        monkeypatch.setattr("data_gen.spec.reachable_op", lambda spec: reach + 1)
        monkeypatch.setattr(search, "TRIES", 1 << 10)
        assert not stream.problems(first_keys(16), spec=Spec(op=reach + 1, **caps)).ok.any()


def test_goals_can_be_given():
    goals = structure.Goal(jnp.full(16, 3, jnp.int32), jnp.full(16, 3, jnp.int32))
    problems = stream.problems(first_keys(16), goals, spec=TINY)
    assert (problems.op == 3).all()
