"""Retry upon regret inside a beam: what a detector refuses leaves it, and the other texts go on."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from physlm.decoding.beam import NEVER, Beam, Beams
from physlm.decoding.naming import Detector, Marks, first_named
from physlm.decoding.strategy import Choice, Each, Review, Rows


class Asked(NamedTuple):
    """The state of a search, and what has been asked about each running text."""

    beams: Beams
    asked_B: jax.Array  # int32: tokens in which all names have been asked about
    detector: Any


@dataclasses.dataclass(frozen=True)
class Pruned(Each):
    """Beam search without the texts that have named a parameter too early.

    As soon as a running text has named a parameter, the detector is asked. A refused text is left,
    and the next candidates take its place; where all running texts of a problem would be refused,
    they stay.

    Attributes:
      beam: the search.
      detector: whom to ask.
      marks: of the texts.
      tries: how many texts of a problem are left at most.
    """

    beam: Beam
    detector: Detector
    marks: Marks
    tries: int

    @property
    def width(self) -> int:
        """The beams."""
        return self.beam.width

    @property
    def every(self) -> int:
        """At once: what is left decides which texts go on."""
        return 1

    def begin(
        self, resources: Any, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Asked:
        """Nothing has been named."""
        beams = self.beam.begin(resources, prompts_FxP, prompt_F, room)
        once = (prompt_F, self.detector.begin(resources, prompts_FxP, prompt_F, room))
        return Asked(beams, *jax.tree.map(lambda x: jnp.repeat(x, self.width, axis=0), once))

    def choose(self, rows: Rows, own: Asked, logits_BxV: jax.Array, stop: int, most: int) -> Choice:
        """What the search chooses; what has been asked goes with the texts."""
        chosen = self.beam.choose(rows, own.beams, logits_BxV, stop, most)
        source_B, of_texts = chosen.source_B, (own.asked_B, own.detector)
        assert source_B is not None
        moved = jax.lax.cond(
            (source_B == jnp.arange(len(source_B))).all(),
            lambda x: x,
            lambda x: jax.tree.map(lambda leaf: leaf[source_B], x),
            of_texts,
        )
        return chosen._replace(own=Asked(chosen.own, *moved))

    def review(self, resources: Any, rows: Rows, own: Asked) -> Review:
        """Asks about names that are new, and leaves what is refused."""
        named = first_named(self.marks, rows, rows.length_B, own.asked_B)
        named = named._replace(there_B=named.there_B & ~rows.done_B)

        def ask(own: Asked) -> tuple[jax.Array, Any]:
            yes_B, detector = self.detector.ask(resources, rows, named, own.detector)
            return named.there_B & ~yes_B, detector

        def nobody(own: Asked) -> tuple[jax.Array, Any]:
            return jnp.zeros_like(rows.done_B), own.detector

        refused_B, detector = jax.lax.cond(named.there_B.any(), ask, nobody, own)
        running_B = own.beams.score_B > NEVER / 2
        refused_B &= running_B & (rows.returns_B < self.tries)

        def of_problem(x_B: jax.Array, what: Any) -> jax.Array:
            return jnp.repeat(what(x_B.reshape(-1, self.width), axis=1), self.width)

        refused_B &= of_problem(running_B & ~refused_B, jnp.any)
        score_B = jnp.where(refused_B, NEVER, own.beams.score_B)
        asked_B = jnp.where(named.there_B, named.after_B, own.asked_B)
        zero_B = jnp.zeros_like(rows.length_B)
        return Review(
            Asked(own.beams._replace(score_B=score_B), asked_B, detector),
            rows.length_B,
            zero_B,
            # A problem's texts are asked about together.
            of_problem(named.there_B, jnp.any).astype(jnp.int32),
            of_problem(refused_B, jnp.sum).astype(jnp.int32),
        )

    def best(self, rows: Rows, own: Asked) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The best finished text of each problem, and its score."""
        return self.beam.best(rows, own.beams)
