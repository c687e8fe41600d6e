"""What the query needs: parameters, their order, and what each is computed from."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import draws
from data_gen.slots import Parameters, layout
from data_gen.spec import Spec
from data_gen.structure import Plan

TERMS = 4  # predecessors of an instance parameter, at most, the constant counted


class Choice(NamedTuple):
    """Parameters that the answer will use, before predecessors are added (step 6)."""

    chosen_P: jax.Array  # bool
    op: jax.Array  # int32: their operations


class Order(NamedTuple):
    """The chosen parameters in the solution's order (step 7); T is the spec's op cap."""

    solved: jax.Array  # bool: an order was found
    steps: jax.Array  # int32
    step_T: jax.Array  # int32 slots, first step first, -1 from `steps` on
    link_T: jax.Array  # int32: position of the one predecessor drawn so far, or -1


class Terms(NamedTuple):
    """What the right side of each ordered instance parameter adds up (step 8)."""

    constant_T: jax.Array  # bool: a constant takes part
    refs_TxR: jax.Array  # int32: positions in the order, in the sentence's order, or -1


def choose(key: jax.Array, aim: Plan, params: Parameters, spec: Spec) -> Choice:
    """Picks abstract parameters worth about `abstract_op`, then instance ones (step 6)."""
    table = layout(spec)
    instances, deepest = spec.instance_slots, spec.max_depth - 1
    instance_P = np.arange(spec.slots) < instances
    weight_P = jnp.where(instance_P, 1, jnp.pad(params.cost_A, (instances, 0)))
    budget_cap = jnp.where(params.exists_P, weight_P, 0).sum()
    budget = jnp.minimum(aim.abstract_op, budget_cap)
    limit = 2 * spec.op_cap + 4
    word = draws.words(key, limit * deepest + 1)
    abstract_A = params.slot_P[instances:]

    def more(carry: tuple) -> jax.Array:
        return carry[-1]

    def attempt(carry: tuple) -> tuple:
        """One pass over diff = 1, 2, …: the first draw that does not fit ends it, and the one
        before it is taken; the public program's bookkeeping of the range of diffs is kept."""
        turn, chosen_P, left, lowest, highest, _ = carry
        best_P, best_cost = chosen_P, jnp.int32(0)
        taken_P, spent = chosen_P, jnp.int32(0)
        settled = stop = jnp.bool_(False)
        for diff in range(1, deepest + 1):
            pool_A = abstract_A & ~chosen_P[instances:] & (table.reach_A == diff)
            empty = ~pool_A.any()
            lowest_next = jnp.where(~settled & empty & (lowest == diff), lowest + 1, lowest)
            highest = jnp.where(
                ~settled & empty & (lowest != diff) & (highest == diff), highest - 1, highest
            )
            lowest = lowest_next
            one = draws.pick(word[turn * deepest + diff - 1], pool_A)
            new_P = params.closure_AxP[one] & ~chosen_P
            cost = jnp.where(new_P, weight_P, 0).sum()
            live = ~settled & ~empty
            fits = cost <= left
            stop |= live & ~fits & (lowest == diff)
            fall_back = live & ~fits & (lowest != diff)
            take = live & fits & (diff >= highest)
            taken_P = jnp.where(fall_back, best_P, jnp.where(take, chosen_P | new_P, taken_P))
            spent = jnp.where(fall_back, best_cost, jnp.where(take, cost, spent))
            settled |= live & (~fits | take)
            keep = live & fits & ~take
            best_P = jnp.where(keep, chosen_P | new_P, best_P)
            best_cost = jnp.where(keep, cost, best_cost)
        left -= spent
        going = ~stop & (left > 0) & (turn + 1 < limit)
        return turn + 1, taken_P, left, lowest, highest, going

    nothing_P = jnp.zeros(spec.slots, bool)
    start = (jnp.int32(0), nothing_P, budget, jnp.int32(1), aim.depth - 1, budget > 0)
    _, chosen_P, left, *_ = jax.lax.while_loop(more, attempt, start)

    wanted = aim.least_op - budget + left
    rest_P = params.exists_P & ~chosen_P & instance_P
    extra_P = jnp.pad(draws.subset(word[-1], rest_P[:instances], wanted), (0, spec.abstract_slots))
    got = jnp.minimum(wanted, rest_P.sum())
    return Choice(chosen_P | extra_P, aim.least_op - wanted + got)


# |N(0, 1)| and the softmax weights 1, e^p, e^2p that step 7 makes of it, as integers: so that
# every platform picks the same parameter. 4096 quantiles; the weights' sum stays below 2**24.
_QUANTILES = 4096
_SCALE = 100


@functools.cache
def _softmax_weights() -> np.ndarray:
    """int32[Q, 3]: weights of (abstract) + (not yet on the stack) = 0, 1, 2."""
    # Inverse of the half-normal distribution by bisection on erf, in float64.
    rows = []
    for n in range(_QUANTILES):
        share, low, high = (n + 0.5) / _QUANTILES, 0.0, 6.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if math.erf(middle / 2**0.5) < share else (low, middle)
        rows.append([round(_SCALE * math.exp(k * low)) for k in range(3)])
    return np.array(rows, np.int32)


def order(key: jax.Array, choice: Choice, params: Parameters, spec: Spec) -> Order:
    """Orders the chosen parameters backwards from the query (step 7).

    On the way each instance parameter may be given a predecessor, so that all of them end up
    needed. It fails where nothing on the stack is free of dependents; then the structure has
    to be drawn again.
    """
    instances, cap = spec.instance_slots, spec.op_cap
    slot_P = np.arange(spec.slots)
    abstract_P = slot_P >= instances
    word = draws.words(key, 2 + 4 * cap)
    quote_below = word[0]
    quantile = draws.below(word[1], 256) * 16 + draws.below(word[1] << 8, 16)
    weight_K = jnp.asarray(_softmax_weights())[quantile]
    count = choice.chosen_P.sum()

    def place(turn: jax.Array, carry: tuple) -> tuple:
        remain_P, stack_P, step_T, link_T, solved = carry
        spare = jax.lax.dynamic_slice(word, (2 + 4 * turn,), (4,))
        wanted_P = (remain_P[instances:, None] & params.needs_AxP).any(0)
        free_P = remain_P & ~wanted_P
        pool_P = jnp.where(turn == 0, free_P, free_P & stack_P)
        live = (turn < count) & solved
        solved &= (turn >= count) | pool_P.any()
        slot = draws.pick(spare[0], pool_P)
        here_P = slot_P == slot
        remain_next_P = remain_P & ~here_P
        stack_next_P = stack_P & ~here_P

        is_abstract = slot >= instances
        wanted_next_P = (remain_next_P[instances:, None] & params.needs_AxP).any(0)
        free_next_P = remain_next_P & ~wanted_next_P
        must = ~(stack_next_P & free_next_P).any()
        quotes = ~is_abstract & ((spare[1] < quote_below) | must) & remain_next_P.any()
        among_P = jnp.where(must, free_next_P, remain_next_P)
        class_P = abstract_P.astype(jnp.int32) + ~stack_next_P
        size_K = (among_P[None, :] & (class_P[None, :] == np.arange(3)[:, None])).sum(-1)
        mass_K = size_K * weight_K
        # A product of a 24-bit fraction and an integer below 2**24 rounds alike everywhere.
        fraction = (spare[2] >> 8).astype(jnp.float32) * np.float32(2.0**-24)
        point = (fraction * mass_K.sum().astype(jnp.float32)).astype(jnp.int32)
        chosen_class = (point >= mass_K[0]).astype(jnp.int32) + (point >= mass_K[0] + mass_K[1])
        link = draws.pick(spare[3], among_P & (class_P == chosen_class))

        needed_P = (here_P[instances:, None] & params.needs_AxP).any(0)
        stack_next_P = jnp.where(
            is_abstract, stack_next_P | needed_P, stack_next_P | (quotes & (slot_P == link))
        )
        # The query is placed first and solved last.
        at = jnp.where(live & solved, count - 1 - turn, cap)
        step_T = step_T.at[at].set(slot, mode="drop")
        link_T = link_T.at[at].set(jnp.where(quotes, link, -1), mode="drop")
        remain_P = jnp.where(live, remain_next_P, remain_P)
        stack_P = jnp.where(live, stack_next_P, stack_P)
        return remain_P, stack_P, step_T, link_T, solved

    empty_T = jnp.full((cap,), -1, jnp.int32)
    start = (choice.chosen_P, jnp.zeros(spec.slots, bool), empty_T, empty_T, jnp.bool_(True))
    _, _, step_T, link_T, solved = jax.lax.fori_loop(0, cap, place, start)
    match_TxT = (link_T[:, None] == step_T[None, :]) & (link_T >= 0)[:, None]
    link_T = jnp.where(match_TxT.any(-1), match_TxT.argmax(-1).astype(jnp.int32), -1)
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
    cap = spec.op_cap
    word = draws.words(key, cap + cap * (TERMS + 2))
    room_T = room(ordered, spec)

    def spend(turn: jax.Array, extra_T: jax.Array) -> jax.Array:
        one = draws.pick(word[turn], extra_T < room_T)
        return extra_T + ((turn < extra_op) & (np.arange(cap) == one))

    extra_T = jax.lax.fori_loop(0, cap, spend, jnp.zeros(cap, jnp.int32))

    word_TxK = word[cap:].reshape(cap, TERMS + 2)
    place_T = np.arange(cap)
    one_or_two_T = 1 + draws.coin(word_TxK[:, 0])
    wanted_T = jnp.where(extra_T == 0, one_or_two_T, extra_T + 2)
    wanted_T = jnp.minimum(wanted_T, np.minimum(place_T + 1, TERMS))
    everything_T = wanted_T == place_T + 1
    linked_T = ordered.link_T >= 0
    left_T = wanted_T - linked_T
    forced_T = draws.coin(word_TxK[:, 1]) & (left_T > 0) & ~everything_T
    constant_T = forced_T | everything_T
    left_T = left_T - forced_T

    # Pool of position t: everything before it, and the constant as member number `cap`.
    member = np.arange(cap + 1)
    pool_TxC = (member[None, :] < place_T[:, None]) | ((member == cap) & ~forced_T[:, None])
    pool_TxC &= member != ordered.link_T[:, None]
    earlier_TxC = pool_TxC & (member < cap)
    refs = [ordered.link_T]
    for n in range(TERMS):
        one_T = draws.pick(word_TxK[:, 2 + n], pool_TxC)
        # With the whole pool taken, the sentence keeps the order of the solution.
        next_T = jnp.where(earlier_TxC.any(-1), earlier_TxC.argmax(-1), cap)
        one_T = jnp.where(everything_T, next_T, one_T)
        live_T = jnp.where(everything_T, earlier_TxC.any(-1), n < left_T)
        constant_T |= live_T & (one_T == cap)
        refs.append(jnp.where(live_T & (one_T < cap), one_T, -1))
        taken_TxC = member == one_T[:, None]
        pool_TxC &= ~taken_TxC
        earlier_TxC &= ~taken_TxC
    instance_T = (ordered.step_T >= 0) & (ordered.step_T < spec.instance_slots)
    refs_TxR = compact(jnp.stack(refs, -1))[:, :TERMS]
    refs_TxR = jnp.where(instance_T[:, None], refs_TxR, -1)
    return Terms(constant_T & instance_T, refs_TxR.astype(jnp.int32))


def compact(refs_TxR: jax.Array) -> jax.Array:
    """Moves the entries >= 0 of each row to its front, in order."""
    width = refs_TxR.shape[-1]
    present_TxR = refs_TxR >= 0
    place_TxR = jnp.cumsum(present_TxR, -1) - 1
    goes_TxRxR = present_TxR[..., :, None] & (place_TxR[..., :, None] == np.arange(width))
    moved_TxR = jnp.where(goes_TxRxR, refs_TxR[..., :, None] + 1, 0).sum(-2) - 1
    return moved_TxR.astype(refs_TxR.dtype)
