"""Mistakes: where they stand, what they name, how often they come, what bears loss."""

import re

import numpy as np
import pytest
from drawn import SMALL, drawn, facts_of

from data_gen.solutions import document, language
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import MED
from data_gen.text.judge import judge
from data_gen.windows.stream import token_weights

pytestmark = pytest.mark.slow


def sentences(record):
    return record["solution"].strip().removesuffix(".").split(". ")


def walk(record, spec):
    """(position's mistakes, steps done so far, steps to come, facts) at every position."""
    facts = facts_of(record, spec)
    done, wrong = [], []
    steps = [s for s in sentences(record) if not s.endswith("as BACK")]
    to_come = [re.match(r"Define (.+) as ", s)[1] for s in steps]
    for sentence in sentences(record):
        parameter = re.match(r"Define (.+) as ", sentence)[1]
        if sentence.endswith("as BACK"):
            wrong.append(parameter)
            continue
        yield wrong, list(done), to_come[len(done) :], facts
        done.append(parameter)
        wrong = []
    assert not wrong, "a mistake comes before a step, never at the end"


@pytest.mark.parametrize("kind", ["retry", "retry_weak", "retry_weak_public", "retry_miss"])
def test_candidates_are_what_the_kind_says(kind):
    _, _, found = drawn(MED, Mistakes(kind, 0.5))
    total = now = recurring = 0
    for record in found:
        before = set()
        for wrong, done, to_come, facts in walk(record, MED):
            assert len(set(wrong)) == len(wrong), "distinct at one position"
            recurring += len(before & set(wrong))
            before |= set(wrong)
            for parameter in wrong:
                total += 1
                assert parameter not in done
                if kind == "retry":
                    assert not facts.needs[parameter] <= set(done)
                elif kind == "retry_weak":
                    assert parameter in to_come[1:]
                elif kind == "retry_weak_public":
                    assert parameter in to_come
                    now += parameter == to_come[0]
                else:
                    assert f"The number of each {parameter} equals" in record["problem"]
        assert judge(facts_of(record, MED), record["solution"]).correct
    assert total > len(found)
    assert recurring > 100, "what was wrong at one position may be so at a later one"
    assert (now > 100) == (kind == "retry_weak_public"), "the step about to be written, too"


def test_rate_is_geometric_where_candidates_suffice():
    """Part 2.2, Section 4: with probability q a mistake, and again; q / (1 - q) on average."""
    _, _, found = drawn(MED, Mistakes("retry", 0.5))
    counts = []
    for record in found:
        for wrong, done, _, facts in walk(record, MED):
            blocked = [p for p in facts.needs if p not in done and not facts.needs[p] <= set(done)]
            if len(blocked) >= 10:
                counts.append(len(wrong))
    mean, n = np.mean(counts), len(counts)
    assert n > 400
    assert abs(mean - 1.0) < 4 * np.sqrt(2 / n)
    none = np.mean(np.array(counts) == 0)
    assert abs(none - 0.5) < 4 * np.sqrt(0.25 / n)


def test_wrong_parameters_are_uniform_over_candidates():
    _, _, found = drawn(MED, Mistakes("retry", 0.5))
    ranks, wanted = [], np.zeros(4)
    for record in found:
        for wrong, done, _, facts in walk(record, MED):
            blocked = sorted(
                p for p in facts.needs if p not in done and not facts.needs[p] <= set(done)
            )
            if wrong:
                places = (np.arange(len(blocked)) + 0.5) / len(blocked)
                ranks.append(places[blocked.index(wrong[0])])
                # Few candidates do not fall into quarters evenly.
                wanted += np.histogram(places, 4, (0, 1))[0] / len(blocked)
    assert len(ranks) > 500
    quarters = np.histogram(ranks, 4, (0, 1))[0]
    assert ((quarters - wanted) ** 2 / wanted).sum() < 16.3  # 3 degrees


def test_mistakes_leave_the_problem_and_its_steps_alone():
    """Rate 0 is the error-free document; at any rate the same problem with the same steps."""
    _, plain, error_free = drawn(SMALL)
    _, _, found = drawn(SMALL, Mistakes("retry", 0.5))
    assert "BACK" not in "".join(record["solution"] for record in error_free)
    for a, b in zip(error_free, found, strict=True):
        kept = [s for s in sentences(b) if not s.endswith("as BACK")]
        assert kept == sentences(a)
        assert {**a, "solution": ""} == {**b, "solution": ""}
    _, zero, _ = drawn(SMALL, Mistakes("retry_weak", 0.0))
    np.testing.assert_array_equal(plain.tokens_N, zero.tokens_N)


@pytest.mark.parametrize(
    ("mask", "hidden"),
    [
        ("none", r"$^"),
        ("name", r"Define (?P<hidden>\S.+?'s .+?) as BACK\."),
        ("sentence", r"(?P<hidden>Define \S.+?'s .+? as) BACK\."),
        ("all", r"(?P<hidden>Define \S.+?'s .+? as BACK\.)"),
    ],
)
def test_masks_hide_exactly_the_tokens_they_name(mask, hidden):
    mistakes = Mistakes("retry", 0.5, mask=mask)
    _, documents, _ = drawn(SMALL, mistakes)
    vocab = language.vocabulary(SMALL)
    for n in range(64):
        ids = documents.tokens_N[n, : documents.length[n]]
        weights = np.asarray(token_weights(documents.role_N[n], mistakes, "all"))[: len(ids)]
        text = [vocab.tokens[i] for i in ids]
        offsets = np.cumsum([0, *map(len, text)])
        expected = np.ones(len(ids))
        for found in re.finditer(hidden, "".join(text)):
            # A match that runs over a sentence's end began before its mistake.
            start = "".join(text).rfind("Define", 0, found.end())
            begin = max(found.start("hidden"), start + (7 if mask == "name" else 0))
            inside = (offsets[:-1] + 1 >= begin) & (offsets[1:] <= found.end("hidden"))
            expected[inside] = 0
        np.testing.assert_array_equal(weights, expected)


def test_loss_on_the_solution_alone():
    _, documents, _ = drawn(SMALL, Mistakes("retry", 0.5))
    weights = np.asarray(token_weights(documents.role_N, Mistakes(), "solution"))
    for n in range(128):
        prompt, length = documents.prompt[n], documents.length[n]
        assert not weights[n, :prompt].any()
        assert weights[n, prompt:length].all()
        assert not weights[n, length:].any()


def test_roles_and_sentences_follow_the_text():
    _, documents, found = drawn(SMALL, Mistakes("retry", 0.5))
    vocab = language.vocabulary(SMALL)
    for n in range(32):
        ids, role = documents.tokens_N[n], documents.role_N[n]
        numbers = documents.sentence_N[n]
        for k, sentence in enumerate(sentences(found[n])):
            assert vocab.decode(ids[numbers == k]) == f" {sentence}."
        wrong = np.isin(role, [document.WRONG_NAME, document.WRONG_WORDS, document.WRONG_MARKER])
        backs = [f" {s}." for s in sentences(found[n]) if s.endswith("BACK")]
        assert vocab.decode(ids[wrong]) == "".join(backs)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rate": 1.0}, "rate is 1.0; it must be a number at least 0 and below 1."),
        ({"rate": float("nan")}, "rate is nan; it must be a number at least 0 and below 1."),
        ({"kind": "typo"}, "kind is 'typo'; it must be one of skip, retry, retry_weak, "),
        ({"mask": "some"}, "mask is 'some'; it must be one of none, name, sentence, all."),
        ({"whole": "all"}, "whole is 'all'; it must be true or false."),
    ],
)
def test_bad_mistakes_are_refused(fields, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Mistakes(**fields)
