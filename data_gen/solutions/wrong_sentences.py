"""Wrong sentences about the right parameter: where each kind errs, and what it writes there."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits
from data_gen.problems.slots import compact
from data_gen.solutions import computation
from data_gen.solutions.computation import Expression, Line, Slip
from data_gen.spec import Spec

OPERATORS = 3


@dataclasses.dataclass(frozen=True)
class RightSentence:
    """A step's right sentence, for which each kind says where and how it can be wrong.

    Attributes:
      of: what the step computes (scalars, and F terms).
      line: its lines (J), whatever their letters.
      earlier: the parameters that steps before it compute.
      spec: the class of problems.
    """

    of: Expression
    line: Line
    earlier: bits.Bits
    spec: Spec

    @property
    def written_J(self) -> jax.Array:
        """bool: the sentence has this line."""
        return jnp.arange(computation.lines_cap(self.spec)) < self.of.operations

    @property
    def two_J(self) -> jax.Array:
        """bool: it has this line, with an operation on two operands."""
        return self.written_J & (self.of.form == 2)

    @property
    def constant_J(self) -> jax.Array:
        """bool: the constant, where there is one, belongs to this line."""
        lines = jnp.arange(computation.lines_cap(self.spec))
        return self.of.constant & (lines == self.of.operations - 1)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The drawn error: its place, and the alternative there.

    Attributes:
      place: int32 scalar, one of the kind's places.
      other: int32 scalar, one of what may stand there instead.
      of: what the step computes.
      line_at: the right sentence's line of a number: scalars, of which only values are known.
      spec: the class of problems.
    """

    place: jax.Array
    other: jax.Array
    of: Expression
    line_at: Callable[[jax.Array], Line]
    spec: Spec


def distances(sentence: RightSentence) -> np.ndarray:
    """How far a wrong number is from the right one, modulo m."""
    return np.arange(sentence.spec.modulus) > 0


def nothing_else(sentence: RightSentence) -> np.ndarray:
    """A single alternative, for kinds whose error is determined by its place."""
    return np.ones(1, bool)


def results(sentence: RightSentence) -> jax.Array:
    """Lines whose result can be miscalculated."""
    return sentence.two_J


def write_result(chosen: Chosen) -> tuple[Expression, Slip]:
    """The result of line `place` is `other` more."""
    right = chosen.line_at(chosen.place).value_J
    number = (right + chosen.other) % chosen.spec.modulus
    slip = computation.no_slip()._replace(
        wrong=jnp.int32(computation.RESULT), line=chosen.place, instead=number
    )
    return chosen.of, slip


def quotations(sentence: RightSentence) -> jax.Array:
    """Letters whose number is quoted: the left ones of all lines, then the right ones."""
    left_J = sentence.written_J & (sentence.of.form >= 1)
    left_J &= ~(sentence.constant_J & (sentence.of.form == 2))
    return jnp.concatenate([left_J, sentence.two_J])


def write_quotation(chosen: Chosen) -> tuple[Expression, Slip]:
    """The number quoted for letter `place` is `other` more."""
    lines = computation.lines_cap(chosen.spec)
    on_the_right, line = chosen.place >= lines, chosen.place % lines
    right = chosen.line_at(line)
    quoted = jnp.where(on_the_right, right.right_value_J, right.left_value_J)
    slip = computation.no_slip()._replace(
        wrong=jnp.where(on_the_right, computation.RIGHT_VALUE, computation.LEFT_VALUE),
        line=line,
        instead=(quoted + chosen.other) % chosen.spec.modulus,
    )
    return chosen.of, slip


def references(sentence: RightSentence) -> jax.Array:
    """Terms, then what they are multiplied by."""
    term_F = jnp.arange(computation.terms_cap(sentence.spec)) < sentence.of.terms
    return jnp.concatenate([term_F, term_F & sentence.of.product])


def strangers(sentence: RightSentence) -> bits.Bits:
    """Parameters computed before that the sentence does not need."""
    found = sentence.earlier
    for named_F in (sentence.of.first_F, sentence.of.second_F):
        for k in range(named_F.shape[-1]):
            found = found - found.one(named_F[k])
    return found


def write_reference(chosen: Chosen) -> tuple[Expression, Slip]:
    """Parameter `other` stands for term or factor `place`."""
    terms = computation.terms_cap(chosen.spec)
    term, factor = chosen.place % terms, chosen.place >= terms
    here_F = np.arange(terms) == term
    of = chosen.of._replace(
        first_F=jnp.where(here_F & ~factor, chosen.other, chosen.of.first_F),
        second_F=jnp.where(here_F & factor, chosen.other, chosen.of.second_F),
    )
    return of, computation.no_slip()._replace(term=term, factor=factor)


def operators(sentence: RightSentence) -> jax.Array:
    """For each line three operators, of which those count that change the parameter's value."""
    of, line = sentence.of, sentence.line
    left_J, right_J = line.left_value_J, line.right_value_J
    result_Jx3 = jnp.stack([left_J + right_J, left_J - right_J, left_J * right_J], -1)
    change_Jx3 = result_Jx3 - line.value_J[:, None]
    # All that follows adds, but a constant that multiplies the sum.
    scale_J = jnp.where(of.constant & of.times & ~sentence.constant_J, of.number, 1)
    changes_Jx3 = change_Jx3 * scale_J[:, None] % sentence.spec.modulus != 0
    other_Jx3 = (np.arange(OPERATORS) != line.operator_J[:, None]) & changes_Jx3
    return (other_Jx3 & sentence.two_J[:, None]).reshape(-1)


def write_operator(chosen: Chosen) -> tuple[Expression, Slip]:
    """Operator `place` modulo three stands in the line of that place."""
    slip = computation.no_slip()._replace(
        wrong=jnp.int32(computation.OPERATOR),
        line=chosen.place // OPERATORS,
        instead=chosen.place % OPERATORS,
    )
    return chosen.of, slip


def omissible(sentence: RightSentence) -> jax.Array:
    """Terms without which there is still something to compute."""
    of = sentence.of
    term_F = jnp.arange(computation.terms_cap(sentence.spec)) < of.terms
    return term_F & ((of.terms > 1) | of.constant)


def write_omission(chosen: Chosen) -> tuple[Expression, Slip]:
    """Term `place` is left out."""
    of, terms = chosen.of, computation.terms_cap(chosen.spec)
    left_out_F = np.arange(terms) == chosen.place
    of = of._replace(
        first_F=compact(jnp.where(left_out_F, -1, of.first_F), terms),
        second_F=compact(jnp.where(left_out_F, -1, of.second_F), terms),
        terms=of.terms - 1,
        # One term is left where a second one would be subtracted.
        minus=jnp.bool_(False),
    )
    return of, computation.no_slip()


def constant(sentence: RightSentence) -> jax.Array:
    """The constant, where there is one."""
    return sentence.of.constant[None]


def other_constants(sentence: RightSentence) -> jax.Array:
    """Numbers that can stand for the constant and change the parameter's value."""
    of, number_O = sentence.of, jnp.arange(sentence.spec.modulus)
    last = jnp.minimum(of.operations, computation.lines_cap(sentence.spec)) - 1
    summed = sentence.line.right_value_J[last]
    changes_O = (number_O - of.number) * summed % sentence.spec.modulus != 0
    seen_O = jnp.where(of.times & (of.terms > 0), (number_O > 0) & changes_O, True)
    return seen_O & (number_O != of.number)


def write_constant(chosen: Chosen) -> tuple[Expression, Slip]:
    """The constant is `other`."""
    of = chosen.of._replace(number=chosen.other)
    return of, computation.no_slip()._replace(constant=jnp.bool_(True))
