"""Sets of small integers as bits of a few words: a set of 72 slots costs four operations, not 72.

The sampler holds one such set per problem that it tries, so that all its loops run over words.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import draws

_WORD = 32


@partial(jax.tree_util.register_dataclass, data_fields=["words"], meta_fields=["bounds"])
@dataclasses.dataclass(frozen=True)
class Bits:
    """A set of integers in 0..bounds[-1]-1.

    Attributes:
      words: uint32 scalars; bit b of word w stands for member bounds[w] + b.
      bounds: where each word's members begin, and where the last word's end.
    """

    words: tuple[jax.Array, ...]
    bounds: tuple[int, ...]

    def __and__(self, other: "Bits") -> "Bits":
        return self._with(a & b for a, b in zip(self.words, other.words, strict=True))

    def __or__(self, other: "Bits") -> "Bits":
        return self._with(a | b for a, b in zip(self.words, other.words, strict=True))

    def __sub__(self, other: "Bits") -> "Bits":
        return self._with(a & ~b for a, b in zip(self.words, other.words, strict=True))

    def _with(self, words: Iterable[jax.Array]) -> "Bits":
        return Bits(tuple(words), self.bounds)

    def where(self, condition: jax.Array, other: "Bits") -> "Bits":
        """This set where the condition holds, else the other."""
        return self._with(
            jnp.where(condition, a, b) for a, b in zip(self.words, other.words, strict=True)
        )

    def only(self, condition: jax.Array) -> "Bits":
        """This set where the condition holds, else the empty one."""
        return self._with(jnp.where(condition, a, jnp.uint32(0)) for a in self.words)

    def any(self) -> jax.Array:
        """bool: there is a member."""
        union = self.words[0]
        for word in self.words[1:]:
            union |= word
        return union != 0

    def size(self) -> jax.Array:
        """int32: the number of members."""
        return jnp.asarray(sum(count(word) for word in self.words))

    def mask(self) -> jax.Array:
        """bool[bounds[-1]]: which integers are members."""
        which, bit = _places(self.bounds)
        return ((jnp.stack(self.words)[which] >> bit) & 1).astype(bool)

    def one(self, member: jax.Array) -> "Bits":
        """The set of this one integer, laid out as this set; empty for -1."""
        words = []
        for low, high in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            inside = (member >= low) & (member < high)
            bit = jnp.clip(member - low, 0, _WORD - 1).astype(jnp.uint32)
            words.append(jnp.where(inside, jnp.uint32(1) << bit, jnp.uint32(0)))
        return self._with(words)

    def pick(self, word: jax.Array) -> jax.Array:
        """int32: one member, uniformly; -1 if there is none."""
        return self.member(draws.below(word, self.size()))

    def member(self, number: jax.Array) -> jax.Array:
        """int32: member `number` (from 0, smallest first); -1 if there are fewer."""
        start = jnp.full_like(number, -1)
        chosen, rank = jnp.broadcast_to(self.words[0], number.shape), jnp.zeros_like(number)
        for word, low in zip(self.words, self.bounds[:-1], strict=True):
            size = count(word)
            here = (number >= 0) & (number < size)
            chosen, start = jnp.where(here, word, chosen), jnp.where(here, low, start)
            rank = jnp.where(here, number, rank)
            number = number - size
        return jnp.where(start >= 0, start + nth(chosen, rank), -1)

    def picks(self, word_R: jax.Array) -> jax.Array:
        """int32[R]: members drawn uniformly without replacement, -1 when none is left.

        A loop, since compilers of unrolled picks repeat the earlier ones for each later one.
        """

        def take(left: Bits, word: jax.Array) -> tuple[Bits, jax.Array]:
            one = left.pick(word)
            return left - left.one(one), one

        return jax.lax.scan(take, self, word_R)[1]

    def subset(self, word: jax.Array, wanted: jax.Array) -> "Bits":
        """`wanted` members, uniformly without replacement; all, if there are fewer.

        One pass in which each member is taken with the share of those still wanted among those
        left (Knuth, The Art of Computer Programming 2, Section 3.4.2, Algorithm S).
        """
        left, words = self.size(), []
        for this, low, high in zip(self.words, self.bounds[:-1], self.bounds[1:], strict=True):
            taken = jnp.uint32(0)
            for bit in range(high - low):
                here = has(this, bit)
                lot = draws.numbered(word, low + bit)
                take = here & (draws.below(lot, left) < wanted)
                taken |= jnp.where(take, np.uint32(1 << bit), np.uint32(0))
                left, wanted = left - here, wanted - take
            words.append(taken)
        return self._with(words)


def of(mask: np.ndarray, bounds: tuple[int, ...]) -> Bits:
    """The constant sets of a bool[..., bounds[-1]] array; words are uint32[...]."""
    words = []
    for low, high in itertools.pairwise(bounds):
        value = np.uint64(1) << np.arange(high - low, dtype=np.uint64)
        words.append(jnp.asarray((mask[..., low:high] * value).sum(-1).astype(np.uint32)))
    return Bits(tuple(words), bounds)


def empty(bounds: tuple[int, ...]) -> Bits:
    """The set without members."""
    return of(np.zeros(bounds[-1], bool), bounds)


def count(word: jax.Array) -> jax.Array:
    """int32: the bits of a word that are set."""
    return jax.lax.population_count(word).astype(jnp.int32)


def has(word: jax.Array, bit: int) -> jax.Array:
    """bool: this bit of a word is set."""
    return (word >> np.uint32(bit)) & 1 != 0


def in_turn(parts: Sequence[tuple[jax.Array, int]], length: int) -> list[jax.Array]:
    """int32 each: the first `length` members of words, one word after the other, or -1.

    Args:
      parts: words, each with the member that its lowest bit stands for.
      length: how many members are asked for.
    """
    words, found = [word for word, _ in parts], []
    for _ in range(length):
        member = jnp.int32(-1)
        for n, (_, low) in enumerate(parts):
            here = (member < 0) & (words[n] != 0)
            lowest = words[n] & (~words[n] + 1)
            member = jnp.where(here, low + count(lowest - 1), member)
            words[n] = jnp.where(here, words[n] ^ lowest, words[n])
        found.append(member)
    return found


def nth(word: jax.Array, number: jax.Array) -> jax.Array:
    """int32: where the set bit `number` (from 0, lowest first) of a uint32 stands."""
    pairs = word - ((word >> 1) & 0x55555555)
    fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F
    halves = eights + (eights >> 8)
    place = jnp.zeros_like(word)
    left = number.astype(jnp.uint32)
    for sums, width in ((halves, 16), (eights, 8), (fours, 4), (pairs, 2), (word, 1)):
        below = (sums >> place) & np.uint32({16: 31, 8: 15, 4: 7, 2: 3, 1: 1}[width])
        beyond = left >= below
        left = jnp.where(beyond, left - below, left)
        place = jnp.where(beyond, place + np.uint32(width), place)
    return jnp.minimum(place, np.uint32(_WORD - 1)).astype(jnp.int32)


def _places(bounds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    spans = list(itertools.pairwise(bounds))
    which = np.concatenate([np.full(high - low, w) for w, (low, high) in enumerate(spans)])
    bit = np.concatenate([np.arange(high - low) for low, high in spans])
    return which, bit.astype(np.uint32)
