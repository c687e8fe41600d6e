"""Constants, operators and values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import draws
from data_gen.problems.distractors import Definitions
from data_gen.problems.problem import TERMS
from data_gen.problems.slots import abstract_groups
from data_gen.spec import Spec


class Operators(NamedTuple):
    """How each instance parameter's right side combines its terms."""

    times_I: jax.Array  # bool: "c times as much as", else "c more than"
    difference_I: jax.Array  # bool: of two parameters, else their sum


def operators(key: jax.Array, spec: Spec) -> Operators:
    """Draws a fair coin for each choice; only right sides that have the choice use it."""
    word = draws.words(key, spec.instance_slots)
    return Operators(draws.coin(word), draws.coin(word << 1))


def constants(key: jax.Array, times_I: jax.Array, refs_IxR: jax.Array, spec: Spec) -> jax.Array:
    """int32[I]: 0..m-1 alone and in "more than"; 1..m-1 in "times as much as"."""
    word = draws.words(key, spec.instance_slots)
    factor_I = times_I & (refs_IxR[:, 0] >= 0)
    return jnp.where(
        factor_I, 1 + draws.below(word, spec.modulus - 1), draws.below(word, spec.modulus)
    )


def values(
    definitions: Definitions,
    number_I: jax.Array,
    ops: Operators,
    exists_P: jax.Array,
    spec: Spec,
) -> jax.Array:
    """int32[P]: the value of every parameter modulo m; absent ones are 0.

    One definition after the other; abstract parameters follow those of the instance ones.
    """
    instances, modulus = spec.instance_slots, np.uint32(spec.modulus)
    count_I = (definitions.refs_IxR >= 0).sum(-1)
    times_I = ops.times_I & definitions.constant_I & (count_I > 0)
    minus_I = ops.difference_I & (count_I == 2)

    def define(value_P: jax.Array, slot: jax.Array) -> tuple[jax.Array, None]:
        at = jnp.clip(slot, 0, instances - 1)
        refs_R, number = definitions.refs_IxR[at], number_I[at].astype(jnp.uint32)
        terms = [jnp.where(refs_R[n] >= 0, value_P[refs_R[n]], 0) for n in range(TERMS)]
        first, second, *rest = terms
        total = first + jnp.where(minus_I[at], modulus - second, second) + sum(rest)
        value = jax.lax.rem(jnp.where(times_I[at], total * number, total + number), modulus)
        value_I = jnp.where(np.arange(instances) == slot, value, value_P[:instances])
        return jnp.concatenate([value_I, _abstract_values(value_I, spec)]), None

    value_P = jnp.zeros(spec.slots, jnp.uint32)
    value_P, _ = jax.lax.scan(define, value_P, definitions.slot_V)
    return jnp.where(exists_P, value_P, 0).astype(jnp.int32)


def _abstract_values(value_I: jax.Array, spec: Spec) -> jax.Array:
    """uint32[A]: sums over an item's things, of each thing times what it has itself."""
    width = spec.max_width
    things_GxWxW = value_I.reshape(-1, width, width)
    found: dict[tuple[int, int], jax.Array] = {}
    for g in range(spec.max_depth - 2, -1, -1):
        for c in range(g + 1, spec.max_depth):
            of = found.get((g + 1, c), np.ones(width, np.uint32))
            total_W = sum(things_GxWxW[g, :, k] * of[k] for k in range(width))
            found[g, c] = jax.lax.rem(total_W, jnp.full_like(total_W, spec.modulus))
    return jnp.concatenate([found[g, c] for g, c, _ in abstract_groups(spec)])
