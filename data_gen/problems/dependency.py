"""What the query needs: parameters, their order, and what each is computed from."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import bits, draws
from data_gen.problems.slots import Needs, bounds, reach_words
from data_gen.problems.structure import Plan
from data_gen.spec import Spec

TERMS = 4  # predecessors of an instance parameter, at most, the constant counted


class Choice(NamedTuple):
    """Parameters that the answer will use, before predecessors are added (step 6)."""

    chosen: bits.Bits  # slots
    op: jax.Array  # int32: their operations


class Order(NamedTuple):
    """The chosen parameters in the solution's order (step 7); T is the spec's op cap."""

    solved: jax.Array  # bool: an order was found
    steps: jax.Array  # int32
    step_T: jax.Array  # int32 slots, first step first, -1 from `steps` on
    link_T: jax.Array  # int32: the one predecessor drawn so far, a slot, or -1


class Terms(NamedTuple):
    """What the right side of each ordered instance parameter adds up (step 8)."""

    constant_T: jax.Array  # bool: a constant takes part
    refs_TxR: jax.Array  # int32: slots, in the sentence's order, or -1


def choose(key: jax.Array, aim: Plan, needs: Needs, spec: Spec) -> Choice:
    """Picks abstract parameters worth about `abstract_op`, then instance ones (step 6)."""
    deepest = spec.max_depth - 1
    reach_R = np.array(reach_words(spec), np.uint32)
    source = draws.source(key)
    budget = jnp.minimum(aim.abstract_op, needs.total(needs.exists))
    nothing = bits.empty(needs.exists.bounds)

    def attempt(carry: tuple) -> tuple:
        """One draw at reach `diff` = 1, 2, …: the first that does not fit ends the pass, and the
        one before it is taken; the public program's bookkeeping of the range is kept."""
        turn, diff, chosen, left, best, best_cost, lowest, highest, _ = carry
        free = needs.exists.words[-1] & ~chosen.words[-1] & jnp.asarray(reach_R)[diff - 1]
        empty = free == 0
        bottom = lowest == diff
        lowest += empty & bottom
        highest -= empty & ~bottom & (highest == diff)
        number = draws.below(source.word(turn), bits.count(free))
        bit = jnp.where(empty, 0, jnp.uint32(1) << bits.nth(free, number).astype(jnp.uint32))
        new = needs.closure(bits.Bits((*nothing.words[:-1], bit), nothing.bounds)) - chosen
        cost = needs.total(new)
        fits = ~empty & (cost <= left)
        fails = ~empty & ~fits
        stop = fails & bottom
        fall_back = fails & ~bottom
        take = fits & (diff >= highest)
        over = fails | take | (diff == deepest)
        grown = chosen | new
        left -= jnp.where(fall_back, best_cost, jnp.where(take, cost, 0))
        chosen = best.where(fall_back, grown.where(take, chosen))
        best = grown.where(fits & ~over, chosen)
        best_cost = jnp.where(fits & ~over, cost, 0)
        going = ~stop & (left > 0) & (turn < deepest * (2 * spec.op_cap + 4))
        diff = jnp.where(over, 1, diff + 1)
        return turn + 1, diff, chosen, left, best, best_cost, lowest, highest, going

    one, none = jnp.int32(1), jnp.int32(0)
    start = (one, one, nothing, budget, nothing, none, one, aim.depth - 1, budget > 0)
    _, _, chosen, left, *_ = jax.lax.while_loop(lambda carry: carry[-1], attempt, start)

    wanted = aim.least_op - budget + left
    rest = needs.exists - chosen
    rest = bits.Bits((*rest.words[:-1], jnp.uint32(0)), rest.bounds)
    got = jnp.minimum(wanted, rest.size())
    extra = rest.subset(source.word(0), wanted)
    return Choice(chosen | extra, aim.least_op - wanted + got)


# |N(0, 1)| and the softmax weights 1, e^p, e^2p that step 7 makes of it, as integers: so that
# every platform picks the same parameter. The weights' sum stays below 2**24.
_QUANTILE_BITS = 12
_SCALE = 100


@functools.cache
def _softmax_weights() -> np.ndarray:
    """int32[Q, 3]: weights of (abstract) + (not yet on the stack) = 0, 1, 2."""
    # Inverse of the half-normal distribution by bisection on erf, in float64.
    rows = []
    for n in range(2**_QUANTILE_BITS):
        share, low, high = (n + 0.5) / 2**_QUANTILE_BITS, 0.0, 6.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if math.erf(middle / 2**0.5) < share else (low, middle)
        rows.append([round(_SCALE * math.exp(k * low)) for k in range(3)])
    return np.array(rows, np.int32)


def order(key: jax.Array, choice: Choice, needs: Needs, spec: Spec) -> Order:
    """Orders the chosen parameters backwards from the query (step 7).

    On the way each instance parameter may be given a predecessor, so that all of them end up
    needed. It fails where nothing on the stack is free of dependents; then the structure has
    to be drawn again.
    """
    instances, cap = spec.instance_slots, spec.op_cap
    source = draws.source(key)
    quote_below = source.word(0)
    quantile = (source.word(1) >> np.uint32(32 - _QUANTILE_BITS)).astype(jnp.int32)
    weight_K = jnp.asarray(_softmax_weights())[quantile]
    count = choice.chosen.size()
    nothing = bits.empty(choice.chosen.bounds)
    abstract = bits.of(np.arange(spec.slots) >= instances, nothing.bounds)

    def place(carry: tuple, turn: jax.Array) -> tuple[tuple, tuple]:
        remain, stack, free, solved = carry
        word = [source.word(2 + 4 * turn + n) for n in range(4)]
        pool = free.where(turn == 0, free & stack)
        live = (turn < count) & solved
        solved &= (turn >= count) | pool.any()
        slot = pool.pick(word[0])
        here = nothing.one(slot)
        remain, stack = remain - here, stack - here
        is_abstract = slot >= instances
        free = remain - needs.of(remain.words[-1])

        must = ~(stack & free).any()
        quotes = ~is_abstract & ((word[1] < quote_below) | must) & remain.any()
        among = free.where(must, remain)
        outside, inside = among - stack, among & stack
        classes = (
            inside - abstract,
            (inside & abstract) | (outside - abstract),
            outside & abstract,
        )
        mass_K = [members.size() * weight_K[k] for k, members in enumerate(classes)]
        # A product of a 24-bit fraction and an integer below 2**24 rounds alike everywhere.
        fraction = (word[2] >> 8).astype(jnp.float32) * np.float32(2.0**-24)
        point = (fraction * sum(mass_K).astype(jnp.float32)).astype(jnp.int32)
        first, second = point < mass_K[0], point < mass_K[0] + mass_K[1]
        link = classes[0].where(first, classes[1].where(second, classes[2])).pick(word[3])

        pushed = needs.of(here.words[-1]).where(is_abstract, nothing.one(link).only(quotes))
        written = (jnp.where(live & solved, slot, -1), jnp.where(live & quotes, link, -1))
        return (remain, stack | pushed, free, solved), written

    free = choice.chosen - needs.of(choice.chosen.words[-1])
    start = (choice.chosen, nothing, free, jnp.bool_(True))
    (*_, solved), (slot_T, link_T) = jax.lax.scan(place, start, jnp.arange(cap))
    # The query is placed first and solved last.
    place_T = count - 1 - np.arange(cap)
    step_T = jnp.where(place_T >= 0, slot_T[place_T], -1)
    link_T = jnp.where(place_T >= 0, link_T[place_T], -1)
    return Order(solved & (count > 0), count, step_T, link_T)


def room(ordered: Order, spec: Spec) -> jax.Array:
    """int32[T]: operations that extra predecessors can add to each step (step 8)."""
    place_T = np.arange(spec.op_cap)
    instance_T = (ordered.step_T >= 0) & (ordered.step_T < spec.instance_slots)
    return jnp.where(instance_T, np.clip(place_T + 1, 2, TERMS) - 2, 0)


def total_op(choice: Choice, ordered: Order, aim: Plan, spec: Spec) -> jax.Array:
    """int32: the operations of the finished solution, known before its terms are drawn."""
    wanted = jnp.maximum(choice.op, aim.total_op) - choice.op
    return choice.op + jnp.minimum(wanted, room(ordered, spec).sum())


def terms(key: jax.Array, ordered: Order, extra_op: jax.Array, spec: Spec) -> Terms:
    """Draws the predecessors of each instance parameter (step 8).

    Args:
      extra_op: operations to spend on extra predecessors (total op minus the choice's).
    """
    cap, step_T = spec.op_cap, ordered.step_T
    source = draws.source(key)
    nothing = bits.empty(bounds(spec))
    extra_T = _spend(source.word(0), extra_op, room(ordered, spec))
    first_R = jnp.pad(step_T, (0, TERMS), constant_values=-1)[:TERMS]

    def define(earlier: bits.Bits, at: tuple) -> tuple[bits.Bits, tuple]:
        place, slot, link, extra = at
        word = [source.word(1 + (TERMS + 2) * place + n) for n in range(2)]
        wanted = jnp.where(extra == 0, 1 + draws.coin(word[0]), extra + 2)
        wanted = jnp.minimum(wanted, jnp.minimum(place + 1, TERMS))
        everything = wanted == place + 1
        left = wanted - (link >= 0)
        forced = draws.coin(word[1]) & (left > 0) & ~everything
        left = left - forced

        def take(carry: tuple, at: tuple) -> tuple[tuple, jax.Array]:
            """What may be added up: the steps before and, as one member more, the constant."""
            pool, constant = carry
            n, lot = at
            size = pool.size()
            number = draws.below(lot, size + ~constant)
            one = pool.member(number)
            live = ~everything & (n < left)
            constant |= live & (number == size)
            return (pool - nothing.one(one), constant), jnp.where(live, one, -1)

        terms_R = np.arange(TERMS)
        lot_R = source.word(1 + (TERMS + 2) * place + 2 + terms_R)
        start = (earlier - nothing.one(link), forced | everything)
        (_, constant), refs_R = jax.lax.scan(take, start, (jnp.asarray(terms_R), lot_R))
        # With the whole pool taken, the sentence keeps the order of the solution.
        all_R = jnp.where((terms_R < place) & (first_R != link), first_R, -1)
        refs_R = jnp.where(everything, all_R, refs_R)
        return earlier | nothing.one(slot), (constant, link, refs_R)

    at_T = (jnp.arange(cap), step_T, ordered.link_T, extra_T)
    _, (constant_T, link_T, refs_TxR) = jax.lax.scan(define, nothing, at_T)
    instance_T = (step_T >= 0) & (step_T < spec.instance_slots)
    refs_TxR = compact(jnp.concatenate([link_T[:, None], refs_TxR], -1), TERMS)
    refs_TxR = jnp.where(instance_T[:, None], refs_TxR, -1)
    return Terms(constant_T & instance_T, refs_TxR)


def _spend(word: jax.Array, extra_op: jax.Array, room_T: jax.Array) -> jax.Array:
    """int32[T]: extra operations, each at a random position that has room left (at most two)."""
    cap = room_T.shape[0]
    ends = tuple(dict.fromkeys((0, min(32, cap), cap)))
    nothing = some = two = bits.empty(ends)
    for t in range(cap):
        here = bits.of(np.arange(cap) == t, ends)
        some |= here.only(room_T[t] >= 1)
        two |= here.only(room_T[t] >= 2)

    def spend(turn: jax.Array, carry: tuple) -> tuple:
        full, half = carry
        lot = draws.mix(word + turn.astype(jnp.uint32) * np.uint32(0x9E3779B9))
        here = nothing.one((some - full).pick(lot)).only(turn < extra_op)
        return full | (here - (two - half)), half | (here & two)

    full, half = jax.lax.fori_loop(0, cap, spend, (nothing, nothing))
    return (full | half).mask().astype(jnp.int32) + (full & two).mask()


def compact(x_TxK: jax.Array, width: int) -> jax.Array:
    """int32[..., width]: of each row, the entries >= 0 in order, then -1."""
    columns = [x_TxK[..., k] for k in range(x_TxK.shape[-1])]
    kept, count = [jnp.full_like(columns[0], -1)] * width, jnp.zeros_like(columns[0])
    for column in columns:
        kept = [jnp.where((column >= 0) & (count == n), column, x) for n, x in enumerate(kept)]
        count += column >= 0
    return jnp.stack(kept, -1)
