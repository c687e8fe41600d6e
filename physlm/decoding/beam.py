"""Beam search as Hugging Face defines it (`generate` with `num_beams`), also with sampling.

Names as in `physlm.decoding.strategy`, and W: beams of a problem, C: the 2 W candidates of a step.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from data_gen import settings
from physlm.decoding.sampling import Drawing, gumbel, largest
from physlm.decoding.strategy import Choice, Resources, Rows

# A score below that of every text.
NEVER = -1e9


class Beams(NamedTuple):
    """The state of a search: its running beams, and its finished texts, best first."""

    score_B: jax.Array  # float32: the log-probability of a running text
    text_BxL: jax.Array  # int32: a finished text
    length_B: jax.Array  # int32
    finished_B: jax.Array  # bool: there is one
    final_B: jax.Array  # float32: its score, by length
    hopeful_B: jax.Array  # bool: a running text of the problem can still be better


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam(Drawing):
    """Beam search; the result is the best finished text.

    A text's score is its log-probability divided by its number of new tokens. The search ends as
    soon as no running text, if it ended now, would be better than the finished ones, which is what
    Hugging Face's `early_stopping=False` does. The rules of sampling apply to each next token.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    FIRST = BUDGET = "beams"

    beams: int = settings.whole(4, "W, continuations that go on together.", low=2, high=64)
    sample: bool = settings.flag(
        False,
        "Continuations are drawn without replacement, by the probabilities of whole texts, instead "
        "of being the likeliest.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.sample or self.plain):
            rules = ", ".join(settings.of(Drawing))
            raise settings.RefusedError("sample", False, f"true where {rules} are given")

    @property
    def width(self) -> int:
        """The number of beams."""
        return self.beams

    def begin(
        self, resources: Resources, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Beams:
        """One running beam for each problem; the others are copies with the score `NEVER`."""
        del resources, prompt_F
        size = len(prompts_FxP) * self.beams
        first_B = jnp.arange(size) % self.beams == 0
        nothing_B = jnp.zeros(size, jnp.int32)
        return Beams(
            score_B=jnp.where(first_B, 0.0, NEVER),
            text_BxL=jnp.zeros((size, room), jnp.int32),
            length_B=nothing_B,
            finished_B=nothing_B > 0,
            final_B=jnp.full(size, NEVER),
            hopeful_B=nothing_B == 0,
        )

    def choose(self, rows: Rows, own: Beams, logits_BxV: jax.Array, stop: int, most: int) -> Choice:
        """The next token of each beam, and the beam that it continues."""
        vocab, beams = logits_BxV.shape[-1], self.beams
        log_BxV = jax.nn.log_softmax(logits_BxV)
        if self.sample:
            log_BxV = self.warped(log_BxV)
        total_GxT = (log_BxV + own.score_B[:, None]).reshape(-1, beams * vocab)
        score_GxC, at_GxC = self._candidates(rows, total_GxT)
        token_GxC, from_GxC = at_GxC % vocab, at_GxC // vocab

        def of_group(x_B: jax.Array) -> jax.Array:
            return x_B.reshape(-1, beams, *x_B.shape[1:])

        length_Gx1 = of_group(rows.length_B - rows.prompt_B)[:, :1] + 1
        ends_GxC = (token_GxC == stop) | (length_Gx1 >= most)
        running_GxC = score_GxC + jnp.where(ends_GxC, NEVER, 0.0)
        running_GxW, next_GxW = largest(running_GxC, beams)

        hopeful_Gx1 = of_group(own.hopeful_B)[:, :1]
        final_GxW = score_GxC[:, :beams] / length_Gx1
        counts_GxW = ends_GxC[:, :beams] & hopeful_Gx1 & ~of_group(rows.done_B)
        final_GxW = jnp.where(counts_GxW, final_GxW, NEVER)
        first = jax.tree.map(lambda x: x[:, :beams], (token_GxC, from_GxC))
        finished = self._merged(rows, own, final_GxW, counts_GxW, *first)

        best_Gx1 = running_GxW[:, :1] / length_Gx1
        worst_Gx1 = of_group(finished.final_B).min(-1, keepdims=True)
        worst_GxW = jnp.where(of_group(finished.finished_B), worst_Gx1, NEVER)
        hopeful_Gx1 &= (best_Gx1 > worst_GxW).any(-1, keepdims=True)
        done_Gx1 = ~hopeful_Gx1 | ends_GxC.all(-1, keepdims=True)

        def of_rows(x_Gx1: jax.Array) -> jax.Array:
            return jnp.repeat(x_Gx1[:, 0], beams)

        order_GxW = _in_place(jnp.take_along_axis(from_GxC, next_GxW, 1))
        running_GxW = jnp.take_along_axis(running_GxW, order_GxW, 1)
        next_GxW = jnp.take_along_axis(next_GxW, order_GxW, 1)
        group_Gx1 = jnp.arange(len(token_GxC))[:, None]
        own = finished._replace(score_B=running_GxW.reshape(-1), hopeful_B=of_rows(hopeful_Gx1))
        source_GxW = jnp.take_along_axis(from_GxC, next_GxW, 1) + group_Gx1 * beams
        token_GxW = jnp.take_along_axis(token_GxC, next_GxW, 1)
        own_B = jnp.arange(len(rows.done_B))
        return Choice(
            token_GxW.reshape(-1).astype(jnp.int32),
            own,
            jnp.where(rows.done_B, own_B, source_GxW.reshape(-1)),
            of_rows(done_Gx1),
        )

    def _candidates(self, rows: Rows, total_GxT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scores of the candidates, best first, and their indices into [W * V]."""
        count = 2 * self.beams
        if not self.sample:
            return largest(total_GxT, count)
        # The largest of independent Gumbel variables, each moved by a log-probability, are drawn
        # without replacement (Kool et al., arXiv 1903.06059).
        first = slice(None, None, self.beams)
        noise_GxT = gumbel(rows.key_B[first], rows.tokens_B[first], total_GxT.shape[1:])
        _, at_GxC = largest(total_GxT + noise_GxT, count)
        score_GxC, order_GxC = largest(jnp.take_along_axis(total_GxT, at_GxC, 1), count)
        return score_GxC, jnp.take_along_axis(at_GxC, order_GxC, 1)

    def _merged(
        self,
        rows: Rows,
        own: Beams,
        final_GxW: jax.Array,
        counts_GxW: jax.Array,
        token_GxW: jax.Array,
        from_GxW: jax.Array,
    ) -> Beams:
        """The W best of the texts that were finished before and of those that finish now."""
        beams = self.beams

        def merge(own: Beams) -> Beams:
            group_Gx1 = jnp.arange(len(from_GxW))[:, None]
            source_B = (from_GxW + group_Gx1 * beams).reshape(-1)
            length_B = rows.length_B[source_B]
            text_BxL = rows.text_BxL[source_B]
            at = (jnp.arange(len(length_B)), length_B)
            text_BxL = text_BxL.at[at].set(token_GxW.reshape(-1).astype(jnp.int32), mode="drop")
            now = Beams(
                own.score_B,
                text_BxL,
                length_B + 1,
                counts_GxW.reshape(-1),
                final_GxW.reshape(-1),
                own.hopeful_B,
            )

            def both(before: jax.Array, after: jax.Array) -> jax.Array:
                parts = [x.reshape(-1, beams, *x.shape[1:]) for x in (before, after)]
                return jnp.concatenate(parts, axis=1)

            merged = jax.tree.map(both, own, now)
            final_GxW2, best_GxW = largest(merged.final_B, beams)

            def best(x: jax.Array) -> jax.Array:
                found = jax.vmap(lambda row, at: row[at])(x, best_GxW)
                return found.reshape(-1, *x.shape[2:])

            return Beams(
                own.score_B,
                best(merged.text_BxL),
                best(merged.length_B),
                best(merged.finished_B),
                final_GxW2.reshape(-1),
                own.hopeful_B,
            )

        return jax.lax.cond(counts_GxW.any(), merge, lambda own: own, own)

    def best(self, rows: Rows, own: Beams) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The best finished text of each problem, and its score."""
        del rows
        first = slice(None, None, self.beams)
        return own.text_BxL[first], own.length_B[first], own.final_B[first]


def _in_place(source_GxW: jax.Array) -> jax.Array:
    """A permutation of the next beams that leaves as many as possible in the row of the beam that
    they continue, since such rows of the cache need not be copied."""
    beams = source_GxW.shape[1]
    place_W = jnp.arange(beams)
    same_GxWxW = source_GxW[:, :, None] == source_GxW[:, None, :]
    stays_GxW = ~(same_GxWxW & (place_W < place_W[:, None])).any(-1)
    taken_GxW = (source_GxW[:, :, None] == place_W).any(1)
    free_GxW = jnp.argsort(taken_GxW, axis=1, stable=True)
    nth_GxW = jnp.maximum(jnp.cumsum(~stays_GxW, axis=1) - 1, 0)
    place_GxW = jnp.where(stays_GxW, source_GxW, jnp.take_along_axis(free_GxW, nth_GxW, 1))
    return jnp.argsort(place_GxW, axis=1)
