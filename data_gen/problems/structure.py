"""Sampling of the structure graph: target operations, layers, items, edges."""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits, draws
from data_gen.spec import Spec


class Plan(NamedTuple):
    """The targets of one attempt (int32 scalars, but for `grow`, a word for probability p)."""

    total_op: jax.Array  # s: operations in all
    abstract_op: jax.Array  # n: spent on abstract parameters and what they need
    least_op: jax.Array  # m: before predecessors are added
    depth: jax.Array
    low_width: jax.Array
    high_width: jax.Array
    edges: jax.Array
    grow: jax.Array


class Graph(NamedTuple):
    """A structure graph as the sampler works on it."""

    depth: jax.Array  # int32
    sizes: tuple[jax.Array, ...]  # int32 of each of the spec's layers, 0 from `depth` on
    edges: bits.Bits  # of instance slots: item j of layer g has item k of layer g + 1


class Structure(NamedTuple):
    """Items in layers and edges between neighbouring layers; D, W are the spec's caps."""

    depth: jax.Array  # int32
    sizes_D: jax.Array  # int32, 0 from `depth` on
    edges_GxWxW: jax.Array  # bool, G = D - 1: item j of layer g has item k of layer g + 1


@functools.lru_cache(maxsize=64)
def _shapes(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """The joint law of (depth, low width, high width) for each total op.

    Returns:
      the combinations, int32[H, 3], and thresholds, uint32[O, H], for O = 0, 1, … operations: a
      word below threshold h, and not below h - 1, means combination h.
    """
    rows: dict[tuple[int, int, int], int] = {}
    span = spec.max_width - spec.min_width + 1
    weights = np.zeros((spec.op_cap + 1, (spec.max_depth - spec.min_depth + 1) * span * span))
    for op in range(spec.op_cap + 1):
        relative = (op - 1) / (spec.max_edges - 1) if spec.max_edges > 1 else 0.0

        # 0.2, 0.5, 0.8 for 2, 3, 4 (Part 2.1, Appendix): small sizes for few operations.
        def weight(size: int, relative: float = relative) -> float:
            return math.exp(-((relative - (0.3 * size - 0.4)) ** 2))

        depth_sum = sum(weight(d) for d in range(spec.min_depth, spec.max_depth + 1))
        width_sum = sum(weight(w) for w in range(spec.min_width, spec.max_width + 1))
        for depth in range(spec.min_depth, spec.max_depth + 1):
            for a in range(spec.min_width, spec.max_width + 1):
                for b in range(spec.min_width, spec.max_width + 1):
                    low, high = min(a, b), max(a, b)
                    # Shapes that the edge cap cannot hold are left out (the public program
                    # fails on them; they do not occur in the published classes).
                    if (depth - 1) * low <= spec.max_edges:
                        row = rows.setdefault((depth, low, high), len(rows))
                        joint = weight(depth) * weight(a) * weight(b)
                        weights[op, row] += joint / (depth_sum * width_sum**2)
    weights = weights[:, : len(rows)]
    cumulative = np.cumsum(weights, axis=1) / weights.sum(1, keepdims=True)
    thresholds = np.minimum(np.floor(cumulative * 2.0**32), 2**32 - 1).astype(np.uint32)
    return np.array(list(rows), np.int32), thresholds


class Goal(NamedTuple):
    """The target number of operations of a problem; both are int32."""

    target: jax.Array
    cap: jax.Array  # the most that an attempt may aim at: the target, where op is fixed


def goal(key: jax.Array, spec: Spec) -> Goal:
    """The spec's fixed number of operations, or one drawn up to its cap."""
    if spec.op is not None:
        return Goal(jnp.int32(spec.op), jnp.int32(spec.op))
    return goal_up_to(key, spec.max_op, spec)


def goal_up_to(key: jax.Array, cap: int, spec: Spec) -> Goal:
    """A number of operations in 1..cap, of the spec's law (step 1 of the class).

    What is built for it does not depend on that law: attempts aim at totals up to the cap as
    published.
    """
    word = draws.words(key, 2)
    number = draws.below(word[0], cap)
    if spec.op_draw == "lesser":
        number = jnp.minimum(number, draws.below(word[1], cap))
    return Goal(1 + number, jnp.int32(cap))


def plan(key: jax.Array, aim: Goal, spec: Spec) -> Plan:
    """Draws what an attempt aims at (steps 2 and 3 of the class).

    The total is drawn given that it is not below the target, since an attempt never has more
    operations than its total: the rejections that this saves leave the law unchanged.
    """
    word = draws.source(key).word
    span = aim.cap - aim.target + 1
    total = aim.target + jnp.minimum(draws.below(word(0), span), draws.below(word(1), span))
    first, second = draws.below(word(2), total), draws.below(word(3), total)
    abstract = 1 + jnp.maximum(first, second)
    least = abstract + draws.below(word(4), total - abstract + 1)
    shape_Hx3, threshold_OxH = _shapes(spec)
    row = (word(5) >= jnp.asarray(threshold_OxH)[total, :-1]).sum()
    depth, low, high = (jnp.asarray(column_H)[row] for column_H in shape_Hx3.T)
    fewest = (depth - 1) * low
    span = spec.max_edges - fewest + 1
    edges = fewest + jnp.minimum(draws.below(word(6), span), draws.below(word(7), span))
    edges = jnp.minimum(edges, (depth - 1) * high**2)
    return Plan(total, abstract, least, depth, low, high, edges, word(8))


def build(key: jax.Array, aim: Plan, spec: Spec) -> Graph:
    """Draws layer sizes and edges (steps 4 and 5 of the class)."""
    source = draws.source(key)
    sizes = _sizes(source.word(0), source.word(1), aim, spec)
    width = spec.max_width
    bounds = edge_bounds(spec)
    first, slots = [], []
    for g in range(spec.max_depth - 1):
        parents = children = jnp.uint32(0)
        for k in range(width):
            parent = draws.below(source.word(4 + g * width + k), sizes[g])
            bit = jnp.uint32(1) << (parent * width + k).astype(jnp.uint32)
            parents |= jnp.where(k < sizes[g + 1], bit, jnp.uint32(0))
            children |= jnp.where(k < sizes[g + 1], np.uint32(1 << k), np.uint32(0))
        rows = jnp.uint32(0)
        for j in range(width):
            rows |= jnp.where(j < sizes[g], children << np.uint32(j * width), jnp.uint32(0))
        first.append(parents)
        slots.append(rows)
    tree = bits.Bits(tuple(first), bounds)
    unused = bits.Bits(tuple(slots), bounds) - tree
    rest = unused.subset(source.word(2), aim.edges - sum(sizes[1:]))
    return Graph(aim.depth, sizes, tree | rest)


def edge_bounds(spec: Spec) -> tuple[int, ...]:
    """Bounds of a set of instance slots: one word for each pair of neighbouring layers."""
    return tuple(g * spec.max_width**2 for g in range(spec.max_depth))


def unpack(graph: Graph, spec: Spec) -> Structure:
    """The graph as arrays."""
    edges_GxWxW = graph.edges.mask().reshape(-1, spec.max_width, spec.max_width)
    return Structure(graph.depth, jnp.stack(graph.sizes), edges_GxWxW)


def pack(structure: Structure, spec: Spec) -> Graph:
    """The arrays as a graph."""
    words = []
    value_B = np.uint32(1) << np.arange(spec.max_width**2, dtype=np.uint32)
    for g in range(spec.max_depth - 1):
        edge_B = structure.edges_GxWxW[g].reshape(-1)
        words.append(jnp.where(edge_B, value_B, 0).sum(dtype=jnp.uint32))
    sizes = tuple(structure.sizes_D[i] for i in range(spec.max_depth))
    return Graph(structure.depth, sizes, bits.Bits(tuple(words), edge_bounds(spec)))


def _sizes(
    grow_word: jax.Array, layer_word: jax.Array, aim: Plan, spec: Spec
) -> tuple[jax.Array, ...]:
    layers = range(spec.max_depth)
    sizes = [jnp.where(i < aim.depth, aim.low_width, 0) for i in layers]
    going = jnp.bool_(True)
    for turn in range(spec.max_depth * (spec.max_width - spec.min_width)):
        most = sum(a * b for a, b in itertools.pairwise(sizes))
        least = sum(sizes[1:])
        lucky = draws.numbered(grow_word, turn) < aim.grow
        room = jnp.uint32(0)
        for i in layers:
            open_ = (i < aim.depth) & (sizes[i] < aim.high_width)
            room |= jnp.where(open_, np.uint32(1 << i), np.uint32(0))
        going &= (most < aim.edges) | ((least != aim.edges) & lucky & (room != 0))
        number = draws.below(draws.numbered(layer_word, turn), bits.count(room))
        layer = bits.nth(room, number)
        sizes = [size + (going & (layer == i)) for i, size in enumerate(sizes)]
    return tuple(sizes)
