"""Distractors: instance parameters that the query does not need, and their terms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits, draws
from data_gen.problems.dependency import PICK_BITS, Arrangement, Terms
from data_gen.problems.problem import TERMS
from data_gen.problems.slots import Prerequisites, abstract_groups, compact, reach_words
from data_gen.spec import Spec

# Random words that each distractor spends beside those of its terms, and all of them together.
_WORDS = 4
_FIRST_WORDS = TERMS
# Members of a pool that can be taken whole, at most: a constant takes part then.
_FEW = TERMS - 1


class Definitions(NamedTuple):
    """The terms of all instance parameters."""

    slot_V: jax.Array  # int32: slots in an order in which they can be computed, or -1
    constant_I: jax.Array  # bool: a constant takes part
    refs_IxR: jax.Array  # int32: slots, in the sentence's order, or -1


class _Filling(NamedTuple):
    """Loop state of defining distractors (step 9)."""

    rest: bits.Bits  # not defined yet
    known: bits.Bits  # what the solution needs, what was defined since, what these make available
    independent: bits.Bits  # independent distractors
    open_: jax.Array  # a word of the abstract parameters that are not available


class _Defined(NamedTuple):
    """The result of defining one distractor."""

    slot: jax.Array  # int32, or -1 once all are defined
    independent: jax.Array  # bool
    made: jax.Array  # int32: the abstract parameter that this made available, or -1
    constant: jax.Array  # bool: a constant takes part
    taken: jax.Array  # int32: how many parameters take part
    everything: jax.Array  # bool: they are a whole pool, named in its order
    drawn_R: jax.Array  # int32: or these, the first `taken`


def fill(
    key: jax.Array,
    arranged: Arrangement,
    picks: jax.Array,
    terms: Terms,
    needs: Prerequisites,
    spec: Spec,
) -> Definitions:
    """Gives every leftover instance parameter its predecessors (step 9).

    In random order, each is with probability one half "independent", computed from earlier
    independent ones alone, else from anything defined so far, complete abstract parameters
    included (`complete` says which count as complete).

    Args:
      key: of the draws.
      arranged: the solution's parameters.
      picks: those of them that `dependency.Choice` says were picked.
      terms: what the solution's right sides add up.
      needs: what the graph's parameters are computed from.
      spec: the class.
    """
    instances = spec.instance_slots
    source = draws.source(key)
    nothing = bits.empty(needs.exists.bounds)
    step_T = arranged.step_T
    needed, _ = jax.lax.scan(lambda found, slot: (found | found.one(slot), None), nothing, step_T)

    def add(at: _Filling, turn: jax.Array) -> tuple[_Filling, _Defined]:
        start = _FIRST_WORDS + (_WORDS + TERMS) * turn
        word = [source.word(start + n) for n in range(_WORDS)]
        slot = at.rest.pick(word[0])
        independent = draws.coin(word[1])
        pool = at.independent.where(independent, at.known)
        size = pool.size()
        # 1 + Geometric(1/2), read off the leading zeros of a random word.
        count = jnp.minimum(
            1 + jax.lax.clz(word[2]).astype(jnp.int32), jnp.minimum(size + 1, spec.max_terms)
        )
        everything = count == size + 1
        constant = everything | draws.coin(word[3])
        drawn_R = pool.picks(source.word(start + _WORDS + jnp.arange(TERMS)))

        here = nothing.one(slot)
        defined = at.known | here
        open_ = complete(at.open_, slot, defined, needs, spec)
        word_made = needs.exists.words[-1] & at.open_ & ~open_
        # Where this makes several available, the pool is too large for their order to matter.
        (made,) = bits.in_turn([(word_made, instances)], 1)
        after = _Filling(
            rest=at.rest - here,
            known=bits.Bits((*defined.words[:-1], defined.words[-1] | word_made), defined.bounds),
            independent=at.independent | here.only(independent),
            open_=open_,
        )
        return after, _Defined(
            slot, independent, made, constant, count - constant, everything, drawn_R
        )

    rest = needs.exists - needed
    open_ = unavailable(needed, needs, spec)
    known, first = _known(source, needed, picks, open_, needs, spec)
    start = _Filling(
        rest=bits.Bits((*rest.words[:-1], jnp.uint32(0)), rest.bounds),
        known=known,
        independent=nothing,
        open_=open_,
    )
    _, turn_E = jax.lax.scan(add, start, jnp.arange(spec.edge_cap))

    # A pool that is taken whole has less than TERMS members. These are its first ones to the end,
    # as a pool grows only, and a turn adds to what is known, so that few turns decide them.
    early = [x_E[n] for n in range(_FEW) for x_E in (turn_E.slot, turn_E.made)]
    known_F = _leading(jnp.stack([*first, *early]))
    alone_F = _leading(jnp.where(turn_E.independent, turn_E.slot, -1))
    whole_ExF = jnp.where(turn_E.independent[:, None], alone_F, known_F)
    whole_ExR = jnp.pad(whole_ExF, ((0, 0), (0, TERMS - _FEW)), constant_values=-1)
    refs_ExR = jnp.where(turn_E.everything[:, None], whole_ExR, turn_E.drawn_R)
    refs_ExR = jnp.where(np.arange(TERMS) < turn_E.taken[:, None], refs_ExR, -1)
    slot_E, constant_E = turn_E.slot, turn_E.constant

    slot_V = jnp.concatenate([step_T, slot_E])
    at_V = jnp.where((slot_V >= 0) & (slot_V < instances), slot_V, instances)
    constant_V = jnp.concatenate([terms.constant_T, constant_E])
    refs_VxR = jnp.concatenate([terms.refs_TxR, compact(refs_ExR, TERMS)])
    constant_I = jnp.zeros(instances, bool).at[at_V].set(constant_V, mode="drop")
    refs_IxR = jnp.full((instances, TERMS), -1, jnp.int32).at[at_V].set(refs_VxR, mode="drop")
    return Definitions(slot_V, constant_I, refs_IxR)


def _leading(slot_C: jax.Array) -> jax.Array:
    """int32[F]: the first _FEW slots of a list without those that are -1, then anything."""
    place_C = jnp.where(slot_C >= 0, jnp.cumsum(slot_C >= 0) - 1, -1)
    here_FxC = np.arange(_FEW)[:, None] == place_C
    return jnp.where(here_FxC, slot_C, 0).sum(-1, dtype=jnp.int32)


def _known(
    source: draws.Source,
    needed: bits.Bits,
    picks: jax.Array,
    open_: jax.Array,
    needs: Prerequisites,
    spec: Spec,
) -> tuple[bits.Bits, list[jax.Array]]:
    """The parameters that distractors may refer to at first, as a set and as a list (-1 pads).

    In the public program's order: the parameters that were picked, each followed by what it needs;
    instance parameters chosen at random; abstract parameters that are available besides, those of
    the next layer first. The order is right where it matters: in pools of less than TERMS.
    """
    instances, nothing = spec.instance_slots, bits.empty(needs.exists.bounds)
    pool, ordered = nothing, list[jax.Array]()
    # In so small a pool at most TERMS - 1 were picked, and none needs more than it needs directly.
    for n in reversed(range(_FEW)):
        number = (picks >> np.uint32(n * PICK_BITS)) & np.uint32(2**PICK_BITS - 1)
        bit = jnp.where(number > 0, jnp.uint32(1) << (number - (number > 0)), jnp.uint32(0))
        one = bits.Bits((*nothing.words[:-1], bit), nothing.bounds)
        new = (one | needs.direct(bit)) - pool
        parts = [(new.words[-1], instances)]
        parts += list(zip(new.words[:-1], new.bounds[:-2], strict=True))
        pool |= new
        ordered += bits.in_turn(parts, _FEW)
    others = needed - pool
    picked = others.picks(source.word(jnp.arange(_FEW)))
    ordered += list(picked)
    free = needs.exists.words[-1] & ~open_ & ~needed.words[-1]
    next_layer = np.uint32(reach_words(spec)[0])
    parts = [(free & next_layer, instances), (free & ~next_layer, instances)]
    made = bits.Bits((*nothing.words[:-1], free), nothing.bounds)
    ordered += bits.in_turn(parts, _FEW)
    return pool | others | made, ordered


def unavailable(needed: bits.Bits, needs: Prerequisites, spec: Spec) -> jax.Array:
    """A word of the abstract parameters that are not available when the solution is complete."""
    open_ = needs.exists.words[-1] & ~needed.words[-1]
    for g in range(spec.max_depth - 1):
        for j in range(spec.max_width):
            open_ = _close_row(open_, g, j, _full_row(needed, needs, g, j), spec)
    for g in range(spec.max_depth - 1):
        open_ = _close_layer(open_, g, g + 2, needs, jnp.bool_(True))
    return open_


def complete(
    open_: jax.Array, slot: jax.Array, defined: bits.Bits, needs: Prerequisites, spec: Spec
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
                blocked |= (needs.children[g][j] & _group(open_, g + 1, c, spec)) != 0
                bit = np.uint32(1 << (_start(g, c, spec) + j))
                open_ = jnp.where(mine & ~blocked, open_ & ~bit, open_)
            done |= mine
        for upper in range(g - 1, -1, -1):
            open_ = _close_layer(open_, upper, g + 1, needs, done)
    return open_


def _close_layer(
    open_: jax.Array, g: int, category: int, needs: Prerequisites, when: jax.Array
) -> jax.Array:
    """Makes abstract parameters of layer g available, of this category and those below it."""
    spec = needs.spec
    full = np.uint32(2**spec.max_width - 1)
    complete = ~_group(open_, g, g + 1, spec) & full
    stopped = jnp.bool_(False)
    for c in range(category, spec.max_depth):
        missing = _group(open_, g + 1, c, spec)
        lacking = jnp.uint32(0)
        for j in range(spec.max_width):
            lacks = (needs.children[g][j] & missing) != 0
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


def _full_row(defined: bits.Bits, needs: Prerequisites, g: int, j: int) -> jax.Array:
    """bool: all things of item j of layer g are defined."""
    return (needs.children[g][j] & ~(defined.words[g] >> np.uint32(j * needs.spec.max_width))) == 0


def _start(g: int, c: int, spec: Spec) -> int:
    return next(start for h, d, start in abstract_groups(spec) if (h, d) == (g, c))


def _group(word: jax.Array, g: int, c: int, spec: Spec) -> jax.Array:
    """A bit for each item of layer g: its abstract parameter of category c is in the word."""
    return (word >> np.uint32(_start(g, c, spec))) & np.uint32(2**spec.max_width - 1)
