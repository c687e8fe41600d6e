"""Retry upon regret: what a detector takes for a mistake is taken back and tried again.

Part 2.2, Section 3: as soon as a step has named its parameter, a detector says whether it can be
computed next. Where it cannot, the writer goes back to the end of the step before and draws that
step again.

Names as in `physlm.decoding.strategy`.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data_gen import settings
from data_gen.spec import Spec
from physlm.architecture import ModelConfig
from physlm.decoding import detectors
from physlm.decoding.beam import Beam
from physlm.decoding.naming import Detector, Marks, Named, first_named, marks_of
from physlm.decoding.pruned import Pruned
from physlm.decoding.sampling import DETECTORS, Drawing, drawn
from physlm.decoding.strategy import Choice, Each, Review, Rows


class Regrets(NamedTuple):
    """The state of a row: what has been asked about, and whether its step is tried again."""

    asked_B: jax.Array  # int32: tokens in which all names have been asked about
    again_B: jax.Array  # bool: the step that is being written is drawn
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
    """

    how: Regret
    detector: Detector
    marks: Marks
    often: int = 16

    @property
    def every(self) -> int:
        """How often texts are looked at."""
        return self.often

    def begin(
        self, resources: Any, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Regrets:
        """Nothing has been named."""
        detector = self.detector.begin(resources, prompts_FxP, prompt_F, room)
        return Regrets(prompt_F, prompt_F < 0, detector)

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
        named = first_named(self.marks, rows, rows.length_B, own.asked_B)
        zero_B = jnp.zeros_like(rows.length_B)

        def pending(carry: tuple[Review, Named]) -> jax.Array:
            return carry[1].there_B.any()

        def ask(carry: tuple[Review, Named]) -> tuple[Review, Named]:
            before, named = carry
            own: Regrets = before.own
            yes_B, detector = self.detector.ask(resources, rows, named, own.detector)
            back_B = named.there_B & ~yes_B & (rows.returns_B < self.how.tries)
            asked_B = jnp.where(named.there_B, named.after_B, own.asked_B)
            asked_B = jnp.where(back_B, named.cut_B, asked_B)
            after = Review(
                Regrets(asked_B, own.again_B | back_B, detector),
                jnp.where(back_B, named.cut_B, before.length_B),
                # Whoever had asked at once would have stopped after the name.
                jnp.where(back_B, rows.length_B - named.after_B, before.unsaid_B),
                before.passes_B + named.there_B,
                before.returns_B + back_B,
            )
            return after, first_named(self.marks, rows, after.length_B, asked_B)

        # A row that goes back has nothing after its cut to ask about.
        begun = (Review(own, rows.length_B, zero_B, zero_B, zero_B), named)
        return jax.lax.while_loop(pending, ask, begun)[0]
