"""The right steps of a solution, and the candidates for writing each of them wrong."""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits, draws
from data_gen.problems.parameters import Parameters, parameters
from data_gen.problems.problem import Problem
from data_gen.solutions import computation
from data_gen.solutions.computation import Expression, Line, Operands, Slip
from data_gen.solutions.kinds import Members, WrongSentence
from data_gen.solutions.mistakes import Mistakes
from data_gen.solutions.wrong_sentences import OPERATORS, Chosen, RightSentence
from data_gen.spec import Spec

_WORD = 32


class Candidates(NamedTuple):
    """Candidates for errors in each step (T), for each kind of wrong sentence (K)."""

    place_TxK: bits.Bits  # where; what a place is, the kind knows
    other_TxK: bits.Bits  # what may stand there instead
    values_TxJ: jax.Array  # int32: the right lines' numbers, as `computation.pack` has them

    @property
    def count_TxK(self) -> jax.Array:
        """int32: how many different ones there are."""
        return self.place_TxK.size() * self.other_TxK.size()


class Steps(NamedTuple):
    """The material of a solution and its mistakes, computed once for a problem."""

    params: Parameters
    of_T: Expression  # what each step computes
    candidates: Candidates | None  # None where the distribution has no wrong sentences


def right_steps(problem: Problem, mistakes: Mistakes, spec: Spec) -> Steps:
    """The steps of a problem, with their candidates for the kinds of a distribution.

    Raises:
      ValueError: a kind gives candidates of a wrong shape.
    """
    params, slot_T = parameters(problem, spec), jnp.maximum(problem.order_T, 0)
    of_T = computation.expressions(problem, params, slot_T, spec)
    kinds = list(wrong_sentences(mistakes).values())
    if not kinds:
        return Steps(params, of_T, None)

    place_bounds, other_bounds = _bounds(spec)
    step_T = jax.vmap(bits.empty(other_bounds).one)(problem.order_T)
    before_T = jax.tree.map(lambda word_T: jnp.cumsum(word_T, dtype=jnp.uint32) - word_T, step_T)

    def of_step(before: bits.Bits, of: Expression) -> tuple[bits.Bits, bits.Bits, jax.Array]:
        packed = _written_right(of, problem, spec)
        right = RightSentence(of, computation.unpack(packed), before, spec)
        places = [_packed(kind.places(right), place_bounds, kind, "places") for kind in kinds]
        others = [_packed(kind.others(right), other_bounds, kind, "others") for kind in kinds]
        stacked = [jax.tree.map(lambda *x: jnp.stack(x), *sets) for sets in (places, others)]
        return stacked[0], stacked[1], packed.values

    return Steps(params, of_T, Candidates(*jax.vmap(of_step)(before_T, of_T)))


def wrong_sentences(mistakes: Mistakes) -> dict[int, WrongSentence]:
    """The wrong sentences of a distribution (K) in order, by their numbers among its kinds."""
    return {
        number: kind
        for number, (kind, rate) in enumerate(mistakes.rates)
        if isinstance(kind, WrongSentence) and rate > 0
    }


def written_wrong(
    kind: jax.Array,
    step: jax.Array,
    word: jax.Array,
    turn: jax.Array,
    of: Expression,
    candidates: Candidates,
    mistakes: Mistakes,
    spec: Spec,
) -> tuple[Expression, Slip]:
    """A step with an error drawn from its candidates.

    Args:
      kind: int32, which kind of the distribution; where it is no wrong sentence, all is right.
      step: int32.
      word: uint32, what is drawn from.
      turn: int32, how many of this kind were drawn from the same word; all that are drawn from one
        word differ, as many as there are, and each is uniform.
      of: what the step computes.
      candidates: of all steps.
      mistakes: the distribution.
      spec: the class.
    """
    sentences = wrong_sentences(mistakes)
    at = jnp.minimum((np.array([*sentences]) < kind).sum(), len(sentences) - 1)
    places, others = jax.tree.map(
        lambda x_TxK: x_TxK[step, at], (candidates.place_TxK, candidates.other_TxK)
    )
    place, other = _distinct(word, turn, places, others, spec)

    def line_at(line: jax.Array) -> Line:
        values = candidates.values_TxJ[step, line]
        return computation.unpack(computation.Packed(values, values))

    found = of, computation.no_slip()
    chosen = Chosen(place, other, of, line_at, spec)
    for number, sentence in sentences.items():
        found = jax.tree.map(
            # What a kind leaves alone need not be chosen.
            lambda new, old, n=number: old if new is old else jnp.where(kind == n, new, old),
            sentence.write(chosen),
            found,
        )
    return found


def _distinct(
    word: jax.Array, turn: jax.Array, places: bits.Bits, others: bits.Bits, spec: Spec
) -> tuple[jax.Array, jax.Array]:
    """int32 each: a pair of members of two sets, another one at each turn."""
    across = jnp.maximum(others.size(), 1)
    count = jnp.maximum(places.size(), 1) * across
    first = draws.below(word, places.size()) * across
    first += draws.below(draws.named(word, "other"), across)
    # A prime above the count has no factor in common with it, so that its multiples go round.
    strides = jnp.array(_strides(spec))
    stride = strides[draws.below(draws.named(word, "stride"), len(strides))]
    pair = (first + turn * stride) % count
    return places.member(pair // across), others.member(pair % across)


@functools.cache
def _strides(spec: Spec) -> np.ndarray:
    """int32[64]: the first primes above all counts of pairs."""
    (_, places), (*_, others) = _bounds(spec)
    found: list[int] = []
    number = max(places * others, 2)
    while len(found) < 64:
        number += 1
        if all(number % factor for factor in range(2, math.isqrt(number) + 1)):
            found.append(number)
    return np.array(found, np.int32)


def _written_right(of: Expression, problem: Problem, spec: Spec) -> computation.Packed:
    """The lines of a right sentence, whatever its letters."""
    first_F, second_F = (
        jnp.where(terms_F >= 0, problem.value_P[terms_F], 0)
        for terms_F in (of.first_F, of.second_F)
    )
    operands = Operands(of.first_F, first_F, of.second_F, second_F)
    letters_J = jnp.zeros(computation.lines_cap(spec), jnp.int32)
    return computation.computed(of, operands, computation.no_slip(), letters_J, spec)


def _bounds(spec: Spec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bounds of the sets of places and of alternatives."""
    places = max(OPERATORS * computation.lines_cap(spec), 2 * computation.terms_cap(spec))
    others = max(spec.slots, spec.modulus)
    return (0, places), (*range(0, others, _WORD), others)


def _packed(
    members: Members, bounds: tuple[int, ...], kind: WrongSentence, field: str
) -> bits.Bits:
    """A set laid out with these bounds, which may go beyond a mask's end."""
    if isinstance(members, bits.Bits):
        return members
    if members.dtype != bool or members.ndim != 1 or members.shape[0] > bounds[-1]:
        raise ValueError(
            f"{field} of kind {kind.name!r} is {members.dtype}{list(members.shape)}; it must be "
            f"bool[n], n at most {bounds[-1]}."
        )
    words = []
    for low, high in itertools.pairwise(bounds):
        here = members[low:high]
        value = np.uint32(1) << np.arange(here.shape[0], dtype=np.uint32)
        words.append(jnp.where(here, value, np.uint32(0)).sum(dtype=jnp.uint32))
    return bits.Bits(tuple(words), bounds)
