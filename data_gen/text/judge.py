"""The judge: whether every step, number and reference of a solution is right."""

import dataclasses
import re
from typing import NamedTuple

from data_gen.solutions.faults import (
    CALCULATION,
    FORM,
    MISREAD,
    MISSING,
    NEEDLESS,
    OPERATOR,
    REFERENCE,
    REPEATED,
    SKIP,
    UNDEFINED,
    UNKNOWN,
    UNNEEDED,
    VALUE,
)
from data_gen.solutions.grammar import (
    EQUALS,
    HEADER,
    MENDING_MARKERS,
    NAMED,
    NEXT,
    NUMERAL,
    OPERATION,
    OPERATIONS,
    RESTART,
    SO,
    STOP,
)
from data_gen.text.reader import Facts

_SYMBOL, _OPERATOR = r"(\S+)", f"([{re.escape(''.join(OPERATIONS))}])"
_HEADER = re.compile(HEADER.pattern(parameter="(.+)", letter=_SYMBOL))
_NAMED = re.compile(NAMED.pattern(parameter="(.+)"))
_OPERATION = re.compile(OPERATION.pattern(left=_SYMBOL, operator=_OPERATOR, right=_SYMBOL))
_NUMERAL = re.compile(NUMERAL)
_RESULT = re.compile(rf"{EQUALS} ({NUMERAL}){re.escape(STOP)}$".lstrip())
_MARKER = re.compile("|".join(map(re.escape, MENDING_MARKERS.values())))
_MENDING = {marker: mending for mending, marker in MENDING_MARKERS.items()}
_MARKERS = re.compile(rf"(?:{_MARKER.pattern})+\Z")
_NEXT, _STOP, _EQUALS, _SO = f"{NEXT} ", f"{STOP} ", f"{EQUALS} ", f"{SO} ".lstrip()

# Nothing was wrong with what was taken back.
RIGHT = "right"


class Mended(NamedTuple):
    """A mistake that the solution retracted itself."""

    step: int  # steps before it that stand
    kind: str  # of `data_gen.solutions.faults`, or RIGHT
    mending: str  # "back", "fix" or "restart"
    late: int  # further sentences taken back with it


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict on a solution.

    Attributes:
      correct: all steps are right, the last one answers the query, and the answer, where one
        is given, is its value.
      reason: what is wrong, "" where nothing is.
      first_wrong_step: the first wrong step, counted from 0 without mistakes that were taken
        back; the number of steps where only the end is wrong; None where nothing is.
      retries: sentences that take something back, by BACK, FIX or RESTART.
      unnecessary: right steps that the query does not need, or that were taken before.
      op: operations written, without those taken back.
      answer_correct: the answer (or, where none is given, the last step's value) is right,
        whatever the steps.
      kind: what kind of mistake the first wrong step is, as in `Mended`; "" where nothing is
        wrong, "end" where the steps are right and do not end as they should.
      mended: the mistakes that were taken back, in order.
    """

    correct: bool
    reason: str
    first_wrong_step: int | None
    retries: int
    unnecessary: int
    op: int
    answer_correct: bool
    kind: str
    mended: tuple[Mended, ...]


class _Wrong(Exception):
    """A step is wrong; its text says why."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


def judge(facts: Facts, solution: str, answer: str | None = None) -> Verdict:
    """Judges a solution's text against a problem (Part 2.1, Section 3; Part 2.2, Section 2).

    Markers: a sentence takes back what it ends in. That is one or more times BACK, or one or more
    times FIX, each of which takes back one sentence of those that stand, first its own; or RESTART
    once, which takes back all so far. What is taken back is not judged; what stands must be right.
    A marker anywhere else in a sentence, different ones or more than one RESTART at its end, and
    more than there are sentences to take back are wrong, at the first sentence and at any later
    one: they take nothing back.

    Numerals: a number, also the answer, is written with the digits 0 to 9 and without zeros before
    it; those of steps are below the modulus.

    Never raises: a text that cannot be read is wrong.

    Args:
      facts: the problem.
      solution: its sentences, "Define … . Define … ."
      answer: what follows the answer marker; None where only the solution is judged.
    """
    text = solution.strip()
    sentences = split_sentences(text)
    places, mended = _standing(facts, sentences)
    steps = [sentences[at] for at in places]
    book = _Book(facts)
    op = sum(max(step.count(_NEXT), 1) for step in steps)
    reason, wrong, kind = "", None, ""
    if not text.endswith(STOP):
        steps_read, tail = steps[:-1], "the solution breaks off"
    else:
        steps_read, tail = steps, ""
    for number, step in enumerate(steps_read):
        try:
            book.step(step)
        except _Wrong as error:
            reason, wrong, kind = str(error), number, error.kind
            break
    if wrong is None and tail:
        reason, wrong, kind = tail, len(steps_read), "end"
    if wrong is None and book.last != facts.query:
        reason, wrong, kind = "the last step does not answer the question", len(steps), "end"
    right_answer = _last_number(text) == facts.answer
    if answer is not None:
        right_answer = answer.strip() == str(facts.answer)
        if wrong is None and not right_answer:
            reason, wrong, kind = f"the answer is {facts.answer}", len(steps), "end"
    return Verdict(
        correct=wrong is None,
        reason=reason,
        first_wrong_step=wrong,
        retries=len(mended),
        unnecessary=book.unnecessary,
        op=op,
        answer_correct=right_answer,
        kind=kind,
        mended=tuple(mended),
    )


def standing(solution: str) -> list[str]:
    """The sentences of a solution that are not taken back, without their full stops."""
    sentences = split_sentences(solution)
    return [sentences[at] for at in _standing(None, sentences)[0]]


def standing_places(solution: str) -> list[int]:
    """Which of `split_sentences` are not taken back."""
    return _standing(None, split_sentences(solution))[0]


def split_sentences(solution: str) -> list[str]:
    """All sentences of a solution, without their full stops."""
    return solution.strip().removesuffix(STOP).split(_STOP)


def named_in(sentence: str) -> str | None:
    """The parameter that a sentence of a solution names, also where it stops at the name."""
    found = _NAMED.match(sentence.partition(_NEXT)[0])
    return found[1] if found else None


def defined_in(sentence: str) -> tuple[str, str] | None:
    """The parameter that a sentence defines, and its letter; None where it defines none."""
    head, mark, _ = sentence.partition(_NEXT)
    found = _HEADER.fullmatch(head)
    return (found[1], found[2]) if found and mark else None


def _standing(facts: Facts | None, sentences: list[str]) -> tuple[list[int], list[Mended]]:
    """The sentences that are not retracted, and the mistakes in those that are."""
    kept: list[int] = []
    mended: list[Mended] = []
    # books[n]: after the first n of those that stand; made where a mistake is looked at.
    books = [] if facts is None else [_Book(facts)]
    for number, sentence in enumerate(sentences):
        kept.append(number)
        marker, back = _taken(sentence, len(kept))
        if not back:
            continue
        anew = marker == RESTART
        taken = [sentences[at] for at in kept[len(kept) - back :]]
        kept = kept[: len(kept) - back]
        if not books:
            continue
        del books[len(kept) + 1 :]
        while len(books) <= len(kept):
            books.append(books[-1].copy())
            books[-1].look(sentences[kept[len(books) - 2]])
        # A marker takes back what begins with a mistake; a new beginning does not say where it is.
        at, kind = _fault(books[-1].copy(), taken if anew else taken[:1])
        mended.append(Mended(len(kept) + at, kind, _MENDING[marker], back - 1 - at))
    return kept, mended


def _taken(sentence: str, standing: int) -> tuple[str, int]:
    """The marker that a sentence ends in, and how many sentences it takes back; 0 where none."""
    markers = _MARKER.findall(sentence)
    ending = _MARKERS.search(sentence)
    if ending is None or ending[0] != "".join(markers) or len(set(markers)) > 1:
        return "", 0
    if markers[0] == RESTART:
        return RESTART, standing if len(markers) == 1 else 0
    return markers[0], len(markers) if len(markers) <= standing else 0


def _fault(book: "_Book", sentences: list[str]) -> tuple[int, str]:
    """Which of these sentences is at fault, and how; wrong ones before those done without need."""
    needless = None
    for at, sentence in enumerate(sentences):
        kind = book.look(sentence)
        if kind not in (RIGHT, *NEEDLESS):
            return at, kind
        if kind != RIGHT and needless is None:
            needless = at, kind
    return needless or (len(sentences) - 1, RIGHT)


def _last_number(text: str) -> int | None:
    found = _RESULT.search(text)
    return int(found[1]) if found else None


class _Book:
    """The letters and parameters defined so far."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.value: dict[str, int] = {}
        # What each letter stands for: a parameter, or those that went into it.
        self.stands_for: dict[str, frozenset[str]] = {}
        self.done: set[str] = set()
        self.unnecessary = 0
        self.last: str | None = None

    def copy(self) -> "_Book":
        """A book of its own with the same entries."""
        other = _Book(self.facts)
        other.value, other.stands_for = dict(self.value), dict(self.stands_for)
        other.done = set(self.done)
        return other

    def look(self, sentence: str) -> str:
        """Enters a sentence, right or wrong; returns its kind of mistake, or RIGHT."""
        text = _MARKERS.sub("", sentence)
        named = named_in(text)
        before = named in self.done
        try:
            self.step(text)
        except _Wrong as error:
            if named is None or error.kind != FORM or not text.endswith(NAMED.symbols[-1]):
                return error.kind
        if before:
            return REPEATED
        return RIGHT if named in self.facts.necessary else UNNEEDED

    def step(self, sentence: str) -> None:
        """Reads one step; raises _Wrong at the first thing that is not right."""
        if _MARKER.search(sentence):
            raise _Wrong("a step's markers take nothing back", FORM)
        named = named_in(sentence)
        try:
            self._step(sentence)
        except _Wrong as error:
            # Whatever it says, what cannot be computed yet can only be said wrongly.
            if named is not None and self.facts.needs.get(named, frozenset()) - self.done:
                error.kind = SKIP
            raise

    def _step(self, sentence: str) -> None:
        head, *lines = sentence.split(_NEXT)
        header, named = _HEADER.fullmatch(head), named_in(sentence)
        if named is not None and named not in self.facts.needs:
            raise _Wrong(f"the problem has no {named[:80]}", UNKNOWN)
        if not header or not lines:
            raise _Wrong("a step cannot be read", FORM)
        parameter, letter = header[1], header[2]
        if not lines[-1].startswith(_SO):
            raise _Wrong(f"a step does not end in {SO.strip()!r}", FORM)
        lines[-1] = lines[-1].removeprefix(_SO)
        used: frozenset[str] = frozenset()
        named_in_all: frozenset[str] = frozenset()
        constants: list[int] = []
        for number, line in enumerate(lines):
            last = number == len(lines) - 1
            written, used, result = self.line(line, constants)
            if last != (written == letter):
                raise _Wrong(f"the step defines {letter} but its line computes {written}", FORM)
            self.value[written], self.stands_for[written] = result, used
            named_in_all |= used
        needed = self.facts.needs[parameter]
        # A line that no later one uses may not bring in what is not needed, either.
        if strange := named_in_all - needed:
            raise _Wrong(f"{parameter} does not depend on {min(strange)}", REFERENCE)
        if needed - used:
            raise _Wrong(f"{parameter} depends on {min(needed - used)} too", MISSING)
        if self.value[letter] != self.facts.value[parameter]:
            side = self.facts.sides.get(parameter)
            stated = [] if side is None or side.number is None else [side.number]
            kind = OPERATOR if constants == stated else MISREAD
            raise _Wrong(f"{parameter} is {self.facts.value[parameter]}", kind)
        self.stands_for[letter] = frozenset({parameter})
        if parameter in self.done or parameter not in self.facts.necessary:
            self.unnecessary += 1
        self.done.add(parameter)
        self.last = parameter

    def line(self, line: str, constants: list[int]) -> tuple[str, frozenset[str], int]:
        """Reads "x = a + b = 3 + 4 = 7", "x = a = 7" or "x = 7"; adds its constants to the list."""
        letter, *parts = line.split(_EQUALS)
        if len(letter) != 1 or not letter.isalpha() or not parts:
            raise _Wrong("a line does not begin with a letter", FORM)
        if letter in self.value:
            raise _Wrong(f"{letter} is defined twice", FORM)
        result = self.number(parts[-1])
        if len(parts) == 1:
            constants.append(result)
            return letter, frozenset(), result
        symbols = _OPERATION.fullmatch(parts[0])
        if symbols is None:
            if len(parts) != 2 or not parts[0].isalpha():
                raise _Wrong("a line cannot be read", FORM)
            self.quote(parts[0], result, constants)
            return letter, self.stands_for[parts[0]], result
        numbers = _OPERATION.fullmatch(parts[1])
        if len(parts) != 3 or numbers is None or symbols[2] != numbers[2]:
            raise _Wrong("a line's symbols and numbers do not match", FORM)
        left, right = self.number(numbers[1]), self.number(numbers[3])
        used = self.quote(symbols[1], left, constants) | self.quote(symbols[3], right, constants)
        computed = OPERATIONS[symbols[2]](left, right)
        if computed % self.facts.modulus != result:
            raise _Wrong(f"{parts[1]} is not {result}", CALCULATION)
        return letter, used, result

    def quote(self, symbol: str, number: int, constants: list[int]) -> frozenset[str]:
        """Checks that a symbol is worth the number quoted for it; returns what it stands for."""
        if _NUMERAL.fullmatch(symbol):
            constants.append(self.number(symbol))
            if constants[-1] != number:
                raise _Wrong(f"{symbol} is quoted as {number}", VALUE)
            return frozenset()
        if symbol not in self.value:
            raise _Wrong(f"{symbol[:20]} is not defined", UNDEFINED)
        if self.value[symbol] != number:
            raise _Wrong(f"{symbol} is {self.value[symbol]}, not {number}", VALUE)
        return self.stands_for[symbol]

    def number(self, text: str) -> int:
        """Reads a number of 0..m-1."""
        if not _NUMERAL.fullmatch(text):
            raise _Wrong(f"{text[:20]!r} is not a number", FORM)
        if (value := int(text)) >= self.facts.modulus:
            raise _Wrong(f"{value} is not below {self.facts.modulus}", FORM)
        return value
