"""Tokenizers as tables from the symbols of the grammar to tokens."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from data_gen.solutions.document import OUTSIDE, Document
from data_gen.solutions.language import MARKER


@dataclasses.dataclass(frozen=True)
class Joined:
    """Pairs of names that are one token together with the symbol between them.

    Attributes:
      ids_VxV: int32, the token of two symbols of which the one stands two before the other,
        whichever comes first; -1 for pairs that no problem has.
      opening: the token of the symbol that begins a question.
      asked: the bytes of text behind the id of a pair that follows `opening`.
    """

    ids_VxV: np.ndarray
    opening: int
    asked: Mapping[int, bytes]


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """A table from the V symbols of a spec's vocabulary to tokens.

    A symbol is 1..K tokens. Where pairs are joined, one that joins its neighbours counts -1, so
    that the three of them are one token, and one that is left out counts 0.

    Attributes:
      ids_VxK: int32, the tokens of each symbol, padded with -1.
      lengths_V: int32, how many there are.
      size: number of token ids.
      problem, solution, answer, end: ids of the markers; windows are padded with `end`.
      pieces: the bytes of text behind each id.
      joined: the pairs that are one token, if any are.
    """

    ids_VxK: np.ndarray
    lengths_V: np.ndarray
    size: int
    problem: int
    solution: int
    answer: int
    end: int
    pieces: tuple[bytes, ...]
    joined: Joined | None = None

    @functools.cached_property
    def identity(self) -> bool:
        """Whether every symbol is exactly one token."""
        return np.array_equal(self.ids_VxK, np.arange(len(self.ids_VxK))[:, None])

    def symbols(self, size: int) -> int:
        """The most symbols that a document of `size` tokens has."""
        # A parameter's token is three symbols, and beside it stand two tokens of its own: what
        # leads to it (" each", " Define") and what follows (",", " as").
        return size if self.joined is None else size * 5 // 3

    def has_all(self, symbols_N: np.ndarray) -> bool:
        """Whether each of some symbols has a token, or is part of one, where it stands.

        Where pairs are one token, a name alone, or two that are no pair, have none.
        """
        if self.joined is None:
            return True
        joint = np.flatnonzero(self.lengths_V[symbols_N[1:-1]] < 0) + 1
        first, second = symbols_N[joint - 1], symbols_N[joint + 1]
        joint = joint[self.joined.ids_VxV[first, second] >= 0]
        paired_N = np.zeros(len(symbols_N), bool)
        paired_N[[*(joint - 1), *joint, *(joint + 1)]] = True
        alone_N = (self.ids_VxK[symbols_N, 0] < 0) & (self.lengths_V[symbols_N] != 0)
        return not (alone_N & ~paired_N).any()

    def decode(self, ids: ArrayLike) -> str:
        """The text of a sequence of ids; an id out of range reads as `<|id|>`.

        Markers read as in `data_gen.solutions.language`; bytes that are no text read as U+FFFD.
        """
        parts, before = [], -1
        for i in map(int, np.asarray(ids).reshape(-1)):
            if self.joined and before == self.joined.opening and i in self.joined.asked:
                parts.append(self.joined.asked[i])
            else:
                parts.append(self.pieces[i] if 0 <= i < self.size else f"<|{i}|>".encode())
            before = i
        return b"".join(parts).decode("utf-8", errors="replace")


def encode(document: Document, table: Tokenizer, size: int) -> Document:
    """Writes a document of symbols in tokens; `vmap` for more.

    Args:
      document: N symbols, as `render.document` gives them; `table.symbols(size)` are room enough
        for all that fits.
      table: the tokenizer.
      size: room for tokens; what goes beyond is cut, `length` tells the whole length. Where
        symbols had been cut before, that is unknown, and `length` is only sure to exceed
        `size`.

    Returns:
      the document with the tokens, role, kind and sentence of each, and `length` and `prompt`
      counted in tokens. A pair that is one token has those of its second name.
    """
    room = document.tokens_N.shape[-1]
    if table.identity and room == size:
        return document
    live_N = np.arange(room) < document.length
    lengths_V = jnp.asarray(table.lengths_V)
    length_N = jnp.where(live_N, lengths_V[document.tokens_N], 0)
    end_N = jnp.cumsum(length_N)
    begin_N = end_N - length_N
    # The last symbol that begins in a place has its tokens there. Of a joined pair that is the
    # second name, since what joins it to the first takes back the first one's token.
    at_N = jnp.where(length_N > 0, begin_N, size)
    begins_M = jnp.zeros(size, jnp.int32).at[at_N].max(np.arange(room), mode="drop")
    symbol_M = jax.lax.cummax(begins_M)
    used_M = np.arange(size) < end_N[-1]
    nth_M = np.arange(size) - begin_N[symbol_M]
    # Past the end `nth_M` leaves the table, and what is read there is not used.
    tokens_M = jnp.asarray(table.ids_VxK)[document.tokens_N[symbol_M], nth_M]
    if table.joined:
        first_M, joint_M, second_M = (
            document.tokens_N[jnp.maximum(symbol_M - before, 0)] for before in (2, 1, 0)
        )
        pair_M = jnp.asarray(table.joined.ids_VxV)[first_M, second_M]
        tokens_M = jnp.where(lengths_V[joint_M] < 0, pair_M, tokens_M)
    whole = document.length <= room
    return Document(
        tokens_N=jnp.where(used_M, tokens_M, table.end),
        role_N=jnp.where(used_M, document.role_N[symbol_M], OUTSIDE),
        kind_N=jnp.where(used_M, document.kind_N[symbol_M], MARKER),
        sentence_N=jnp.where(used_M, document.sentence_N[symbol_M], -1),
        length=jnp.where(whole, end_N[-1], jnp.maximum(document.length, size + 1)),
        prompt=jnp.where(np.arange(room) < document.prompt, length_N, 0).sum(),
    )
