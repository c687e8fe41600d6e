"""The computation of each sentence of a solution, one binary operation a line."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems.parameters import Parameters
from data_gen.problems.problem import TERMS, Problem
from data_gen.problems.slots import compact, layout
from data_gen.spec import Spec

ADD, SUBTRACT, MULTIPLY = range(3)

# What of a line is wrong, as bits.
LEFT, OPERATOR, RIGHT, LEFT_VALUE, RIGHT_VALUE, RESULT = (1 << n for n in range(6))


class Expression(NamedTuple):
    """The right side of a parameter; leading axes are those of the slots asked about.

    Either up to F terms, added from the left (the second may be subtracted), and a constant that
    is added to that or multiplied with it; or F products, added up.
    """

    first_F: jax.Array  # int32: slots, or -1
    second_F: jax.Array  # int32: what each is multiplied by, or -1
    terms: jax.Array  # int32: how many terms or products
    product: jax.Array  # bool
    minus: jax.Array  # bool
    constant: jax.Array  # bool
    times: jax.Array  # bool: the constant multiplies
    number: jax.Array  # int32: the constant

    @property
    def operations(self) -> jax.Array:
        """int32: lines that it takes, a product before the sum that uses it."""
        chain = self.terms + self.constant - 1
        return jnp.maximum(jnp.where(self.product, 2 * self.terms - 1, chain), 1)

    @property
    def form(self) -> jax.Array:
        """int32: operands of a line: 0 (a number alone), 1 (a letter alone) or 2."""
        single = (self.terms == 1) & ~self.constant & ~self.product
        return jnp.where(self.terms == 0, 0, jnp.where(single, 1, 2))


def value_of(of: Expression, first_F: jax.Array, second_F: jax.Array, spec: Spec) -> jax.Array:
    """int32: the value of an expression (scalars), given the values of its terms."""
    live_F = np.arange(terms_cap(spec)) < of.terms
    term_F = jnp.where(live_F, jnp.where(of.product, first_F * second_F, first_F), 0)
    total = term_F.sum() - jnp.where(of.minus, 2 * term_F[1], 0)
    number = jnp.where(of.constant, of.number, 0)
    scales = of.constant & of.times & (of.terms > 0)
    return jnp.where(scales, total * number, total + number) % spec.modulus


def terms_cap(spec: Spec) -> int:
    """F of an expression, at most."""
    return max(spec.max_width, TERMS)


def lines_cap(spec: Spec) -> int:
    """Lines of a sentence, at most: of products, or of terms."""
    return max(2 * spec.max_width - 1, TERMS - 1)


def expressions(problem: Problem, params: Parameters, slot: jax.Array, spec: Spec) -> Expression:
    """The expressions of some parameters (int32[...], slots)."""
    table, instances, width = layout(spec), spec.instance_slots, terms_cap(spec)
    instance = slot < instances
    at = jnp.where(instance, slot, 0)
    abstract = jnp.clip(slot - instances, 0, spec.abstract_slots - 1)
    child_W = jnp.asarray(table.children_AxW)[abstract]
    edge_W = params.child_AxW[abstract]
    factor_W = jnp.where(edge_W, jnp.asarray(table.factors_AxW)[abstract], -1)
    # A child and its factor are both there or both left out.
    child_F = compact(jnp.where(edge_W, child_W, -1), width)
    refs_R = problem.refs_IxR[at]
    room = [(0, 0)] * (refs_R.ndim - 1) + [(0, width - refs_R.shape[-1])]
    refs_F = jnp.pad(refs_R, room, constant_values=-1)
    first_F = jnp.where(instance[..., None], refs_F, child_F)
    second_F = jnp.where(instance[..., None], -1, compact(factor_W, width))
    count = (first_F >= 0).sum(-1)
    return Expression(
        first_F=first_F,
        second_F=second_F,
        terms=count,
        product=second_F[..., 0] >= 0,
        minus=instance & problem.difference_I[at] & (count == 2),
        constant=instance & problem.constant_I[at],
        times=problem.times_I[at],
        number=problem.number_I[at],
    )


def pack_expression(of: Expression) -> jax.Array:
    """int32[..., 3]: expressions of any shape in three words; `unpack_expression` gives them back.

    Slots take 7 bits, of which none is all ones; there are at most four terms.
    """
    first, second = (
        sum((terms_F[..., k] & 127) << 7 * k for k in range(4))
        for terms_F in (of.first_F, of.second_F)
    )
    rest, shift = of.terms, 3
    for flag in (of.product, of.minus, of.constant, of.times):
        rest, shift = rest | flag.astype(jnp.int32) << shift, shift + 1
    return jnp.stack([jnp.asarray(first), jnp.asarray(second), rest | of.number << shift], -1)


def unpack_expression(packed: jax.Array, spec: Spec) -> Expression:
    """The expressions of `pack_expression`."""
    first_F, second_F = (
        jnp.stack([(packed[..., n] >> 7 * k) & 127 for k in range(terms_cap(spec))], -1)
        for n in range(2)
    )
    first_F, second_F = (jnp.where(x == 127, -1, x) for x in (first_F, second_F))
    rest = packed[..., 2]
    product, minus, constant, times = ((rest >> 3 + n) & 1 != 0 for n in range(4))
    return Expression(first_F, second_F, rest & 7, product, minus, constant, times, rest >> 7)


class Slip(NamedTuple):
    """The error in a sentence: how it departs from its expression (scalars)."""

    wrong: jax.Array  # int32: LEFT_VALUE, RIGHT_VALUE, OPERATOR, RESULT, or 0
    line: jax.Array  # int32: where that is
    instead: jax.Array  # int32: the number, or the operator, that stands there
    term: jax.Array  # int32: the term that is another than it should be, or -1
    factor: jax.Array  # bool: not the term itself, but what it is multiplied by
    constant: jax.Array  # bool: the constant is another one


def no_slip() -> Slip:
    """The slip of a right sentence: none."""
    zero, no = jnp.int32(0), jnp.bool_(False)
    return Slip(zero, zero, zero, jnp.int32(-1), no, no)


class Operands(NamedTuple):
    """The operands written for an expression's terms: letters (as numbers) and values."""

    first_F: jax.Array
    first_value_F: jax.Array
    second_F: jax.Array
    second_value_F: jax.Array


class Line(NamedTuple):
    """Lines of a sentence (J), or of many laid flat (M). An operand is a letter, or -1 - number."""

    form_J: jax.Array
    operator_J: jax.Array
    left_J: jax.Array
    left_value_J: jax.Array
    right_J: jax.Array
    right_value_J: jax.Array
    value_J: jax.Array
    wrong_J: jax.Array  # int32: bits LEFT, OPERATOR, … of what is wrong


class Packed(NamedTuple):
    """A line in two words, so that one place is read instead of eight."""

    symbols: jax.Array  # int32
    values: jax.Array  # int32


_OPERAND, _NUMBER = 9, 8  # bits of an operand, of which half are constants, and of a value


def pack(line: Line) -> Packed:
    """Lines of any shape in two words each; `unpack` gives them back."""
    symbols, shift = jnp.zeros_like(line.form_J), 0
    operands = (line.left_J, line.right_J)
    columns = [(line.form_J, 2), (line.operator_J, 2), (line.wrong_J, 6)]
    columns += [(operand + 2 ** (_OPERAND - 1), _OPERAND) for operand in operands]
    for column, size in columns:
        symbols, shift = symbols | column << shift, shift + size
    values = line.left_value_J | line.right_value_J << _NUMBER | line.value_J << 2 * _NUMBER
    return Packed(symbols, values)


def unpack(packed: Packed) -> Line:
    """The lines of `pack`."""
    found, shift = [], 0
    for size in (2, 2, 6, _OPERAND, _OPERAND):
        found.append((packed.symbols >> shift) & (2**size - 1))
        shift += size
    form, operator, wrong, left, right = found
    left_value, right_value, value = (
        (packed.values >> n * _NUMBER) & (2**_NUMBER - 1) for n in range(3)
    )
    left, right = (operand - 2 ** (_OPERAND - 1) for operand in (left, right))
    return Line(form, operator, left, left_value, right, right_value, value, wrong)


def first_case(cases: list[jax.Array], values: list[Any], other: Any) -> jax.Array:
    """The value of the first case whose condition holds.

    `jnp.select` looks for it by a reduction, which on a CPU takes several times as long.
    """
    found = other
    for case, value_ in zip(reversed(cases), reversed(values), strict=True):
        found = jnp.where(case, value_, found)
    return found


def computed(
    of: Expression, operands: Operands, slip: Slip, letters_J: jax.Array, spec: Spec
) -> Packed:
    """Computes a sentence line by line; the last one's value is the sentence's.

    Args:
      letters_J: int32, the letter that each line's result gets.
    """
    found: list[Packed] = []
    value: list[jax.Array] = []
    modulus = spec.modulus
    steps, form = of.operations, of.form
    for j in range(lines_cap(spec)):
        # Products come first and second, then after every sum: p0, p1, +, p2, +, p3, +.
        adds = of.product & (j >= 2 and j % 2 == 0)
        multiplies = of.product & ~adds
        finishes = of.constant & (j == steps - 1) & (of.terms > 0)
        pair = min(j if j < 2 else (j + 1) // 2, terms_cap(spec) - 1)
        term = min(j + 1, terms_cap(spec) - 1)
        before, two_before = max(j - 1, 0), max(j - 2, 0)
        value_before = value[before] if j else jnp.int32(0)
        value_two_before = value[two_before] if j > 1 else jnp.int32(0)

        cases = [finishes, multiplies, adds, jnp.bool_(j == 0)]
        left = first_case(
            cases,
            [-1 - of.number, operands.first_F[pair], letters_J[two_before], operands.first_F[0]],
            letters_J[before],
        )
        left_value = first_case(
            cases,
            [of.number, operands.first_value_F[pair], value_two_before, operands.first_value_F[0]],
            value_before,
        )
        left_term = first_case(cases, [jnp.int32(-1), pair, jnp.int32(-1), 0], -1)
        cases = [finishes & (j == 0), multiplies, finishes | adds]
        right = first_case(
            cases,
            [operands.first_F[0], operands.second_F[pair], letters_J[before]],
            operands.first_F[term],
        )
        right_value = first_case(
            cases,
            [operands.first_value_F[0], operands.second_value_F[pair], value_before],
            operands.first_value_F[term],
        )
        right_term = first_case(cases, [jnp.int32(0), pair, jnp.int32(-1)], term)

        plus = jnp.where(of.minus & ~finishes, SUBTRACT, ADD)
        operator = jnp.where(multiplies | (finishes & of.times), MULTIPLY, plus)
        here = slip.line == j
        operator = jnp.where(here & (slip.wrong == OPERATOR), slip.instead, operator)
        left_value = jnp.where(here & (slip.wrong == LEFT_VALUE), slip.instead, left_value)
        right_value = jnp.where(here & (slip.wrong == RIGHT_VALUE), slip.instead, right_value)
        both = first_case(
            [operator == ADD, operator == SUBTRACT],
            [left_value + right_value, left_value - right_value],
            left_value * right_value,
        )
        alone = jnp.where(of.constant, of.number, 0)
        result = first_case([form == 2, form == 1], [both % modulus, left_value], alone)
        result = jnp.where(here & (slip.wrong == RESULT), slip.instead, result)
        value.append(result)

        renamed = slip.term >= 0
        marks = jnp.where(here, slip.wrong, 0)
        other = renamed & (slip.term == left_term) & ~slip.factor
        marks |= jnp.where(other | (slip.constant & finishes), LEFT | LEFT_VALUE, 0)
        other = renamed & (slip.term == right_term) & (slip.factor == multiplies)
        marks |= jnp.where(other & (form == 2), RIGHT | RIGHT_VALUE, 0)
        # A letter or a constant alone is quoted by the line's one number.
        one = (form == 1) & ((marks & LEFT_VALUE) != 0) | (form == 0) & slip.constant
        marks |= jnp.where(one, RESULT, 0)
        line = Line(form, operator, left, left_value, right, right_value, result, marks)
        found.append(pack(line))
    return Packed(*(jnp.stack(column) for column in zip(*found, strict=True)))


def laid_flat(count_E: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Offsets of lines when sentences are concatenated into `size` places.

    Args:
      count_E: lines of each sentence.

    Returns:
      int32[size], the sentence of each place, its line within it, and bool, whether it is one.
    """
    end_E, place_M = jnp.cumsum(count_E), jnp.arange(size, dtype=jnp.int32)
    # Few are compared with all faster than they are searched.
    method = "compare_all" if size <= 32 else "scan"
    sentence_M = jnp.searchsorted(end_E, place_M, side="right", method=method)
    sentence_M = jnp.minimum(sentence_M, count_E.shape[0] - 1).astype(jnp.int32)
    turn_M = place_M - (end_E - count_E)[sentence_M]
    return sentence_M, turn_M, place_M < end_E[-1]
