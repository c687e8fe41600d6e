"""Finds, on the device, where solutions name parameters; and the interface of detectors.

A detector says whether a named parameter can be computed next.

Names as in `physlm.decoding.strategy`, A: tokens of a name in brackets, Q: names of a text.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from data_gen.solutions.grammar import MENDING_MARKERS, NAMED, RESTART, STOP
from data_gen.solutions.language import vocabulary
from data_gen.spec import Spec
from data_gen.windows import questions
from data_gen.windows.tokenizer import tokenizer
from physlm.decoding.strategy import Resources, Rows


@dataclasses.dataclass(frozen=True)
class Marks:
    """The tokens by which steps and the names in them are found in a text.

    Attributes:
      stop: the last token of a sentence.
      lead: how many tokens stand before the name that begins a sentence.
      after: the token after a name.
      opening, closing: the brackets around a name in a question to a probe.
      back: the tokens of the markers that take sentences back, one each.
      restart: the token of the marker that takes back all of them.
      room: A.
    """

    stop: int
    lead: int
    after: int
    opening: int
    closing: int
    back: tuple[int, ...]
    restart: int
    room: int


def marks_of(spec: Spec) -> Marks:
    """The marks of a class's texts, in the ids of its tokenizer."""
    table, vocab = tokenizer(spec), vocabulary(spec)

    def tokens(symbol: str) -> list[int]:
        ids = table.ids_VxK[vocab.ids[symbol]]
        return [int(i) for i in ids if i >= 0]

    return Marks(
        stop=tokens(STOP)[-1],
        lead=len(tokens(NAMED.symbols[0])),
        after=tokens(NAMED.symbols[-1])[-1],
        opening=table.answer,
        closing=table.end,
        # A marker may be several tokens, of which the last are each its own.
        back=tuple(tokens(marker)[-1] for marker in MENDING_MARKERS.values()),
        restart=tokens(RESTART)[-1],
        room=questions.room("can_next", spec),
    )


class Named(NamedTuple):
    """The first names of each text that were not checked yet, in their order."""

    there_BxQ: jax.Array  # bool: there is a name at this place; padding comes last
    cut_BxQ: jax.Array  # int32: tokens before the name's sentence
    after_BxQ: jax.Array  # int32: tokens up to and including the one after the name
    asked_BxQxA: jax.Array  # int32: the name in brackets, padded with the closing one
    count_BxQ: jax.Array  # int32: how many tokens that is


class Detector(Protocol):
    """Says, on the device, whether the parameter that a text has just named can be computed next.

    A detector is hashable and has no arrays itself: those that it needs are in the strategy's
    `resources`, and what it remembers of each text is in the strategy's state.
    """

    @property
    def passes(self) -> int:
        """Forward passes of a model that it takes to answer about a name."""
        ...

    def begin(
        self, resources: Resources, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Any:
        """The state of new texts, given their prompts."""
        ...

    def resized(self, own: Any, slots: int) -> Any:
        """The state for a cache of `slots` tokens a row."""
        ...

    def continued(self, own: Any, source_B: jax.Array, shared_B: jax.Array) -> Any:
        """The state in which row b goes on from row `source_B[b]`.

        The first `shared_B` tokens of both texts are the same. Called where beams go on from each
        other.
        """
        ...

    def ask(
        self, resources: Resources, rows: Rows, named: Named, own: Any
    ) -> tuple[jax.Array, Any]:
        """Whether each name can be computed next, bool [B, Q], and the new state.

        The caller drops the sentence of a refused name and all that comes after it.
        """
        ...


def names(marks: Marks, rows: Rows, length_B: jax.Array, asked_B: jax.Array, count: int) -> Named:
    """The first `count` names of each text after its checked prefix."""
    found = []
    for _ in range(count):
        found.append(_next(marks, rows, length_B, asked_B))
        asked_B = jnp.where(found[-1][0], found[-1][2], asked_B)
    return Named(*(jnp.stack(parts, axis=1) for parts in zip(*found, strict=True)))


def _next(
    marks: Marks, rows: Rows, length_B: jax.Array, asked_B: jax.Array
) -> tuple[jax.Array, ...]:
    """The fields of `Named` for the next name of each text."""
    place_L = jnp.arange(rows.text_BxL.shape[1])
    text_BxL = rows.text_BxL
    new_BxL = (place_L >= asked_B[:, None]) & (place_L < length_B[:, None])
    ends_BxL = new_BxL & (text_BxL == marks.after)
    there_B = ends_BxL.any(-1)
    end_B = jnp.argmax(ends_BxL, axis=-1)
    borders_BxL = (text_BxL == marks.stop) & (place_L >= rows.prompt_B[:, None])
    borders_BxL &= place_L < end_B[:, None]
    last_B = jnp.where(borders_BxL, place_L, -1).max(-1)
    cut_B = jnp.maximum(last_B + 1, rows.prompt_B)
    asked_BxA = bracketed(marks, text_BxL, cut_B, end_B)
    count_B = jnp.clip(end_B - cut_B - marks.lead + 2, 2, marks.room)
    return (
        there_B,
        cut_B.astype(jnp.int32),
        (end_B + 1).astype(jnp.int32),
        asked_BxA.astype(jnp.int32),
        count_B.astype(jnp.int32),
    )


def bracketed(marks: Marks, text_BxL: jax.Array, cut_B: jax.Array, end_B: jax.Array) -> jax.Array:
    """The name in the sentence from `cut` to `end`, in brackets: int32 [B, A]."""
    begin_B = cut_B + marks.lead
    # A sentence may have the token `after` without a name of a possible length before it; what is
    # returned of that is no name.
    place_A = jnp.arange(marks.room)
    at_BxA = jnp.clip(begin_B[:, None] + place_A - 1, 0, text_BxL.shape[1] - 1)
    name_BxA = jnp.take_along_axis(text_BxL, at_BxA, axis=1)
    inside_BxA = place_A <= (end_B - begin_B)[:, None]
    return jnp.where(inside_BxA, name_BxA, marks.closing).at[:, 0].set(marks.opening)
