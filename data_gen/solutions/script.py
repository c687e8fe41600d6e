"""The sentences of a solution: its steps, and the mistakes among them."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import draws
from data_gen.problems.parameters import Schedule, parameters
from data_gen.problems.problem import TERMS, Problem
from data_gen.problems.reask import operations
from data_gen.solutions.errors import Options
from data_gen.solutions.mistakes import ERRORS, KINDS, MENDINGS, PARAMETERS, RESTARTS, Mistakes
from data_gen.spec import Spec

BACK, FIX, RESTART = range(3)  # places in `MENDINGS`


class Script(NamedTuple):
    """The sentences of a solution in order; S is the sentence cap."""

    complete: jax.Array  # bool: every step found room
    sentences: jax.Array  # int32
    slot_S: jax.Array  # int32: the parameter that is written, -1 from `sentences` on
    step_S: jax.Array  # int32: the step that is written or, before a mistake, comes next
    wrong_S: jax.Array  # bool: a mistake
    kind_S: jax.Array  # int32: which of `KINDS`, -1 where it is none
    after_S: jax.Array  # int32: where a step rests on a mistake not yet noticed, its sentence; -1
    back_S: jax.Array  # int32: sentences that the marker at its end takes back, 0 without one
    mend_S: jax.Array  # int32: which of `MENDINGS` that marker is
    attempt_S: jax.Array  # int32: how often the solution was begun anew before it
    word_S: jax.Array  # uint32: what a wrong sentence is drawn from
    anew: jax.Array  # uint32: what the letters of later beginnings are drawn from


def script(
    key: jax.Array,
    problem: Problem,
    when: Schedule,
    choices: Options | None,
    mistakes: Mistakes,
    spec: Spec,
    sentences: int | None = None,
) -> Script:
    """Draws the mistakes of one solution; at rate 0 the steps alone, whatever the key.

    Args:
      key: what they are drawn from.
      problem: whose solution it is.
      when: its schedule (`data_gen.solutions.labels`).
      choices: where its steps can be written wrong (`data_gen.solutions.errors`).
      mistakes: the distribution.
      spec: the class.
      sentences: room for so many, by default for all but the very longest solutions.
    """
    cap, slot_P = sentences or mistakes.sentence_cap(spec), jnp.arange(spec.slots)
    source = draws.source(key)
    word_Sx2 = source.word(jnp.arange(2 * cap)).reshape(cap, 2)
    rates = mistakes.rates
    upto_K = np.cumsum([rate for _, rate in rates])
    upto_K = np.minimum((upto_K * 2.0**32).astype(np.uint64), 2**32 - 1).astype(np.uint32)
    number_K = np.array([KINDS.index(kind) for kind, _ in rates], np.int32)
    pools_K = _pools(problem, when, mistakes, spec)
    chance_KxT = None if choices is None else choices.chance_KxT

    def write(carry: tuple, word_2: jax.Array) -> tuple[tuple, tuple]:
        step, used_P, until, fixing, ahead, left, taken, origin, mend, attempt, number = carry
        follows = left > 0
        about = jnp.where(follows, ahead, step)
        live = follows | (step < problem.steps)
        at = jnp.minimum(about, spec.op_room - 1)
        right = problem.order_T[at]

        which = (word_2[0] >= upto_K).sum()
        kind = jnp.asarray(number_K)[jnp.minimum(which, len(rates) - 1)]
        errs = kind >= len(PARAMETERS)
        pool_P = jnp.zeros(spec.slots, bool)
        chance = jnp.bool_(False)
        for n, (name, _) in enumerate(rates):
            if name in PARAMETERS:
                pool_P = jnp.where(which == n, pools_K[n](step), pool_P)
            elif chance_KxT is not None:
                chance |= (which == n) & chance_KxT[ERRORS.index(name), at]
        pool_P &= ~used_P
        free = live & ~follows & ~fixing & (step >= until)
        wrong = free & (which < len(rates)) & (pool_P.any() | chance)
        slot = jnp.where(wrong & ~errs, draws.pick(word_2[1], pool_P), right)

        # A wrong parameter comes before the step, a wrong sentence in its place.
        unseen = jnp.minimum(mistakes.late, problem.steps - step - errs)
        taken = jnp.where(wrong, 1 + unseen, taken)
        mend = jnp.where(wrong, _mending(word_2[1], errs, attempt, mistakes), mend)
        origin = jnp.where(wrong, number, origin)
        noticed = (wrong & (unseen == 0)) | (follows & (left == 1))
        anew = noticed & (mend == RESTART)
        goes_on = live & ~wrong & ~follows

        used_P = (used_P | (wrong & ~errs & (slot_P == slot))) & ~(goes_on & (step >= until))
        until = jnp.where(anew, step, until)
        fixing = jnp.where(noticed, mend == FIX, fixing & ~goes_on)
        ahead = jnp.where(wrong, step + errs, ahead + follows)
        left = jnp.where(wrong, unseen, left - follows)
        written = (
            jnp.where(live, slot, -1),
            about,
            wrong,
            jnp.where(wrong, kind, -1),
            jnp.where(follows, origin, -1),
            jnp.where(noticed, taken, 0),
            mend,
            attempt,
            draws.mix(word_2[1] ^ np.uint32(0x2545F491)),
        )
        step = jnp.where(anew, 0, step + goes_on)
        carry = (step, used_P, until, fixing, ahead, left, taken, origin, mend)
        return (*carry, attempt + anew, number + 1), written

    zero, no = jnp.int32(0), jnp.bool_(False)
    start = (zero, jnp.zeros(spec.slots, bool), zero, no, *[zero] * 7)
    (done, *_), written = jax.lax.scan(write, start, word_Sx2)
    anew = draws.mix(source.first ^ draws.mix(source.second))
    columns = (done >= problem.steps, (written[0] >= 0).sum(), *written, anew)
    return Script(*columns)


def _mending(word: jax.Array, errs: jax.Array, attempt: jax.Array, mistakes: Mistakes) -> jax.Array:
    """int32: which of `MENDINGS` a mistake is mended by."""
    shares = dict(mistakes.mendings)
    upto = np.cumsum([shares.get(name, 0.0) for name in MENDINGS])[:-1]
    upto_M = np.minimum(np.round(upto * 2.0**32), 2**32 - 1).astype(np.uint32)
    # The last one with a share takes what rounding leaves.
    last = max(MENDINGS.index(name) for name, share in shares.items() if share > 0)
    lot = draws.mix(word ^ np.uint32(0x9E3779B9))
    drawn = jnp.minimum((lot >= upto_M).sum(), last)
    drawn = jnp.where((drawn == FIX) & ~errs, BACK, drawn)
    return jnp.where((drawn == RESTART) & (attempt >= RESTARTS), BACK, drawn)


def _pools(
    problem: Problem, when: Schedule, mistakes: Mistakes, spec: Spec
) -> list[Callable[[jax.Array], jax.Array]]:
    """For each kind of wrong parameter: from a step to bool[P], which may come before it."""
    cost_P = operations(problem, parameters(problem.structure, spec), spec)
    live_T = problem.order_T >= 0
    before_T = jnp.cumsum(jnp.where(live_T, cost_P[problem.order_T], 0))
    before_T = jnp.concatenate([jnp.zeros(1, jnp.int32), before_T])
    stated_P = when.stated_P | (when.slot_P & (np.arange(spec.slots) >= spec.instance_slots))

    def fits(step: jax.Array, more: int) -> jax.Array:
        """Its sentence finds letters that no step uses that is not taken back."""
        used = problem.op if mistakes.late else before_T[jnp.minimum(step, spec.op_room)]
        return cost_P + used + more <= spec.letters

    def pool(kind: str, step: jax.Array) -> jax.Array:
        waiting_P = when.slot_P & (when.solved_P >= step)
        if kind == "unneeded":
            unused_P = stated_P & (when.solved_P > spec.op_room)
            return unused_P & (when.ready_P <= step) & fits(step, 0)
        if kind in ("retry", "skip"):
            pool_P = waiting_P & (when.ready_P > step)
        elif kind == "retry_miss":
            pool_P = waiting_P & when.stated_P
        else:
            later_P = waiting_P & (when.solved_P < problem.steps)
            pool_P = later_P & ((when.solved_P > step) | (kind == "retry_weak_public"))
        # What it needs and is not known takes letters too.
        return pool_P & fits(step, max(2 * spec.max_width, TERMS)) if mistakes.whole else pool_P

    return [functools.partial(pool, kind) for kind, _ in mistakes.rates]
