"""Whether a solution is right, whole: every step, every number, every reference."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import ArrayLike

from data_gen.language import Vocabulary
from data_gen.reader import Facts, read
from data_gen.records import split
from data_gen.spec import Spec
from data_gen.tokenizer import Tokenizer, tokenizer

BACK = " BACK"

_DEFINE = re.compile(r"Define (.+) as (\S+)")
_OPERATION = re.compile(r"(\S+) ([+*-]) (\S+)")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is to be said of a solution.

    Attributes:
      correct: all steps are right, the last one answers the query, and the answer, where one
        is given, is its value.
      reason: what is wrong, "" where nothing is.
      first_wrong_step: the first wrong step, counted from 0 without mistakes that were taken
        back; the number of steps where only the end is wrong; None where nothing is.
      retries: sentences taken back with BACK.
      unnecessary: right steps that the query does not need, or that were taken before.
      op: operations written.
      answer_correct: the answer (or, where none is given, the last step's value) is right,
        whatever the steps.
    """

    correct: bool
    reason: str
    first_wrong_step: int | None
    retries: int
    unnecessary: int
    op: int
    answer_correct: bool


class _Wrong(Exception):
    """A step is wrong; its text says why."""


def judge(facts: Facts, solution: str, answer: str | None = None) -> Verdict:
    """Judges a solution's text against a problem (Part 2.1, Section 3; Part 2.2, Section 2).

    Never raises: a text that cannot be read is wrong.

    Args:
      facts: the problem.
      solution: its sentences, "Define … . Define … ."
      answer: what follows the answer marker; None where only the solution is judged.
    """
    text = solution.strip()
    retries, steps = 0, []
    for sentence in text.removesuffix(".").split(". "):
        if BACK in sentence:
            retries += 1
        else:
            steps.append(sentence)
    book = _Book(facts)
    op = sum(max(step.count("; "), 1) for step in steps)
    reason, wrong = "", None
    if not text.endswith("."):
        steps_read, tail = steps[:-1], "the solution breaks off"
    else:
        steps_read, tail = steps, ""
    for number, step in enumerate(steps_read):
        try:
            book.step(step)
        except _Wrong as error:
            reason, wrong = str(error), number
            break
    if wrong is None and tail:
        reason, wrong = tail, len(steps_read)
    if wrong is None and book.last != facts.query:
        reason, wrong = "the last step does not answer the question", len(steps)
    right_answer = _last_number(text) == facts.answer
    if answer is not None:
        right_answer = answer.strip() == str(facts.answer)
        if wrong is None and not right_answer:
            reason, wrong = f"the answer is {facts.answer}", len(steps)
    return Verdict(wrong is None, reason, wrong, retries, book.unnecessary, op, right_answer)


def judge_tokens(facts: Facts, ids: ArrayLike, vocab: Vocabulary | Tokenizer) -> Verdict:
    """Judges what a model wrote after a prompt: solution, answer marker, answer, end.

    Never raises: ids that are no solution, or no ids of the vocabulary, are wrong.

    Args:
      facts: the problem.
      ids: int[M]; what comes after the end marker is not looked at.
      vocab: whose ids they are.
    """
    solution, answer = split(ids, vocab)
    return judge(facts, solution, answer or "")


def judge_many(
    records: Iterable[Mapping[str, Any]], ids_NxM: Iterable[ArrayLike], spec: Spec
) -> list[Verdict]:
    """Judges one continuation of each problem's prompt.

    Args:
      records: N problems as `data_gen.records` gives them (layers, problem, question).
      ids_NxM: token ids of what was written after each prompt.
      spec: the class.

    Raises:
      ValueError: a problem (not a solution) cannot be read.
    """
    vocab, found = tokenizer(spec), []
    for record, ids in zip(records, ids_NxM, strict=True):
        facts = read(record["layers"], record["problem"], record["question"], spec.modulus)
        found.append(judge_tokens(facts, ids, vocab))
    return found


def _last_number(text: str) -> int | None:
    found = re.search(r"= (\d{1,9})\.$", text)
    return int(found[1]) if found else None


class _Book:
    """Letters and parameters defined so far."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.value: dict[str, int] = {}
        # What each letter stands for: a parameter, or those that went into it.
        self.stands_for: dict[str, frozenset[str]] = {}
        self.done: set[str] = set()
        self.unnecessary = 0
        self.last: str | None = None

    def step(self, sentence: str) -> None:
        """Reads one step; raises _Wrong at the first thing that is not right."""
        head, *lines = sentence.split("; ")
        define = _DEFINE.fullmatch(head)
        if not define or not lines:
            raise _Wrong("a step cannot be read")
        parameter, letter = define[1], define[2]
        if parameter not in self.facts.needs:
            raise _Wrong(f"the problem has no {parameter[:80]}")
        if not lines[-1].startswith("so "):
            raise _Wrong("a step does not end in 'so'")
        lines[-1] = lines[-1].removeprefix("so ")
        used: frozenset[str] = frozenset()
        for number, line in enumerate(lines):
            last = number == len(lines) - 1
            written, used, result = self.line(line)
            if last != (written == letter):
                raise _Wrong(f"the step defines {letter} but its line computes {written}")
            self.value[written], self.stands_for[written] = result, used
        needed = self.facts.needs[parameter]
        if used - needed:
            raise _Wrong(f"{parameter} does not depend on {min(used - needed)}")
        if needed - used:
            raise _Wrong(f"{parameter} depends on {min(needed - used)} too")
        if self.value[letter] != self.facts.value[parameter]:
            raise _Wrong(f"{parameter} is {self.facts.value[parameter]}")
        self.stands_for[letter] = frozenset({parameter})
        if parameter in self.done or parameter not in self.facts.necessary:
            self.unnecessary += 1
        self.done.add(parameter)
        self.last = parameter

    def line(self, line: str) -> tuple[str, frozenset[str], int]:
        """Reads "x = a + b = 3 + 4 = 7", "x = a = 7" or "x = 7"."""
        letter, *parts = line.split(" = ")
        if len(letter) != 1 or not letter.isalpha() or not parts:
            raise _Wrong("a line does not begin with a letter")
        if letter in self.value:
            raise _Wrong(f"{letter} is defined twice")
        result = self.number(parts[-1])
        if len(parts) == 1:
            return letter, frozenset(), result
        symbols = _OPERATION.fullmatch(parts[0])
        if symbols is None:
            if len(parts) != 2 or not parts[0].isalpha():
                raise _Wrong("a line cannot be read")
            self.quote(parts[0], result)
            return letter, self.stands_for[parts[0]], result
        numbers = _OPERATION.fullmatch(parts[1])
        if len(parts) != 3 or numbers is None or symbols[2] != numbers[2]:
            raise _Wrong("a line's symbols and numbers do not match")
        left, right = self.number(numbers[1]), self.number(numbers[3])
        used = self.quote(symbols[1], left) | self.quote(symbols[3], right)
        computed = {"+": left + right, "-": left - right, "*": left * right}[symbols[2]]
        if computed % self.facts.modulus != result:
            raise _Wrong(f"{parts[1]} is not {result}")
        return letter, used, result

    def quote(self, symbol: str, number: int) -> frozenset[str]:
        """Checks that a symbol is worth the number quoted for it; returns what it stands for."""
        if symbol.isdecimal():
            if self.number(symbol) != number:
                raise _Wrong(f"{symbol} is quoted as {number}")
            return frozenset()
        if symbol not in self.value:
            raise _Wrong(f"{symbol[:20]} is not defined")
        if self.value[symbol] != number:
            raise _Wrong(f"{symbol} is {self.value[symbol]}, not {number}")
        return self.stands_for[symbol]

    def number(self, text: str) -> int:
        """Reads a number of 0..m-1."""
        if not (text.isascii() and text.isdigit() and len(text) < 9):
            raise _Wrong(f"{text[:20]!r} is not a number")
        if (value := int(text)) >= self.facts.modulus:
            raise _Wrong(f"{value} is not below {self.facts.modulus}")
        return value
