"""The sentences of a solution in order: its steps, and the mistakes among them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import draws
from data_gen.problems.problem import TERMS, Problem
from data_gen.solutions.kinds import Moment, WrongParameter
from data_gen.solutions.mistakes import BACK, FIX, MENDINGS, RESTART, RESTARTS, Mistakes
from data_gen.solutions.steps import Steps, wrong_sentences
from data_gen.spec import Spec


class Script(NamedTuple):
    """The sentences of a solution in order; S is the sentence cap."""

    complete: jax.Array  # bool: every step found room
    sentences: jax.Array  # int32
    slot_S: jax.Array  # int32: the parameter that is written, -1 from `sentences` on
    step_S: jax.Array  # int32: the step that is written or, before a mistake, comes next
    wrong_S: jax.Array  # bool: a mistake
    misnamed_S: jax.Array  # bool: one about another parameter than the step's
    kind_S: jax.Array  # int32: which kind of its distribution, -1 where it is no mistake
    after_S: jax.Array  # int32: where a step rests on a mistake not yet noticed, its sentence; -1
    back_S: jax.Array  # int32: sentences that the marker at its end takes back, 0 without one
    mend_S: jax.Array  # int32: which of `MENDINGS` that marker is
    attempt_S: jax.Array  # int32: how often the solution was begun anew before it
    word_S: jax.Array  # uint32: what a wrong sentence is drawn from
    turn_S: jax.Array  # int32: how many before it are drawn from the same
    anew: jax.Array  # uint32: what the letters of later beginnings are drawn from


class _State(NamedTuple):
    """Loop state of writing a solution, before a sentence."""

    step: jax.Array  # int32: steps done
    named_P: jax.Array  # bool: written wrongly since the last step
    turn_K: jax.Array  # int32: wrong sentences since then, of each kind of these
    word_K: jax.Array  # uint32: what they are drawn from
    until: jax.Array  # int32: no mistake is made before this step
    fixing: jax.Array  # bool: a mistake was ended by FIX, and its step comes now
    ahead: jax.Array  # int32: the next step that is written resting on a mistake
    left: jax.Array  # int32: how many such steps are still to come
    taken: jax.Array  # int32: sentences that the last mistake's marker takes back
    origin: jax.Array  # int32: that mistake's sentence
    mend: jax.Array  # int32: how it is mended
    attempt: jax.Array  # int32: how often the solution was begun anew
    sentence: jax.Array  # int32: sentences written


def draw_script(
    key: jax.Array,
    problem: Problem,
    steps: Steps,
    mistakes: Mistakes,
    spec: Spec,
    sentences: int | None = None,
) -> Script:
    """Draws the mistakes of one solution; at rate 0 the steps alone, whatever the key.

    Args:
      key: what the mistakes are drawn from.
      problem: whose solution it is.
      steps: what is worked out of it, with candidates of the same distribution.
      mistakes: the distribution.
      spec: the class.
      sentences: room for so many, by default for all but the very longest solutions.

    Raises:
      ValueError: a kind gives candidates of a wrong shape.
    """
    cap, slot_P = sentences or mistakes.sentence_cap(spec), jnp.arange(spec.slots)
    source = draws.source(key)
    # The first word is for letters, so that no room for sentences changes it.
    word_Sx2 = source.word(1 + jnp.arange(2 * cap)).reshape(cap, 2)
    rates = mistakes.rates
    upto_K = (np.cumsum([rate for _, rate in rates]) * 2.0**32).astype(np.uint32)
    pool_of = _pools(problem, steps, mistakes, spec)
    numbers, candidates = list(wrong_sentences(mistakes)), steps.candidates
    none_TxK = jnp.zeros((spec.op_room, 0), jnp.int32)
    count_TxK = none_TxK if candidates is None else candidates.count_TxK
    number_K = np.array(numbers, np.int32)

    def write(state: _State, word_2: jax.Array) -> tuple[_State, dict[str, jax.Array]]:
        step, follows = state.step, state.left > 0
        about = jnp.where(follows, state.ahead, step)
        live = follows | (step < problem.steps)
        at = jnp.minimum(about, spec.op_room - 1)
        right = problem.order_T[at]

        kind = (word_2[0] >= upto_K).sum()
        pool_P, errs = jnp.zeros(spec.slots, bool), jnp.bool_(False)
        for number, (drawn, _) in enumerate(rates):
            if isinstance(drawn, WrongParameter):
                pool_P = jnp.where(kind == number, pool_of(drawn, step), pool_P)
        left_K = state.turn_K < count_TxK[at]
        for place, number in enumerate(numbers):
            errs |= (kind == number) & left_K[place]
        pool_P &= ~state.named_P
        free = live & ~follows & ~state.fixing & (step >= state.until)
        misnamed = free & pool_P.any()
        wrong = misnamed | (free & errs)
        errs = wrong & ~misnamed
        slot = jnp.where(misnamed, draws.pick(word_2[1], pool_P), right)

        # A wrong parameter comes before the step, a wrong sentence in its place.
        unseen = jnp.minimum(mistakes.late, problem.steps - step - errs)
        taken = jnp.where(wrong, 1 + unseen, state.taken)
        mend = jnp.where(wrong, _mending(word_2[1], errs, state.attempt, mistakes), state.mend)
        noticed = (wrong & (unseen == 0)) | (follows & (state.left == 1))
        anew = noticed & (mend == RESTART)
        goes_on = live & ~wrong & ~follows

        named_P = state.named_P | (misnamed & (slot_P == slot))
        # What is wrong at one position is drawn from one word for each kind, none of it twice.
        errs_K, word = errs & (number_K == kind), draws.named(word_2[1], "sentence")
        word_K = jnp.where(state.turn_K > 0, state.word_K, word)
        written = {
            "slot_S": jnp.where(live, slot, -1),
            "step_S": about,
            "wrong_S": wrong,
            "misnamed_S": misnamed,
            "kind_S": jnp.where(wrong, kind, -1),
            "after_S": jnp.where(follows, state.origin, -1),
            "back_S": jnp.where(noticed, taken, 0),
            "mend_S": mend,
            "attempt_S": state.attempt,
            "word_S": jnp.where(errs, jnp.where(errs_K, word_K, 0).sum(dtype=jnp.uint32), word),
            "turn_S": jnp.where(errs_K, state.turn_K, 0).sum(),
        }
        leaves = goes_on & (step >= state.until)
        state = _State(
            step=jnp.where(anew, 0, step + goes_on),
            named_P=named_P & ~leaves,
            turn_K=jnp.where(leaves, 0, state.turn_K + errs_K),
            word_K=jnp.where(errs_K, word_K, state.word_K),
            until=jnp.where(anew, step, state.until),
            fixing=jnp.where(noticed, mend == FIX, state.fixing & ~goes_on),
            ahead=jnp.where(wrong, step + errs, state.ahead + follows),
            left=jnp.where(wrong, unseen, state.left - follows),
            taken=taken,
            origin=jnp.where(wrong, state.sentence, state.origin),
            mend=mend,
            attempt=state.attempt + anew,
            sentence=state.sentence + 1,
        )
        return state, written

    zero, no = jnp.int32(0), jnp.bool_(False)
    none_K = jnp.zeros(len(numbers), jnp.int32)
    drawn_from = none_K.astype(jnp.uint32)
    start = _State(zero, jnp.zeros(spec.slots, bool), none_K, drawn_from, zero, no, *[zero] * 7)
    end, written = jax.lax.scan(write, start, word_Sx2)
    return Script(
        complete=end.step >= problem.steps,
        sentences=(written["slot_S"] >= 0).sum(),
        **written,
        anew=source.word(0),
    )


def _mending(word: jax.Array, errs: jax.Array, attempt: jax.Array, mistakes: Mistakes) -> jax.Array:
    """int32: which of `MENDINGS` a mistake is mended by."""
    shares = dict(mistakes.mendings)
    upto = np.cumsum([shares.get(name, 0.0) for name in MENDINGS])[:-1]
    upto_Z = np.minimum(np.round(upto * 2.0**32), 2**32 - 1).astype(np.uint32)
    # The last one with a share takes what rounding leaves.
    last = max(MENDINGS.index(name) for name, share in shares.items() if share > 0)
    lot = draws.named(word, "mending")
    drawn = jnp.minimum((lot >= upto_Z).sum(), last)
    drawn = jnp.where((drawn == FIX) & ~errs, BACK, drawn)
    return jnp.where((drawn == RESTART) & (attempt >= RESTARTS), BACK, drawn)


def _pools(
    problem: Problem, steps: Steps, mistakes: Mistakes, spec: Spec
) -> Callable[[WrongParameter, jax.Array], jax.Array]:
    """For each kind of wrong parameter and each step, bool[P]: the candidates before it."""
    params = steps.params
    live_T = problem.order_T >= 0
    before_T = jnp.cumsum(jnp.where(live_T, params.operations_P[problem.order_T], 0))
    before_T = jnp.concatenate([jnp.zeros(1, jnp.int32), before_T])

    def pool(kind: WrongParameter, step: jax.Array) -> jax.Array:
        moment = Moment(problem, params, step, spec)
        pool_P = kind.candidates(moment)
        if pool_P.dtype != bool or pool_P.shape != (spec.slots,):
            raise ValueError(
                f"candidates of kind {kind.name!r} is {pool_P.dtype}{list(pool_P.shape)}; it must "
                f"be bool[{spec.slots}]."
            )
        pool_P &= params.exists_P
        if kind.right:
            pool_P &= moment.ready_P
        if mistakes.stops_at_name(kind):
            return pool_P
        # Its sentence finds letters that no step uses that is not taken back, also for what it
        # needs and is not known.
        used = problem.op if mistakes.late else before_T[jnp.minimum(step, spec.op_room)]
        guessed_P = jnp.where(moment.ready_P, 0, max(2 * spec.max_width, TERMS))
        return pool_P & (params.operations_P + guessed_P + used <= spec.letters)

    return pool
