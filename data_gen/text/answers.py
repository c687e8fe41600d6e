"""Parses and judges a model's continuations of prompts, from token ids."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from data_gen.text.judge import Verdict, judge
from data_gen.text.reader import Facts, read


class Coding(Protocol):
    """The interface to token ids: a vocabulary of symbols, or a tokenizer's."""

    @property
    def answer(self) -> int:
        """The id of the marker before the answer."""

    @property
    def end(self) -> int:
        """The id of the end marker."""

    def decode(self, ids: Any, /) -> str:
        """The text of a sequence of ids, whatever they are."""


def split(ids: ArrayLike, coding: Coding) -> tuple[str, str | None]:
    """A continuation of a prompt as (solution, answer) texts; no answer without its marker."""
    ids = np.asarray(ids)
    stops = np.flatnonzero(ids == coding.end)
    ids = ids[: stops[0]] if len(stops) else ids
    marks = np.flatnonzero(ids == coding.answer)
    if not len(marks):
        return coding.decode(ids), None
    return coding.decode(ids[: marks[0]]), coding.decode(ids[marks[0] + 1 :])


def judge_tokens(facts: Facts, ids: ArrayLike, coding: Coding) -> Verdict:
    """Judges what a model wrote after a prompt: solution, answer marker, answer, end.

    Never raises: ids that are no solution, or that stand for nothing, are wrong.

    Args:
      facts: the problem.
      ids: int[N]; what comes after the end marker is not looked at.
      coding: what they stand for.
    """
    solution, answer = split(ids, coding)
    return judge(facts, solution, answer or "")


def judge_many(
    records: Iterable[Mapping[str, Any]], ids_BxN: Iterable[ArrayLike], coding: Coding, modulus: int
) -> list[Verdict]:
    """Judges one continuation of each problem's prompt.

    Args:
      records: B problems as `data_gen.text.records` gives them (layers, problem, question).
      ids_BxN: token ids of what was written after each prompt.
      coding: what they stand for.
      modulus: of all arithmetic.

    Raises:
      ValueError: a problem (not a solution) cannot be read.
    """
    found = []
    for record, ids in zip(records, ids_BxN, strict=True):
        facts = read(record["layers"], record["problem"], record["question"], modulus)
        found.append(judge_tokens(facts, ids, coding))
    return found
