"""The data structure of a problem: arrays of fixed shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from data_gen.problems.structure import Structure
from data_gen.spec import TERM_LIMIT

# Terms of an instance parameter's right side that arrays have room for, a constant counted;
# `Spec.max_terms` says how many of them are used.
TERMS = TERM_LIMIT


class Problem(NamedTuple):
    """A problem and its solution, as arrays of fixed shapes (see `data_gen.problems`).

    Slots are laid out as `data_gen.problems.slots` says.
    """

    ok: jax.Array  # bool: false where none was found
    op: jax.Array  # int32: operations of the solution
    structure: Structure
    steps: jax.Array  # int32: sentences of the solution
    order_T: jax.Array  # int32: the slot that each step computes, -1 from `steps` on
    constant_I: jax.Array  # bool: the right side has a constant
    number_I: jax.Array  # int32: that constant
    refs_IxR: jax.Array  # int32: slots that the right side names, in order, or -1
    times_I: jax.Array  # bool: the constant multiplies
    difference_I: jax.Array  # bool: the second of two references is subtracted
    value_P: jax.Array  # int32: all values, modulo m
    sentences_E: jax.Array  # int32: slots in the order the problem states them, or -1
    hierarchy: jax.Array  # int32
    first_category: jax.Array  # int32: the top layer's, of the hierarchy's four
    subcategory_D: jax.Array  # int32, per layer
    items_DxW: jax.Array  # int32: names within the sub-category
    letters: jax.Array  # int32[letters of the spec]: in the order in which results take them

    @property
    def query(self) -> jax.Array:
        """int32: the slot asked for, the last step's."""
        return jnp.take_along_axis(
            self.order_T, jnp.maximum(self.steps - 1, 0)[..., None], axis=-1
        )[..., 0]
