"""The train/test split by templates of solutions.

A template is a solution without names, numbers and letters. As in the public program, it is that
of the solution as it is written: of a solution in any order, steps that the query does not need
belong to it. For re-asked questions that program checks nothing; here their solutions have
templates like all others, so that what lies in the other half is rejected.

One problem has solutions in several orders, whose templates may be in different halves. Only where
problems are many is it next to impossible that training solves a test problem in another order.
`Spec.split_by` makes templates those of problems, which cannot be in both halves.

A few operations have few templates, and half of two or of seven is a poor sample to test on. With
`Spec.statement_op`, problems of so few operations have the template of all that they state.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits, draws, slots
from data_gen.problems.arithmetic import Operators
from data_gen.problems.dependency import Arrangement, Terms
from data_gen.problems.problem import TERMS, Problem
from data_gen.spec import LETTER_LIMIT, Spec

# Template hashes are taken modulo 23; those below 17 are for training (Part 2.1, Section 3).
BINS = 23
TRAIN_BINS = 17
# There are two templates of one operation, seven of two and some forty of three. With this number
# one, three and twelve of them are for tests, so that there are problems of every number of
# operations on both sides.
_SALT = 333
# Likewise for templates of problems: one of two, three of seven and eleven of 47 are for tests.
_SALT_OF_PROBLEMS = 256
# Parameters that follow from each other, as far as templates of statements tell them apart. Those
# that differ only further away have one template, and so are on one side.
_REACH = 8


class Template(NamedTuple):
    """The template of a problem's solution."""

    hashed: jax.Array  # uint32; equal where templates are
    for_training: jax.Array  # bool: it is in the half that is for training
    # bool: training may show it, since it is in that half, or has so few operations that it is on
    # both sides of the split (`Spec.unsplit_op`)
    shared: jax.Array


@functools.partial(jax.jit, static_argnames="spec")
def templates(problems_N: Problem, spec: Spec) -> Template:
    """The templates of finished problems (leading axis N)."""
    return jax.vmap(functools.partial(_template, spec=spec))(problems_N)


def _template(problem: Problem, spec: Spec) -> Template:
    """The template of one finished problem."""
    at_T = jnp.where(problem.order_T < spec.instance_slots, problem.order_T, 0)
    hashed = _hash(
        problem.order_T,
        Terms(problem.constant_I[at_T], problem.refs_IxR[at_T]),
        Operators(problem.times_I, problem.difference_I),
        problem.structure.edges_GxWxW.reshape(-1),
        spec,
    )
    if spec.statement_op:
        hashed = jnp.where(problem.op <= spec.statement_op, _statement(problem, spec), hashed)
    for_training = _for_training(hashed)
    return Template(hashed, for_training, for_training | (problem.op <= spec.unsplit_op))


def table(found_N: Template, op_N: np.ndarray) -> str:
    """How many templates there are among problems, by operations and by half, as text."""
    hashed_N, for_training_N = np.asarray(found_N.hashed), np.asarray(found_N.for_training)
    rows: list[tuple[str, ...]] = [
        ("operations", "problems", "templates", "for training", "for tests")
    ]
    for op in np.unique(op_N):
        mine_N = op_N == op
        halves = [
            len(np.unique(hashed_N[mine_N & (for_training_N == half)])) for half in (True, False)
        ]
        rows.append(tuple(str(n) for n in (op, mine_N.sum(), sum(halves), *halves)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def admitted(problem: Problem, spec: Spec) -> jax.Array:
    """bool: a problem is on the spec's side, "train" or "test", of the split."""
    found = _template(problem, spec)
    return _admitted(found.for_training, problem.op, spec)


def draft_admitted(
    arranged: Arrangement,
    terms: Terms,
    ops: Operators,
    edges: bits.Bits,
    op: jax.Array,
    spec: Spec,
) -> jax.Array:
    """bool: a problem with this shortest solution is on the spec's side of the split."""
    hashed = _hash(arranged.step_T, terms, ops, edges.mask(), spec)
    return _admitted(_for_training(hashed), op, spec)


def _for_training(hashed: jax.Array) -> jax.Array:
    return hashed % BINS < TRAIN_BINS


def _admitted(for_training: jax.Array, op: jax.Array, spec: Spec) -> jax.Array:
    return (for_training == (spec.split == "train")) | (op <= spec.unsplit_op)


def _hash(
    step_T: jax.Array, terms: Terms, ops: Operators, edge_I: jax.Array, spec: Spec
) -> jax.Array:
    """uint32: a hash of the solution without names, numbers and letters.

    It takes in, step by step, what kind of parameter is computed, from which earlier steps,
    in which order and with which operators. It does not depend on the spec's caps, so that
    classes that differ in these have the same halves.
    """
    table, instances = slots.layout(spec), spec.instance_slots
    place_T = np.arange(step_T.shape[0])
    live_T = step_T >= 0
    instance_T = live_T & (step_T < instances)
    position_P = jnp.full(spec.slots + 1, -1).at[step_T].set(place_T)[:-1]
    at_T = jnp.where(instance_T, step_T, 0)
    times_T, minus_T = ops.times_I[at_T], ops.difference_I[at_T]
    kind_T = jnp.where(instance_T, _form(terms.constant_T, terms.refs_TxR, times_T, minus_T), 0)

    abstract_T = jnp.clip(step_T - instances, 0, spec.abstract_slots - 1)
    child_TxW = jnp.asarray(table.children_AxW)[abstract_T]
    factor_TxW = jnp.asarray(table.factors_AxW)[abstract_T]
    factor_position_TxW = jnp.where(factor_TxW >= 0, position_P[factor_TxW], -1)
    pair_TxW = (position_P[child_TxW] + 2) * 64 + factor_position_TxW + 2
    pair_TxW = jnp.where(edge_I[child_TxW], pair_TxW, -1)
    # An item has at most as many children as a right side has terms.
    pair_TxR = slots.compact(pair_TxW, TERMS)
    ref_TxR = jnp.where(terms.refs_TxR >= 0, position_P[terms.refs_TxR], -1)
    if spec.split_by == "problem":
        place_TxW = jnp.where(edge_I[child_TxW], position_P[child_TxW], -1)
        return _hash_of_problem(kind_T, ref_TxR, place_TxW, factor_position_TxW, live_T)
    term_TxR = jnp.where(instance_T[:, None], ref_TxR, pair_TxR).astype(jnp.uint32)
    mixed_T = draws.numbered(term_TxR, np.arange(TERMS)).sum(-1, dtype=jnp.uint32)
    mixed_T = draws.numbered(mixed_T, kind_T * LETTER_LIMIT + place_T)
    return draws.numbered(jnp.where(live_T, mixed_T, 0).sum(dtype=jnp.uint32), _SALT)


def _form(
    constant: jax.Array, refs_R: jax.Array, times: jax.Array, difference: jax.Array
) -> jax.Array:
    """int32: what kind of right side an instance parameter has, from 1 on."""
    count = (refs_R >= 0).sum(-1)
    return 1 + constant + 2 * (times & constant & (count > 0)) + 4 * (difference & (count == 2))


def _statement(problem: Problem, spec: Spec) -> jax.Array:
    """uint32: a hash of a problem's sentences, in any order, and of its question, without names.

    Equal texts have equal hashes, whichever items of a layer bear which names: a parameter counts
    by what its right side is made of, and what that is made of, `_REACH` times over.
    """
    table = slots.layout(spec)
    edge_I = problem.structure.edges_GxWxW.reshape(-1)
    form_I = _form(problem.constant_I, problem.refs_IxR, problem.times_I, problem.difference_I)
    child_AxW = jnp.where(edge_I[table.children_AxW], table.children_AxW, -1)
    none_A = jnp.zeros(spec.abstract_slots, form_I.dtype)
    kind_P = jnp.concatenate([form_I, none_A])

    def follow(_: int, word_P: jax.Array) -> jax.Array:
        refs_I = _of_references(problem.refs_IxR, word_P)
        added_A = _of_products(child_AxW, jnp.asarray(table.factors_AxW), word_P)
        return draws.numbered(jnp.concatenate([refs_I, added_A]), kind_P + 1)

    word_P = jax.lax.fori_loop(0, _REACH, follow, jnp.zeros(spec.slots, jnp.uint32))
    stated_I = jnp.where(edge_I, draws.mix(word_P[: spec.instance_slots]), 0)
    asked = draws.numbered(word_P[problem.query], 1)
    return draws.mix(stated_I.sum(dtype=jnp.uint32) + asked)


def _of_references(refs_xR: jax.Array, word_T: jax.Array) -> jax.Array:
    """uint32: a hash of what right sides name, in order."""
    word_xR = jnp.where(refs_xR >= 0, word_T[refs_xR], 0)
    return draws.numbered(word_xR, np.arange(TERMS)).sum(-1, dtype=jnp.uint32)


def _of_products(child_xW: jax.Array, factor_xW: jax.Array, word_T: jax.Array) -> jax.Array:
    """uint32: a hash of the products that are added up, in any order."""

    def of(place_xW: jax.Array) -> jax.Array:
        return jnp.where(place_xW >= 0, word_T[place_xW], 0)

    # Places in a product are told apart: one is a number of items, the other is of each.
    products_xW = draws.numbered(of(child_xW), 1) + draws.numbered(of(factor_xW), 2)
    return jnp.where(child_xW >= 0, draws.mix(products_xW), 0).sum(-1, dtype=jnp.uint32)


def _hash_of_problem(
    kind_T: jax.Array,
    ref_TxR: jax.Array,
    child_TxW: jax.Array,
    factor_TxW: jax.Array,
    live_T: jax.Array,
) -> jax.Array:
    """uint32: a hash of what the last step's value is computed from, and from what that is, …

    Equal texts have equal hashes: the order of steps is left out, and so is that of the products
    that an abstract parameter adds up, since neither stands in a problem's text.

    Args:
      kind_T: what kind of right side each step has, 0 for abstract parameters.
      ref_TxR: for instance parameters, the steps that the right side names, in order, or -1.
      child_TxW: for abstract ones, the steps that are added up, or -1.
      factor_TxW: the steps that these are multiplied by, or -1.
      live_T: bool, true for the steps that there are, first ones first.
    """

    def follow(step: jax.Array, word_T: jax.Array) -> jax.Array:
        refs = _of_references(ref_TxR[step], word_T)
        added = _of_products(child_TxW[step], factor_TxW[step], word_T)
        kind = kind_T[step]
        word = jnp.where(kind > 0, refs, added)
        return jnp.where(np.arange(len(kind_T)) == step, draws.numbered(word, kind + 1), word_T)

    word_T = jax.lax.fori_loop(0, len(kind_T), follow, jnp.zeros(kind_T.shape, jnp.uint32))
    last = jnp.maximum(live_T.sum() - 1, 0)
    return draws.numbered(word_T[last], _SALT_OF_PROBLEMS)
