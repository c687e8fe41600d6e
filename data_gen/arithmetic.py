"""Constants, operators and values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import draws
from data_gen.slots import Parameters, layout
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
    params: Parameters,
    constant_I: jax.Array,
    number_I: jax.Array,
    refs_IxR: jax.Array,
    ops: Operators,
    spec: Spec,
) -> jax.Array:
    """int32[P]: the value of every parameter modulo m; absent ones are 0.

    Each round computes what the round before left computable, until nothing is left.
    """
    table, instances, modulus = layout(spec), spec.instance_slots, spec.modulus
    edge_AxW = params.exists_P[table.children_AxW] & params.slot_P[instances:, None]
    present_IxR = refs_IxR >= 0
    count_I = present_IxR.sum(-1)
    sign_IxR = jnp.where(
        (ops.difference_I & (count_I == 2))[:, None] & (np.arange(refs_IxR.shape[-1]) == 1), -1, 1
    )
    sign_IxR = jnp.where(present_IxR, sign_IxR, 0)
    times_I = ops.times_I & constant_I & (count_I > 0)
    factor_AxW = np.where(table.factors_AxW >= 0, table.factors_AxW, 0)

    def pending(carry: tuple) -> jax.Array:
        _, known_P, turn = carry
        return (params.exists_P & ~known_P).any() & (turn <= spec.slots)

    def step(carry: tuple) -> tuple:
        value_P, known_P, turn = carry
        total_I = (value_P[refs_IxR] * sign_IxR).sum(-1)
        value_I = jnp.where(
            times_I, total_I * number_I, total_I + jnp.where(constant_I, number_I, 0)
        )
        ready_I = (known_P[refs_IxR] | ~present_IxR).all(-1)
        factor_value_AxW = jnp.where(table.factors_AxW >= 0, value_P[factor_AxW], 1)
        factor_known_AxW = known_P[factor_AxW] | (table.factors_AxW < 0)
        product_AxW = value_P[table.children_AxW] * factor_value_AxW
        value_A = jnp.where(edge_AxW, product_AxW, 0).sum(-1)
        ready_A = (~edge_AxW | (known_P[table.children_AxW] & factor_known_AxW)).all(-1)
        value_P = jnp.concatenate([value_I, value_A]) % modulus
        known_P = jnp.concatenate([ready_I, ready_A]) & params.exists_P
        return jnp.where(known_P, value_P, 0), known_P, turn + 1

    nothing_P = jnp.zeros(spec.slots, jnp.int32)
    start = (nothing_P, ~params.exists_P, jnp.int32(0))
    return jax.lax.while_loop(pending, step, start)[0]
