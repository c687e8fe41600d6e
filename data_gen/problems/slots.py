"""The layout of parameters in arrays over all slots, and dependencies of abstract ones.

Slots are numbered instance parameters first: (g, j, k), item j of layer g has item k of
layer g + 1; then abstract ones (g, j, c), item j of layer g has things of category c, in
the order of g, then c, then j.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits
from data_gen.problems.structure import Graph, edge_bounds
from data_gen.spec import Spec


class Layout(NamedTuple):
    """Static tables over a spec's slots (NumPy, made once)."""

    layer_P: np.ndarray  # layer of the owner
    item_P: np.ndarray  # the owner
    thing_P: np.ndarray  # instance: item of the next layer; abstract: 0
    category_P: np.ndarray  # layer of what is counted
    abstract_P: np.ndarray  # bool
    children_AxW: np.ndarray  # instance slots of an abstract parameter's owner
    factors_AxW: np.ndarray  # the abstract slots that these are multiplied by, or -1
    reach_A: np.ndarray  # category minus layer, 1..D-1


@functools.lru_cache(maxsize=64)
def layout(spec: Spec) -> Layout:
    """The tables for a spec's caps."""
    depth, width = spec.max_depth, spec.max_width
    rows = [
        (g, j, k, g + 1, False)
        for g in range(depth - 1)
        for j in range(width)
        for k in range(width)
    ]
    abstract = [
        (g, c, j) for g in range(depth - 1) for c in range(g + 1, depth) for j in range(width)
    ]
    number = {triple: len(rows) + n for n, triple in enumerate(abstract)}
    rows += [(g, j, 0, c, True) for g, c, j in abstract]
    children = [[(g * width + j) * width + k for k in range(width)] for g, c, j in abstract]
    factors = [[number.get((g + 1, c, k), -1) for k in range(width)] for g, c, j in abstract]
    layer, item, thing, category, is_abstract = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    return Layout(
        layer.astype(np.int32),
        item.astype(np.int32),
        thing.astype(np.int32),
        category.astype(np.int32),
        is_abstract.astype(bool),
        np.array(children, np.int32),
        np.array(factors, np.int32),
        np.array([c - g for g, c, j in abstract], np.int32),
    )


def bounds(spec: Spec) -> tuple[int, ...]:
    """Bounds of a set of slots: a word for each pair of layers, and one for abstract ones."""
    return (*edge_bounds(spec), spec.slots)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["exists", "cost_bits", "children", "childless"],
    meta_fields=["spec"],
)
@dataclasses.dataclass(frozen=True)
class Prerequisites:
    """Dependencies of a graph's parameters, and the operations that they take.

    As far as the graph alone decides it: that is all for abstract parameters; what instance
    parameters are computed from is drawn later. In a word of abstract slots, the first is bit 0.

    Attributes:
      exists: the parameters that there are.
      cost_bits: [b], the abstract parameters whose operations have bit b set.
      children: [g][j], the items of layer g + 1 that item j of layer g has, as a word.
      childless: the abstract parameters of items that have no children, as a word.
      spec: the class.
    """

    exists: bits.Bits
    cost_bits: tuple[jax.Array, ...]
    children: tuple[tuple[jax.Array, ...], ...]
    childless: jax.Array
    spec: Spec

    def direct(self, abstract: jax.Array) -> bits.Bits:
        """The direct dependencies of a set of abstract parameters (a word)."""
        width, layers = self.spec.max_width, range(self.spec.max_depth - 1)
        owners = [jnp.uint32(0)] * len(layers)
        wanted = jnp.uint32(0)
        for g, c, start in abstract_groups(self.spec):
            mine = (abstract >> np.uint32(start)) & np.uint32(2**width - 1)
            owners[g] |= mine
            if c == g + 1:
                continue
            below = next(s for h, d, s in abstract_groups(self.spec) if (h, d) == (g + 1, c))
            for j in range(width):
                things = self.children[g][j] << np.uint32(below)
                wanted |= jnp.where(bits.has(mine, j), things, jnp.uint32(0))
        instances = []
        for g in layers:
            word = jnp.uint32(0)
            for j in range(width):
                things = self.children[g][j] << np.uint32(j * width)
                word |= jnp.where(bits.has(owners[g], j), things, jnp.uint32(0))
            instances.append(word)
        return bits.Bits((*instances, wanted), self.exists.bounds)

    def closure(self, chosen: bits.Bits) -> bits.Bits:
        """These parameters and all their dependencies, direct or not."""
        # An abstract parameter needs abstract ones of the next layer alone: a pass a layer.
        return jax.lax.fori_loop(
            0,
            self.spec.max_depth - 1,
            lambda _, found: found | self.direct(found.words[-1]),
            chosen,
        )

    def operations(self, chosen: bits.Bits) -> jax.Array:
        """int32: operations of these parameters, before predecessors are added (step 6)."""
        instances = sum(bits.count(word) for word in chosen.words[:-1])
        abstract = chosen.words[-1]
        planes = enumerate(self.cost_bits)
        return jnp.asarray(
            instances + sum(bits.count(abstract & plane) << b for b, plane in planes)
        )

    def most_operations(self) -> jax.Array:
        """int32: operations of all parameters, as step 6 limits what it spends on abstract ones.

        An abstract parameter of an item without children counts for none here, though it takes
        one when it is chosen: the public program adds them up so.
        """
        return self.operations(self.exists) - bits.count(self.childless)


def prerequisites(graph: Graph, spec: Spec) -> Prerequisites:
    """Derives the dependencies of a graph's parameters and their costs."""
    width, layers = spec.max_width, range(spec.max_depth - 1)
    full = np.uint32(2**width - 1)
    children = tuple(
        tuple((graph.edges.words[g] >> np.uint32(j * width)) & full for j in range(width))
        for g in layers
    )
    exists, childless = jnp.uint32(0), jnp.uint32(0)
    cost_bits = [jnp.uint32(0)] * 3
    for g, c, start in abstract_groups(spec):
        for j in range(width):
            bit = np.uint32(1 << (start + j))
            there = (j < graph.sizes[g]) & (c < graph.depth)
            exists |= jnp.where(there, bit, jnp.uint32(0))
            count = bits.count(children[g][j])
            childless |= jnp.where(there & (count == 0), bit, jnp.uint32(0))
            cost = jnp.maximum(count - 1 if c == g + 1 else 2 * count - 1, 1)
            for b in range(3):
                cost_bits[b] |= jnp.where((cost >> b) & 1 != 0, bit, jnp.uint32(0))
    every = bits.Bits((*graph.edges.words, exists), bounds(spec))
    return Prerequisites(every, tuple(cost_bits), children, childless, spec)


@functools.lru_cache(maxsize=64)
def abstract_groups(spec: Spec) -> tuple[tuple[int, int, int], ...]:
    """(layer, category, first bit) of each group of abstract slots; a group has one an item."""
    pairs = [(g, c) for g in range(spec.max_depth - 1) for c in range(g + 1, spec.max_depth)]
    return tuple((g, c, n * spec.max_width) for n, (g, c) in enumerate(pairs))


@functools.lru_cache(maxsize=64)
def reach_words(spec: Spec) -> tuple[int, ...]:
    """For 1..D-1: the abstract slots, as a word, whose category is so many layers below."""
    words = [0] * (spec.max_depth - 1)
    for g, c, start in abstract_groups(spec):
        words[c - g - 1] |= (2**spec.max_width - 1) << start
    return tuple(words)


def compact(x_TxR: jax.Array, length: int) -> jax.Array:
    """int32[..., length]: of each row, the slots (entries >= 0) in order, then -1."""
    columns = [x_TxR[..., r] for r in range(x_TxR.shape[-1])]
    kept, count = [jnp.full_like(columns[0], -1)] * length, jnp.zeros_like(columns[0])
    for column in columns:
        kept = [jnp.where((column >= 0) & (count == n), column, x) for n, x in enumerate(kept)]
        count += column >= 0
    return jnp.stack(kept, -1)
