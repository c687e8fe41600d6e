"""Other questions about a problem, and other orders of its solution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import keys
from data_gen.keys import Stage
from data_gen.problems import draws
from data_gen.problems.parameters import closure, direct_needs, parameters
from data_gen.problems.problem import Problem
from data_gen.spec import Spec


class _Arranging(NamedTuple):
    """Loop state of drawing a topological order."""

    known_P: jax.Array  # bool
    going: jax.Array  # bool: the last one is not computed yet


def arrange(
    key: jax.Array, wanted_P: jax.Array, needs_PxP: jax.Array, last: jax.Array, room: int
) -> jax.Array:
    """int32[room]: a random order in which the wanted parameters can be computed, up to `last`.

    Each step is uniform among what can be computed next, as the public program's.
    """
    source = draws.source(key)

    def step(at: _Arranging, turn: jax.Array) -> tuple[_Arranging, jax.Array]:
        ready_P = wanted_P & ~at.known_P & ~(needs_PxP & ~at.known_P).any(-1)
        slot = draws.pick(source.word(turn), ready_P)
        live = at.going & ready_P.any()
        known_P = at.known_P | (live & (np.arange(at.known_P.shape[0]) == slot))
        return _Arranging(known_P, live & (slot != last)), jnp.where(live, slot, -1)

    start = _Arranging(jnp.zeros_like(wanted_P), jnp.bool_(True))
    return jax.lax.scan(step, start, jnp.arange(room))[1]


def resolve(key: jax.Array, problem: Problem, spec: Spec) -> Problem:
    """The problem with the question and the order of the solution that the spec asks for.

    `ok` is false where no other parameter can be asked for with the letters there are.
    """
    query_key = keys.named(key, Stage.QUESTION)
    order_key = keys.named(key, Stage.SOLUTION_ORDER)
    params = parameters(problem, spec)
    needs_PxP = direct_needs(params, spec)
    closure_PxP = closure(needs_PxP)
    cost_P = params.operations_P
    query, ok = problem.query, problem.ok
    if spec.reask:
        total_P = jnp.where(closure_PxP, cost_P, 0).sum(-1)
        slot_P = np.arange(spec.slots)
        asked_P = params.exists_P & (slot_P != query) & (total_P <= spec.letters)
        query = draws.pick(draws.words(query_key, 1)[0], asked_P)
        ok &= asked_P.any()
    wanted_P = closure_PxP[query]
    order_T = arrange(order_key, wanted_P, needs_PxP, query, spec.op_room)
    if spec.solution == "any":
        # What the problem states and what that needs, as the public program has it.
        every_P = wanted_P | (closure_PxP & params.stated_P[:, None]).any(0)
        any_T = arrange(order_key, every_P, needs_PxP, query, spec.op_room)
        op = jnp.where(any_T >= 0, cost_P[any_T], 0).sum()
        enough = (any_T == query).any() & (op <= spec.letters)
        order_T = jnp.where(enough, any_T, order_T)
    op = jnp.where(order_T >= 0, cost_P[order_T], 0).sum()
    return problem._replace(ok=ok, op=op, order_T=order_T, steps=(order_T >= 0).sum())
