"""Random draws in integer arithmetic: the same on every platform, and cheap in bulk.

A key gives two words, and with them as many numbered words as are wanted: each is a hash (the
finaliser of MurmurHash3, twice) of its number and these two. From one word follow further ones, by
number or by name. Every choice spends one word.
"""

import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_SLOT_BITS = 7  # `shuffled` takes at most 128 members
_GOLDEN = np.uint32(0x9E3779B9)


def mix(x: jax.Array) -> jax.Array:
    """Hashes uint32 to uint32 so that each bit of the input changes half of the output."""
    x = x.astype(jnp.uint32)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def numbered(word: jax.Array, number: jax.Array | np.ndarray | int) -> jax.Array:
    """uint32: word `number` of those that follow from a word."""
    return mix(word + _spread(number))


def _spread(number: jax.Array | np.ndarray | int) -> jax.Array | np.uint32:
    """Numbers as multiples of the golden ratio's bits, which lie far apart."""
    if isinstance(number, int):
        return np.uint32(number * int(_GOLDEN) % 2**32)
    return jnp.asarray(number).astype(jnp.uint32) * _GOLDEN


def named(word: jax.Array, name: str) -> jax.Array:
    """uint32: the word that follows from a word for what has this name."""
    constant = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    return mix(word ^ np.uint32(constant))


class Source(NamedTuple):
    """Numbered random words (uint32 scalars)."""

    first: jax.Array
    second: jax.Array

    def word(self, number: jax.Array | int) -> jax.Array:
        """uint32: word `number`, of that shape; the same number gives the same word."""
        return mix(mix(self.first + _spread(number)) ^ self.second)


def source(key: jax.Array) -> Source:
    """The random words of a key."""
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    return Source(first, second)


def words(key: jax.Array, count: int) -> jax.Array:
    """uint32[count]: the first random words of a key."""
    return source(key).word(jnp.arange(count, dtype=jnp.uint32))


def below(word: jax.Array, n: jax.Array | int) -> jax.Array:
    """int32 uniform on 0..n-1, for n up to 256 (bias below n / 2**24)."""
    return (((word >> 8) * jnp.asarray(n).astype(jnp.uint32)) >> 24).astype(jnp.int32)


def coin(word: jax.Array) -> jax.Array:
    """True with probability one half."""
    return (word >> 31) == 0


def priorities(word: jax.Array, size: int) -> jax.Array:
    """int32[..., size] distinct positive priorities; the low bits hold the slot itself."""
    slot = np.arange(size, dtype=np.uint32)
    hashed = mix(word[..., None] + slot * _GOLDEN)
    return (((hashed >> (_SLOT_BITS + 1)) << _SLOT_BITS) | slot).astype(jnp.int32)


def pick(word: jax.Array, mask: jax.Array) -> jax.Array:
    """One member of the set `mask` (bool[..., n]), uniformly.

    Returns:
      int32[...] in 0..n-1; meaningless where the set is empty.
    """
    ranked = jnp.where(mask, priorities(word, mask.shape[-1]), -1)
    return jnp.minimum(ranked.max(-1) & (2**_SLOT_BITS - 1), mask.shape[-1] - 1)


def shuffled(word: jax.Array, mask: jax.Array, length: int) -> jax.Array:
    """int32[length]: the members of `mask` in random order, padded with -1."""
    size = mask.shape[-1]
    ranked = jnp.where(mask, priorities(word, size), -1)
    rank = (ranked[..., None, :] > ranked[..., :, None]).sum(-1)
    place = jnp.where(mask, rank, length)
    empty = jnp.full((length,), -1, jnp.int32)
    return empty.at[place].set(jnp.arange(size, dtype=jnp.int32), mode="drop")
