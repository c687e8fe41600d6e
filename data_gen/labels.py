"""What is known and what can be computed next, after every step of the solution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problem import Problem
from data_gen.slots import layout, parameters
from data_gen.spec import Spec

NEVER = 127  # later than any step


class Schedule(NamedTuple):
    """When each parameter is solved and from when it could be.

    After t steps a parameter is known where `solved < t`, and can be computed next where
    `ready <= t` and it is not known ("can_next", Part 2.1, Section 4). An instance slot
    without its edge has nothing to wait for and counts as computable.
    """

    slot_P: jax.Array  # bool: the slot belongs to the problem's layers
    stated_P: jax.Array  # bool: the problem has a sentence about it
    solved_P: jax.Array  # int32: the step that computes it, or NEVER
    ready_P: jax.Array  # int32: steps after which all it needs is known, or NEVER


def schedule(problem: Problem, spec: Spec) -> Schedule:
    """Reads the schedule off a problem and its solution's order."""
    table, instances = layout(spec), spec.instance_slots
    params = parameters(problem.structure, spec)
    match_PxT = jnp.arange(spec.slots)[:, None] == problem.order_T
    solved_P = jnp.where(match_PxT.any(-1), match_PxT.argmax(-1), NEVER).astype(jnp.int32)

    after_IxR = jnp.where(problem.refs_IxR >= 0, solved_P[problem.refs_IxR] + 1, 0)
    edge_AxW = params.exists_P[table.children_AxW] & params.slot_P[instances:, None]
    after_AxW = jnp.where(edge_AxW, solved_P[table.children_AxW] + 1, 0)
    factor_AxW = np.maximum(table.factors_AxW, 0)
    multiplied_AxW = edge_AxW & (table.factors_AxW >= 0)
    factor_after_AxW = jnp.where(multiplied_AxW, solved_P[factor_AxW] + 1, 0)
    ready_A = jnp.maximum(after_AxW, factor_after_AxW).max(-1)
    ready_P = jnp.minimum(jnp.concatenate([after_IxR.max(-1), ready_A]), NEVER)
    stated_P = params.exists_P & (np.arange(spec.slots) < instances)
    return Schedule(params.slot_P, stated_P, solved_P, ready_P)
