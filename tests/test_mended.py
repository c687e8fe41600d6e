"""Typed mistakes and their mendings: what is drawn is what the text holds and the judge finds."""

import functools
import itertools
import re
import zlib

import jax
import numpy as np
import pytest
from benchmarks.mended import fault, truths, writer
from drawn import COUNT, SMALL, drawn, facts_of, first_keys
from outside import AGAIN, OFF_BY_ONE

from data_gen import keys
from data_gen.keys import Stage
from data_gen.solutions import document, kinds, language, render
from data_gen.solutions.kinds import WrongSentence
from data_gen.solutions.labels import token_labels
from data_gen.solutions.mistakes import MENDINGS, RESTARTS, Mistakes
from data_gen.solutions.script import draw_script
from data_gen.solutions.steps import right_steps
from data_gen.spec import MED
from data_gen.text import records
from data_gen.text.judge import judge, split_sentences, standing
from data_gen.windows import stream
from data_gen.windows.stream import token_weights

pytestmark = pytest.mark.slow

# Those of the package and two that are not.
KINDS = kinds.known()
assert {AGAIN, OFF_BY_ONE} < {*KINDS}
ALL = ",".join(f"{kind.name}:{1 / len(KINDS):.4f}" for kind in KINDS)
SENTENCES = [kind.name for kind in KINDS if isinstance(kind, WrongSentence)]
MARKED = "value:0.2,misread:0.2,operator:0.2,reference:0.2,missing:0.2"
EVERY = Mistakes(ALL, 0.69, mend="back:0.4,fix:0.3,restart:0.3")
LATE = Mistakes(ALL, 0.69, mend="back:0.4,fix:0.3,restart:0.3", whole=True, late=2)
ROOM = 4096


@functools.cache
def _writer(spec, mistakes):
    return writer(spec, mistakes, ROOM)


@functools.cache
def made(spec, mistakes, batches=1):
    """Documents, their scripts and records, of COUNT problems for each batch."""
    parts = []
    for batch in range(batches):
        keys_N = first_keys(COUNT, batch * COUNT)
        problems = stream.problems(keys_N, spec=spec)
        documents, scripts = _writer(spec, mistakes)(keys_N, problems)
        parts.append(jax.tree.map(np.asarray, (problems, documents, scripts)))
    problems, documents, scripts = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    assert (documents.length <= ROOM).all()
    return documents, scripts, records.records(problems, documents, spec)


@pytest.mark.parametrize(("spec", "mistakes"), [(MED, EVERY), (MED, LATE), (SMALL, LATE)])
def test_mistakes_are_judged_as_they_were_drawn(spec, mistakes):
    """Mended documents are right; without its marker each mistake is wrong, there and so."""
    _, scripts, found = made(spec, mistakes)
    assert (scripts.kind_S[~scripts.wrong_S] == -1).all()
    drawn_as = truths(scripts, mistakes)
    for record, truth in zip(found, drawn_as, strict=True):
        assert fault(record, truth, spec.modulus) == ""
    seen = {(kind, mending) for truth in drawn_as for kind, mending, _ in truth}
    wanted = {
        (kind.name, mending)
        for kind in KINDS
        for mending in MENDINGS
        if mending != "fix" or kind.name in SENTENCES
    }
    assert seen == wanted if spec == MED else len(wanted - seen) < 3
    if mistakes.late:
        assert {late for truth in drawn_as for *_, late in truth} == {0, 1, 2}


def test_each_kind_comes_at_its_rate():
    """Of all draws that have a candidate, the kind's share is its rate."""
    mistakes = Mistakes("skip:0.6,calculation:0.4", 0.5)
    _, scripts, found = made(SMALL, mistakes, 4)
    drawn_as = {"skip": [], "calculation": []}
    for record, truth in zip(found, truths(scripts, mistakes), strict=True):
        facts = facts_of(record, SMALL)
        sentences, kinds = split_sentences(record["solution"]), iter(truth)
        done, named = set(), set()
        for n, sentence in enumerate(sentences):
            kind = next(kinds)[0] if sentence.endswith(" BACK") else ""
            coming = next(x for x in sentences[n:] if not x.endswith(" BACK"))
            blocked = [p for p in facts.needs if p not in done and not facts.needs[p] <= done]
            if set(blocked) - named:
                drawn_as["skip"].append(kind == "skip")
            if re.search(r" [+*-] ", coming):
                drawn_as["calculation"].append(kind == "calculation")
            parameter = re.match(r"Define (.+) as", sentence.partition("; ")[0])[1]
            if kind == "skip":
                named.add(parameter)
            if not kind:
                done.add(parameter)
                named = set()
    for kind, rate in (("skip", 0.3), ("calculation", 0.2)):
        n = len(drawn_as[kind])
        assert n > 1000
        assert abs(np.mean(drawn_as[kind]) - rate) < 4 * np.sqrt(rate * (1 - rate) / n)


def test_room_does_not_change_what_is_written():
    """Documents written in little room, or again in more, are those written in all the room."""
    documents, scripts, _ = made(MED, EVERY)
    assert (scripts.sentences > EVERY.usual_sentences(MED)).sum() > 5

    def write(key, problem):
        right = right_steps(problem, EVERY, MED)
        plan = draw_script(keys.named(key, Stage.MISTAKES), problem, right, EVERY, MED)
        return render.document(problem, plan, right, ROOM, MED, EVERY)

    count = COUNT // 2  # another number at once, too
    problems = stream.problems(first_keys(COUNT), spec=MED)
    alone = jax.jit(jax.vmap(write))(
        *jax.tree.map(lambda x: x[:count], (first_keys(COUNT), problems))
    )
    for name, left, right in zip(alone._fields, alone, documents, strict=True):
        np.testing.assert_array_equal(left, right[:count], err_msg=name)


def test_mendings_come_as_often_as_asked_for():
    _, scripts, _ = made(MED, EVERY)
    drawn_as = [mistake for truth in truths(scripts, EVERY) for mistake in truth]
    mendings = [mending for kind, mending, _ in drawn_as if kind in SENTENCES]
    n = len(mendings)
    assert n > 800
    assert abs(mendings.count("fix") - n * 0.3) < 4 * np.sqrt(n * 0.3 * 0.7)
    # After the third new beginning of a solution the rest goes back.
    assert 0.2 < mendings.count("restart") / n < 0.3 < mendings.count("back") / n < 0.5


def test_one_kind_is_geometric():
    """A wrong number is always to be had where a line has two operands: q / (1 - q) a step."""
    mistakes = Mistakes("calculation", 0.5)
    _, scripts, found = made(SMALL, mistakes, 4)
    made_, two = 0, 0
    for record, truth in zip(found, truths(scripts, mistakes), strict=True):
        made_ += len(truth)
        two += sum(bool(re.search(r" [+*-] ", step)) for step in standing(record["solution"]))
    assert two > 500
    assert abs(made_ / two - 1.0) < 4 * np.sqrt(2 / two)


def test_wrong_numbers_are_uniform():
    _, _, found = made(SMALL, Mistakes("calculation", 0.5), 4)
    off = []
    for record in found:
        for line in re.findall(r"= (\d+) ([+*-]) (\d+) = (\d+)", record["solution"]):
            left, symbol, right, result = (int(x) if x.isdigit() else x for x in line)
            true = {"+": left + right, "-": left - right, "*": left * right}[symbol]
            if true % SMALL.modulus != result:
                off.append((result - true) % SMALL.modulus)
    counts = np.bincount(off, minlength=SMALL.modulus)[1:]
    assert len(off) > 500 and counts.sum() == len(off)
    expected = len(off) / 4
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # 3 degrees, p = 0.001


@pytest.mark.parametrize(
    "mistakes", [Mistakes("calculation", 0.5), Mistakes(MARKED, 0.5)], ids=lambda one: one.kind
)
def test_no_wrong_sentence_stands_twice_at_one_position(mistakes):
    _, _, found = made(SMALL, mistakes, 4)
    again = 0
    for record in found:
        here = []
        for sentence in split_sentences(record["solution"]):
            if not sentence.endswith(" BACK"):
                here = []
                continue
            again += bool(here)
            assert sentence not in here, record["solution"]
            here.append(sentence)
    assert again > 100


def test_wrong_sentences_go_on_until_none_is_left():
    """At a rate close to 1 all that can be wrong at a position is there once, in some order."""
    mistakes = Mistakes("calculation", 0.9)
    _, _, found = made(SMALL, mistakes)
    whole = 0
    for record in found:
        here = []
        for sentence in split_sentences(record["solution"]):
            if sentence.endswith(" BACK"):
                here.append(sentence)
                continue
            lines = len(re.findall(r"= \d+ [+*-] \d+ =", sentence))
            assert len(here) == len(set(here)) <= lines * (SMALL.modulus - 1)
            whole += lines > 0 and len(here) == lines * (SMALL.modulus - 1)
            here = []
    assert whole > 100


@pytest.mark.parametrize(
    ("mistakes", "expected"),
    [
        (Mistakes(), 4129724061),
        (Mistakes("retry", 0.5), 3384815082),
        (Mistakes("retry", 0.5, whole=True), 3978425698),
        (Mistakes("skip:0.5,calculation:0.5", 0.5, whole=True, late=2), 1941105786),
        (Mistakes(MARKED, 0.5, mend="back:0.4,fix:0.3,restart:0.3"), 857354134),
    ],
)
def test_documents_stay_what_they_are(mistakes, expected):
    """Data of finished runs and frozen sets is made again bit for bit."""
    _, documents, _ = drawn(SMALL, mistakes)
    assert zlib.crc32(documents.tokens_N.astype("<i4").tobytes()) == expected


def test_new_beginnings_have_other_letters_and_end():
    _, _, found = made(SMALL, Mistakes("skip", 0.5, mend="restart"))
    begun, same = 0, 0
    for record in found:
        attempts = re.split(r" RESTART\.", record["solution"])
        assert len(attempts) <= RESTARTS + 1
        for earlier, later in itertools.pairwise(attempts):
            first = [re.match(r" Define (.+?) as (\w);", text) for text in (earlier, later)]
            if all(first):
                assert first[0][1] == first[1][1]
                begun, same = begun + 1, same + (first[0][2] == first[1][2])
        assert judge(facts_of(record, SMALL), record["solution"]).correct
    assert begun > 200
    assert abs(same / begun - 1 / SMALL.letters) < 4 * np.sqrt(1 / SMALL.letters / begun)


def test_late_steps_rest_on_the_mistake():
    """What is written before a mistake is noticed computes with the wrong number."""
    _, _, found = made(SMALL, Mistakes("calculation", 0.5, late=1), 4)
    resting = 0
    for record in found:
        sentences = split_sentences(record["solution"])
        for n, sentence in enumerate(sentences):
            if not sentence.endswith(" BACK BACK"):
                continue
            letter = re.match(r"Define .+ as (\w)", sentences[n - 1])[1]
            wrong = re.search(r"= (\d+)$", sentences[n - 1])[1]
            assert "BACK" not in sentences[n - 1]
            for left, right, a, b in re.findall(r"= (\w) [+*-] (\w) = (\d+) [+*-] (\d+)", sentence):
                resting += letter in (left, right)
                assert letter != left or a == wrong
                assert letter != right or b == wrong
    assert resting > 50


def spans(solution):
    """(start, end, kind) of the wrong parts of a solution with `BACK` mistakes of one sentence."""
    at = 0
    for sentence in solution.split("."):
        end = at + len(sentence) + 1
        if sentence.endswith(" BACK"):
            yield at, end, sentence
        at = end


@pytest.mark.parametrize("mask", ["none", "name", "sentence", "all"])
def test_masks_hide_exactly_what_they_name_of_sentences(mask):
    """Of a wrong result the number alone; the sentence; and the marker with its full stop."""
    mistakes = Mistakes("calculation", 0.5, mask=mask)
    documents, _, found = made(SMALL, Mistakes("calculation", 0.5), 4)
    vocab = language.vocabulary(SMALL)
    for n in range(64):
        ids = documents.tokens_N[n, : documents.length[n]]
        weights = np.asarray(token_weights(documents.role_N[n], mistakes, "all"))[: len(ids)]
        offsets = np.cumsum([0, *(len(vocab.tokens[i]) for i in ids)])
        start = offsets[documents.prompt[n]]
        hidden = np.zeros(offsets[-1] + 1, bool)
        for low, high, sentence in spans(found[n]["solution"]):
            marker = high - len(" BACK.")
            if mask in ("sentence", "all"):
                hidden[start + low : start + (high if mask == "all" else marker)] = True
            if mask == "name":
                for line in re.finditer(r"= (\d+) ([+*-]) (\d+) = (\d+)", sentence):
                    a, symbol, b, c = line.groups()
                    true = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}
                    if true[symbol] % SMALL.modulus != int(c):
                        hidden[start + low + line.start(4) : start + low + line.end(4)] = True
        expected = [not hidden[end - 1] for end in offsets[1:]]
        np.testing.assert_array_equal(weights, np.array(expected, np.float32))


def test_what_is_wrong_is_marked_and_nothing_else():
    number, operator, letter = language.NUMBER, language.OPERATOR, language.LETTER
    marked = {
        "value": {number},
        "misread": {number},
        "operator": {operator},
        "reference": {letter, number},
        "missing": set(),
    }
    mistakes = Mistakes(MARKED, 0.5)
    assert ",".join(f"{kind}:0.2" for kind in marked) == MARKED
    documents, scripts, _ = made(SMALL, mistakes, 4)
    for n, (kind, tokens) in enumerate(marked.items()):
        here_NxS = scripts.kind_S == n
        sentence_NxT = np.maximum(documents.sentence_N, 0)
        inside = np.take_along_axis(here_NxS, sentence_NxT, 1) & (documents.sentence_N >= 0)
        seen = documents.kind_N[inside & (documents.role_N == document.WRONG_NAME)]
        assert here_NxS.sum() > 30 and set(seen) == tokens
        # A misquoted number stands once, a constant and an operator twice but where it is alone.
        if kind == "value":
            assert len(seen) == here_NxS.sum()
        if kind == "operator":
            assert len(seen) == 2 * here_NxS.sum()
        assert (documents.role_N[inside] != document.SOLUTION).all()


@pytest.mark.parametrize("kind", ["value", "misread", "operator", "reference"])
def test_marks_begin_where_a_sentence_departs_from_its_correction(kind):
    """What is wrong there is also wrong where that line quotes it in numbers, if it does."""
    documents, scripts, _ = made(SMALL, Mistakes(MARKED, 0.5), 4)
    marked_NxT = documents.role_N == document.WRONG_NAME
    next_NxS = np.roll(scripts.wrong_S, -1, axis=1)
    place = [pair.split(":")[0] for pair in MARKED.split(",")].index(kind)
    found = np.argwhere((scripts.kind_S == place) & scripts.wrong_S & ~next_NxS)
    assert len(found) > 30
    for n, sentence in found:
        wrong_T, right_T = (
            np.flatnonzero(documents.sentence_N[n] == sentence + later) for later in (0, 1)
        )
        kind_T = documents.kind_N[n, wrong_T]
        size = min(len(wrong_T), len(right_T))
        tokens_2xT = documents.tokens_N[n, np.stack([wrong_T[:size], right_T[:size]])]
        first = int((tokens_2xT[0] != tokens_2xT[1]).argmax())
        expected = [first]
        if kind != "value" and language.OPERATOR in kind_T[first - 1 : first + 2]:
            expected += [first + 4]
        elif kind_T[first] == language.LETTER:
            expected += [first + 2]
        assert np.flatnonzero(marked_NxT[n, wrong_T]).tolist() == expected


def test_labels_know_the_steps_that_stand():
    """The tokens of each step, after the last new beginning, are its sentence; no others are."""
    documents, scripts, found = made(SMALL, LATE)
    problems = jax.tree.map(np.asarray, stream.problems(first_keys(COUNT), spec=SMALL))
    aligned = jax.jit(jax.vmap(token_labels))(documents, scripts, problems)
    step_NxT, vocab = np.asarray(aligned.step_N), language.vocabulary(SMALL)
    late = 0
    for n, record in enumerate(found):
        ids = documents.tokens_N[n]
        begun = np.flatnonzero(ids == vocab.ids[" RESTART"])
        last = begun[-1] + 1 if len(begun) else 0
        steps = [
            vocab.decode(ids[last:][step_NxT[n, last:] == step])
            for step in range(problems.steps[n])
        ]
        assert steps == [f" {sentence}." for sentence in standing(record["solution"])]
        late += (scripts.after_S[n] >= 0).any()
    assert late > 100


@pytest.mark.parametrize(
    "mistakes",
    [
        Mistakes("calculation", 0.0),
        Mistakes("skip:0.5,value:0.5", mend="back:0.5,restart:0.5", whole=True, late=3),
    ],
)
def test_rate_zero_is_the_error_free_document(mistakes):
    _, plain, _ = drawn(SMALL)
    _, documents, _ = drawn(SMALL, mistakes)
    for ours, theirs in zip(documents, plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"kind": "skip:0.7,value:0.4"},
            "kind is 'skip:0.7,value:0.4'; it must be of shares that sum to 1, and these sum to "
            "1.1.",
        ),
        ({"kind": "skip:1.2,value:-0.2"}, "of shares in [0, 1], and 1.2 is none."),
        ({"kind": "skip:0.2,typo:0.8"}, "kind is 'typo'; it must be one of skip, retry, "),
        ({"kind": "skip,value"}, "or several, each with its share, as in"),
        ({"kind": "skip:0.5,skip:0.5"}, "and skip is there twice."),
        ({"kind": "skip:0.5,retry:0.5"}, "and retry is there twice."),
        ({"kind": "skip:nan"}, "nan is none."),
        ({"kind": 3}, "kind is 3; it must be a kind of mistake, or several with"),
        ({"mend": "undo"}, "mend is 'undo'; it must be one of back, fix, restart."),
        ({"mend": "back:0.5,fix:0.4"}, "and these sum to 0.9."),
        ({"late": 17, "whole": True}, "late is 17; it must be a whole number in 0..16."),
        ({"late": True, "whole": True}, "late is True; it must be a whole number in 0..16."),
        (
            {"late": 1, "rate": 0.5},
            "late is 1; it must be 0, since skip stops at a name: whole=true writes its sentence.",
        ),
        ({"kind": "value", "rate": -0.1}, "rate is -0.1; it must be a number at least 0 and"),
        ({"kind": "nowhere.again"}, "kind is 'nowhere.again'; it must be one of skip, retry, "),
    ],
)
def test_bad_distributions_are_refused(fields, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Mistakes(**fields)


def test_few_letters_leave_no_room_for_guessed_ones():
    """Letters never run out: what finds none is not written."""
    _, _, found = made(SMALL, Mistakes("skip", 0.5, whole=True))
    taken, most = 0, 0
    for record in found:
        assert judge(facts_of(record, SMALL), record["solution"]).correct
        used = 0
        for sentence in split_sentences(record["solution"]):
            letters = re.findall(r"\b([a-zA-Z])\b(?= [=+*-])", sentence)
            assert set(letters) <= set("abcdefgh")
            if sentence.endswith(" BACK"):
                taken += 1
                # Its own, four guesses, and those of steps before it alone.
                most = max(most, used + sentence.count(";") + 4)
            else:
                used += sentence.count(";")
    assert taken > 50 and most == SMALL.letters
