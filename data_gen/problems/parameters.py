"""The parameters of a problem: existence, dependencies, and place in the solution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.problems.slots import layout
from data_gen.spec import Spec

NEVER = 127  # later than any step


class Parameters(NamedTuple):
    """Derived facts about each parameter of a problem.

    After t steps a parameter is known where `solved < t`, and can be computed next where
    `ready <= t` and it is not known ("can_next", Part 2.1, Section 4). An instance slot
    without its edge has nothing to wait for and counts as computable.
    """

    slot_P: jax.Array  # bool: the layers have these items (an instance slot may lack its edge)
    exists_P: jax.Array  # bool: and, for an instance parameter, the edge
    stated_P: jax.Array  # bool: the problem has a sentence about it
    refs_IxR: jax.Array  # int32: what instance parameters are computed from, or -1
    child_AxW: jax.Array  # bool: the owner of an abstract parameter has this thing
    operations_P: jax.Array  # int32: operations that it takes, what it needs not counted
    solved_P: jax.Array  # int32: the step that computes it, or NEVER
    ready_P: jax.Array  # int32: steps after which all it needs is known, or NEVER


def parameters(problem: Problem, spec: Spec) -> Parameters:
    """Reads the parameters off a problem and the order of its solution."""
    table, instances = layout(spec), spec.instance_slots
    inside_DxW = jnp.arange(spec.max_width)[None, :] < problem.structure.sizes_D[:, None]
    owner_P = inside_DxW[table.layer_P, table.item_P]
    counted_P = table.category_P < problem.structure.depth
    slot_P = owner_P & counted_P & (table.abstract_P | inside_DxW[table.category_P, table.thing_P])
    edge_I = problem.structure.edges_GxWxW.reshape(-1)
    exists_P = jnp.concatenate([edge_I, slot_P[instances:]])
    child_AxW = exists_P[table.children_AxW] & slot_P[instances:, None]

    terms_I = (problem.refs_IxR >= 0).sum(-1) + problem.constant_I
    terms_A = child_AxW.sum(-1) * np.where(table.reach_A == 1, 1, 2)
    operations_P = jnp.maximum(jnp.concatenate([terms_I, terms_A]) - 1, 1)

    match_PxT = jnp.arange(spec.slots)[:, None] == problem.order_T
    solved_P = jnp.where(match_PxT.any(-1), match_PxT.argmax(-1), NEVER).astype(jnp.int32)
    after_IxR = jnp.where(problem.refs_IxR >= 0, solved_P[problem.refs_IxR] + 1, 0)
    after_AxW = jnp.where(child_AxW, solved_P[table.children_AxW] + 1, 0)
    factor_AxW = np.maximum(table.factors_AxW, 0)
    multiplied_AxW = child_AxW & (table.factors_AxW >= 0)
    factor_after_AxW = jnp.where(multiplied_AxW, solved_P[factor_AxW] + 1, 0)
    ready_A = jnp.maximum(after_AxW, factor_after_AxW).max(-1)
    ready_P = jnp.minimum(jnp.concatenate([after_IxR.max(-1), ready_A]), NEVER)
    return Parameters(
        slot_P=slot_P,
        exists_P=exists_P,
        stated_P=exists_P & ~table.abstract_P,
        refs_IxR=problem.refs_IxR,
        child_AxW=child_AxW,
        operations_P=operations_P,
        solved_P=solved_P,
        ready_P=ready_P,
    )


def direct_needs(params: Parameters, spec: Spec) -> jax.Array:
    """bool[P, P]: what each parameter (row) is computed from directly."""
    table, slot_P = layout(spec), np.arange(spec.slots)
    present_IxR = params.refs_IxR >= 0
    instance_IxP = ((params.refs_IxR[:, :, None] == slot_P) & present_IxR[:, :, None]).any(1)
    child_AxWxP = table.children_AxW[:, :, None] == slot_P
    factor_AxWxP = table.factors_AxW[:, :, None] == slot_P
    abstract_AxP = (params.child_AxW[:, :, None] & (child_AxWxP | factor_AxWxP)).any(1)
    return jnp.concatenate([instance_IxP, abstract_AxP])


def closure(direct_PxP: jax.Array) -> jax.Array:
    """bool[P, P]: what each parameter needs, transitively, itself included (Warshall)."""

    def through(found_PxP: jax.Array, slot: jax.Array) -> tuple[jax.Array, None]:
        return found_PxP | (found_PxP[:, slot, None] & found_PxP[slot]), None

    size = direct_PxP.shape[0]
    return jax.lax.scan(through, direct_PxP | np.eye(size, dtype=bool), jnp.arange(size))[0]
