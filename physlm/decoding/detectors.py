"""Detectors of premature steps: perfect knowledge of the problem, or a trained probe.

Names as in `physlm.decoding.naming`, and P: slots of a problem's parameters, Z: steps of a text.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from data_gen.problems.parameters import direct_needs, parameters
from data_gen.problems.problem import Problem
from data_gen.spec import Spec
from data_gen.windows import questions
from physlm import branches, model, probe
from physlm import cache as cache_lib
from physlm.adaptation import DOCUMENT
from physlm.architecture import ModelConfig
from physlm.cache import Cache
from physlm.decoding.naming import Marks, Named
from physlm.decoding.strategy import Resources, Rows

# Steps of a text that the perfect detector remembers; further ones overwrite the last.
_STEPS = 128

# Tokens that a probe reads at once, at least.
_AT_ONCE = 16


class Known(NamedTuple):
    """The facts about problems that the perfect detector needs (leading axis N)."""

    asked_NxPxA: jax.Array  # int32: each parameter in brackets
    exists_NxP: jax.Array  # bool: the slot is a parameter of the problem
    needs_NxPxP: jax.Array  # bool: the row needs the column directly


@functools.partial(jax.jit, static_argnames="spec")
def known(problems_N: Problem, *, spec: Spec) -> Known:
    """The facts of some problems."""

    def one(problem: Problem) -> Known:
        params = parameters(problem, spec)
        asked_PxA, _ = questions.names(problem, spec)
        return Known(asked_PxA, params.slot_P, direct_needs(params, spec))

    return jax.vmap(one)(problems_N)


class Steps(NamedTuple):
    """The steps of each text in order: where each begins, and what it defines."""

    begin_BxZ: jax.Array  # int32: tokens before it
    slot_BxZ: jax.Array  # int32
    count_B: jax.Array  # int32


@dataclasses.dataclass(frozen=True)
class Perfect:
    """Says yes where all that a parameter needs is computed, and the parameter itself is not.

    Of its resources it uses those of rows, the `Known` of each.
    """

    marks: Marks

    @property
    def passes(self) -> int:
        """None: it runs no model."""
        return 0

    def begin(
        self, resources: Resources, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Steps:
        """The state of new texts: no step."""
        del resources, prompts_FxP, room
        none_FxZ = jnp.zeros((len(prompt_F), _STEPS), jnp.int32)
        return Steps(none_FxZ, none_FxZ, jnp.zeros(len(prompt_F), jnp.int32))

    def resized(self, own: Steps, slots: int) -> Steps:
        """The state as it is: it does not depend on the cache's size."""
        del slots
        return own

    def continued(self, own: Steps, source_B: jax.Array, shared_B: jax.Array) -> Steps:
        """The steps of the rows that others go on from."""
        del shared_B
        return jax.tree.map(lambda x: x[source_B], own)

    def ask(
        self, resources: Resources, rows: Rows, named: Named, own: Steps
    ) -> tuple[jax.Array, Steps]:
        """Whether each name can be computed next, given the steps that stand before it."""
        can = []
        for place in range(named.there_BxQ.shape[1]):
            there_B, cut_B, _, asked_BxA, _ = (x[:, place] for x in named)
            can_B, own = self._one(resources.of_rows, rows, there_B, cut_B, asked_BxA, own)
            can.append(can_B)
        return jnp.stack(can, axis=1), own

    def _one(
        self,
        facts: Known,
        rows: Rows,
        there_B: jax.Array,
        cut_B: jax.Array,
        asked_BxA: jax.Array,
        own: Steps,
    ) -> tuple[jax.Array, Steps]:
        """As `ask`, for one name of each text."""
        every_B = jnp.arange(len(cut_B))
        count_B = self._standing(rows, cut_B, own)
        same_BxP = (facts.asked_NxPxA == asked_BxA[:, None]).all(-1) & facts.exists_NxP
        slot_B = jnp.where(same_BxP.any(-1), jnp.argmax(same_BxP, axis=-1), -1)
        stands_BxZ = jnp.arange(_STEPS) < count_B[:, None]
        at_BxZ = jnp.where(stands_BxZ & (own.slot_BxZ >= 0), own.slot_BxZ, same_BxP.shape[1])
        done_BxP = jnp.zeros_like(same_BxP).at[every_B[:, None], at_BxZ].set(True, mode="drop")
        needs_BxP = facts.needs_NxPxP[every_B, jnp.maximum(slot_B, 0)]
        can_B = same_BxP.any(-1) & ~(needs_BxP & ~done_BxP).any(-1) & ~(same_BxP & done_BxP).any(-1)
        put_B = jnp.where(there_B, jnp.minimum(count_B, _STEPS - 1), _STEPS)
        return can_B, Steps(
            own.begin_BxZ.at[every_B, put_B].set(cut_B, mode="drop"),
            own.slot_BxZ.at[every_B, put_B].set(slot_B, mode="drop"),
            jnp.where(there_B, count_B + 1, own.count_B),
        )

    def _standing(self, rows: Rows, cut_B: jax.Array, own: Steps) -> jax.Array:
        """How many steps before a name still stand, not taken back by markers or rolled back."""
        place_Z = jnp.arange(_STEPS)
        before_BxZ = (place_Z < own.count_B[:, None]) & (own.begin_BxZ < cut_B[:, None])
        count_B = before_BxZ.sum(-1)
        # Markers stand at the end of the last sentence, before its full stop.
        begin_B = jnp.take_along_axis(own.begin_BxZ, jnp.maximum(count_B - 1, 0)[:, None], 1)
        place_L = jnp.arange(rows.text_BxL.shape[1])
        last_BxL = (place_L >= begin_B) & (place_L < cut_B[:, None])
        last_BxL &= (count_B > 0)[:, None]
        marker_BxL = last_BxL & jnp.isin(rows.text_BxL, jnp.array(self.marks.back))
        anew_B = (last_BxL & (rows.text_BxL == self.marks.restart)).any(-1)
        return jnp.where(anew_B, 0, jnp.maximum(count_B - marker_BxL.sum(-1), 0))


class Reading(NamedTuple):
    """How far a probe has read each text."""

    read_B: jax.Array  # int32: how many tokens
    cache: Cache


@dataclasses.dataclass(frozen=True)
class Probed:
    """A trained probe of the task can_next.

    Of its resources it uses those that are shared: the parameters of the model joined with the
    probe, `unrolled`, its head among them (`physlm.probe`).

    A probe that reads texts by the model as it adapts it has a cache of its own, which it fills
    when asked. For one that has them read by the frozen model, which has written them, the cache
    of decoding serves, so that it reads questions alone, and has no state.

    Attributes:
      config: of the model that was probed.
      room: A, tokens that a name in brackets has at most.
      least: the probability from which on it says yes.
    """

    config: ModelConfig
    room: int
    least: float = 0.5

    @property
    def at_once(self) -> int:
        """T, tokens that are read at once: room for a name, and at least as much for text."""
        return max(_AT_ONCE, 2 * self.room)

    @property
    def passes(self) -> int:
        """One, which reads the question, and before it what is new of the text."""
        return 1

    def begin(
        self, resources: Resources, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Reading | None:
        """Reads the prompts, where the cache of decoding does not serve."""
        del room
        if DOCUMENT in resources.shared:
            return None
        params = probe.for_texts(resources.shared)
        return Reading(prompt_F, cache_lib.read(self.config, params, prompts_FxP))

    def resized(self, own: Reading | None, slots: int) -> Reading | None:
        """The state with its cache resized; chunks of reading may overrun by `at_once` slots."""
        if own is None:
            return None
        return own._replace(cache=cache_lib.resized(own.cache, slots + self.at_once))

    def continued(
        self, own: Reading | None, source_B: jax.Array, shared_B: jax.Array
    ) -> Reading | None:
        """What was read of the rows that others go on from."""
        if own is None:
            return None
        shared_B = jnp.minimum(shared_B, own.read_B)
        cache = cache_lib.continued(own.cache, source_B, shared_B, own.read_B)
        return Reading(own.read_B[source_B], cache)

    def ask(
        self, resources: Resources, rows: Rows, named: Named, own: Reading | None
    ) -> tuple[jax.Array, Reading | None]:
        """Reads each text up to the sentence of each of its names, and the name in brackets."""
        if own is None:
            return self._of_questions(resources, named), None
        yes = []
        for place in range(named.there_BxQ.shape[1]):
            one = jax.tree.map(lambda x, at=place: x[:, at], named)
            yes_B, own = self._one(resources.shared, rows, one, own)
            yes.append(yes_B)
        yes_BxQ = jnp.stack(yes, axis=1)
        # Text from a refused name on is dropped, so it counts as not read.
        no_BxQ = named.there_BxQ & ~yes_BxQ
        kept_B = jnp.where(no_BxQ, named.cut_BxQ, own.read_B[:, None]).min(1)
        return yes_BxQ, own._replace(read_B=kept_B)

    def _one(
        self, params: model.Params, rows: Rows, named: Named, own: Reading
    ) -> tuple[jax.Array, Reading]:
        """As `ask`, for one name of each text."""
        model_params, text_BxL = probe.for_questions(params), rows.text_BxL
        there_B, cut_B, _, asked_BxA, count_B = named
        place_T = jnp.arange(self.at_once)
        upto_B = jnp.where(there_B, cut_B, own.read_B)

        def long(own: Reading) -> jax.Array:
            return (upto_B - own.read_B > self.at_once - self.room).any()

        def read(own: Reading) -> Reading:
            at_BxT = jnp.minimum(own.read_B[:, None] + place_T, text_BxL.shape[1] - 1)
            tokens_BxT = jnp.take_along_axis(text_BxL, at_BxT, axis=1)
            *_, cache = cache_lib.go_on(
                self.config, model_params, tokens_BxT, own.read_B, own.cache
            )
            return Reading(jnp.clip(upto_B, own.read_B, own.read_B + self.at_once), cache)

        own = jax.lax.while_loop(long, read, own)
        # The question stands where the sentence does; when that is read later, it overwrites it.
        left_B = upto_B - own.read_B
        at_BxT = jnp.minimum(own.read_B[:, None] + place_T, text_BxL.shape[1] - 1)
        asks_BxT = jnp.clip(place_T - left_B[:, None], 0, self.room - 1)
        tokens_BxT = jnp.where(
            place_T < left_B[:, None],
            jnp.take_along_axis(text_BxL, at_BxT, axis=1),
            jnp.take_along_axis(asked_BxA, asks_BxT, axis=1),
        )
        frame, x_BxTxD, cache = cache_lib.go_on(
            self.config, model_params, tokens_BxT, own.read_B, own.cache
        )
        x_BxD = jnp.take_along_axis(x_BxTxD, (left_B + count_B - 1)[:, None, None], axis=1)[:, 0]
        return self._says_yes(params, frame.norm(x_BxD)), Reading(upto_B, cache)

    def _of_questions(self, resources: Resources, named: Named) -> jax.Array:
        """The answers, bool [B, Q], by questions alone; the texts were read while written."""
        params = resources.shared
        stream_BxQxAxD = branches.states(
            self.config,
            probe.for_questions(params),
            resources.cache,
            named.cut_BxQ,
            named.asked_BxQxA,
        )
        last_BxQx1x1 = (named.count_BxQ - 1)[:, :, None, None]
        x_BxQxD = jnp.take_along_axis(stream_BxQxAxD, last_BxQx1x1, axis=2)[:, :, 0]
        return self._says_yes(params, x_BxQxD)

    def _says_yes(self, params: model.Params, x: jax.Array) -> jax.Array:
        return jax.nn.softmax(probe.answered(params, x))[..., 1] >= self.least
