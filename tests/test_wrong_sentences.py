"""Where sentences can be wrong, and what stands there instead, beside trying everything out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import TINY

from data_gen.problems import bits
from data_gen.solutions import computation, wrong_sentences
from data_gen.solutions.computation import Expression, Operands
from data_gen.solutions.wrong_sentences import Chosen, RightSentence
from data_gen.spec import Spec

# A modulus with divisors, as no class of the tests has: there a change may be undone by what it is
# multiplied with.
SIX = Spec(
    max_op=3, max_edges=4, max_depth=2, max_width=2, modulus=6, hierarchies=2, subcategories=2,
    names=4, letters=8,
)  # fmt: skip
COUNT = 200


def lines(of, values_F, slip, spec):
    operands = Operands(of.first_F, values_F, of.second_F, values_F)
    letters_J = jnp.arange(computation.lines_cap(spec))
    return computation.unpack(computation.computed(of, operands, slip, letters_J, spec))


def sums(spec):
    """COUNT sentences of instance parameters: terms with values, and with a constant or without."""
    rng, cap = np.random.default_rng(0), computation.terms_cap(spec)
    terms_N = rng.integers(1, 4, COUNT)
    term_NxF = np.where(np.arange(cap) < terms_N[:, None], np.arange(cap), -1)
    constant_N, times_N = rng.random(COUNT) < 0.7, rng.random(COUNT) < 0.7
    number_N = rng.integers(times_N, spec.modulus)
    minus_N = (terms_N == 2) & (rng.random(COUNT) < 0.5)
    of_N = Expression(
        first_F=term_NxF,
        second_F=np.full_like(term_NxF, -1),
        terms=terms_N,
        product=np.zeros(COUNT, bool),
        minus=minus_N,
        constant=constant_N,
        times=times_N,
        number=np.where(constant_N, number_N, 0),
    )
    of_N = jax.tree.map(lambda x: jnp.asarray(x, bool if x.dtype == bool else jnp.int32), of_N)
    values_NxF = jnp.asarray(rng.integers(0, spec.modulus, term_NxF.shape), jnp.int32)
    return of_N, values_NxF


@functools.cache
def tried(spec):
    """What the kinds offer, and each sentence's value with every operator and every constant."""
    line_cap = computation.lines_cap(spec)

    def of_one(of, values_F):
        right = lines(of, values_F, computation.no_slip(), spec)
        sentence = RightSentence(of, right, bits.empty((0, spec.slots)), spec)

        def value(made):
            of, slip = made
            written = lines(of, values_F, slip, spec)
            return written.value_J[of.operations - 1], written.operator_J

        def chosen(place, other):
            return Chosen(jnp.int32(place), jnp.int32(other), of, lambda _: right, spec)

        with_operator = [
            value(wrong_sentences.write_operator(chosen(place, 0)))
            for place in range(line_cap * wrong_sentences.OPERATORS)
        ]
        with_constant = [
            value(wrong_sentences.write_constant(chosen(0, other)))[0]
            for other in range(spec.modulus)
        ]
        return (
            value((of, computation.no_slip())),
            wrong_sentences.operators(sentence),
            jax.tree.map(lambda *x: jnp.stack(x), *with_operator),
            wrong_sentences.other_constants(sentence),
            jnp.stack(with_constant),
        )

    found = jax.jit(jax.vmap(of_one))(*sums(spec))
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("spec", [TINY, SIX])
def test_a_wrong_operator_changes_the_value(spec):
    of_N, _ = sums(spec)
    (value_N, operator_NxJ), offered_NxC, (tried_NxC, _), *_ = tried(spec)
    undone = 0
    for n in range(COUNT):
        operations = int(of_N.operations[n])
        two = bool(of_N.form[n] == 2)
        for place, offered in enumerate(offered_NxC[n]):
            line, operator = divmod(place, wrong_sentences.OPERATORS)
            other = two and line < operations and operator != operator_NxJ[n, line]
            changed = other and tried_NxC[n, place] != value_N[n]
            assert offered == changed, (n, place)
            scaled = of_N.times[n] and of_N.constant[n] and line < operations - 1
            undone += other and not changed and scaled
    assert undone > 0


@pytest.mark.parametrize("spec", [TINY, SIX])
def test_a_wrong_constant_changes_the_value_and_no_factor_is_0(spec):
    of_N, _ = sums(spec)
    (value_N, _), *_, offered_NxO, tried_NxO = tried(spec)
    factors = 0
    for n in np.flatnonzero(of_N.constant):
        factor = bool(of_N.times[n])
        changed_O = tried_NxO[n] != value_N[n]
        if factor:
            factors += changed_O[0]
            changed_O[0] = False
        np.testing.assert_array_equal(offered_NxO[n], changed_O)
    assert factors > 0


def products():
    """The sentence of an abstract parameter: two products."""
    terms_F = jnp.array([0, 1, -1, -1])
    one, no = jnp.int32(1), jnp.bool_(False)
    return Expression(
        terms_F, jnp.where(terms_F >= 0, terms_F + 2, -1), 2 * one, ~no, no, no, no, one
    )


@pytest.mark.parametrize("factor", [0, 1])
@pytest.mark.parametrize("term", [0, 1])
def test_a_wrong_reference_is_one_and_at_its_place(term, factor):
    of, cap = products(), computation.terms_cap(TINY)
    chosen = Chosen(jnp.int32(factor * cap + term), jnp.int32(9), of, None, TINY)
    made, slip = wrong_sentences.write_reference(chosen)
    wanted = [of.first_F.tolist(), of.second_F.tolist()]
    wanted[factor][term] = 9
    assert [made.first_F.tolist(), made.second_F.tolist()] == wanted
    assert (int(slip.term), bool(slip.factor), int(slip.wrong)) == (term, bool(factor), 0)


@pytest.mark.parametrize("term", [0, 1])
def test_an_omitted_term_takes_its_factor_with_it(term):
    of = products()._replace(minus=jnp.bool_(True))
    made, slip = wrong_sentences.write_omission(
        Chosen(jnp.int32(term), jnp.int32(0), of, None, TINY)
    )
    assert made.first_F.tolist() == [1 - term, -1, -1, -1]
    assert made.second_F.tolist() == [3 - term, -1, -1, -1]
    assert int(made.terms) == 1 and not made.minus
    assert int(slip.wrong) == 0 and int(slip.term) == -1 and not slip.constant


@pytest.mark.parametrize("place", range(2))
def test_a_wrong_number_is_quoted_for_its_letter(place):
    """Places are the left letters of all lines, then the right ones."""
    lines_cap = computation.lines_cap(TINY)
    right = computation.Line(*(jnp.full(lines_cap, n) for n in range(8)))
    chosen = Chosen(
        place=jnp.int32(place * lines_cap + 1),
        other=jnp.int32(4),
        of=None,
        line_at=lambda line: jax.tree.map(lambda x_J: x_J[line], right),
        spec=TINY,
    )
    _, slip = wrong_sentences.write_quotation(chosen)
    value = [right.left_value_J, right.right_value_J][place][1]
    assert int(slip.instead) == (value + 4) % TINY.modulus
    assert int(slip.wrong) == [computation.LEFT_VALUE, computation.RIGHT_VALUE][place]
    assert int(slip.line) == 1
