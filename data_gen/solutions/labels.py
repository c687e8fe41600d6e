"""Labels after every step: what is known, can be computed next, and is needed by the query."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems.parameters import closure, direct_needs, parameters
from data_gen.problems.problem import Problem
from data_gen.solutions.document import Document
from data_gen.solutions.script import Script
from data_gen.spec import Spec


class Labels(NamedTuple):
    """Labels of each slot, for probes (Part 2.1, Section 4.1); X = T + 1 moments.

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
    params = parameters(problem, spec)
    needs_PxP = direct_needs(params, spec)
    dep_PxP = closure(needs_PxP)
    after_X = jnp.minimum(np.arange(problem.order_T.shape[0] + 1), problem.steps)[:, None]
    known_XxP = params.solved_P < after_X
    can_next_XxP = params.slot_P & (params.ready_P <= after_X) & ~known_XxP
    nece_P = dep_PxP[problem.query]
    return Labels(
        slot_P=params.slot_P,
        known_XxP=known_XxP,
        can_next_XxP=can_next_XxP,
        nece_P=nece_P,
        nece_next_XxP=nece_P & can_next_XxP,
        value_XxP=jnp.where(known_XxP, problem.value_P, spec.modulus),
        dep_PxP=dep_PxP & ~np.eye(spec.slots, dtype=bool),
        neighbour_PxP=needs_PxP,
    )


class TokenLabels(NamedTuple):
    """The position of each of a document's tokens in its solution."""

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
