"""The lines of a right sentence, with as many terms and products as a class may have."""

import operator

import jax.numpy as jnp
import numpy as np
import pytest

from data_gen.solutions import computation
from data_gen.solutions.computation import ADD, MULTIPLY, SUBTRACT, Expression, Operands
from data_gen.spec import MED

OPERATORS = {ADD: operator.add, SUBTRACT: operator.sub, MULTIPLY: operator.mul}
# Terms and what they are multiplied by have other letters than lines, and values that differ.
FIRST, SECOND, LINE = 20, 30, 40
VALUES = {FIRST + n: value for n, value in enumerate((3, 5, 11, 19))}
VALUES |= {SECOND + n: value for n, value in enumerate((7, 13, 17, 2))}


def written(terms, product=False, minus=False, constant=None, times=False):
    """The lines of such a sentence, and its expression."""
    live_F = np.arange(4) < terms
    of = Expression(
        first_F=jnp.where(live_F, np.arange(4), -1),
        second_F=jnp.where(live_F & product, 4 + np.arange(4), -1),
        terms=jnp.int32(terms),
        product=jnp.bool_(product),
        minus=jnp.bool_(minus),
        constant=jnp.bool_(constant is not None),
        times=jnp.bool_(times),
        number=jnp.int32(constant or 0),
    )
    first_F, second_F = (start + jnp.arange(4) for start in (FIRST, SECOND))
    worth = [jnp.array([VALUES[int(x)] for x in letters_F]) for letters_F in (first_F, second_F)]
    letters_J = LINE + jnp.arange(computation.lines_cap(MED))
    operands = Operands(first_F, worth[0], second_F, worth[1])
    packed = computation.computed(of, operands, computation.no_slip(), letters_J, MED)
    found = computation.unpack(packed)
    assert int(computation.value_of(of, *worth, MED)) == int(found.value_J[of.operations - 1])
    return found, int(of.operations)


def followed(found, count):
    """What goes into the last of the lines, with letters for numbers, as a text."""
    worth, means = dict(VALUES), {letter: f"{letter}" for letter in VALUES}
    for j in range(count):
        sides = []
        for letter, value in (
            (found.left_J, found.left_value_J),
            (found.right_J, found.right_value_J),
        ):
            letter, value = int(letter[j]), int(value[j])
            assert value == (worth[letter] if letter >= 0 else -1 - letter)
            sides.append(means[letter] if letter >= 0 else f"c{-1 - letter}")
        kind = int(found.operator_J[j])
        numbers = int(found.left_value_J[j]), int(found.right_value_J[j])
        assert int(found.value_J[j]) == OPERATORS[kind](*numbers) % MED.modulus
        worth[LINE + j] = int(found.value_J[j])
        means[LINE + j] = f"({sides[0]}{'+-*'[kind]}{sides[1]})"
    return means[LINE + count - 1]


@pytest.mark.parametrize(
    ("terms", "lines", "said"),
    [
        (1, 1, "(20*30)"),
        (2, 3, "((20*30)+(21*31))"),
        (3, 5, "(((20*30)+(21*31))+(22*32))"),
        (4, 7, "((((20*30)+(21*31))+(22*32))+(23*33))"),
    ],
)
def test_products_are_added_up_as_they_are_formed(terms, lines, said):
    found, count = written(terms, product=True)
    assert count == lines and followed(found, count) == said


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"terms": 2}, "(20+21)"),
        ({"terms": 2, "minus": True}, "(20-21)"),
        ({"terms": 4}, "(((20+21)+22)+23)"),
        ({"terms": 1, "constant": 4}, "(c4+20)"),
        ({"terms": 1, "constant": 4, "times": True}, "(c4*20)"),
        ({"terms": 3, "constant": 4, "times": True}, "(c4*((20+21)+22))"),
        ({"terms": 2, "constant": 4, "minus": True}, "(c4+(20-21))"),
    ],
)
def test_terms_are_added_from_the_left_and_the_constant_comes_last(how, said):
    found, count = written(**how)
    assert followed(found, count) == said
