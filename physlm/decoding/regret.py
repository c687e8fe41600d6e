"""Retry upon regret: what a detector takes for a mistake is taken back and tried again.

Part 2.2, Section 3: as soon as a step has named its parameter, a detector says whether it can be
computed next. Where it cannot, the writer goes back to the end of the step before and draws that
step again.

Names as in `physlm.decoding.naming`, and R: names that a step may have been refused.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data_gen import settings
from data_gen.spec import Spec
from physlm import cache as cache_lib
from physlm.architecture import ModelConfig
from physlm.decoding import detectors
from physlm.decoding.beam import Beam
from physlm.decoding.naming import Detector, Marks, Named, marks_of, names
from physlm.decoding.pruned import Pruned
from physlm.decoding.sampling import DETECTORS, Drawing, drawn
from physlm.decoding.strategy import Choice, Each, Review, Rows


class Regrets(NamedTuple):
    """The state of a row: what has been asked about, and whether its step is tried again."""

    asked_B: jax.Array  # int32: tokens in which all names have been asked about
    again_B: jax.Array  # bool: the step that is being written is drawn
    cut_B: jax.Array  # int32: tokens before the step whose names have been refused
    refused_BxRxA: jax.Array  # int32: those names in brackets
    count_B: jax.Array  # int32: how many they are
    detector: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regret(Drawing):
    """Greedy, but for steps that a detector has refused, which are drawn again.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    FIRST = "detector"

    detector: str = settings.choice("probe", "Whom to ask.", DETECTORS)
    tries: int = settings.whole(
        10, "How often a solution is taken back to a step at most; then everything stays.", low=1
    )
    beams: int = settings.whole(
        1,
        "Continuations that go on together. Of several, those that are refused are left instead of "
        "being tried again, `tries` of a problem at most, and nothing is drawn.",
        low=1,
        high=64,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beams > 1 and not self.plain:
            rules = ", ".join(settings.of(Drawing))
            raise settings.RefusedError("beams", self.beams, f"1 where {rules} are given")

    @property
    def asks(self) -> str:
        """The detector's name."""
        return self.detector

    def bound(self, spec: Spec, model: ModelConfig) -> "Retrying | Pruned":
        """With the detector, and the marks of a class's texts."""
        marks = marks_of(spec)
        ask: Detector = detectors.Probed(model)
        if self.detector == "perfect":
            ask = detectors.Perfect(marks)
        if self.beams > 1:
            return Pruned(Beam(beams=self.beams), ask, marks, self.tries)
        return Retrying(self, ask, marks)


@dataclasses.dataclass(frozen=True)
class Retrying(Each):
    """What `Regret` says, with a detector.

    Attributes:
      how: what it says.
      detector: whom to ask.
      marks: of the texts.
      often: tokens after which the detector is asked at the latest. It changes what is computed in
        vain, and not what comes out: nothing after a refused name stays.
      together: names of a text that it is asked about at once; nor does that change what comes out.
    """

    how: Regret
    detector: Detector
    marks: Marks
    often: int = 16
    together: int = 3

    @property
    def every(self) -> int:
        """How often texts are looked at."""
        return self.often

    def begin(
        self, resources: Any, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Regrets:
        """Nothing has been named."""
        detector = self.detector.begin(resources, prompts_FxP, prompt_F, room)
        zero_F, none = jnp.zeros_like(prompt_F), (len(prompt_F), self.how.tries, self.marks.room)
        return Regrets(prompt_F, zero_F > 0, zero_F, jnp.zeros(none, jnp.int32), zero_F, detector)

    def resized(self, own: Regrets, slots: int) -> Regrets:
        """With the detector's state resized."""
        return own._replace(detector=self.detector.resized(own.detector, slots))

    def choose(
        self, rows: Rows, own: Regrets, logits_BxV: jax.Array, stop: int, most: int
    ) -> Choice:
        """The likeliest token, or one that is drawn where the step is tried again."""
        del most
        likeliest_B = jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)

        def draw() -> jax.Array:
            drawn_B = drawn(rows, self.how.warped(logits_BxV))
            return jnp.where(own.again_B, drawn_B, likeliest_B)

        token_B = jax.lax.cond(own.again_B.any(), draw, lambda: likeliest_B)
        ended_B = (token_B == self.marks.stop) | (token_B == stop)
        return Choice(token_B, own._replace(again_B=own.again_B & ~ended_B))

    def review(self, resources: Any, rows: Rows, own: Regrets) -> Review:
        """Asks about every name that is new, and goes back to before the first refused one."""

        def new(before: Review) -> Named:
            asked_B = before.own.asked_B
            named = names(self.marks, rows, before.length_B, asked_B, self.together)
            left_Bx1 = (rows.returns_B + before.returns_B < self.how.tries)[:, None]
            return named._replace(there_BxQ=named.there_BxQ & left_Bx1)

        def pending(carry: tuple[Review, Named]) -> jax.Array:
            return carry[1].there_BxQ.any()

        def look(carry: tuple[Review, Named]) -> tuple[Review, Named]:
            after = self._answered(resources, rows, *carry)
            return after, new(after)

        zero_B = jnp.zeros_like(rows.length_B)
        begun = Review(own, rows.length_B, zero_B, zero_B, zero_B)
        return jax.lax.while_loop(pending, look, (begun, new(begun)))[0]

    def _answered(self, resources: Any, rows: Rows, before: Review, named: Named) -> Review:
        """What becomes of texts of which some names are new."""
        own: Regrets = before.own
        # Whoever says the same name again need not be asked again.
        same_BxQxR = (named.asked_BxQxA[:, :, None] == own.refused_BxRxA[:, None]).all(-1)
        same_BxQxR &= jnp.arange(self.how.tries) < own.count_B[:, None, None]
        known_BxQ = named.there_BxQ & (named.cut_BxQ == own.cut_B[:, None]) & same_BxQxR.any(-1)
        ask_BxQ = named.there_BxQ & (jnp.cumsum(known_BxQ, axis=1) == 0)

        def ask(asked: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            questions = named._replace(there_BxQ=ask_BxQ)
            yes_BxQ, detector = self.detector.ask(resources, rows, questions, asked[1])
            return ask_BxQ & ~yes_BxQ, detector

        nobody = (jnp.zeros_like(ask_BxQ), own.detector)
        no_BxQ, detector = cache_lib.once(ask_BxQ.any(), ask, nobody)
        no_BxQ |= known_BxQ
        back_B = no_BxQ.any(-1)
        first_BxQ = no_BxQ & (jnp.cumsum(no_BxQ, axis=1) == 1)

        def of_first(x_BxQ: jax.Array) -> jax.Array:
            return jnp.where(first_BxQ, x_BxQ, 0).sum(-1)

        cut_B, after_B = of_first(named.cut_BxQ), of_first(named.after_BxQ)
        name_BxA = jnp.where(first_BxQ[..., None], named.asked_BxQxA, 0).sum(1)
        new_B = back_B & ~(first_BxQ & known_BxQ).any(-1)
        count_B = jnp.where(own.cut_B == cut_B, own.count_B, 0)
        put_B = jnp.where(new_B, count_B, self.how.tries)
        last_B = jnp.where(named.there_BxQ, named.after_BxQ, own.asked_B[:, None]).max(-1)
        regrets = Regrets(
            jnp.where(back_B, cut_B, last_B),
            own.again_B | back_B,
            jnp.where(new_B, cut_B, own.cut_B),
            own.refused_BxRxA.at[jnp.arange(len(put_B)), put_B].set(name_BxA, mode="drop"),
            jnp.where(new_B, count_B + 1, own.count_B),
            detector,
        )
        said_BxQ = ask_BxQ & (jnp.cumsum(no_BxQ, axis=1) - no_BxQ == 0)
        return Review(
            regrets,
            jnp.where(back_B, cut_B, before.length_B),
            # Whoever had asked at once would have stopped after the name.
            jnp.where(back_B, rows.length_B - after_B, before.unsaid_B),
            before.passes_B + said_BxQ.sum(-1),
            before.returns_B + back_B,
        )
