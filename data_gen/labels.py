"""What is known, what can be computed next and what the query needs, after every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.slots import Parameters, layout, parameters
from data_gen.spec import Spec

if TYPE_CHECKING:
    from data_gen.problem import Problem
    from data_gen.render import Document
    from data_gen.script import Script

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


class Labels(NamedTuple):
    """What a probe may be asked about each slot (Part 2.1, Section 4.1); X = T + 1 moments.

    Moment x is after x steps. Past the solution's end, rows repeat its last moment.
    """

    slot_P: jax.Array  # bool: the slot belongs to the problem's layers
    known_XxP: jax.Array  # bool: a step has computed it
    can_next_XxP: jax.Array  # bool: not known, and all that it needs is
    nece_P: jax.Array  # bool: the query needs it
    nece_next_XxP: jax.Array  # bool: both
    value_XxP: jax.Array  # int32: its value, or m where it is not known
    dep_PxP: jax.Array  # bool: the row needs the column, transitively
    neighbour_PxP: jax.Array  # bool: directly


def labels(problem: Problem, spec: Spec) -> Labels:
    """All labels of one problem; `vmap` for more."""
    when = schedule(problem, spec)
    params = parameters(problem.structure, spec)
    needs_PxP = needs(problem, params, spec)
    dep_PxP = closure(needs_PxP)
    after_X = jnp.minimum(np.arange(problem.order_T.shape[0] + 1), problem.steps)[:, None]
    known_XxP = when.solved_P < after_X
    can_next_XxP = when.slot_P & (when.ready_P <= after_X) & ~known_XxP
    nece_P = dep_PxP[problem.query]
    return Labels(
        slot_P=when.slot_P,
        known_XxP=known_XxP,
        can_next_XxP=can_next_XxP,
        nece_P=nece_P,
        nece_next_XxP=nece_P & can_next_XxP,
        value_XxP=jnp.where(known_XxP, problem.value_P, spec.modulus),
        dep_PxP=dep_PxP & ~np.eye(spec.slots, dtype=bool),
        neighbour_PxP=needs_PxP,
    )


class TokenLabels(NamedTuple):
    """Where each of a document's tokens stands in its solution."""

    # int32: the step it is part of, also of a solution that is begun anew; -1 outside, in
    # mistakes, and in steps that rest on one
    step_N: jax.Array
    moment_N: jax.Array  # int32: steps finished before it: its row of `Labels`
    slot_N: jax.Array  # int32: the parameter that its sentence defines, mistakes included, or -1
    kind_N: jax.Array  # int32: as the document has it


def token_labels(document: Document, script: Script, problem: Problem) -> TokenLabels:
    """Aligns the tokens of one document with the script that it was written from."""
    sentence_N = jnp.maximum(document.sentence_N, 0)
    solved_N = document.sentence_N >= 0
    before_N = jnp.where(solved_N, script.step_S[sentence_N], 0)
    after_N = (np.arange(sentence_N.shape[0]) >= document.prompt) & ~solved_N
    stands_S = ~script.wrong_S & (script.after_S < 0)
    return TokenLabels(
        step_N=jnp.where(solved_N & stands_S[sentence_N], before_N, -1),
        moment_N=jnp.where(after_N, problem.steps, before_N),
        slot_N=jnp.where(solved_N, script.slot_S[sentence_N], -1),
        kind_N=document.kind_N,
    )


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
