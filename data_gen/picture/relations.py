"""The nodes and edges of a problem's picture: its parameters, their roles, their dependencies."""

from typing import NamedTuple

import numpy as np

from data_gen.problems.parameters import closure, direct_needs, parameters
from data_gen.problems.problem import Problem
from data_gen.problems.slots import layout
from data_gen.spec import Spec
from data_gen.text import records

QUERY, NECESSARY, DISTRACTOR = "query", "necessary", "distractor"


class Node(NamedTuple):
    """A parameter: the number of each owner's things."""

    slot: int
    owner: str
    thing: str
    abstract: bool
    role: str  # QUERY, NECESSARY (the query needs it) or DISTRACTOR (it does not)
    depth: int  # arrows on the longest way to it from a parameter that needs no other


class Relations(NamedTuple):
    """What is computed from what, and the edges of the structure graph."""

    nodes: tuple[Node, ...]  # in the order of their slots
    edges: tuple[tuple[int, int], ...]  # (slot, slot of what is computed from it)
    items: tuple[tuple[int, int], ...]  # (layer, item), top layer first
    belongs: dict[tuple[tuple[int, int], tuple[int, int]], bool]  # edges; the query needs it


def relate(problem: Problem, spec: Spec) -> Relations:
    """The parameters that the problem names or the query needs, and what they need.

    Nodes are all that the problem states, the query, and what any of these is computed from:
    with distractors come the abstract parameters that only they refer to.

    Args:
      problem: one, with NumPy leaves.
      spec: its class.
    """
    table, instances = layout(spec), spec.instance_slots
    params = parameters(problem, spec)
    direct_PxP = direct_needs(params, spec)
    needs_PxP, closure_PxP = np.asarray(direct_PxP), np.asarray(closure(direct_PxP))
    query = int(problem.query)
    stated = [int(slot) for slot in problem.sentences_E if slot >= 0]
    shown = np.flatnonzero(closure_PxP[[*stated, query]].any(0)).tolist()
    depth: dict[int, int] = {}
    # What needs fewer, transitively, comes before what needs it.
    for slot in sorted(shown, key=lambda slot: int(closure_PxP[slot].sum())):
        above = np.flatnonzero(needs_PxP[slot]).tolist()
        depth[slot] = max((depth[n] + 1 for n in above), default=0)

    layers = records.layers(problem, spec)
    nodes = []
    for slot in shown:
        category, items = layers[table.category_P[slot]]
        abstract = bool(table.abstract_P[slot])
        owner = layers[table.layer_P[slot]][1][table.item_P[slot]]
        thing = category if abstract else items[table.thing_P[slot]]
        needed = NECESSARY if closure_PxP[query, slot] else DISTRACTOR
        role = QUERY if slot == query else needed
        nodes.append(Node(slot, owner, thing, abstract, role, depth[slot]))
    edges = [(int(n), slot) for slot in shown for n in np.flatnonzero(needs_PxP[slot])]
    belongs = {
        (
            (int(table.layer_P[slot]), int(table.item_P[slot])),
            (int(table.category_P[slot]), int(table.thing_P[slot])),
        ): bool(closure_PxP[query, slot])
        for slot in np.flatnonzero(np.asarray(params.exists_P)[:instances])
    }
    every = tuple((g, j) for g, (_, items) in enumerate(layers) for j in range(len(items)))
    return Relations(tuple(nodes), tuple(edges), every, belongs)
