"""Retry upon regret inside beam search: beams that a detector refuses are dropped."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from physlm import cache as cache_lib
from physlm.decoding.beam import NEVER, Beam, Beams
from physlm.decoding.naming import Detector, Marks, names
from physlm.decoding.strategy import Choice, Each, Resources, Review, Rows


class Asked(NamedTuple):
    """The state of the beam search, and which names of each running beam were checked."""

    beams: Beams
    asked_B: jax.Array  # int32: length of the prefix whose names are all checked
    detector: Any


@dataclasses.dataclass(frozen=True)
class Pruned(Each):
    """Beam search that drops beams which have named a parameter too early.

    As soon as a running beam has named a parameter, the detector checks it. A refused beam is
    dropped and the next candidates take its place. If all running beams of a problem are refused at
    once, they are kept.

    Attributes:
      beam: the search.
      detector: says which names can be computed next.
      marks: tokens by which names are found in texts.
      tries: how many beams of a problem are dropped at most.
    """

    beam: Beam
    detector: Detector
    marks: Marks
    tries: int

    @property
    def width(self) -> int:
        """The number of beams."""
        return self.beam.width

    @property
    def looks(self) -> bool:
        """Names are checked in every review."""
        return True

    def begin(
        self, resources: Resources, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Asked:
        """The state of new texts: no name was checked."""
        beams = self.beam.begin(resources, prompts_FxP, prompt_F, room)
        once = (prompt_F, self.detector.begin(resources, prompts_FxP, prompt_F, room))
        return Asked(beams, *jax.tree.map(lambda x: jnp.repeat(x, self.width, axis=0), once))

    def resized(self, own: Asked, slots: int) -> Asked:
        """The state with the detector's resized."""
        return own._replace(detector=self.detector.resized(own.detector, slots))

    def choose(self, rows: Rows, own: Asked, logits_BxV: jax.Array, stop: int, most: int) -> Choice:
        """The beam search's choice; checks and the detector's state move with the beams."""
        chosen = self.beam.choose(rows, own.beams, logits_BxV, stop, most)
        assert chosen.source_B is not None
        source_B = chosen.source_B
        shared_B = cache_lib.alike(rows.text_BxL, source_B)
        detector = self.detector.continued(own.detector, source_B, shared_B)
        return chosen._replace(own=Asked(chosen.own, own.asked_B[source_B], detector))

    def due(self, rows: Rows, own: Asked) -> jax.Array:
        """Always: a dropped beam changes the next choice."""
        del rows, own
        return jnp.array(True)

    def review(self, resources: Resources, rows: Rows, own: Asked) -> Review:
        """Checks new names, and drops the refused beams."""
        named = names(self.marks, rows, rows.length_B, own.asked_B, 1)
        there_B = named.there_BxQ[:, 0] & ~rows.done_B
        named = named._replace(there_BxQ=there_B[:, None])

        def ask(asked: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            yes_BxQ, detector = self.detector.ask(resources, rows, named, asked[1])
            return there_B & ~yes_BxQ[:, 0], detector

        nobody = (jnp.zeros_like(there_B), own.detector)
        refused_B, detector = cache_lib.once(there_B.any(), ask, nobody)
        running_B = own.beams.score_B > NEVER / 2
        refused_B &= running_B & (rows.returns_B < self.tries)

        def of_problem(x_B: jax.Array, what: Any) -> jax.Array:
            return jnp.repeat(what(x_B.reshape(-1, self.width), axis=1), self.width)

        refused_B &= of_problem(running_B & ~refused_B, jnp.any)
        score_B = jnp.where(refused_B, NEVER, own.beams.score_B)
        asked_B = jnp.where(there_B, named.after_BxQ[:, 0], own.asked_B)
        zero_B = jnp.zeros_like(rows.length_B)
        return Review(
            Asked(own.beams._replace(score_B=score_B), asked_B, detector),
            rows.length_B,
            zero_B,
            # A problem's texts are asked about together.
            of_problem(there_B, jnp.any) * self.detector.passes,
            of_problem(refused_B, jnp.sum).astype(jnp.int32),
        )

    def best(self, rows: Rows, own: Asked) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The best finished text of each problem, and its score."""
        return self.beam.best(rows, own.beams)
