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


def test_other_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="The key is one of rbg, not of threefry2x32"):
        written_out(jax.random.key(0, impl="rbg"))


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
