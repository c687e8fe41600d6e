"""The structure graph: how many operations and edges to aim at, layers, items, edges."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import draws
from data_gen.spec import Spec


class Plan(NamedTuple):
    """What one attempt aims at (scalars, int32 but for `grow`, a word for probability p)."""

    total_op: jax.Array  # s: operations in all
    abstract_op: jax.Array  # n: spent on abstract parameters and what they need
    least_op: jax.Array  # m: before predecessors are added
    depth: jax.Array
    low_width: jax.Array
    high_width: jax.Array
    edges: jax.Array
    grow: jax.Array


class Structure(NamedTuple):
    """Items in layers and edges between neighbouring layers; D, W are the spec's caps."""

    depth: jax.Array  # int32
    sizes_D: jax.Array  # int32, 0 from `depth` on
    edges_GxWxW: jax.Array  # bool, G = D - 1: item j of layer g has item k of layer g + 1


@functools.lru_cache(maxsize=64)
def _shapes(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """The joint law of (depth, low width, high width) for each total op.

    Returns:
      combinations int32[C, 3], and uint32[S + 1, C] thresholds: a word below threshold c (and
      not below c - 1) means combination c.
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
    """How many operations a problem is to have; both are int32."""

    target: jax.Array
    cap: jax.Array  # the most that an attempt may aim at: the target, where op is fixed


def goal(key: jax.Array, spec: Spec) -> Goal:
    """The spec's fixed number of operations, or one drawn up to its cap."""
    if spec.op is not None:
        return Goal(jnp.int32(spec.op), jnp.int32(spec.op))
    return goal_up_to(key, spec.max_op)


def goal_up_to(key: jax.Array, cap: int) -> Goal:
    """The lesser of two draws of 1..cap (step 1 of the class)."""
    word = draws.words(key, 2)
    target = 1 + jnp.minimum(draws.below(word[0], cap), draws.below(word[1], cap))
    return Goal(target, jnp.int32(cap))


def plan(key: jax.Array, aim: Goal, spec: Spec) -> Plan:
    """Draws what an attempt aims at (steps 2 and 3 of the class).

    The total is drawn given that it is not below the target, since an attempt never has more
    operations than its total: the rejections that this saves leave the law unchanged.
    """
    word = draws.words(key, 9)
    span = aim.cap - aim.target + 1
    total = aim.target + jnp.minimum(draws.below(word[0], span), draws.below(word[1], span))
    first, second = draws.below(word[2], total), draws.below(word[3], total)
    abstract = 1 + jnp.maximum(first, second)
    least = abstract + draws.below(word[4], total - abstract + 1)
    shapes, thresholds = _shapes(spec)
    row = (word[5] >= jnp.asarray(thresholds)[total, :-1]).sum()
    depth, low, high = jnp.asarray(shapes)[row]
    fewest = (depth - 1) * low
    span = spec.max_edges - fewest + 1
    edges = fewest + jnp.minimum(draws.below(word[6], span), draws.below(word[7], span))
    edges = jnp.minimum(edges, (depth - 1) * high**2)
    return Plan(total, abstract, least, depth, low, high, edges, word[8])


def build(key: jax.Array, aim: Plan, spec: Spec) -> Structure:
    """Draws layer sizes and edges (steps 4 and 5 of the class)."""
    word = draws.words(key, 4)
    sizes_D = _sizes(word[:2], aim, spec)
    depth, width = spec.max_depth, spec.max_width
    layer, item = jnp.arange(depth)[:, None], jnp.arange(width)[None, :]
    exists_DxW = item < sizes_D[:, None]
    slots_GxWxW = exists_DxW[:-1, :, None] & exists_DxW[1:, None, :]
    parent_word = draws.mix(word[2] + (layer * width + item)[1:].astype(jnp.uint32) * 40503)
    parent_GxW = draws.below(parent_word, sizes_D[:-1, None])
    first_GxWxW = slots_GxWxW & (parent_GxW[:, None, :] == jnp.arange(width)[None, :, None])
    unused = (slots_GxWxW & ~first_GxWxW).reshape(-1)
    rest = draws.subset(word[3], unused, aim.edges - sizes_D[1:].sum())
    return Structure(aim.depth, sizes_D, first_GxWxW | rest.reshape(first_GxWxW.shape))


def _sizes(word: jax.Array, aim: Plan, spec: Spec) -> jax.Array:
    active = jnp.arange(spec.max_depth) < aim.depth

    def grow(i: jax.Array, carry: tuple) -> tuple:
        sizes_D, going = carry
        most = (sizes_D[:-1] * sizes_D[1:]).sum()
        least = sizes_D[1:].sum()
        count = jnp.uint32(i) * jnp.uint32(0x9E3779B9)
        lucky = draws.mix(word[0] + count) < aim.grow
        room = active & (sizes_D < aim.high_width)
        going &= (most < aim.edges) | ((least != aim.edges) & lucky & room.any())
        chosen = draws.pick(draws.mix(word[1] + count), room)
        added = jnp.arange(spec.max_depth) == chosen
        return sizes_D + (going & added), going

    steps = spec.max_depth * (spec.max_width - spec.min_width)
    start = jnp.where(active, aim.low_width, 0)
    sizes_D, _ = jax.lax.fori_loop(0, steps, grow, (start, jnp.bool_(True)))
    return sizes_D
