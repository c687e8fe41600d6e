"""A model's own mistakes: the right sentences that mend them, as text and as tokens."""

import collections
import dataclasses
import re

import jax
import numpy as np
import pytest
from drawn import ROOM, SMALL, drawn, facts_of

from data_gen.solutions import faults, kinds, language
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import MED
from data_gen.text import corrections
from data_gen.text.answers import judge_many
from data_gen.text.judge import judge, split_sentences, standing
from data_gen.windows import stream

pytestmark = pytest.mark.slow

# Of these the first wrong step tells which they are.
KINDS = [
    kinds.by_fault()[fault]
    for fault in (
        faults.SKIP,
        faults.CALCULATION,
        faults.VALUE,
        faults.REFERENCE,
        faults.OPERATOR,
        faults.MISSING,
        faults.MISREAD,
    )
]
TYPED = ",".join(f"{kind}:{1 / len(KINDS):.4f}" for kind in KINDS)


def letters_of(solution):
    """The letters of all operations, in order."""
    lines = [line for step in standing(solution) for line in step.split("; ")[1:]]
    return [line.removeprefix("so ").partition(" = ")[0] for line in lines]


@pytest.mark.parametrize("spec", [MED, dataclasses.replace(SMALL, reask=True, letters=14)])
def test_right_sentences_are_those_of_the_renderer(spec):
    """Written from the text's facts, with the same letters, each solution is the sampler's own."""
    for record in drawn(spec)[2]:
        facts = facts_of(record, spec)
        order = [re.match(r"Define (.+) as ", s)[1] for s in standing(record["solution"])]
        fresh = iter(letters_of(record["solution"]))
        written = corrections.continuation(facts, [], order, fresh)
        assert "".join(f" {sentence}." for sentence in written) == record["solution"]


def unmended(record):
    """The solution with its mistakes as a model makes them that never goes back."""
    for at, sentence in enumerate(split_sentences(record["solution"])):
        if sentence.endswith(" BACK"):
            before = split_sentences(record["solution"])[:at]
            # What comes after does not matter; it goes on as if nothing were wrong.
            wrong = sentence.removesuffix(" BACK")
            after = standing(record["solution"])[len(standing(". ".join(before) + ".")) + 1 :]
            return "".join(f" {text}." for text in (*before, wrong, *after))
    return record["solution"]


@pytest.mark.parametrize("whole", [False, True])
def test_wrong_solutions_are_mended_where_they_go_wrong(whole):
    _, _, found = drawn(SMALL, Mistakes(TYPED, 0.35, whole=True))
    keys = jax.random.split(jax.random.key(0), len(found))
    seen = collections.Counter()
    for record, key in zip(found, keys, strict=True):
        facts, written = facts_of(record, SMALL), unmended(record)
        first = judge(facts, written)
        made = corrections.corrected(record, written, key, SMALL, whole=whole)
        if first.correct:
            assert made is None
            continue
        seen[first.kind] += 1
        verdict = judge(facts, made["solution"], f" {record['answer']}")
        assert verdict.correct and verdict.unnecessary == 0 and verdict.op == made["op"]
        assert made["kind"] == first.kind
        mended = verdict.mended[-1]
        assert mended[:3] == (first.first_wrong_step, first.kind, "back")
        sentences, wrote = split_sentences(made["solution"]), split_sentences(written)
        at = max(n for n, sentence in enumerate(sentences) if sentence.endswith(" BACK"))
        wrong = sentences[at].removesuffix(" BACK")
        assert sentences[:at] == wrote[:at] and wrote[at].startswith(wrong)
        assert (wrong == wrote[at]) != (first.kind == "skip" and not whole)
    assert set(seen) == set(KINDS)


def test_what_has_no_wrong_step_is_not_mended():
    record = drawn(MED)[2][0]
    key = jax.random.key(0)
    assert corrections.corrected(record, record["solution"], key, MED) is None
    assert corrections.corrected(record, record["solution"][:-5], key, MED) is None
    assert corrections.corrected(record, "", key, MED) is None
    with pytest.raises(ValueError, match="own solution is wrong: the solution breaks off"):
        cut = {**record, "solution": record["solution"][:40]}
        corrections.corrected(cut, " Define that. Go on.", key, MED)
    garbage = corrections.corrected(record, " Define that. Go on.", key, MED)
    assert judge(facts_of(record, MED), garbage["solution"]).correct


@pytest.mark.parametrize("mistakes", [Mistakes(), Mistakes("retry", 0.5)])
def test_documents_from_texts_are_the_renderers(mistakes):
    _, documents, found = drawn(SMALL, mistakes)
    ours = corrections.documents(found, ROOM, SMALL)
    for name, left, right in zip(ours._fields, ours, documents, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_mended_documents_can_be_trained_on():
    """From a model's text to packed windows; they decode to what was mended."""
    _, _, found = drawn(SMALL, Mistakes("calculation", 0.3))
    keys = jax.random.split(jax.random.key(0), len(found))
    made = [
        corrections.corrected(record, unmended(record), key, SMALL)
        for record, key in zip(found, keys, strict=True)
    ]
    made = [record for record in made if record is not None]
    assert len(made) > 30
    documents = corrections.documents(made, ROOM, SMALL)
    vocab = language.vocabulary(SMALL)
    written = [
        ids[prompt:] for ids, prompt in zip(documents.tokens_N, documents.prompt, strict=True)
    ]
    assert all(verdict.correct for verdict in judge_many(made, written, vocab, SMALL.modulus))
    masked = Mistakes("calculation", 0.3, mask="all")
    weights = np.asarray(stream.token_weights(documents.role_N, masked, "solution"))
    for n, record in enumerate(made):
        ids = documents.tokens_N[n]
        kept = vocab.decode(ids[weights[n] > 0])
        assert kept.startswith("".join(f" {step}." for step in standing(record["solution"])))


def test_text_that_is_no_symbol_is_refused():
    vocab = language.vocabulary(SMALL)
    with pytest.raises(ValueError, match="' Moth' does not begin with a symbol"):
        vocab.encode(" each Moth")


def test_a_models_mistakes_as_a_distribution():
    _, _, found = drawn(SMALL, Mistakes(TYPED, 0.35, whole=True))
    verdicts = [judge(facts_of(record, SMALL), unmended(record)) for record in found]
    distribution = Mistakes(corrections.mixture(verdicts), 0.3)
    wrong = [verdict.kind for verdict in verdicts if not verdict.correct]
    for kind, rate in distribution.rates:
        assert abs(rate - 0.3 * wrong.count(kind.judged) / len(wrong)) < 1e-5
    table = corrections.table(verdicts)
    assert f"{len(found)} solutions, {len(wrong)} wrong" in table
    for kind, _ in distribution.rates:
        assert re.search(rf"{kind.judged} +{wrong.count(kind.judged)} ", table)
    with pytest.raises(ValueError, match="no solution has a first wrong step"):
        corrections.mixture([judge(facts_of(found[0], SMALL), "")])
