"""The judge and the reader, on a problem small enough to check by hand."""

import numpy as np
import pytest
from drawn import SMALL, drawn, facts_of
from hypothesis import given
from hypothesis import strategies as st

from data_gen.solutions import language
from data_gen.text.answers import judge_many, judge_tokens, split
from data_gen.text.judge import judge
from data_gen.text.reader import read

LAYERS = [
    ["Library", ["Oak Library", "Elm Library"]],
    ["Shelf", ["Red Shelf", "Blue Shelf"]],
    ["Book", ["Old Atlas", "New Atlas"]],
]
PROBLEM = (
    " The number of each Oak Library's Red Shelf equals 3."
    " The number of each Oak Library's Blue Shelf equals 2 more than each Oak Library's Red Shelf."
    " The number of each Elm Library's Blue Shelf equals the difference of each Oak Library's Red"
    " Shelf and each Oak Library's Blue Shelf."
    " The number of each Red Shelf's Old Atlas equals 4 times as much as the sum of each Oak"
    " Library's Red Shelf, each Oak Library's Blue Shelf and each Oak Library's Shelf."
    " The number of each Blue Shelf's New Atlas equals each Oak Library's Red Shelf."
)
QUESTION = " How many Book does Oak Library have?"
SOLUTION = (
    " Define Oak Library's Red Shelf as a; so a = 3."
    " Define Oak Library's Blue Shelf as b; so b = 2 + a = 2 + 3 = 5."
    " Define Oak Library's Shelf as c; so c = a + b = 3 + 5 = 8."
    " Define Red Shelf's Old Atlas as d; e = a + b = 3 + 5 = 8; f = e + c = 8 + 8 = 16;"
    " so d = 4 * f = 4 * 16 = 18."
    " Define Red Shelf's Book as g; so g = d = 18."
    " Define Blue Shelf's New Atlas as h; so h = a = 3."
    " Define Blue Shelf's Book as i; so i = h = 3."
    " Define Oak Library's Book as j; k = a * g = 3 * 18 = 8; l = b * i = 5 * 3 = 15;"
    " so j = k + l = 8 + 15 = 0."
)
FACTS = read(LAYERS, PROBLEM, QUESTION)


def test_reader_finds_needs_values_and_what_is_necessary():
    assert FACTS.answer == 0
    assert FACTS.needs["Oak Library's Book"] == {
        "Oak Library's Red Shelf",
        "Oak Library's Blue Shelf",
        "Red Shelf's Book",
        "Blue Shelf's Book",
    }
    assert FACTS.value["Elm Library's Blue Shelf"] == 21
    assert FACTS.needs["Elm Library's Red Shelf"] == frozenset()
    assert "Elm Library's Blue Shelf" not in FACTS.necessary
    assert len(FACTS.necessary) == 8


def test_right_solution():
    verdict = judge(FACTS, SOLUTION, " 0")
    assert verdict.correct and verdict.reason == "" and verdict.first_wrong_step is None
    assert (verdict.retries, verdict.unnecessary, verdict.op) == (0, 0, 12)


WRONG = [
    ("b = 2 + a = 2 + 3 = 5", "b = 2 + a = 2 + 3 = 6", 1, "2 + 3 is not 6"),
    ("b = 2 + a = 2 + 3 = 5", "b = 2 + a = 2 + 4 = 6", 1, "a is 3, not 4"),
    ("b = 2 + a = 2 + 3 = 5", "b = 3 + a = 3 + 3 = 6", 1, "Oak Library's Blue Shelf is 5"),
    ("b = 2 + a = 2 + 3 = 5", "b = 2 * a = 2 * 3 = 6", 1, "Oak Library's Blue Shelf is 5"),
    ("b = 2 + a = 2 + 3 = 5", "b = 2 + x = 2 + 3 = 5", 1, "x is not defined"),
    ("b = 2 + a = 2 + 3 = 5", "b = 2 + a = 2 * 3 = 6", 1, "do not match"),
    ("b = 2 + a = 2 + 3 = 5", "b = 5", 1, "depends on Oak Library's Red Shelf too"),
    ("a; so a = 3", "a; so a = 26", 0, "26 is not below 23"),
    ("as g; so g = d = 18", "as d; so d = d = 18", 4, "d is defined twice"),
    ("as g; so g = d = 18", "as g; so m = d = 18", 4, "defines g but its line computes m"),
    ("Blue Shelf's Book as i", "Elm Shelf's Book as i", 6, "the problem has no Elm Shelf's Book"),
    ("h; so h = a = 3", "h; h = a = 3", 5, "does not end in 'so'"),
    ("as h; so h", "as h; z = d = 18; so h", 5, "does not depend on Red Shelf's Old Atlas"),
    (" so j = k + l = 8 + 15 = 0.", " so j = k + l", 7, "breaks off"),
]


@pytest.mark.parametrize(("old", "new", "step", "reason"), WRONG)
def test_wrong_solutions(old, new, step, reason):
    assert SOLUTION.count(old) == 1
    verdict = judge(FACTS, SOLUTION.replace(old, new), " 0")
    assert not verdict.correct
    assert verdict.first_wrong_step == step
    assert reason in verdict.reason


def test_operations_are_counted_of_what_cannot_be_read_too():
    assert judge(FACTS, "Define Oak Library's Red Shelf as a. Moth.").op == 2
    assert judge(FACTS, SOLUTION + " Moth.").op == 13


def test_swapped_steps_use_what_is_not_defined():
    steps = SOLUTION.split(" Define ")
    steps[2], steps[3] = steps[3], steps[2]
    verdict = judge(FACTS, " Define ".join(steps), " 0")
    assert verdict.first_wrong_step == 1 and verdict.reason == "b is not defined"


def test_mistakes_taken_back_are_skipped_and_counted():
    steps = SOLUTION.split(" Define ")
    steps[3:3] = ["Red Shelf's Book as BACK.", "Oak Library's Book as BACK."]
    verdict = judge(FACTS, " Define ".join(steps), " 0")
    assert verdict.correct and verdict.retries == 2


FIRST, REST = SOLUTION.split(".", 1)
NAME = " Define Red Shelf's Book as"


@pytest.mark.parametrize(
    ("written", "retries"),
    [
        (f"{NAME} BACK.{SOLUTION}", 1),
        (f"{NAME} FIX.{SOLUTION}", 1),
        (f"{NAME} RESTART.{SOLUTION}", 1),
        (f"{NAME} BACK.{NAME} BACK.{SOLUTION}", 2),
        (f"{FIRST}.{NAME} BACK BACK.{SOLUTION}", 1),
        (f"{FIRST}.{NAME} RESTART.{SOLUTION}", 1),
        (f"{FIRST} BACK.{SOLUTION}", 1),
        # More than there are sentences, at the first and later.
        (f"{NAME} BACK BACK.{SOLUTION}", None),
        (f"{NAME} BACK BACK BACK.{SOLUTION}", None),
        (f"{FIRST}.{NAME} BACK BACK BACK.{SOLUTION}", None),
        # Different ones, at the first and later.
        (f"{NAME} BACK FIX.{SOLUTION}", None),
        (f"{NAME} BACK RESTART.{SOLUTION}", None),
        (f"{FIRST}.{NAME} FIX BACK.{SOLUTION}", None),
        (f"{FIRST}.{NAME} RESTART BACK.{SOLUTION}", None),
        # A new beginning said twice.
        (f"{NAME} RESTART RESTART.{SOLUTION}", None),
        # Not at the end.
        (f"{NAME} BACK a.{SOLUTION}", None),
        (f"{FIRST}.{REST.replace(' as g;', ' as BACK g;', 1)}", None),
    ],
)
def test_markers_take_back_what_they_say_at_every_place(written, retries):
    verdict = judge(FACTS, written, " 0")
    assert verdict.correct == (retries is not None), verdict.reason
    if retries is None:
        assert verdict.kind == "form" and verdict.reason == "a step's markers take nothing back"
    else:
        assert verdict.retries == retries


@pytest.mark.parametrize("zeros", ["0", "00"])
@pytest.mark.parametrize(
    ("old", "new"),
    [("a = 3.", "a = {}3."), ("b = 2 + a = 2 +", "b = {}2 + a = {}2 +"), (" 3 = 5.", " {}3 = 5.")],
)
def test_numerals_have_no_zeros_before_them(zeros, old, new):
    assert old in SOLUTION
    verdict = judge(FACTS, SOLUTION.replace(old, new.replace("{}", zeros), 1), " 0")
    assert not verdict.correct and verdict.kind in ("form", "undefined")


def test_the_answer_is_a_numeral():
    for answer, right in ((" 0", True), ("0", True), (" 00", False), (" ٠", False), ("", False)):
        assert judge(FACTS, SOLUTION, answer).correct == right
    for number in ("00", "٠", "-0", "+0", "0.0"):
        assert not judge(FACTS, SOLUTION.replace("15 = 0.", f"15 = {number}.")).answer_correct


def test_unneeded_steps_are_counted():
    extra = " Define Elm Library's Blue Shelf as z; so z = a - b = 3 - 5 = 21."
    head, mark, tail = SOLUTION.partition(" Define Oak Library's Shelf")
    verdict = judge(FACTS, head + extra + mark + tail, " 0")
    assert verdict.correct and verdict.unnecessary == 1


def test_answer_is_judged_apart_from_the_steps():
    assert judge(FACTS, SOLUTION, " 1").reason == "the answer is 0"
    assert not judge(FACTS, SOLUTION, " 1").answer_correct
    broken = SOLUTION.replace("b = 2 + a = 2 + 3 = 5", "b = 2 + a = 2 + 3 = 6")
    assert judge(FACTS, broken, " 0").answer_correct
    missing_end = SOLUTION[: SOLUTION.index(" Define Oak Library's Book")]
    assert judge(FACTS, missing_end).reason == "the last step does not answer the question"


PIECES = st.lists(
    st.sampled_from(
        [*SOLUTION.replace(";", " ;").replace(".", " .").split(" "), "BACK", "so", "\x00", "é", "٣"]
    )
)


@given(st.one_of(st.text(), PIECES.map(" ".join)), st.one_of(st.none(), st.text()))
def test_any_text_gets_a_verdict(solution, answer):
    verdict = judge(FACTS, solution, answer)
    assert verdict.correct == (verdict.reason == "") == (verdict.first_wrong_step is None)


@given(st.integers(0, len(SOLUTION)), st.integers(0, 10), st.text(max_size=5))
def test_any_damage_gets_a_verdict(at, cut, put):
    verdict = judge(FACTS, SOLUTION[:at] + put + SOLUTION[at + cut :], " 0")
    assert verdict.op >= 0


@pytest.mark.parametrize(
    ("problem", "question", "said"),
    [
        (
            "The number of each Oak Library's Moth equals 3.",
            QUESTION,
            "a known parameter equals",
        ),
        (
            PROBLEM.replace("equals 3.", "is 3."),
            QUESTION,
            "a known parameter equals",
        ),
        (PROBLEM, "How many Moth does Oak Library have?", "asks for no known parameter"),
        (PROBLEM.replace("equals 3.", "equals 2 less."), QUESTION, "does not go on after"),
        (
            PROBLEM.replace("equals 3.", "equals each Oak Library's Blue Shelf."),
            QUESTION,
            "needs itself",
        ),
    ],
)
def test_unreadable_problems_are_refused(problem, question, said):
    with pytest.raises(ValueError, match=said):
        read(LAYERS, problem, question)


@given(st.lists(st.integers(-5, 2**31 - 1) | st.integers(0, 80), max_size=60))
def test_any_tokens_get_a_verdict(ids):
    vocab = language.vocabulary(SMALL)
    verdict = judge_tokens(FACTS, ids, vocab)
    assert verdict.correct == (verdict.reason == "")


@given(st.binary(max_size=80), st.integers(0, len(SOLUTION)))
def test_any_bytes_get_a_verdict(data, at):
    for text in (data.decode("utf-8", "replace"), data.decode("latin-1")):
        for solution in (text, SOLUTION[:at] + text + SOLUTION[at:]):
            assert isinstance(judge(FACTS, solution, text).reason, str)


def test_tokens_and_texts_get_the_same_verdicts():
    problems, documents, found = drawn(SMALL)
    written = [
        ids[prompt:] for ids, prompt in zip(documents.tokens_N, documents.prompt, strict=True)
    ]
    verdicts = judge_many(found, written, language.vocabulary(SMALL), SMALL.modulus)
    assert all(verdict.correct for verdict in verdicts)
    # One token changed: what the tokens say is what their text says.
    rng, vocab = np.random.default_rng(0), language.vocabulary(SMALL)
    for n, record in enumerate(found):
        ids = written[n].copy()
        ids[rng.integers(0, documents.length[n] - documents.prompt[n])] = rng.integers(
            0, vocab.size
        )
        solution, answer = split(ids, vocab)
        facts = facts_of(record, SMALL)
        assert judge_tokens(facts, ids, vocab) == judge(facts, solution, answer or "")
    assert problems.ok.all()
