"""Corrections of a model's own mistakes, as training documents; and statistics of these mistakes.

The wrong solutions of a model are cut at their first wrong step; what stands there is followed by
a marker and a right continuation of the same solution (LEMMA, arXiv 2503.17439, Section 3, carried
over to iGSM).
"""

import collections
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.solutions import document, faults, kinds
from data_gen.solutions.document import Document
from data_gen.solutions.grammar import (
    ANSWER,
    BACK,
    EQUALS,
    HEADER,
    LINES,
    MENDING_MARKERS,
    NAMED,
    NEXT,
    OPERATIONS,
    PARAMETER,
    SO,
    STOP,
)
from data_gen.solutions.language import LETTERS, Vocabulary, vocabulary
from data_gen.spec import Spec
from data_gen.text.judge import (
    Verdict,
    defined_in,
    judge,
    named_in,
    split_sentences,
    standing,
    standing_places,
)
from data_gen.text.reader import Facts, read

_LETTER = re.compile(rf"\b([A-Za-z]){EQUALS} ")


def step(
    facts: Facts, parameter: str, letter_of: Mapping[str, str], fresh: Iterator[str]
) -> tuple[str, str]:
    """A parameter's right sentence, without its full stop, and the letter that it defines.

    Args:
      facts: the problem.
      parameter: what to compute; all that it needs has a letter.
      letter_of: those letters.
      fresh: letters not used so far; one is taken for each operation.

    Raises:
      StopIteration: the letters run out.
    """
    value = {letter: facts.value[name] for name, letter in letter_of.items()}
    lines: list[str] = []

    def line(left: str, symbol: str, right: str) -> str:
        letter = next(fresh)
        a, b = (value.get(x, int(x) if x.isdecimal() else 0) for x in (left, right))
        value[letter] = OPERATIONS[symbol](a, b) % facts.modulus
        slots = {"left": left, "operator": symbol, "right": right, "left_value": a}
        slots |= {"letter": letter, "right_value": b, "result": value[letter]}
        lines.append(LINES[2].write(**slots))
        return letter

    side = facts.sides.get(parameter)
    terms = facts.sums.get(parameter) or [(name, None) for name in (side.refs if side else [])]
    total = ""
    for name, factor in terms:
        letter = letter_of[name]
        if factor is not None:
            letter = line(letter, "*", letter_of[factor])
        minus = side is not None and side.difference
        total = line(total, "-" if minus else "+", letter) if total else letter
    if side is not None and side.number is not None and total:
        total = line(str(side.number), "*" if side.times else "+", total)
    if not lines:
        letter, form = next(fresh), LINES[1] if terms else LINES[0]
        lines.append(form.write(letter=letter, left=total, result=facts.value[parameter]))
        total = letter
    lines[-1] = f"{SO.strip()} {lines[-1]}"
    header = HEADER.write(parameter=parameter, letter=total)
    return f"{NEXT} ".join([header, *lines]), total


def continuation(
    facts: Facts, prefix: Sequence[str], order: Sequence[str], fresh: Iterator[str]
) -> list[str]:
    """The sentences that complete a solution.

    Args:
      facts: the problem.
      prefix: the right sentences so far, none of them taken back.
      order: parameters in an order in which they can be computed, the query last.
      fresh: letters that the prefix does not use.

    Raises:
      StopIteration: the letters run out.
    """
    letter_of = dict(found for found in map(defined_in, prefix) if found)
    sentences = []
    for parameter in order:
        if parameter not in letter_of:
            sentence, letter_of[parameter] = step(facts, parameter, letter_of, fresh)
            sentences.append(sentence)
    return sentences


def corrected(
    record: Mapping[str, Any], written: str, key: jax.Array, spec: Spec, whole: bool = False
) -> dict[str, Any] | None:
    """A wrong solution up to its first wrong step, the marker, and a right continuation.

    Args:
      record: the problem, as `data_gen.text.records` gives it, with its own solution.
      written: the model's solution.
      key: what the continuation's letters are drawn from.
      spec: the class.
      whole: write the whole sentence of a step that could not be computed yet, as the model did;
        else it stops at its name, as in Part 2.2.

    Returns:
      the record with this solution, its `op`, and the `kind` of the mistake; None where no step
      is wrong, the step breaks off, its own markers are not to be mended by others, or the letters
      run out.

    Raises:
      ValueError: the record cannot be read, or its own solution is wrong.
    """
    facts = read(record["layers"], record["problem"], record["question"], spec.modulus)
    verdict = judge(facts, written)
    if verdict.first_wrong_step is None or verdict.kind == "end":
        return None
    if not (own := judge(facts, record["solution"])).correct:
        raise ValueError(f"the record's own solution is wrong: {own.reason}.")
    # What is taken back before the wrong step stays, as the model wrote it.
    sentences, places = split_sentences(written), standing_places(written)
    at = places[verdict.first_wrong_step]
    before, wrong = sentences[:at], sentences[at]
    prefix = [sentences[place] for place in places if place < at]
    named = named_in(wrong)
    if verdict.kind == faults.SKIP and named and not whole:
        wrong = NAMED.write(parameter=named)
    order = [found[0] for found in map(defined_in, standing(record["solution"])) if found]
    used = {letter for sentence in prefix for letter in _LETTER.findall(sentence)}
    spare = [letter for letter in LETTERS[: spec.letters] if letter not in used]
    fresh = iter([spare[n] for n in np.asarray(jax.random.permutation(key, len(spare)))])
    try:
        right = continuation(facts, prefix, order, fresh)
    except StopIteration:
        return None
    solution = "".join(f" {text}{STOP}" for text in (*before, f"{wrong}{BACK}", *right))
    made = judge(facts, solution)
    if not made.correct:
        return None
    return {**record, "solution": solution, "op": made.op, "kind": verdict.kind}


def mixture(verdicts: Iterable[Verdict]) -> str:
    """The distribution of a model's kinds of mistakes, in the format of `Mistakes.kind`.

    Of the first wrong steps, those that there is a kind for (`data_gen.solutions.kinds`) count.

    Raises:
      ValueError: there is none.
    """
    counts = collections.Counter(verdict.kind for verdict in verdicts)
    known = {kind: counts[fault] for fault, kind in kinds.by_fault().items() if counts[fault]}
    if not known:
        raise ValueError("no solution has a first wrong step of a known kind.")
    total = sum(known.values())
    return ",".join(f"{kind}:{count / total:.6g}" for kind, count in known.items())


def table(verdicts: Iterable[Verdict]) -> str:
    """A table of first wrong steps by kind, and of mistakes that the model retracted itself."""
    judged = list(verdicts)
    first = collections.Counter(verdict.kind for verdict in judged if not verdict.correct)
    mended = collections.Counter(
        (found.kind, found.mending) for verdict in judged for found in verdict.mended
    )
    wrong = sum(first.values())
    rows = [f"{len(judged)} solutions, {wrong} wrong", "", "first wrong step   count   share"]
    rows += [f"{kind:<16}{count:>10}{count / wrong:>8.1%}" for kind, count in first.most_common()]
    if mended:
        rows += ["", "taken back       by         count  a solution"]
    rows += [
        f"{kind:<16} {mending:<8}{count:>8}{count / len(judged):>12.3f}"
        for (kind, mending), count in mended.most_common()
    ]
    return "\n".join(rows)


def documents(records: Sequence[Mapping[str, Any]], size: int, spec: Spec) -> Document:
    """Records as documents in symbols, ready to be tokenized and packed (leading axis B).

    Sentences that are taken back have the roles of `data_gen.solutions.document`, so that they can
    be masked: a parameter's name where the sentence stops at it, and its words and markers.

    Args:
      records: with problem, question, solution and answer.
      size: room for symbols; what goes beyond is cut, `length` tells the whole length.
      spec: the class.

    Raises:
      ValueError: a text has something that is no symbol of the class.
    """
    vocab = vocabulary(spec)
    made = [_document(record, size, vocab, spec) for record in records]
    return Document(*(jnp.stack(column) for column in zip(*made, strict=True)))


def symbols(record: Mapping[str, Any], spec: Spec) -> list[int]:
    """The document of a record in symbols of the class's vocabulary, from marker to end.

    Args:
      record: with problem, question, solution and answer.
      spec: the class.

    Raises:
      ValueError: a text has something that is no symbol of the class.
    """
    vocab = vocabulary(spec)
    solution = (f" {sentence}{STOP}" for sentence in split_sentences(record["solution"]))
    written = [n for text in solution for n in vocab.encode(text)]
    return [*_prompt(record, vocab, spec), *written, *_ending(record, vocab)]


def _prompt(record: Mapping[str, Any], vocab: Vocabulary, spec: Spec) -> list[int]:
    parts = [record["problem"], record["question"]]
    if spec.order == "qp":
        parts.reverse()
    return [vocab.problem, *vocab.encode("".join(parts)), vocab.solution]


def _ending(record: Mapping[str, Any], vocab: Vocabulary) -> list[int]:
    return ANSWER.fill(vocab.ids, number=vocab.numbers + int(record["answer"]))


def _document(
    record: Mapping[str, Any], size: int, vocab: Vocabulary, spec: Spec
) -> tuple[Any, ...]:
    ids = _prompt(record, vocab, spec)
    prompt, mending = len(ids), [vocab.ids[marker] for marker in MENDING_MARKERS.values()]
    roles, places = [document.PROBLEM] * prompt, [-1] * prompt
    standing_ = set(standing_places(record["solution"]))
    for number, sentence in enumerate(split_sentences(record["solution"])):
        found = vocab.encode(f" {sentence}{STOP}")
        role = [document.SOLUTION] * len(found)
        if number not in standing_:
            role = [document.WRONG_WORDS] * len(found)
            markers = [n for n, token in enumerate(found) if token in mending]
            for n in (*markers, *([len(found) - 1] if markers else [])):
                role[n] = document.WRONG_MARKER
            if markers and vocab.tokens[found[markers[0] - 1]] == NAMED.symbols[-1]:
                first = NAMED.symbols.index(PARAMETER.symbols[0])
                role[first : first + len(PARAMETER)] = [document.WRONG_NAME] * len(PARAMETER)
        ids, roles, places = [*ids, *found], [*roles, *role], [*places, *[number] * len(found)]
    ending = _ending(record, vocab)
    ids, places = [*ids, *ending], [*places, *[-1] * len(ending)]
    roles += [document.ANSWER] * len(ending)
    fill = max(size - len(ids), 0)
    tokens = np.array([*ids, *[vocab.end] * fill], np.int32)[:size]
    role_N = np.array([*roles, *[document.OUTSIDE] * fill], np.int32)[:size]
    place_N = np.array([*places, *[-1] * fill], np.int32)[:size]
    kinds = vocab.kinds[tokens]
    return tokens, role_N, kinds, place_N, np.int32(len(ids)), np.int32(prompt)
