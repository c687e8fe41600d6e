"""Which wrong steps a solution holds, and which of their tokens bear no loss."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import draws
from data_gen.labels import Schedule
from data_gen.problem import Problem
from data_gen.spec import Spec

KINDS = ("retry", "retry_weak", "retry_miss")
MASKS = ("none", "name", "sentence", "all")


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """A distribution of mistakes, each followed at once by its correction (Part 2.2, Section 4).

    Before each step, with probability `rate`, a sentence "Define (a wrong parameter) as BACK."
    is put in, and again with probability `rate`, and so on. At one position no parameter comes
    twice; at a later one it may.

    Attributes:
      kind: where wrong parameters come from, uniformly:
        "retry": those that cannot be computed yet;
        "retry_weak": those of the steps after the one about to be written;
        "retry_miss": those that the problem states and the solution has not reached.
      rate: in [0, 1).
      mask: which tokens of a mistake bear no loss: "none", "name" (the wrong parameter's),
        "sentence" (its "Define" and "as" too), "all" (the marker too).
    """

    kind: str = "retry"
    rate: float = 0.0
    mask: str = "none"

    def __post_init__(self) -> None:
        """Refuses unknown kinds and masks and rates outside [0, 1).

        Raises:
          ValueError: names the field, its value and what is allowed.
        """
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is unknown; choose one of {', '.join(KINDS)}.")
        if self.mask not in MASKS:
            raise ValueError(f"mask={self.mask!r} is unknown; choose one of {', '.join(MASKS)}.")
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(f"rate={self.rate!r} is not allowed: a number in [0, 1) is.")

    def sentence_cap(self, spec: Spec) -> int:
        """Sentences of a solution that there is room for: six deviations above the mean."""
        if self.rate == 0.0:
            return spec.op_room
        mean = spec.op_room * self.rate / (1 - self.rate)
        deviation = math.sqrt(spec.op_room * self.rate) / (1 - self.rate)
        return spec.op_room + math.ceil(mean + 6 * deviation) + 4


class Script(NamedTuple):
    """The sentences of a solution in order; S is the sentence cap."""

    complete: jax.Array  # bool: every step found room
    sentences: jax.Array  # int32
    slot_S: jax.Array  # int32: the parameter that is written, -1 from `sentences` on
    step_S: jax.Array  # int32: the step that is written or, before a mistake, comes next
    wrong_S: jax.Array  # bool: a mistake


def script(
    key: jax.Array, problem: Problem, when: Schedule, mistakes: Mistakes, spec: Spec
) -> Script:
    """Draws the mistakes of one solution; at rate 0 the steps alone, whatever the key."""
    cap, slot_P = mistakes.sentence_cap(spec), jnp.arange(spec.slots)
    threshold = np.uint32(min(int(mistakes.rate * 2.0**32), 2**32 - 1))
    word_Sx2 = draws.words(key, 2 * cap).reshape(cap, 2)

    def write(carry: tuple, word_2: jax.Array) -> tuple[tuple, tuple]:
        step, used_P = carry
        live = step < problem.steps
        waiting_P = when.slot_P & (when.solved_P >= step)
        if mistakes.kind == "retry":
            pool_P = waiting_P & (when.ready_P > step)
        elif mistakes.kind == "retry_weak":
            pool_P = waiting_P & (when.solved_P > step) & (when.solved_P < problem.steps)
        else:
            pool_P = waiting_P & when.stated_P
        pool_P &= ~used_P
        wrong = live & (word_2[0] < threshold) & pool_P.any()
        right = problem.order_T[jnp.minimum(step, spec.op_room - 1)]
        slot = jnp.where(wrong, draws.pick(word_2[1], pool_P), right)
        used_P = wrong & (used_P | (slot_P == slot))
        return (step + (live & ~wrong), used_P), (jnp.where(live, slot, -1), step, wrong)

    start = (jnp.int32(0), jnp.zeros(spec.slots, bool))
    (done, _), (slot_S, step_S, wrong_S) = jax.lax.scan(write, start, word_Sx2)
    return Script(done >= problem.steps, (slot_S >= 0).sum(), slot_S, step_S, wrong_S)
