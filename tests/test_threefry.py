"""Threefry written out, and what is drawn with it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physlm.decoding.sampling import drawn
from physlm.decoding.strategy import Rows
from physlm.decoding.threefry import written_out

DRAWS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "bits": lambda key: jax.random.bits(key, (3, 5)),
    "bits of 16": lambda key: jax.random.bits(key, (7,), np.uint16),
    "bits of 8": lambda key: jax.random.bits(key, (7,), np.uint8),
    "one number": jax.random.uniform,
    "none": lambda key: jax.random.normal(key, (0, 2)),
    "normal": lambda key: jax.random.normal(key, (4, 2)),
    "of an array of keys": jax.vmap(lambda key: jax.random.gumbel(key, (3,))),
    "children": lambda key: jax.random.key_data(jax.random.fold_in(key, 2**32 - 1)),
    "parts": lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
    "order": lambda key: jax.random.permutation(key, 9),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1])
def test_the_numbers_are_those_of_jax(name: str, seed: int) -> None:
    key, draw = jax.random.key(seed), DRAWS[name]
    if name == "of an array of keys":
        key = jax.random.split(key, 4)
    np.testing.assert_array_equal(draw(written_out(key)), draw(key))


def test_a_seed_gives_the_same_key() -> None:
    impl = jax.random.key_impl(written_out(jax.random.key(0)))
    np.testing.assert_array_equal(
        jax.random.key_data(jax.random.key(7, impl=impl)), jax.random.key_data(jax.random.key(7))
    )


def test_so_are_those_of_64_bits() -> None:
    usual = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        key = jax.random.key(3)
        bits = jax.random.bits(written_out(key), (5,), np.uint64)
        assert bits.dtype == np.uint64
        np.testing.assert_array_equal(bits, jax.random.bits(key, (5,), np.uint64))
    finally:
        jax.config.update("jax_enable_x64", usual)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_keys_draw_as_they_do(impl: str) -> None:
    key = jax.random.key(0, impl=impl)
    np.testing.assert_array_equal(jax.random.bits(written_out(key)), jax.random.bits(key))


def test_numbers_are_those_of_jax_where_it_has_others() -> None:
    usual = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", False)
    try:
        key = jax.random.key(3)
        np.testing.assert_array_equal(
            jax.random.bits(written_out(key), (6,)), jax.random.bits(key, (6,))
        )
    finally:
        jax.config.update("jax_threefry_partitionable", usual)


def rows(key_B: jax.Array, tokens_B: jax.Array) -> Rows:
    nothing: Any = dict.fromkeys(Rows._fields)
    return Rows(**nothing)._replace(key_B=key_B, tokens_B=tokens_B)


@given(seed=st.integers(0, 2**32 - 1), likely=st.floats(0, 30), excluded=st.integers(0, 8))
def test_tokens_are_those_of_categorical(seed: int, likely: float, excluded: int) -> None:
    key_B = jax.random.split(jax.random.key(seed), 3)
    logits_BxV = likely * jax.random.normal(jax.random.key(seed ^ 1), (3, 9))
    logits_BxV = logits_BxV.at[:, :excluded].set(-jnp.inf)
    tokens_B = jnp.array([0, 5, 2**20])
    each_B = jax.vmap(jax.random.fold_in)(key_B, tokens_B)
    want_B = jax.vmap(jax.random.categorical)(each_B, logits_BxV)
    np.testing.assert_array_equal(drawn(rows(key_B, tokens_B), logits_BxV), want_B)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="is about XLA for CPUs")
def test_a_draw_has_no_loop() -> None:
    given = (jax.random.split(jax.random.key(0), 8), jnp.arange(8), jnp.zeros((8, 500)))
    program = jax.jit(lambda key_B, tokens_B, x: drawn(rows(key_B, tokens_B), x)).lower(*given)
    assert " while(" not in program.compile().as_text()
    usual = jax.jit(jax.vmap(jax.random.categorical)).lower(given[0], given[2])
    assert " while(" in usual.compile().as_text()
