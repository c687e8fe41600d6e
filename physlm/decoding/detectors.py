"""Whom retry upon regret asks: the problem itself, or a trained probe.

Names as in `physlm.decoding.naming`, and P: slots of a problem's parameters, Z: steps of a text.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data_gen.problems.parameters import direct_needs, parameters
from data_gen.problems.problem import Problem
from data_gen.spec import Spec
from data_gen.windows import questions
from physlm import cache as cache_lib
from physlm import model, probe
from physlm.architecture import ModelConfig
from physlm.cache import Cache
from physlm.decoding.naming import Marks, Named
from physlm.decoding.strategy import Rows

# Steps of a text that the perfect detector can keep in mind; later ones take the last place.
_STEPS = 128

# Tokens that a probe reads at once, those of the question included.
_AT_ONCE = 24


class Known(NamedTuple):
    """What is true of problems (leading axis N)."""

    asked_NxPxA: jax.Array  # int32: each parameter in brackets
    exists_NxP: jax.Array  # bool: the slot is a parameter of the problem
    needs_NxPxP: jax.Array  # bool: the row needs the column directly


@functools.partial(jax.jit, static_argnames="spec")
def known(problems_N: Problem, *, spec: Spec) -> Known:
    """What the perfect detector is to know of problems."""

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
    """Knows the problem: yes where all that a parameter needs has been computed and it has not.

    Its `resources` are a pair of which the second is `Known`, of each row.
    """

    marks: Marks

    def begin(
        self, resources: Any, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Steps:
        """No step."""
        del resources, prompts_FxP, room
        none_FxZ = jnp.zeros((len(prompt_F), _STEPS), jnp.int32)
        return Steps(none_FxZ, none_FxZ, jnp.zeros(len(prompt_F), jnp.int32))

    def ask(
        self, resources: tuple[Any, Known], rows: Rows, named: Named, own: Steps
    ) -> tuple[jax.Array, Steps]:
        """Whether it can be computed next, by the steps that stand before it."""
        facts = resources[1]
        count_B = self._standing(rows, named, own)
        same_BxP = (facts.asked_NxPxA == named.asked_BxA[:, None]).all(-1) & facts.exists_NxP
        slot_B = jnp.where(same_BxP.any(-1), jnp.argmax(same_BxP, axis=-1), -1)
        place_Z = jnp.arange(_STEPS)
        stands_BxZ = place_Z < count_B[:, None]
        slot_P = jnp.arange(same_BxP.shape[1])
        is_BxZxP = stands_BxZ[..., None] & (own.slot_BxZ[..., None] == slot_P)
        done_BxP = is_BxZxP.any(1)
        needs_BxP = jnp.take_along_axis(
            facts.needs_NxPxP, jnp.maximum(slot_B, 0)[:, None, None], axis=1
        )[:, 0]
        can_B = same_BxP.any(-1) & ~(needs_BxP & ~done_BxP).any(-1) & ~(same_BxP & done_BxP).any(-1)
        put_BxZ = (place_Z == jnp.minimum(count_B, _STEPS - 1)[:, None]) & named.there_B[:, None]
        return can_B, Steps(
            jnp.where(put_BxZ, named.cut_B[:, None], own.begin_BxZ),
            jnp.where(put_BxZ, slot_B[:, None], own.slot_BxZ),
            jnp.where(named.there_B, count_B + 1, own.count_B),
        )

    def _standing(self, rows: Rows, named: Named, own: Steps) -> jax.Array:
        """How many steps stand before a name: not those that the text, or the writer, took back."""
        place_Z = jnp.arange(_STEPS)
        before_BxZ = (place_Z < own.count_B[:, None]) & (own.begin_BxZ < named.cut_B[:, None])
        count_B = before_BxZ.sum(-1)
        # Markers stand at the end of the last sentence, before its full stop.
        begin_B = jnp.take_along_axis(own.begin_BxZ, jnp.maximum(count_B - 1, 0)[:, None], 1)
        place_L = jnp.arange(rows.text_BxL.shape[1])
        last_BxL = (place_L >= begin_B) & (place_L < named.cut_B[:, None])
        last_BxL &= (count_B > 0)[:, None]
        marker_BxL = last_BxL & jnp.isin(rows.text_BxL, jnp.array(self.marks.back))
        anew_B = (last_BxL & (rows.text_BxL == self.marks.restart)).any(-1)
        return jnp.where(anew_B, 0, jnp.maximum(count_B - marker_BxL.sum(-1), 0))


class Reading(NamedTuple):
    """What a probe has read of each text."""

    read_B: jax.Array  # int32: how many tokens
    cache: Cache


@dataclasses.dataclass(frozen=True)
class Probed:
    """A trained probe of the task can_next; it reads what is new when it is asked.

    Its `resources` are a pair of which the first are the parameters of the joined model, `unrolled`
    and with the head (`physlm.probe`).

    Attributes:
      config: of the model that was probed.
      least: the probability from which on the answer is yes.
    """

    config: ModelConfig
    least: float = 0.5

    def begin(
        self, resources: Any, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Reading:
        """Reads the prompts."""
        params = self._model(resources[0])
        cache = cache_lib.read(self.config, params, prompts_FxP)
        return Reading(prompt_F, cache_lib.resized(cache, room + _AT_ONCE))

    def ask(
        self, resources: tuple[Any, Any], rows: Rows, named: Named, own: Reading
    ) -> tuple[jax.Array, Reading]:
        """Reads up to each name's sentence, and then the name in brackets."""
        params, room = resources[0], named.asked_BxA.shape[1]
        cut_B = jnp.where(named.there_B, named.cut_B, own.read_B)
        place_A = jnp.arange(max(_AT_ONCE, 2 * room))
        text_BxL = rows.text_BxL

        def tokens(read_B: jax.Array) -> jax.Array:
            at_BxA = jnp.minimum(read_B[:, None] + place_A, text_BxL.shape[1] - 1)
            return jnp.take_along_axis(text_BxL, at_BxA, axis=1)

        def far(own: Reading) -> jax.Array:
            return (cut_B - own.read_B).max() > len(place_A) - room

        def read(own: Reading) -> Reading:
            more_B = jnp.minimum(cut_B - own.read_B, len(place_A))
            model_params, read_BxA = self._model(params), tokens(own.read_B)
            *_, cache = cache_lib.go_on(self.config, model_params, read_BxA, own.read_B, own.cache)
            return Reading(own.read_B + more_B, cache)

        own = jax.lax.while_loop(far, read, own)
        left_B = cut_B - own.read_B
        inside_BxA = place_A < left_B[:, None]
        at_BxA = jnp.clip(place_A - left_B[:, None], 0, room - 1)
        asked_BxA = jnp.take_along_axis(named.asked_BxA, at_BxA, axis=1)
        read_BxA = jnp.where(inside_BxA, tokens(own.read_B), asked_BxA)
        frame, x_BxAxD, cache = cache_lib.go_on(
            self.config, self._model(params), read_BxA, own.read_B, own.cache
        )
        last_Bx1x1 = (left_B + named.count_B - 1)[:, None, None]
        h_BxD = frame.norm(jnp.take_along_axis(x_BxAxD, last_Bx1x1, axis=1)[:, 0])
        yes_B = jax.nn.softmax(probe.answered(params, h_BxD))[:, 1] >= self.least
        # What was asked is forgotten: its slots lie after what has been read.
        return yes_B, Reading(cut_B, cache)

    @staticmethod
    def _model(params: model.Params) -> model.Params:
        return {name: part for name, part in params.items() if name != probe.HEAD}
