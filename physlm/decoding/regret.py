"""Retry upon regret: a step that a detector takes for a mistake is rolled back and sampled again.

Part 2.2, Section 3: as soon as a step has named its parameter, a detector says whether that
parameter can be computed next. Where it cannot, decoding returns to the end of the previous step
and samples that step again.

Names as in `physlm.decoding.naming`, and R: names refused at one step, at most.
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
from physlm.decoding.naming import Detector, Marks, Named, bracketed, marks_of, names
from physlm.decoding.pruned import Pruned
from physlm.decoding.sampling import DETECTORS, Drawing, drawn
from physlm.decoding.strategy import Choice, Each, Resources, Review, Rows


class Regrets(NamedTuple):
    """The state of each row: which names were checked, and whether its step is being retried."""

    asked_B: jax.Array  # int32: length of the prefix whose names are all checked
    again_B: jax.Array  # bool: the current step is a retry, which is sampled
    cut_B: jax.Array  # int32: tokens before the step whose names were refused
    refused_BxRxA: jax.Array  # int32: those names in brackets
    count_B: jax.Array  # int32: how many they are
    same_B: jax.Array  # bool: the retried step has named one of them again
    waits_B: jax.Array  # int32: tokens since the first unchecked name
    detector: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regret(Drawing):
    """Greedy decoding in which steps that a detector refuses are sampled again.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    FIRST, BUDGET = "detector", "tries"

    detector: str = settings.choice("probe", "Whom to ask.", DETECTORS)
    tries: int = settings.whole(
        10, "How often a solution is taken back to a step at most; then everything stays.", low=1
    )
    least: float = settings.number(
        0.5,
        "A step stays where the probe says yes with this probability at least; a lower one goes "
        "back less often.",
        above=0,
        below=1,
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
        if self.detector == "perfect" and self.least != 0.5:
            allowed = "left out where detector is perfect"
            raise settings.RefusedError("least", self.least, allowed)

    @property
    def asks(self) -> str:
        """The detector's name, `probe` or `perfect`."""
        return self.detector

    def bound(self, spec: Spec, model: ModelConfig) -> "Retrying | Pruned":
        """The strategy with its detector, for the texts of a class; with several beams `Pruned`."""
        marks = marks_of(spec)
        ask: Detector = detectors.Probed(model, marks.room, self.least)
        if self.detector == "perfect":
            ask = detectors.Perfect(marks)
        if self.beams > 1:
            return Pruned(Beam(beams=self.beams), ask, marks, self.tries)
        return Retrying(self, ask, marks)


@dataclasses.dataclass(frozen=True)
class Retrying(Each):
    """`Regret`, bound to a detector.

    Rows keep generating while their names wait to be checked, so that several rows are checked in
    one batch. The delay costs tokens that are generated in vain, but does not change the result,
    since everything after a refused name is dropped.

    Attributes:
      how: the settings.
      detector: says which names can be computed next.
      marks: tokens by which names are found in texts.
      often: the most tokens that a name waits for its check.
      together: names of one text that are checked at once.
    """

    how: Regret
    detector: Detector
    marks: Marks
    often: int = 16
    together: int = 1

    @property
    def looks(self) -> bool:
        """Names are checked by the detector."""
        return True

    def begin(
        self, resources: Resources, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Regrets:
        """The state of new texts: no name was checked or refused."""
        detector = self.detector.begin(resources, prompts_FxP, prompt_F, room)
        zero_F = jnp.zeros_like(prompt_F)
        refused_FxRxA = jnp.zeros((len(prompt_F), self.how.tries, self.marks.room), jnp.int32)
        nothing = (zero_F > 0, zero_F, refused_FxRxA, zero_F, zero_F > 0, zero_F)
        return Regrets(prompt_F, *nothing, detector)

    def resized(self, own: Regrets, slots: int) -> Regrets:
        """The state with the detector's resized."""
        return own._replace(detector=self.detector.resized(own.detector, slots))

    def choose(
        self, rows: Rows, own: Regrets, logits_BxV: jax.Array, stop: int, most: int
    ) -> Choice:
        """The likeliest token, or a sampled one in rows that retry a step."""
        del most
        likeliest_B = jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)

        def draw() -> jax.Array:
            drawn_B = drawn(rows, self.how.warped(logits_BxV))
            return jnp.where(own.again_B, drawn_B, likeliest_B)

        token_B = jax.lax.cond(own.again_B.any(), draw, lambda: likeliest_B)
        names_B = (token_B == self.marks.after) & (rows.returns_B < self.how.tries) & ~rows.done_B
        # The token after the name is not in the text yet; it will stand at `length_B`.
        again_BxA = bracketed(self.marks, rows.text_BxL, own.cut_B, rows.length_B)
        same_B = names_B & own.again_B & _refused(own, again_BxA[:, None])[:, 0]
        ended_B = (token_B == self.marks.stop) | (token_B == stop)
        own = own._replace(
            again_B=own.again_B & ~ended_B,
            same_B=own.same_B | same_B,
            waits_B=own.waits_B + (names_B | ((own.waits_B > 0) & ~rows.done_B)),
        )
        return Choice(token_B, own)

    def due(self, rows: Rows, own: Regrets) -> jax.Array:
        """Whether enough rows wait, one has waited long, or one has repeated a refused name."""
        enough = (own.waits_B > 0).sum() >= _share(rows)
        return enough | own.same_B.any() | (own.waits_B >= self.often).any()

    def review(self, resources: Resources, rows: Rows, own: Regrets) -> Review:
        """Checks new names, and rolls each row back to before its first refused one."""
        zero_B = jnp.zeros_like(rows.length_B)
        first = Review(own, rows.length_B, zero_B, zero_B, zero_B)
        begun = (first, *self._open(rows, first))

        def pending(carry: tuple[Review, Named, jax.Array]) -> jax.Array:
            return carry[2].any()

        def answer(
            carry: tuple[Review, Named, jax.Array],
        ) -> tuple[Review, Named, jax.Array]:
            after = self._answered(resources, rows, *carry)
            return after, *self._open(rows, after)

        looked, named, _ = jax.lax.while_loop(pending, answer, begun)
        there_B, after_B = named.there_BxQ[:, 0], named.after_BxQ[:, 0]
        waits_B = jnp.where(there_B, looked.length_B - after_B + 1, 0)
        return looked._replace(
            own=looked.own._replace(waits_B=waits_B, same_B=jnp.zeros_like(there_B))
        )

    def _open(self, rows: Rows, before: Review) -> tuple[Named, jax.Array]:
        """The unchecked names, and the rows to be checked now, bool [B]."""
        own: Regrets = before.own
        named = names(self.marks, rows, before.length_B, own.asked_B, self.together)
        left_B = rows.returns_B + before.returns_B < self.how.tries
        named = named._replace(there_BxQ=named.there_BxQ & left_B[:, None])
        there_B = named.there_BxQ[:, 0]
        known_B = there_B & _refused(own, named.asked_BxQxA[:, :1])[:, 0]
        known_B &= named.cut_BxQ[:, 0] == own.cut_B
        waits_B = before.length_B - named.after_BxQ[:, 0] + 1
        late_B = there_B & (rows.done_B | (waits_B >= self.often))
        enough = (there_B & ~known_B).sum() >= _share(rows)
        asks_B = there_B & ~known_B & (enough | late_B.any())
        # Those that have waited longest come first.
        order_B = jnp.where(asks_B, waits_B + jnp.where(late_B, rows.text_BxL.shape[1], 0), 0)
        first_R = jax.lax.top_k(order_B, _share(rows))[1]
        return named, known_B | (asks_B & jnp.zeros_like(asks_B).at[first_R].set(True))

    def _answered(
        self, resources: Resources, rows: Rows, before: Review, named: Named, now_B: jax.Array
    ) -> Review:
        """The review after the rows `now_B` were checked."""
        own: Regrets = before.own
        named = named._replace(there_BxQ=named.there_BxQ & now_B[:, None])
        # A name that was refused at this step before is refused again without a question.
        known_BxQ = named.there_BxQ & (named.cut_BxQ == own.cut_B[:, None])
        known_BxQ &= _refused(own, named.asked_BxQxA)
        ask_BxQ = named.there_BxQ & (jnp.cumsum(known_BxQ, axis=1) == 0)
        questions = named._replace(there_BxQ=ask_BxQ)
        no_BxQ, detector = self._asked(resources, rows, questions, own.detector)
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
        regrets = own._replace(
            asked_B=jnp.where(back_B, cut_B, last_B),
            again_B=own.again_B | back_B,
            cut_B=jnp.where(new_B, cut_B, own.cut_B),
            refused_BxRxA=own.refused_BxRxA.at[jnp.arange(len(put_B)), put_B].set(
                name_BxA, mode="drop"
            ),
            count_B=jnp.where(new_B, count_B + 1, own.count_B),
            detector=detector,
        )
        said_BxQ = ask_BxQ & (jnp.cumsum(no_BxQ, axis=1) - no_BxQ == 0)
        return Review(
            regrets,
            jnp.where(back_B, cut_B, before.length_B),
            # Without the delay nothing after the name would have been generated.
            jnp.where(back_B, rows.length_B - after_B, before.unsaid_B),
            before.passes_B + said_BxQ.sum(-1) * self.detector.passes,
            before.returns_B + back_B,
        )

    def _asked(
        self, resources: Resources, rows: Rows, named: Named, own: Any
    ) -> tuple[jax.Array, Any]:
        """Which names the detector refuses, bool [B, Q], and its state.

        Rows with a name are gathered into a smaller batch, so that the others cost nothing.
        """
        there_B, count = named.there_BxQ.any(-1), len(rows.length_B)
        row_R = jnp.nonzero(there_B, size=_share(rows), fill_value=count)[0]
        at_R = jnp.minimum(row_R, count - 1)

        def ask(asked: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            of_rows = (resources._replace(shared=()), rows, named, asked[1])
            few, few_rows, few_named, state = jax.tree.map(lambda x: x[at_R], of_rows)
            few_named = few_named._replace(there_BxQ=few_named.there_BxQ & (row_R < count)[:, None])
            few = few._replace(shared=resources.shared)
            yes_RxQ, state = self.detector.ask(few, few_rows, few_named, state)
            no_BxQ = jnp.zeros_like(named.there_BxQ)
            no_BxQ = no_BxQ.at[row_R].set(few_named.there_BxQ & ~yes_RxQ, mode="drop")
            return no_BxQ, jax.tree.map(
                lambda x, new: x.at[row_R].set(new, mode="drop"), asked[1], state
            )

        nobody = (jnp.zeros_like(named.there_BxQ), own)
        return cache_lib.once(there_B.any(), ask, nobody)


def _share(rows: Rows) -> int:
    """Rows that are checked in one batch."""
    return max(1, len(rows.length_B) // 4)


def _refused(own: Regrets, asked_BxQxA: jax.Array) -> jax.Array:
    """Which bracketed names are among those already refused at the step, bool [B, Q]."""
    same_BxQxR = (asked_BxQxA[:, :, None] == own.refused_BxRxA[:, None]).all(-1)
    place_R = jnp.arange(own.refused_BxRxA.shape[1])
    return (same_BxQxR & (place_R < own.count_B[:, None, None])).any(-1)
