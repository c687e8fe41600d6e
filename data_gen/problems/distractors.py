"""Instance parameters that the query does not need, and what they are computed from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits, draws
from data_gen.problems.dependency import TERMS, Order, Terms, compact
from data_gen.problems.slots import Needs, abstract_runs
from data_gen.spec import Spec


class Definitions(NamedTuple):
    """What all instance parameters are computed from; I instance slots, N definitions."""

    slot_N: jax.Array  # int32: slots in an order in which they can be computed, or -1
    constant_I: jax.Array  # bool: a constant takes part
    refs_IxR: jax.Array  # int32: slots, in the sentence's order, or -1


def fill(key: jax.Array, ordered: Order, terms: Terms, needs: Needs, spec: Spec) -> Definitions:
    """Gives every leftover instance parameter its predecessors (step 9).

    In random order, each is with probability one half "independent", computed from earlier
    independent ones alone, else from anything defined so far, complete abstract parameters
    included (`complete` says which count as complete).
    """
    instances, cap = spec.instance_slots, spec.edge_cap
    source = draws.source(key)
    nothing = bits.empty(needs.exists.bounds)
    step_T = ordered.step_T
    needed, _ = jax.lax.scan(lambda found, slot: (found | found.one(slot), None), nothing, step_T)
    open_ = unavailable(needed, needs, spec)

    def add(carry: tuple, turn: jax.Array) -> tuple[tuple, tuple]:
        rest, defined, alone, open_ = carry
        word = [source.word((TERMS + 4) * turn + n) for n in range(4)]
        slot = rest.pick(word[0])
        independent = draws.coin(word[1])
        available = needs.exists.words[-1] & ~open_
        known = bits.Bits((*defined.words[:-1], available), nothing.bounds)
        pool = alone.where(independent, known)
        size = pool.size()
        # 1 + Geometric(1/2), read off the leading zeros of a random word.
        count = jnp.minimum(
            1 + jax.lax.clz(word[2]).astype(jnp.int32), jnp.minimum(size + 1, TERMS)
        )
        everything = count == size + 1
        constant = everything | draws.coin(word[3])
        count = count - constant
        refs_R = pool.picks(source.word((TERMS + 4) * turn + 4 + jnp.arange(TERMS)))
        refs_R = jnp.where(np.arange(TERMS) < count, refs_R, -1)
        here = nothing.one(slot)
        defined |= here
        carry = (rest - here, defined, alone | here.only(independent), open_)
        written = (slot, constant, refs_R)
        return (*carry[:3], complete(open_, slot, defined, needs, spec)), written

    rest = needs.exists - needed
    rest = bits.Bits((*rest.words[:-1], jnp.uint32(0)), rest.bounds)
    start = (rest, needed, nothing, open_)
    _, (slot_E, constant_E, refs_ExR) = jax.lax.scan(add, start, jnp.arange(cap))

    slot_N = jnp.concatenate([step_T, slot_E])
    at_N = jnp.where((slot_N >= 0) & (slot_N < instances), slot_N, instances)
    constant_N = jnp.concatenate([terms.constant_T, constant_E])
    refs_NxR = jnp.concatenate([terms.refs_TxR, compact(refs_ExR, TERMS)])
    constant_I = jnp.zeros(instances, bool).at[at_N].set(constant_N, mode="drop")
    refs_IxR = jnp.full((instances, TERMS), -1, jnp.int32).at[at_N].set(refs_NxR, mode="drop")
    return Definitions(slot_N, constant_I, refs_IxR)


def unavailable(needed: bits.Bits, needs: Needs, spec: Spec) -> jax.Array:
    """A word of the abstract parameters that are not available when the solution is complete."""
    open_ = needs.exists.words[-1] & ~needed.words[-1]
    for g in range(spec.max_depth - 1):
        for j in range(spec.max_width):
            open_ = _close_row(open_, g, j, _full_row(needed, needs, g, j), spec)
    for g in range(spec.max_depth - 1):
        open_ = _close_layer(open_, g, g + 2, needs, jnp.bool_(True))
    return open_


def complete(
    open_: jax.Array, slot: jax.Array, defined: bits.Bits, needs: Needs, spec: Spec
) -> jax.Array:
    """The abstract parameters that are still not available once `slot` is defined.

    When the last thing of an item is defined, the item's abstract parameters become available,
    nearest category first, up to the first that needs an unavailable one; then, layer by layer
    upwards, those of the items above. The public program's order of looking is kept: it stops
    at the first item of a layer that lacks something, and does not look at further items or
    categories of that layer until another item is completed.
    """
    width = spec.max_width
    for g in range(spec.max_depth - 1):
        done = jnp.bool_(False)
        for j in range(width):
            start = (g * width + j) * width
            mine = (slot >= start) & (slot < start + width) & _full_row(defined, needs, g, j)
            open_ = _close_row(open_, g, j, mine, spec)
            blocked = jnp.bool_(False)
            for c in range(g + 2, spec.max_depth):
                blocked |= (needs.rows[g][j] & _run(open_, g + 1, c, spec)) != 0
                bit = np.uint32(1 << (_start(g, c, spec) + j))
                open_ = jnp.where(mine & ~blocked, open_ & ~bit, open_)
            done |= mine
        for upper in range(g - 1, -1, -1):
            open_ = _close_layer(open_, upper, g + 1, needs, done)
    return open_


def _close_layer(
    open_: jax.Array, g: int, category: int, needs: Needs, when: jax.Array
) -> jax.Array:
    """Makes abstract parameters of layer g available, of this category and those below it."""
    spec = needs.spec
    full = np.uint32(2**spec.max_width - 1)
    complete = ~_run(open_, g, g + 1, spec) & full
    stopped = jnp.bool_(False)
    for c in range(category, spec.max_depth):
        missing = _run(open_, g + 1, c, spec)
        lacking = jnp.uint32(0)
        for j in range(spec.max_width):
            lacks = (needs.rows[g][j] & missing) != 0
            lacking |= jnp.where(lacks, np.uint32(1 << j), jnp.uint32(0))
        lacking &= complete
        before = (lacking & (~lacking + 1)) - 1  # the items before the first that lacks something
        closed = jnp.where(when & ~stopped, complete & before & full, jnp.uint32(0))
        open_ &= ~(closed << np.uint32(_start(g, c, spec)))
        stopped |= lacking != 0
    return open_


def _close_row(open_: jax.Array, g: int, j: int, when: jax.Array, spec: Spec) -> jax.Array:
    bit = np.uint32(1 << (_start(g, g + 1, spec) + j))
    return jnp.where(when, open_ & ~bit, open_)


def _full_row(defined: bits.Bits, needs: Needs, g: int, j: int) -> jax.Array:
    """bool: all things of item j of layer g are defined."""
    return (needs.rows[g][j] & ~(defined.words[g] >> np.uint32(j * needs.spec.max_width))) == 0


def _start(g: int, c: int, spec: Spec) -> int:
    return next(start for h, d, start in abstract_runs(spec) if (h, d) == (g, c))


def _run(word: jax.Array, g: int, c: int, spec: Spec) -> jax.Array:
    """A bit for each item of layer g: its abstract parameter of category c is in the word."""
    return (word >> np.uint32(_start(g, c, spec))) & np.uint32(2**spec.max_width - 1)
