"""The grammar: the form of every sentence, from which writing, measuring and reading derive.

A problem states what parameters equal and asks for one of them:

     The number of each Oak Library's Red Shelf equals 4 more than the sum of each Elm Library's
    Red Shelf and each Red Shelf's Book. … How many Book does Oak Library have?

A solution computes a parameter a sentence, one operation a line:

     Define Oak Library's Red Shelf as c; d = a + b = 3 + 5 = 8; so c = 4 + d = 4 + 8 = 12.

A sentence that is taken back ends in a marker, and may stop at its name:

     Define Red Shelf's Book as BACK.
"""

import dataclasses
import functools
import itertools
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_SLOT = re.compile(r"( ?\{\w+\})")


@dataclasses.dataclass(frozen=True)
class Form:
    """A part of a sentence: words that are always the same, and slots for what differs.

    A slot is one symbol of the vocabulary, and so are all words between two slots together. The
    blank before a symbol belongs to it. The slot `{parameter}` alone is three symbols, those of
    `PARAMETER`.

    Attributes:
      text: the words, and the slots in braces.
    """

    text: str

    @functools.cached_property
    def symbols(self) -> tuple[str, ...]:
        """Each symbol in order, slots with their braces: `" Define"`, `" {owner}"`, …"""
        parts = [part for part in _SLOT.split(self.text) if part]
        inner = [PARAMETER.symbols if part == " {parameter}" else (part,) for part in parts]
        return tuple(symbol for symbols in inner for symbol in symbols)

    def __len__(self) -> int:
        """How many symbols it takes."""
        return len(self.symbols)

    def write(self, **slots: object) -> str:
        """The text, without the blank before it, with these words in its slots."""
        return self.text.format(**slots).removeprefix(" ")

    def around(self, slot: str) -> tuple[str, str]:
        """The texts before and after a slot; where it is `{parameter}`, of the whole of it."""
        before, _, after = self.text.removeprefix(" ").partition(f"{{{slot}}}")
        return before, after

    def fill(self, words: Mapping[str, Any], **slots: Any) -> list[Any]:
        """For each symbol in order, the entry of `words` for a word, or of `slots` for a slot."""
        return [
            slots[symbol.strip(" {}")] if is_slot(symbol) else words[symbol]
            for symbol in self.symbols
        ]

    def pattern(self, **slots: str) -> str:
        """A regular expression for such a text, with these expressions in its slots."""
        parts = re.split(r"\{(\w+)\}", self.text.removeprefix(" "))
        return "".join(slots[part] if n % 2 else re.escape(part) for n, part in enumerate(parts))


def is_slot(symbol: str) -> bool:
    """A symbol of a form is a slot, and no word."""
    return _SLOT.fullmatch(symbol) is not None


# What is one symbol, without a slot, is a plain text below; all else is a form.

# The text of a parameter; its thing is an item or, where it is abstract, a category.
PARAMETER = Form(" {owner}'s {thing}")

# A sentence of the problem. On its right side stands a constant, a reference, or the sum or the
# difference of several references; or a constant with what it is added to or multiplied by.
STATEMENT = Form(" The number of each {parameter} equals")
CONSTANT = Form(" {number}")
MORE, TIMES = " more than", " times as much as"
SUM, DIFFERENCE = " the sum of", " the difference of"
REFERENCE = Form(" each {parameter}")
COMMA, AND = ",", " and"
STOP = "."

QUESTION = Form(" How many {thing} does {owner} have?")

# A sentence of the solution: a parameter and its letter, then lines, then markers where it takes
# something back. A mistake may stop at the parameter's name: a marker then stands for the letter.
NAMED = Form(" Define {parameter} as")
HEADER = Form(f"{NAMED.text} {{letter}}")
NEXT = ";"
SO = " so"  # before the last line
# The lines with no operand, with one and with two.
LINES = (
    Form(" {letter} = {result}"),
    Form(" {letter} = {left} = {result}"),
    Form(
        " {letter} = {left} {operator} {right} = {left_value} {operator} {right_value} = {result}"
    ),
)
EQUALS = LINES[0].symbols[1]
# What a line of two operands computes.
OPERATION = Form(LINES[2].text.split(EQUALS)[1])
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}
OPERATORS = tuple(f" {symbol}" for symbol in OPERATIONS)

# A number as it is written: digits of ASCII, of which the first is 0 only where it is the only one.
NUMERAL = "(?:0|[1-9][0-9]{0,8})"

# How a sentence ends that takes back itself, to go on or to write it right at once, or all so far.
BACK, FIX, RESTART = " BACK", " FIX", " RESTART"
MENDING_MARKERS = {"back": BACK, "fix": FIX, "restart": RESTART}

# Between the parts of a document; they have no words of their own in the text.
MARKERS = ("<|problem|>", "<|solution|>", "<|answer|>", "<|end|>")
PROBLEM_MARKER, SOLUTION_MARKER, ANSWER_MARKER, END_MARKER = MARKERS
ANSWER = Form(f"{ANSWER_MARKER} {{number}}{END_MARKER}")


def _after_names(form: Form) -> list[str]:
    pairs = itertools.pairwise(form.symbols)
    return [after for name, after in pairs if name in (" {owner}", " {thing}")]


# All fixed words, each once, in the order of the vocabulary.
_PARTS: list[Form | str] = [STATEMENT, MORE, TIMES, SUM, DIFFERENCE, REFERENCE, COMMA, AND, STOP]
_PARTS += [QUESTION, HEADER, NEXT, SO, *LINES, *OPERATORS, *MENDING_MARKERS.values()]
PHRASES = tuple(
    dict.fromkeys(
        symbol
        for part in _PARTS
        for symbol in (part.symbols if isinstance(part, Form) else (part,))
        if not is_slot(symbol)
    )
)

# What stands after a name, or before one in a list: a name that held it could be read in two ways.
AROUND_NAMES = tuple(
    dict.fromkeys(
        [
            *(after for form in (STATEMENT, QUESTION, HEADER) for after in _after_names(form)),
            *(COMMA, AND, STOP, REFERENCE.symbols[0]),
        ]
    )
)


def question_at(prompt: Any, order: str) -> Any:
    """Where the question begins in a prompt.

    Args:
      prompt: symbols of the whole prompt with its two markers, a number or an array of them.
      order: "pq", the question last, or "qp", the question first.
    """
    return 1 if order == "qp" else prompt - 1 - len(QUESTION)
