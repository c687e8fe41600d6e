"""The dependency graph of the query: parameters, their order, and the terms of each."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits, draws
from data_gen.problems.problem import TERMS
from data_gen.problems.slots import Prerequisites, bounds, compact, reach_words
from data_gen.problems.structure import Plan
from data_gen.spec import Spec

# Bits that `Choice.picks` keeps of each abstract parameter.
PICK_BITS = 5


class Choice(NamedTuple):
    """Parameters that the answer will use, before predecessors are added (step 6)."""

    chosen: bits.Bits  # slots
    op: jax.Array  # int32: their operations
    # uint32: the abstract parameters that were picked (1 + number), PICK_BITS each, the last one
    # lowest; what they need was chosen with them
    picks: jax.Array


class Arrangement(NamedTuple):
    """The chosen parameters in the solution's order (step 7); T is the spec's op cap."""

    solved: jax.Array  # bool: an order was found
    steps: jax.Array  # int32
    step_T: jax.Array  # int32 slots, first step first, -1 from `steps` on
    link_T: jax.Array  # int32: the one predecessor drawn so far, a slot, or -1


class Terms(NamedTuple):
    """What the right side of each ordered instance parameter adds up (step 8)."""

    constant_T: jax.Array  # bool: a constant takes part
    refs_TxR: jax.Array  # int32: slots, in the sentence's order, or -1


class _Picking(NamedTuple):
    """Loop state of picking abstract parameters (step 6)."""

    turn: jax.Array  # int32: the draw
    reach: jax.Array  # int32: layers between owner and category of what it may draw
    chosen: bits.Bits
    left: jax.Array  # int32: operations that may still be spent
    best: bits.Bits  # the chosen ones and this pass's last draw that fits
    best_cost: jax.Array  # int32: operations of that draw
    lowest: jax.Array  # int32: the range of `reach`, as the public program keeps it
    highest: jax.Array  # int32
    picks: jax.Array  # uint32: see `Choice`
    best_picks: jax.Array
    going: jax.Array  # bool


def choose(key: jax.Array, aim: Plan, needs: Prerequisites, spec: Spec) -> Choice:
    """Picks abstract parameters worth about `abstract_op`, then instance ones (step 6)."""
    deepest = spec.max_depth - 1
    word_of_reach = np.array(reach_words(spec), np.uint32)
    source = draws.source(key)
    budget = jnp.minimum(aim.abstract_op, needs.most_operations())
    nothing = bits.empty(needs.exists.bounds)

    def draw(at: _Picking) -> _Picking:
        """One draw at `reach` 1, 2, …: the first that does not fit ends the pass, and the one
        before it is taken; the public program's bookkeeping of the range is kept."""
        mine = jnp.asarray(word_of_reach)[at.reach - 1]
        free = needs.exists.words[-1] & ~at.chosen.words[-1] & mine
        empty = free == 0
        bottom = at.lowest == at.reach
        lowest = at.lowest + (empty & bottom)
        highest = at.highest - (empty & ~bottom & (at.highest == at.reach))
        number = bits.nth(free, draws.below(source.word(at.turn), bits.count(free)))
        bit = jnp.where(empty, 0, jnp.uint32(1) << number.astype(jnp.uint32))
        new = needs.closure(bits.Bits((*nothing.words[:-1], bit), nothing.bounds)) - at.chosen
        cost = needs.operations(new)
        fits = ~empty & (cost <= at.left)
        fails = ~empty & ~fits
        stop = fails & bottom
        fall_back = fails & ~bottom
        take = fits & (at.reach >= highest)
        over = fails | take | (at.reach == deepest)
        better = fits & ~over
        grown = at.chosen | new
        picks = (at.picks << PICK_BITS) | (number + 1).astype(jnp.uint32)
        left = at.left - jnp.where(fall_back, at.best_cost, jnp.where(take, cost, 0))
        chosen = at.best.where(fall_back, grown.where(take, at.chosen))
        picked = jnp.where(fall_back, at.best_picks, jnp.where(take, picks, at.picks))
        return _Picking(
            turn=at.turn + 1,
            reach=jnp.where(over, 1, at.reach + 1),
            chosen=chosen,
            left=left,
            best=grown.where(better, chosen),
            best_cost=jnp.where(better, cost, 0),
            lowest=lowest,
            highest=highest,
            picks=picked,
            best_picks=jnp.where(better, picks, picked),
            going=~stop & (left > 0) & (at.turn < deepest * (2 * spec.op_cap + 4)),
        )

    one, none, no_picks = jnp.int32(1), jnp.int32(0), jnp.uint32(0)
    start = _Picking(
        turn=one,
        reach=one,
        chosen=nothing,
        left=budget,
        best=nothing,
        best_cost=none,
        lowest=one,
        highest=aim.depth - 1,
        picks=no_picks,
        best_picks=no_picks,
        going=budget > 0,
    )
    end = jax.lax.while_loop(lambda at: at.going, draw, start)

    wanted = aim.least_op - budget + end.left
    rest = needs.exists - end.chosen
    rest = bits.Bits((*rest.words[:-1], jnp.uint32(0)), rest.bounds)
    got = jnp.minimum(wanted, rest.size())
    extra = rest.subset(source.word(0), wanted)
    return Choice(end.chosen | extra, aim.least_op - wanted + got, end.picks)


# |N(0, 1)| and the softmax weights 1, e^p, e^2p that step 7 makes of it, as integers: so that
# every platform picks the same parameter. The weights' sum stays below 2**24.
_QUANTILE_BITS = 12
_SCALE = 100


@functools.cache
def _softmax_weights() -> np.ndarray:
    """int32[2**12, J]: weights of (abstract) + (not yet on the stack) = 0, 1, 2."""
    # Inverse of the half-normal distribution by bisection on erf, in float64.
    rows = []
    for n in range(2**_QUANTILE_BITS):
        share, low, high = (n + 0.5) / 2**_QUANTILE_BITS, 0.0, 6.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if math.erf(middle / 2**0.5) < share else (low, middle)
        rows.append([round(_SCALE * math.exp(k * low)) for k in range(3)])
    return np.array(rows, np.int32)


class _Arranging(NamedTuple):
    """Loop state of ordering, as sets of slots (step 7)."""

    remain: bits.Bits  # not placed yet
    stack: bits.Bits  # what those placed need
    free: bits.Bits  # what no abstract parameter that remains needs
    solved: jax.Array  # bool


def arrange(key: jax.Array, choice: Choice, needs: Prerequisites, spec: Spec) -> Arrangement:
    """Orders the chosen parameters backwards from the query (step 7).

    On the way each instance parameter may be given a predecessor, so that all of them end up
    needed. It fails where nothing on the stack is free of dependents; then the structure has
    to be drawn again.
    """
    instances, cap = spec.instance_slots, spec.op_cap
    source = draws.source(key)
    quote_below = source.word(0)
    quantile = (source.word(1) >> np.uint32(32 - _QUANTILE_BITS)).astype(jnp.int32)
    weight_J = jnp.asarray(_softmax_weights())[quantile]
    count = choice.chosen.size()
    nothing = bits.empty(choice.chosen.bounds)
    abstract = bits.of(np.arange(spec.slots) >= instances, nothing.bounds)

    def place(at: _Arranging, turn: jax.Array) -> tuple[_Arranging, tuple[jax.Array, jax.Array]]:
        remain, stack, free, solved = at
        word = [source.word(2 + 4 * turn + n) for n in range(4)]
        pool = free.where(turn == 0, free & stack)
        live = (turn < count) & solved
        solved &= (turn >= count) | pool.any()
        slot = pool.pick(word[0])
        here = nothing.one(slot)
        remain, stack = remain - here, stack - here
        is_abstract = slot >= instances
        free = remain - needs.direct(remain.words[-1])

        must = ~(stack & free).any()
        quotes = ~is_abstract & ((word[1] < quote_below) | must) & remain.any()
        among = free.where(must, remain)
        outside, inside = among - stack, among & stack
        classes = (
            inside - abstract,
            (inside & abstract) | (outside - abstract),
            outside & abstract,
        )
        mass_J = [members.size() * weight_J[j] for j, members in enumerate(classes)]
        # A product of a 24-bit fraction and an integer below 2**24 rounds alike everywhere.
        fraction = (word[2] >> 8).astype(jnp.float32) * np.float32(2.0**-24)
        two = mass_J[0] + mass_J[1]
        point = (fraction * (two + mass_J[2]).astype(jnp.float32)).astype(jnp.int32)
        first, second = point < mass_J[0], point < two
        link = classes[0].where(first, classes[1].where(second, classes[2])).pick(word[3])

        pushed = needs.direct(here.words[-1]).where(is_abstract, nothing.one(link).only(quotes))
        written = (jnp.where(live & solved, slot, -1), jnp.where(live & quotes, link, -1))
        return _Arranging(remain, stack | pushed, free, solved), written

    free = choice.chosen - needs.direct(choice.chosen.words[-1])
    start = _Arranging(choice.chosen, nothing, free, jnp.bool_(True))
    end, (slot_T, link_T) = jax.lax.scan(place, start, jnp.arange(cap))
    # The query is placed first and solved last.
    place_T = count - 1 - np.arange(cap)
    step_T = jnp.where(place_T >= 0, slot_T[place_T], -1)
    link_T = jnp.where(place_T >= 0, link_T[place_T], -1)
    return Arrangement(end.solved & (count > 0), count, step_T, link_T)


def room(arranged: Arrangement, spec: Spec) -> jax.Array:
    """int32[T]: operations that extra predecessors can add to each step (step 8)."""
    place_T = np.arange(spec.op_cap)
    instance_T = (arranged.step_T >= 0) & (arranged.step_T < spec.instance_slots)
    return jnp.where(instance_T, np.clip(place_T + 1, 2, max(spec.max_terms, 2)) - 2, 0)


def total_op(choice: Choice, arranged: Arrangement, aim: Plan, spec: Spec) -> jax.Array:
    """int32: the operations of the finished solution, known before its terms are drawn."""
    wanted = jnp.maximum(choice.op, aim.total_op) - choice.op
    return choice.op + jnp.minimum(wanted, room(arranged, spec).sum())


class _Gathering(NamedTuple):
    """Loop state of drawing the terms of one right side (step 8)."""

    pool: bits.Bits  # steps before that may still be drawn
    constant: jax.Array  # bool: the constant was


def draw_terms(key: jax.Array, arranged: Arrangement, extra_op: jax.Array, spec: Spec) -> Terms:
    """Draws the predecessors of each instance parameter (step 8).

    Args:
      extra_op: operations to spend on extra predecessors (total op minus the choice's).
    """
    cap, step_T = spec.op_cap, arranged.step_T
    source = draws.source(key)
    nothing = bits.empty(bounds(spec))
    extra_T = _spend(source.word(0), extra_op, room(arranged, spec))
    first_R = jnp.pad(step_T, (0, TERMS), constant_values=-1)[:TERMS]

    def define(
        earlier: bits.Bits, step: tuple[jax.Array, ...]
    ) -> tuple[bits.Bits, tuple[jax.Array, ...]]:
        place, slot, link, extra = step
        word = [source.word(1 + (TERMS + 2) * place + n) for n in range(2)]
        wanted = jnp.where(extra == 0, 1 + draws.coin(word[0]), extra + 2)
        wanted = jnp.minimum(wanted, jnp.minimum(place + 1, spec.max_terms))
        everything = wanted == place + 1
        left = wanted - (link >= 0)
        forced = draws.coin(word[1]) & (left > 0) & ~everything
        left = left - forced

        def take(at: _Gathering, draw: tuple[jax.Array, jax.Array]) -> tuple[_Gathering, jax.Array]:
            """What may be added up: the steps before and, as one member more, the constant."""
            pool, constant = at
            n, lot = draw
            size = pool.size()
            number = draws.below(lot, size + ~constant)
            one = pool.member(number)
            live = ~everything & (n < left)
            constant |= live & (number == size)
            return _Gathering(pool - nothing.one(one), constant), jnp.where(live, one, -1)

        terms_R = np.arange(TERMS)
        lot_R = source.word(1 + (TERMS + 2) * place + 2 + terms_R)
        start = _Gathering(earlier - nothing.one(link), forced | everything)
        end, refs_R = jax.lax.scan(take, start, (jnp.asarray(terms_R), lot_R))
        # With the whole pool taken, the sentence keeps the order of the solution.
        all_R = jnp.where((terms_R < place) & (first_R != link), first_R, -1)
        refs_R = jnp.where(everything, all_R, refs_R)
        return earlier | nothing.one(slot), (end.constant, link, refs_R)

    at_T = (jnp.arange(cap), step_T, arranged.link_T, extra_T)
    _, (constant_T, link_T, refs_TxR) = jax.lax.scan(define, nothing, at_T)
    instance_T = (step_T >= 0) & (step_T < spec.instance_slots)
    refs_TxR = compact(jnp.concatenate([link_T[:, None], refs_TxR], -1), TERMS)
    refs_TxR = jnp.where(instance_T[:, None], refs_TxR, -1)
    return Terms(constant_T & instance_T, refs_TxR)


class _Spent(NamedTuple):
    """Positions that were given extra operations."""

    full: bits.Bits  # there is no room for more
    half: bits.Bits  # one, or two, where there is room for two


def _spend(word: jax.Array, extra_op: jax.Array, room_T: jax.Array) -> jax.Array:
    """int32[T]: extra operations, each at a random position that has room left (at most two)."""
    cap = room_T.shape[0]
    ends = tuple(dict.fromkeys((0, min(32, cap), cap)))
    nothing = some = two = bits.empty(ends)
    for t in range(cap):
        here = bits.of(np.arange(cap) == t, ends)
        some |= here.only(room_T[t] >= 1)
        two |= here.only(room_T[t] >= 2)

    def spend(turn: jax.Array, at: _Spent) -> _Spent:
        lot = draws.numbered(word, turn)
        here = nothing.one((some - at.full).pick(lot)).only(turn < extra_op)
        return _Spent(at.full | (here - (two - at.half)), at.half | (here & two))

    end = jax.lax.fori_loop(0, cap, spend, _Spent(nothing, nothing))
    return (end.full | end.half).mask().astype(jnp.int32) + (end.full & two).mask()
