"""Wrong sentences: where a step can be written wrong, and how it then reads."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits, draws
from data_gen.problems.parameters import parameters
from data_gen.problems.problem import Problem
from data_gen.problems.slots import compact
from data_gen.solutions import lines as lines_lib
from data_gen.solutions.lines import Expression, Line, Operands, Slip
from data_gen.solutions.mistakes import ERRORS, Mistakes
from data_gen.spec import Spec

_WORD = 32
(_CALCULATION, _VALUE, _REFERENCE, _OPERATOR, _MISSING, _MISREAD) = range(len(ERRORS))


class Options(NamedTuple):
    """What each of `ERRORS` (K) can do to each step (T): any place with any alternative."""

    # bits.Bits: lines; operands, the left ones first; terms, then what they are multiplied by;
    # three operators a line; terms; the constant
    place_TxK: bits.Bits
    # bits.Bits: how far a number is from the right one, at the first two; a parameter; bit 0
    # alone; a number
    other_TxK: bits.Bits
    values_TxJ: jax.Array  # int32: the steps' numbers, all right, as `lines.pack` has them

    @property
    def chance_KxT(self) -> jax.Array:
        """bool: there is such a mistake to be made."""
        return (self.place_TxK.any() & self.other_TxK.any()).T


def asked(mistakes: Mistakes) -> list[str]:
    """Those of `ERRORS` that a distribution has."""
    return [kind for kind, rate in mistakes.rates if kind in ERRORS and rate > 0]


def options(problem: Problem, mistakes: Mistakes, spec: Spec) -> Options | None:
    """The candidates for wrong sentences at each step; None where the distribution has none."""
    if not asked(mistakes):
        return None
    params, slot_T = parameters(problem.structure, spec), jnp.maximum(problem.order_T, 0)
    of_T = lines_lib.expression(problem, params, slot_T, spec)

    place_bounds, other_bounds = _bounds(spec)
    step_T = jax.vmap(bits.empty(other_bounds).one)(problem.order_T)
    before_T = jax.tree.map(lambda word_T: jnp.cumsum(word_T, dtype=jnp.uint32) - word_T, step_T)

    def of_step(before: bits.Bits, of: Expression) -> tuple[bits.Bits, bits.Bits, jax.Array]:
        packed = _written_right(of, problem, spec)
        right = lines_lib.unpack(packed)
        places = [bits.empty(place_bounds)] * len(ERRORS)
        others = [bits.empty(other_bounds)] * len(ERRORS)
        for kind in asked(mistakes):
            place_C, other = _candidates(kind, before, of, right, spec)
            places[ERRORS.index(kind)] = _packed(place_C, place_bounds)
            others[ERRORS.index(kind)] = other
        stacked = [jax.tree.map(lambda *x: jnp.stack(x), *sets) for sets in (places, others)]
        return stacked[0], stacked[1], packed.values

    return Options(*jax.vmap(of_step)(before_T, of_T))


def applied(
    kind: jax.Array, step: jax.Array, word: jax.Array, of: Expression, choices: Options, spec: Spec
) -> tuple[Expression, Slip]:
    """The expression and the slip of a step's wrong sentence, drawn from its candidates.

    Args:
      kind: int32, the place in `ERRORS`; below 0 nothing is wrong.
      step: int32.
      word: uint32, what is drawn from.
      of: what the step computes.
    """
    errs, at = kind >= 0, jnp.maximum(kind, 0)
    places, others = jax.tree.map(
        lambda x_TxK: x_TxK[step, at], (choices.place_TxK, choices.other_TxK)
    )
    place = places.pick(word)
    other = others.pick(draws.mix(word ^ np.uint32(0x68E31DA4)))
    lines, terms = lines_lib.lines_cap(spec), lines_lib.terms_cap(spec)

    def is_(what: int) -> jax.Array:
        return errs & (kind == what)

    line = lines_lib.first_case([is_(_VALUE), is_(_OPERATOR)], [place % lines, place // 3], place)
    line = jnp.clip(line, 0, lines - 1)
    after = place >= lines
    values = choices.values_TxJ[step, line]
    right = lines_lib.unpack(lines_lib.Packed(values, values))
    quoted = jnp.where(after, right.right_value_J, right.left_value_J)
    now = jnp.where(is_(_VALUE), quoted, right.value_J)
    slip = Slip(
        wrong=lines_lib.first_case(
            [is_(_CALCULATION), is_(_VALUE) & after, is_(_VALUE), is_(_OPERATOR)],
            [lines_lib.RESULT, lines_lib.RIGHT_VALUE, lines_lib.LEFT_VALUE, lines_lib.OPERATOR],
            0,
        ),
        line=line,
        instead=jnp.where(is_(_OPERATOR), place % 3, (now + other) % spec.modulus),
        term=jnp.where(is_(_REFERENCE), place % terms, -1),
        factor=is_(_REFERENCE) & (place >= terms),
        constant=is_(_MISREAD),
    )
    spot_K = np.arange(terms)
    renamed_K, missing = spot_K == slip.term, is_(_MISSING)
    first_K = jnp.where(renamed_K & ~slip.factor, other, of.first_K)
    second_K = jnp.where(renamed_K & slip.factor, other, of.second_K)
    left_out_K = missing & (spot_K == place)
    return of._replace(
        first_K=compact(jnp.where(left_out_K, -1, first_K), terms),
        second_K=compact(jnp.where(left_out_K, -1, second_K), terms),
        terms=of.terms - missing,
        # One term is left where a second one would be subtracted.
        minus=of.minus & ~missing,
        number=jnp.where(is_(_MISREAD), other, of.number),
    ), slip


def _candidates(
    kind: str, before: bits.Bits, of: Expression, right: Line, spec: Spec
) -> tuple[jax.Array, bits.Bits]:
    """bool[C] and a set: the places of one kind of error, and what may stand there instead.

    Args:
      before: the parameters that earlier steps compute.
    """
    terms, lines = jnp.arange(lines_lib.terms_cap(spec)), jnp.arange(lines_lib.lines_cap(spec))
    line_J, two = lines < of.operations, of.form == 2
    ends_J = of.constant & (lines == of.operations - 1)
    other = np.arange(before.bounds[-1])
    only = bits.of(other == 0, before.bounds)
    # Any other number; which, is counted on from the right one.
    distance = bits.of((other > 0) & (other < spec.modulus), before.bounds)
    if kind == "calculation":
        return line_J & two, distance
    if kind == "value":
        left_J = line_J & (of.form >= 1) & ~(ends_J & two)
        return jnp.concatenate([left_J, line_J & two]), distance
    if kind == "reference":
        term_K = terms < of.terms
        for named_K in (of.first_K, of.second_K):
            for k in range(terms.size):
                before = before - before.one(named_K[k])
        return jnp.concatenate([term_K, term_K & of.product]), before
    if kind == "operator":
        left_J, right_J, now_J = right.left_value_J, right.right_value_J, right.operator_J
        result_JxO = jnp.stack([left_J + right_J, left_J - right_J, left_J * right_J], -1)
        change_JxO = result_JxO - right.value_J[:, None]
        # All that follows adds, but a constant that multiplies the sum.
        scale_J = jnp.where(of.constant & of.times & ~ends_J, of.number, 1)
        changes_JxO = change_JxO * scale_J[:, None] % spec.modulus != 0
        other_JxO = (np.arange(3) != now_J[:, None]) & changes_JxO
        return (other_JxO & (line_J & two)[:, None]).reshape(-1), only
    if kind == "missing":
        return (terms < of.terms) & ((of.terms > 1) | of.constant), only
    assert kind == "misread"
    number_O = jnp.arange(spec.modulus)
    summed = right.right_value_J[jnp.minimum(of.operations, lines.size) - 1]
    seen_O = (number_O > 0) & ((number_O - of.number) * summed % spec.modulus != 0)
    seen_O = jnp.where(of.times & (of.terms > 0), seen_O, True)
    return of.constant[None], _packed(seen_O & (number_O != of.number), before.bounds)


def _written_right(of: Expression, problem: Problem, spec: Spec) -> lines_lib.Packed:
    """The lines of a right sentence, whatever its letters."""
    first_K, second_K = (
        jnp.where(terms_K >= 0, problem.value_P[terms_K], 0)
        for terms_K in (of.first_K, of.second_K)
    )
    operands = Operands(of.first_K, first_K, of.second_K, second_K)
    letters_J = jnp.zeros(lines_lib.lines_cap(spec), jnp.int32)
    return lines_lib.work(of, operands, lines_lib.no_slip(), letters_J, spec)


def _bounds(spec: Spec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bounds of the sets of places and of alternatives."""
    places = max(3 * lines_lib.lines_cap(spec), 2 * lines_lib.terms_cap(spec))
    others = max(spec.slots, spec.modulus)
    return (0, places), (*range(0, others, _WORD), others)


def _packed(mask: jax.Array, bounds: tuple[int, ...]) -> bits.Bits:
    """The set of a mask's members, laid out with these bounds, which may go beyond it."""
    words = []
    for low, high in itertools.pairwise(bounds):
        here = mask[low:high]
        value = np.uint32(1) << np.arange(here.shape[0], dtype=np.uint32)
        words.append(jnp.where(here, value, np.uint32(0)).sum(dtype=jnp.uint32))
    return bits.Bits(tuple(words), bounds)
