"""Random draws in integer arithmetic: the same on every platform, and cheap in bulk.

A threefry key gives a table of 32-bit words; each draw spends one word. Draws from a set
of slots expand the word to one priority per slot with an avalanche hash (the finaliser of
MurmurHash3), so that a choice among 72 slots costs one word of the key's stream.
"""

import jax
import jax.numpy as jnp

_SLOT_BITS = 7  # a set has at most 128 members


def words(key: jax.Array, count: int) -> jax.Array:
    """uint32[count] independent random words of `key`."""
    return jax.random.bits(key, (count,), jnp.uint32)


def mix(x: jax.Array) -> jax.Array:
    """Hashes uint32 to uint32 so that each bit of the input changes half of the output."""
    x = x.astype(jnp.uint32)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def below(word: jax.Array, n: jax.Array | int) -> jax.Array:
    """int32 uniform on 0..n-1, for n up to 256 (bias below n / 2**24)."""
    return (((word >> 8) * jnp.asarray(n).astype(jnp.uint32)) >> 24).astype(jnp.int32)


def coin(word: jax.Array) -> jax.Array:
    """True with probability one half."""
    return (word >> 31) == 0


def priorities(word: jax.Array, size: int) -> jax.Array:
    """int32[..., size] distinct positive priorities; the low bits hold the slot itself."""
    slot = jnp.arange(size, dtype=jnp.uint32)
    hashed = mix(word[..., None] + slot * jnp.uint32(0x9E3779B9))
    return (((hashed >> (_SLOT_BITS + 1)) << _SLOT_BITS) | slot).astype(jnp.int32)


def pick(word: jax.Array, mask: jax.Array) -> jax.Array:
    """One member of the set `mask` (bool[..., n]), uniformly.

    Returns:
      int32[...] in 0..n-1; meaningless where the set is empty.
    """
    ranked = jnp.where(mask, priorities(word, mask.shape[-1]), -1)
    return jnp.minimum(ranked.max(-1) & (2**_SLOT_BITS - 1), mask.shape[-1] - 1)


def subset(word: jax.Array, mask: jax.Array, count: jax.Array) -> jax.Array:
    """bool[n]: `count` members of `mask`, uniformly without replacement (all, if fewer)."""
    ranked = jnp.where(mask, priorities(word, mask.shape[-1]), -1)
    ahead = (ranked[..., None, :] > ranked[..., :, None]).sum(-1)
    return mask & (ahead < count)


def shuffled(word: jax.Array, mask: jax.Array, length: int) -> jax.Array:
    """int32[length]: the members of `mask` in random order, padded with -1."""
    size = mask.shape[-1]
    ranked = jnp.where(mask, priorities(word, size), -1)
    rank = (ranked[..., None, :] > ranked[..., :, None]).sum(-1)
    place = jnp.where(mask, rank, length)
    empty = jnp.full((length,), -1, jnp.int32)
    return empty.at[place].set(jnp.arange(size, dtype=jnp.int32), mode="drop")
