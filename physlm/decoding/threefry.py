"""Threefry written out, for small draws on a CPU: the numbers of `jax.random`, sooner.

JAX computes Threefry (Salmon et al., SC 2011) on a CPU by a loop of small programs, which take long
beside a small model that writes a token of a few texts. Written out it is one program. XLA computes
that anew for each of its readers, so that draws with many of them are better left to the loop.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def _block(key_2: jax.Array, high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 of 20 rounds: two words of random bits for each pair of words."""
    schedule = (key_2[0], key_2[1], key_2[0] ^ key_2[1] ^ _PARITY)
    high, low = high + schedule[0], low + schedule[1]
    for turn in range(5):
        for distance in _ROTATIONS[turn % 2]:
            high = high + low
            low = ((low << np.uint32(distance)) | (low >> np.uint32(32 - distance))) ^ high
        high = high + schedule[(turn + 1) % 3]
        low = low + schedule[(turn + 2) % 3] + np.uint32(turn + 1)
    return high, low


def _counted(key_2: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    # As `jax.random` with jax_threefry_partitionable, for fewer than 2**32 numbers.
    low = jax.lax.iota(np.uint32, math.prod(shape)).reshape(shape)
    return _block(key_2, jnp.zeros_like(low), low)


def _seed(seed: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def _split(key_2: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_counted(key_2, shape), axis=-1)


def _random_bits(key_2: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    high, low = _counted(key_2, shape)
    if width == 64:
        return (high.astype(np.uint64) << np.uint64(32)) | low
    return (high ^ low).astype(f"uint{width}")


def _fold_in(key_2: jax.Array, number: Any) -> jax.Array:
    low = jnp.asarray(number, np.uint32)
    return jnp.stack(_block(key_2, jnp.zeros_like(low), low))


_WRITTEN_OUT: Any = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32_written_out",
    tag="fryw",
)


def written_out(key: jax.Array) -> jax.Array:
    """The key, or array of keys, from which `jax.random` draws the same numbers without a loop.

    Keys of other generators, which have no such loop, are returned as they are, and so are all
    where `jax_threefry_partitionable` is off, which draws other numbers.
    """
    same = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    if not same or str(jax.random.key_impl(key)) != "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_WRITTEN_OUT)
