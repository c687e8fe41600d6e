"""Mixtures of experts: who works on what."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_variants import apply, changed_at, config_of, params_of, some_tokens

from physlm import feedforward

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow


def test_tokens_take_as_many_experts_as_configured() -> None:
    config, tokens = config_of("mixtral"), some_tokens()
    found = [
        apply(dataclasses.replace(config, experts_per_token=taken), params_of(config), tokens)
        for taken in (1, 2, 3, 4)
    ]
    for one, other in zip(found[1:], found[:-1], strict=True):
        assert jnp.abs(one - other).max() > 1e-2


def test_a_mixture_of_equal_experts_is_one_of_them() -> None:
    config, tokens = config_of("mixtral", mlp_width=40), some_tokens()
    plain, params = config_of("llama", mlp_width=40), params_of(config)
    mixture = params["blocks"]["mixture"]
    first = {name: {"kernel": mixture[name]["kernel"][:, 0]} for name in ("up", "gate", "down")}
    equal = params
    for name, part in first.items():
        kernel = jnp.repeat(part["kernel"][:, None], config.mixture, axis=1)
        equal = changed_at(equal, f"blocks/mixture/{name}/kernel", lambda _, kernel=kernel: kernel)
    alone = {name: part for name, part in params["blocks"].items() if name != "mixture"}
    alone = {**params, "blocks": {**alone, "mlp": first}}
    want = apply(plain, alone, tokens)
    np.testing.assert_allclose(apply(config, equal, tokens), want, atol=1e-5)
    assert jnp.abs(apply(config, params, tokens) - want).max() > 1e-2


@pytest.mark.parametrize(("variant", "taken"), [("mixtral", 1), ("mixtral", 2), ("gpt2", 2)])
@pytest.mark.parametrize("where", ["anywhere", "all to one"])
def test_every_token_is_worked_on_by_its_own_experts(variant: str, taken: int, where: str) -> None:
    config = config_of(variant, experts=4, experts_per_token=taken, mlp_width=40)
    mixture = feedforward.Mixture(config, rngs=nnx.Rngs(0))
    x_BxTxD = jax.random.normal(jax.random.key(1), (3, 12, config.width)).at[..., 0].set(1.0)
    router_DxE = mixture.router.kernel[...]
    if where == "all to one":
        router_DxE = router_DxE.at[0, 3].add(50.0)
        mixture.router.kernel = nnx.Param(router_DxE)
    shares_BxTxE = jax.nn.softmax(x_BxTxD @ router_DxE, axis=-1)
    least = jnp.sort(shares_BxTxE, axis=-1)[..., -taken, None]
    shares_BxTxE = jnp.where(shares_BxTxE >= least, shares_BxTxE, 0)
    shares_BxTxE /= shares_BxTxE.sum(axis=-1, keepdims=True)
    used_E = (shares_BxTxE > 0).sum(axis=(0, 1))
    assert (used_E[3] == 36) == (where == "all to one")
    # All experts work on all tokens, and most of that is multiplied with 0.
    up = jnp.einsum("btd,edf->btef", x_BxTxD, mixture.up.kernel[...])
    if variant == "mixtral":
        up *= jax.nn.silu(jnp.einsum("btd,edf->btef", x_BxTxD, mixture.gate.kernel[...]))
    else:
        up = jax.nn.gelu(up, approximate=True)
    want = jnp.einsum("btef,efd,bte->btd", up, mixture.down.kernel[...], shares_BxTxE)
    got, imbalance = nnx.jit(mixture)(x_BxTxD)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert (jnp.abs(got).max(axis=-1) > 1e-3).all()
    # Equal use gives `taken` for each sequence; one for all gives nearly as many as there are.
    if where == "all to one":
        assert float(imbalance) == pytest.approx(3 * 4, rel=1e-3)
    else:
        assert 3 * taken < float(imbalance) < 3 * 4
