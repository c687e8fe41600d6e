"""Instance parameters that the query does not need, and what they are computed from."""

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import draws
from data_gen.dependency import TERMS, Order, Terms, compact
from data_gen.slots import Parameters
from data_gen.spec import Spec


def fill(
    key: jax.Array, ordered: Order, terms: Terms, params: Parameters, spec: Spec
) -> tuple[jax.Array, jax.Array]:
    """Gives every leftover instance parameter its predecessors (step 9).

    In random order, each is with probability one half "independent", computed from earlier
    independent ones alone, else from anything defined so far, complete abstract parameters
    included.

    Returns:
      constant bool[I] and refs int32[I, R] (slots, in the sentence's order, or -1) of all
      instance parameters, those that the query needs included.
    """
    instances, cap = spec.instance_slots, spec.edge_cap
    slot_P = np.arange(spec.slots)
    step_T = ordered.step_T
    needed_P = (step_T[:, None] == slot_P).any(0)
    slot_TxR = jnp.where(terms.refs_TxR >= 0, step_T[terms.refs_TxR], -1)
    at_T = jnp.where((step_T >= 0) & (step_T < instances), step_T, instances)
    constant_I = jnp.zeros(instances, bool).at[at_T].set(terms.constant_T, mode="drop")
    refs_IxR = jnp.full((instances, TERMS), -1, jnp.int32).at[at_T].set(slot_TxR, mode="drop")

    word = draws.words(key, cap * (TERMS + 4))
    rest_I = params.exists_P[:instances] & ~needed_P[:instances]
    inner_AxI = params.closure_AxP[:, :instances]

    def add(turn: jax.Array, carry: tuple) -> tuple:
        rest_I, defined_P, alone_P, constant_I, refs_IxR = carry
        spare = jax.lax.dynamic_slice(word, (turn * (TERMS + 4),), (TERMS + 4,))
        live = rest_I.any()
        slot = draws.pick(spare[0], rest_I)
        complete_A = params.slot_P[instances:] & ~(inner_AxI & ~defined_P[:instances]).any(-1)
        known_P = defined_P | jnp.pad(complete_A, (instances, 0))
        independent = draws.coin(spare[1])
        pool_P = jnp.where(independent, alone_P, known_P)
        size = pool_P.sum()
        # 1 + Geometric(1/2), read off the leading zeros of a random word.
        count = jnp.minimum(
            1 + jax.lax.clz(spare[2]).astype(jnp.int32), jnp.minimum(size + 1, TERMS)
        )
        everything = count == size + 1
        constant = everything | draws.coin(spare[3])
        count = count - constant
        refs = []
        for n in range(TERMS):
            one = draws.pick(spare[4 + n], pool_P)
            refs.append(jnp.where(n < count, one, -1))
            pool_P &= slot_P != one
        at = jnp.where(live, slot, instances)
        constant_I = constant_I.at[at].set(constant, mode="drop")
        refs_IxR = refs_IxR.at[at].set(compact(jnp.stack(refs)), mode="drop")
        here_P = live & (slot_P == slot)
        return (
            rest_I & ~here_P[:instances],
            defined_P | here_P,
            alone_P | (here_P & independent),
            constant_I,
            refs_IxR,
        )

    start = (rest_I, needed_P, jnp.zeros(spec.slots, bool), constant_I, refs_IxR)
    *_, constant_I, refs_IxR = jax.lax.fori_loop(0, cap, add, start)
    return constant_I, refs_IxR
