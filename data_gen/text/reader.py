"""Reads a problem's text: the dependencies and values of its parameters."""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from data_gen.solutions.grammar import (
    AND,
    COMMA,
    DIFFERENCE,
    MORE,
    NUMERAL,
    PARAMETER,
    QUESTION,
    REFERENCE,
    STATEMENT,
    STOP,
    TIMES,
)

_END = re.compile(rf"{re.escape(STOP)}(?:\s+|$)")
# [[category, [item, …]], …], top layer first.
Layers = Sequence[tuple[str, Sequence[str]]]

_BEFORE, _AFTER = STATEMENT.around("parameter")
_NO_LAYERS = "layers must be two or more pairs [category, [item, …]], all of them texts."
_MORE, _TIMES, _DIFFERENCE = f"{MORE} ", f"{TIMES} ", f"{DIFFERENCE} ".lstrip()


def layers_in(value: Any) -> Layers:
    """Layers as `python -m data_gen sample` prints them, or as the JSON text that files of `freeze`
    have.

    Raises:
      ValueError: they are no layers.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(_NO_LAYERS) from error
    if not _are_layers(value):
        raise ValueError(_NO_LAYERS)
    return value


def _are_layers(value: Any) -> bool:
    pairs = _is_list(value) and all(_is_list(pair) and len(pair) == 2 for pair in value)
    return (
        pairs
        and len(value) > 1
        and all(
            isinstance(category, str) and _is_list(items) and items and all(map(_is_text, items))
            for category, items in value
        )
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts of a problem, from its text and independent of any solution.

    A parameter is named by its text, "{owner}'s {thing or category}".

    Attributes:
      modulus: of all arithmetic.
      query: the parameter asked for.
      needs: every parameter's direct predecessors; an instance parameter that the problem
        does not state has none.
      value: every parameter's value; 0 where the problem does not state it.
      necessary: what the query needs, itself included.
      sides: what the problem says that parameters equal.
      sums: for each abstract parameter, what is added up: a parameter alone, or it and what it is
        multiplied by.
    """

    modulus: int
    query: str
    needs: dict[str, frozenset[str]]
    value: dict[str, int]
    necessary: frozenset[str]
    sides: "dict[str, Right]"
    sums: dict[str, list[tuple[str, str | None]]]

    @property
    def answer(self) -> int:
        """The value asked for."""
        return self.value[self.query]


@dataclasses.dataclass
class Right:
    """The right side of a sentence: a constant or None, how it is used, what is added up."""

    number: int | None
    times: bool
    difference: bool
    refs: list[str]


def name(owner: str, thing: str) -> str:
    """The text of a parameter."""
    return PARAMETER.write(owner=owner, thing=thing)


def read(layers: Layers, problem: str, question: str, modulus: int = 23) -> Facts:
    """Reads a problem (Part 2.1, Section 2.1) from its sentences and its layers.

    Raises:
      ValueError: one sentence that says what cannot be read.
    """
    return _stated(layers, problem, modulus).facts(question.strip())


def right_sides(layers: Layers, problem: str, modulus: int) -> dict[str, Right]:
    """What each parameter that the problem states equals, in the order of its sentences.

    Raises:
      ValueError: one sentence that says what cannot be read.
    """
    return _stated(layers, problem, modulus).sides


def _stated(layers: Layers, problem: str, modulus: int) -> "_Reader":
    layers = layers_in(layers)
    reader = _Reader([pair[0] for pair in layers], [list(pair[1]) for pair in layers], modulus)
    for sentence in _sentences(problem):
        reader.state(sentence)
    return reader


def _sentences(problem: str) -> list[str]:
    text = problem.strip()
    return [part.strip() for part in _END.split(text) if part.strip()]


class _Reader:
    def __init__(self, categories: list[str], items: list[list[str]], modulus: int) -> None:
        self.modulus = modulus
        self.sides: dict[str, Right] = {}
        self.abstract: dict[str, list[tuple[str, str | None]]] = {}
        self.instances: list[str] = []
        self.questions: dict[str, str] = {}
        depth = len(items)
        for layer in range(depth - 1):
            for owner in items[layer]:
                for thing in items[layer + 1]:
                    self.instances.append(name(owner, thing))
                    question = QUESTION.write(thing=thing, owner=owner)
                    self.questions[question] = name(owner, thing)
        self.layout = [
            (owner, items[layer + 1], categories[category], category - layer)
            for layer in range(depth - 1)
            for owner in items[layer]
            for category in range(layer + 1, depth)
        ]
        for owner, _, category, _ in self.layout:
            question = QUESTION.write(thing=category, owner=owner)
            self.questions[question] = name(owner, category)
        self.names = set(self.questions.values())
        self.pattern = _pattern(tuple(self.questions.values()))

    def state(self, sentence: str) -> None:
        parameter, _, right = sentence.removeprefix(_BEFORE).partition(f"{_AFTER} ")
        if not sentence.startswith(_BEFORE) or parameter not in self.names or not right:
            raise ValueError(
                f"the sentence {sentence[:80]!r} does not say what a known parameter equals."
            )
        self.sides[parameter] = self.side(right)

    def side(self, text: str) -> Right:
        number, times = None, False
        if found := re.match(r"\d+", text):
            if not re.fullmatch(NUMERAL, found[0]):
                raise ValueError(f"the right side {text[:80]!r} begins with no numeral.")
            number, text = int(found[0]) % self.modulus, text[found.end() :]
            if not text:
                return Right(number, False, False, [])
            times = text.startswith(_TIMES)
            if not times and not text.startswith(_MORE):
                raise ValueError(f"the right side {text[:80]!r} does not go on after its number.")
            text = text.removeprefix(_TIMES).removeprefix(_MORE)
        difference = text.startswith(_DIFFERENCE)
        refs = [found[1] for found in self.pattern.finditer(text)]
        if not refs:
            raise ValueError(f"the right side {text[:80]!r} names no known parameter.")
        return Right(number, times, difference, refs)

    def facts(self, question: str) -> Facts:
        if question not in self.questions:
            raise ValueError(f"the question {question[:80]!r} asks for no known parameter.")
        for owner, things, category, reach in self.layout:
            there = [thing for thing in things if name(owner, thing) in self.sides]
            self.abstract[name(owner, category)] = [
                (name(owner, thing), name(thing, category) if reach > 1 else None)
                for thing in there
            ]
        needs = dict.fromkeys(self.instances, frozenset[str]())
        needs |= {key: frozenset(side.refs) for key, side in self.sides.items()}
        for key, terms in self.abstract.items():
            needs[key] = frozenset(x for pair in terms for x in pair if x is not None)
        value: dict[str, int] = {}
        query = self.questions[question]
        for key in needs:
            self.evaluate(key, needs, value)
        necessary = _closure(query, needs)
        return Facts(self.modulus, query, needs, value, necessary, self.sides, self.abstract)

    def evaluate(self, start: str, needs: dict[str, frozenset[str]], value: dict[str, int]) -> None:
        """Computes a parameter and what it needs, without recursion: chains can be long."""
        stack, open_ = [start], set[str]()
        while stack:
            key = stack[-1]
            missing = [other for other in needs[key] if other not in value]
            if key in value or not missing:
                stack.pop()
                value.setdefault(key, self.compute(key, value))
                continue
            if key in open_:
                raise ValueError(f"the parameter {key!r} needs itself.")
            open_.add(key)
            stack += missing

    def compute(self, key: str, value: dict[str, int]) -> int:
        if key in self.abstract:
            terms = self.abstract[key]
            return sum(value[a] * (1 if b is None else value[b]) for a, b in terms) % self.modulus
        side = self.sides.get(key)
        if side is None:
            return 0
        values = [value[ref] for ref in side.refs]
        total = values[0] - sum(values[1:]) if side.difference else sum(values)
        if side.number is not None:
            total = total * side.number if side.times else total + side.number
        return total % self.modulus


@functools.lru_cache(maxsize=1024)
def _pattern(names: tuple[str, ...]) -> re.Pattern:
    reference = REFERENCE.pattern(parameter=f"({'|'.join(map(re.escape, names))})")
    return re.compile(rf"\b{reference}(?=$|{COMMA}|{AND} )")


def _closure(start: str, needs: dict[str, frozenset[str]]) -> frozenset[str]:
    found, stack = {start}, [start]
    while stack:
        for other in needs[stack.pop()] - found:
            found.add(other)
            stack.append(other)
    return frozenset(found)
