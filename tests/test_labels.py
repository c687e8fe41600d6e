"""Labels and the parser: arrays against plain walks over the text."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import COUNT, ERROR_FREE, ROOM, SMALL, drawn, facts_of, first_keys

from data_gen import keys
from data_gen.keys import Stage
from data_gen.solutions import grammar, labels, language, mistakes, render
from data_gen.solutions.script import draw_script
from data_gen.solutions.steps import right_steps
from data_gen.spec import Spec
from data_gen.text.parser import parse, slot_names

pytestmark = pytest.mark.slow

LABELS = jax.jit(jax.vmap(functools.partial(labels.labels, spec=SMALL)))


def parsed(record, spec=SMALL):
    texts = (record["problem"], record["question"], record["solution"])
    return jax.tree.map(np.asarray, parse(record["layers"], *texts, spec))


def test_parser_gives_back_the_arrays_that_the_text_came_from():
    problems, _, found = drawn(SMALL)
    for n, record in enumerate(found[:64]):
        ours = jax.tree.map(lambda x, n=n: x[n], problems)
        theirs = parsed(record)
        # What no text shows: operators and constants that are not used, and names not there.
        refs = (ours.refs_IxR >= 0).sum(-1)
        scaled, listed = ours.constant_I & (refs > 0), refs == 2
        ours = ours._replace(
            times_I=ours.times_I & scaled,
            difference_I=ours.difference_I & listed,
            letters=ours.letters[: ours.op],
            subcategory_D=ours.subcategory_D[: ours.structure.depth],
        )
        theirs = theirs._replace(
            letters=theirs.letters[: ours.op],
            subcategory_D=theirs.subcategory_D[: ours.structure.depth],
        )
        for layer, size in enumerate(ours.structure.sizes_D):
            np.testing.assert_array_equal(
                ours.items_DxW[layer, :size], theirs.items_DxW[layer, :size]
            )
        theirs = theirs._replace(items_DxW=ours.items_DxW)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Define ", "Compute ", "defines nothing"),
        ("; so ", "; so 3", "for a letter"),
        (" as ", "'s Moth as ", "defines no known parameter"),
    ],
)
def test_parser_refuses_what_it_cannot_read(old, new, said):
    record = drawn(SMALL)[2][0]
    with pytest.raises(ValueError, match=said):
        parsed({**record, "solution": record["solution"].replace(old, new, 1)})


def test_parser_refuses_what_has_no_room():
    record = next(r for r in drawn(SMALL)[2] if len(r["layers"]) == 3)
    with pytest.raises(ValueError, match="3 layers: the class has room for 2"):
        parsed(record, Spec(max_op=4, max_edges=4, max_depth=2, max_width=2, letters=8))


def test_labels_are_what_a_walk_over_the_text_finds():
    problems, _, found = drawn(SMALL)
    all_labels = jax.tree.map(np.asarray, LABELS(problems))
    for n, record in enumerate(found[:100]):
        facts = facts_of(record, SMALL)
        names = slot_names(record["layers"], SMALL)
        label = jax.tree.map(lambda x, n=n: x[n], all_labels)
        assert set(np.flatnonzero(label.slot_P)) == set(names)
        reached = {name: _reach(name, facts.needs) for name in facts.needs}
        order = [names[slot] for slot in problems.order_T[n, : problems.steps[n]]]
        for moment in range(len(order) + 1):
            known = set(order[:moment])
            for slot, name in names.items():
                nece, ready = name in facts.necessary, facts.needs[name] <= known
                assert label.known_XxP[moment, slot] == (name in known)
                assert label.can_next_XxP[moment, slot] == (ready and name not in known)
                assert label.nece_P[slot] == nece
                assert label.nece_next_XxP[moment, slot] == (ready and nece and name not in known)
                value = facts.value[name] if name in known else SMALL.modulus
                assert label.value_XxP[moment, slot] == value
        for a, first in names.items():
            for b, second in names.items():
                assert label.dep_PxP[a, b] == (second in reached[first])
                assert label.neighbour_PxP[a, b] == (second in facts.needs[first])


def _reach(name, needs):
    found = set()
    for other in needs[name]:
        found |= {other} | _reach(other, needs)
    return found


def test_tokens_know_their_step_and_kind():
    rate = mistakes.Mistakes("retry", 0.5)
    problems, documents, found = drawn(SMALL, rate)
    vocab = language.vocabulary(SMALL)

    def align(key, problem, document):
        right = right_steps(problem, rate, SMALL)
        plan = draw_script(keys.named(key, Stage.MISTAKES), problem, right, rate, SMALL)
        return labels.token_labels(document, plan, problem)

    aligned = jax.jit(jax.vmap(align))(first_keys(COUNT), problems, documents)
    aligned = jax.tree.map(np.asarray, aligned)
    assert sum("BACK" in record["solution"] for record in found) > 100
    for n, record in enumerate(found):
        ids, names = documents.tokens_N[n], slot_names(record["layers"], SMALL)
        sentences = [s + "." for s in record["solution"].split(".") if s]
        steps = [s for s in sentences if "BACK" not in s]
        for step, text in enumerate(steps):
            assert vocab.decode(ids[aligned.step_N[n] == step]) == text
            assert text.startswith(f" Define {names[problems.order_T[n, step]]} as")
        done = 0
        before = [m for m in aligned.moment_N[n] if m]
        assert before == sorted(before) and before[-1] == len(steps)
        for number, sentence in enumerate(sentences):
            mine = documents.sentence_N[n] == number
            assert vocab.decode(ids[mine]) == sentence
            assert (aligned.moment_N[n][mine] == done).all()
            (slot,) = set(aligned.slot_N[n][mine])
            assert sentence.startswith(f" Define {names[slot]} as")
            done += "BACK" not in sentence
    kinds = {
        language.OPERATOR: set(grammar.OPERATORS),
        language.NUMBER: {f" {n}" for n in range(SMALL.modulus)},
        language.MARKER: set(grammar.MARKERS),
        language.LETTER: {f" {x}" for x in language.LETTERS[: SMALL.letters]},
    }
    for kind, tokens in kinds.items():
        seen = {vocab.tokens[i] for i in documents.tokens_N[aligned.kind_N == kind]}
        assert seen == tokens
    named = documents.tokens_N[aligned.kind_N == language.NAME]
    assert named.min() >= vocab.names and (vocab.kinds[: vocab.names] != language.NAME).all()


def test_rendering_does_not_depend_on_what_is_drawn_with_it():
    """One problem alone is the document that it is among others."""
    problems, documents, _ = drawn(SMALL)
    one = jax.tree.map(lambda x: jnp.asarray(x[5]), problems)
    right = right_steps(one, ERROR_FREE, SMALL)
    plan = draw_script(jax.random.key(0), one, right, ERROR_FREE, SMALL)
    alone = render.document(one, plan, right, ROOM, SMALL, ERROR_FREE)
    np.testing.assert_array_equal(alone.tokens_N, documents.tokens_N[5])
