"""Where each parameter stands in arrays over all slots, and what abstract ones need.

Slots are numbered instance parameters first: (g, j, k), item j of layer g has item k of
layer g + 1; then abstract ones (g, j, c), item j of layer g has things of category c, in
the order of g, then c, then j.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.spec import Spec
from data_gen.structure import Structure


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


class Parameters(NamedTuple):
    """What a structure makes of the slots."""

    slot_P: jax.Array  # bool: the layers have these items (an instance slot may lack its edge)
    exists_P: jax.Array  # bool: and, for an instance parameter, the edge
    cost_A: jax.Array  # int32: operations of an abstract parameter
    needs_AxP: jax.Array  # bool: direct predecessors of an abstract parameter
    closure_AxP: jax.Array  # bool: itself and all that it needs, transitively


def parameters(structure: Structure, spec: Spec) -> Parameters:
    """Reads the parameters off a structure graph (Part 2.1, Section 2.1)."""
    table = layout(spec)
    depth, width = spec.max_depth, spec.max_width
    inside_DxW = jnp.arange(width)[None, :] < structure.sizes_D[:, None]
    edge_I = structure.edges_GxWxW.reshape(-1)
    owner_P = inside_DxW[table.layer_P, table.item_P]
    counted_P = table.category_P < structure.depth
    slot_P = owner_P & counted_P & (table.abstract_P | inside_DxW[table.category_P, table.thing_P])
    instances = spec.instance_slots
    exists_P = jnp.concatenate([edge_I, slot_P[instances:]])

    edge_AxW = edge_I[table.children_AxW] & slot_P[instances:, None]
    children_A = edge_AxW.sum(-1)
    cost_A = jnp.where(
        table.reach_A == 1, jnp.maximum(children_A - 1, 1), jnp.maximum(2 * children_A - 1, 1)
    )
    one_hot = np.arange(spec.slots)
    child_AxWxP = table.children_AxW[:, :, None] == one_hot
    factor_AxWxP = table.factors_AxW[:, :, None] == one_hot
    needs_AxP = (edge_AxW[:, :, None] & (child_AxWxP | factor_AxWxP)).any(1)

    # An abstract parameter needs abstract ones of the next layer alone, so one pass a layer.
    own_AxP = needs_AxP | (np.arange(spec.abstract_slots)[:, None] + instances == one_hot)
    closure_AxP = own_AxP
    factor_AxW = np.maximum(table.factors_AxW - instances, 0)
    multiplied_AxW = edge_AxW & (table.factors_AxW >= 0)
    for _ in range(depth - 2):
        through_AxP = (multiplied_AxW[:, :, None] & closure_AxP[factor_AxW]).any(1)
        closure_AxP = own_AxP | through_AxP
    closure_AxP &= slot_P[instances:, None]
    return Parameters(slot_P, exists_P, cost_A, needs_AxP, closure_AxP)
