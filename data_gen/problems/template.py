"""Which side of the split a problem is on: a hash of its solution's template."""

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import arithmetic, bits, dependency, draws, slots
from data_gen.spec import Spec

# Template hashes are taken modulo 23; those below 17 are for training (Part 2.1, Section 3).
BINS = 23
TRAIN_BINS = 17


def template_hash(
    ordered: dependency.Order,
    terms: dependency.Terms,
    ops: arithmetic.Operators,
    edges: bits.Bits,
    spec: Spec,
) -> jax.Array:
    """uint32 in 0..22: a hash of the solution without names, numbers and letters.

    It takes in, step by step, what kind of parameter is computed, from which earlier steps,
    in which order and with which operators.
    """
    table, instances = slots.layout(spec), spec.instance_slots
    step_T = ordered.step_T
    live_T = step_T >= 0
    instance_T = live_T & (step_T < instances)
    position_P = jnp.full(spec.slots + 1, -1).at[step_T].set(np.arange(spec.op_cap))[:-1]
    at_T = jnp.where(instance_T, step_T, 0)
    count_T = (terms.refs_TxR >= 0).sum(-1)
    times_T = ops.times_I[at_T] & terms.constant_T & (count_T > 0)
    minus_T = ops.difference_I[at_T] & (count_T == 2)
    shape_T = 1 + terms.constant_T + 2 * times_T + 4 * minus_T

    abstract_T = jnp.clip(step_T - instances, 0, spec.abstract_slots - 1)
    child_TxW = jnp.asarray(table.children_AxW)[abstract_T]
    factor_TxW = jnp.asarray(table.factors_AxW)[abstract_T]
    edge_TxW = edges.mask()[child_TxW]
    factor_position_TxW = jnp.where(factor_TxW >= 0, position_P[factor_TxW], -1)
    pair_TxW = (position_P[child_TxW] + 2) * 64 + factor_position_TxW + 2
    pair_TxW = jnp.where(edge_TxW, pair_TxW, -1)
    width = max(pair_TxW.shape[-1], dependency.TERMS)
    pair_TxK = dependency.compact(pair_TxW, width)
    refs_TxR = jnp.where(terms.refs_TxR >= 0, position_P[terms.refs_TxR], -1)
    refs_TxK = jnp.pad(refs_TxR, ((0, 0), (0, width - dependency.TERMS)), constant_values=-1)
    term_TxK = jnp.where(instance_T[:, None], refs_TxK, pair_TxK)
    tag_K = jnp.arange(width, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    mixed_T = draws.mix(term_TxK.astype(jnp.uint32) + tag_K).sum(-1, dtype=jnp.uint32)
    kind_T = jnp.where(instance_T, shape_T, 0).astype(jnp.uint32)
    place_T = jnp.arange(step_T.shape[0], dtype=jnp.uint32) * jnp.uint32(0x85EBCA77)
    mixed_T = draws.mix(mixed_T ^ (kind_T * jnp.uint32(0xC2B2AE3D)) ^ place_T)
    return draws.mix(jnp.where(live_T, mixed_T, 0).sum(dtype=jnp.uint32)) % BINS
