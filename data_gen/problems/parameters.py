"""The parameters of a problem: which there are, what they need, when they are computed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.problems.slots import layout
from data_gen.problems.structure import Structure
from data_gen.spec import Spec

NEVER = 127  # later than any step


class Parameters(NamedTuple):
    """What a structure makes of the slots."""

    slot_P: jax.Array  # bool: the layers have these items (an instance slot may lack its edge)
    exists_P: jax.Array  # bool: and, for an instance parameter, the edge


def parameters(structure: Structure, spec: Spec) -> Parameters:
    """Reads the parameters off a structure graph (Part 2.1, Section 2.1)."""
    table, width = layout(spec), spec.max_width
    inside_DxW = jnp.arange(width)[None, :] < structure.sizes_D[:, None]
    owner_P = inside_DxW[table.layer_P, table.item_P]
    counted_P = table.category_P < structure.depth
    slot_P = owner_P & counted_P & (table.abstract_P | inside_DxW[table.category_P, table.thing_P])
    edge_I = structure.edges_GxWxW.reshape(-1)
    return Parameters(slot_P, jnp.concatenate([edge_I, slot_P[spec.instance_slots :]]))


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


def needs(problem: Problem, params: Parameters, spec: Spec) -> jax.Array:
    """bool[P, P]: what each parameter (row) is computed from directly."""
    table, slot_P = layout(spec), np.arange(spec.slots)
    present_IxR = problem.refs_IxR >= 0
    instance_IxP = ((problem.refs_IxR[:, :, None] == slot_P) & present_IxR[:, :, None]).any(1)
    edge_AxW = params.exists_P[table.children_AxW] & params.slot_P[spec.instance_slots :, None]
    child_AxWxP = table.children_AxW[:, :, None] == slot_P
    factor_AxWxP = table.factors_AxW[:, :, None] == slot_P
    abstract_AxP = (edge_AxW[:, :, None] & (child_AxWxP | factor_AxWxP)).any(1)
    return jnp.concatenate([instance_IxP, abstract_AxP])


def closure(needs_PxP: jax.Array) -> jax.Array:
    """bool[P, P]: what each parameter needs, transitively, itself included (Warshall)."""

    def through(found_PxP: jax.Array, slot: jax.Array) -> tuple[jax.Array, None]:
        return found_PxP | (found_PxP[:, slot, None] & found_PxP[slot]), None

    size = needs_PxP.shape[0]
    return jax.lax.scan(through, needs_PxP | np.eye(size, dtype=bool), jnp.arange(size))[0]
