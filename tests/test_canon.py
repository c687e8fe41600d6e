"""Canon layers: what they compute, and what they never see."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_variants import _logits_and_grads, apply, config_of, params_of, some_tokens

from physlm import canon, model
from physlm.architecture import ModelConfig

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow

# All four, grouped queries, normalised ones, half of a head without positions.
EVERY = config_of("llama", canon="ABCD", canon_width=3, qk_norm=True, rotary_fraction=0.5)
UNPLACED = config_of("gpt2", canon="AC", rotary_fraction=0.0)


def _by_hand(config: ModelConfig, kernel_WxC: np.ndarray, x_TxC: np.ndarray) -> np.ndarray:
    """The convolution as its definition has it, position by position."""
    found_TxC = x_TxC.copy()
    for t in range(len(x_TxC)):
        for distance in range(min(config.canon_width, t + 1)):
            found_TxC[t] += kernel_WxC[distance] * x_TxC[t - distance]
    return found_TxC


def test_a_canon_layer_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    # With all weights but those of one Canon layer as they are, what enters and leaves it is seen.
    seen: list[tuple[str, Any, Any, Any]] = []
    whole = canon.Canon.__call__

    def watched(self: Any, x: jax.Array, behind: jax.Array, same: Any) -> jax.Array:
        out = whole(self, x, behind, same)
        seen.append((self.name, self.kernel[...], x, out))
        return out

    monkeypatch.setattr(canon.Canon, "__call__", watched)
    with jax.disable_jit():
        model.apply(EVERY, params_of(EVERY), some_tokens(1))
    names = ["attention", "query", "key", "value", "mlp", "up", "gate"]
    assert [name for name, *_ in seen] == names * EVERY.layers
    for name, kernel, x, out in seen:
        want = _by_hand(EVERY, np.asarray(kernel), np.asarray(x[0]))
        np.testing.assert_allclose(out[0], want, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("config", [EVERY, UNPLACED], ids=["every", "no positions"])
def test_a_document_reads_the_same_wherever_it_stands(config: ModelConfig) -> None:
    tokens = some_tokens(1)
    segments = jnp.array([[0] * 5 + [1] * 7])
    beside = apply(config, params_of(config), tokens, segments)[:, 5:]
    alone = apply(config, params_of(config), tokens[:, 5:])
    np.testing.assert_allclose(beside, alone, atol=1e-4)
    # Without the border the first tokens would see those before it.
    assert jnp.abs(apply(config, params_of(config), tokens)[:, 5:] - alone).max() > 1e-2


def test_without_attention_a_token_sees_its_neighbours_alone() -> None:
    # One block whose attention adds nothing: what is left is two convolutions of three.
    config = dataclasses.replace(EVERY, layers=1)
    params = params_of(config)
    out = params["blocks"]["attention"]["out"]
    params["blocks"]["attention"] |= {"out": jax.tree.map(jnp.zeros_like, out)}
    tokens = some_tokens(1)
    changed = tokens.at[0, 4].set((tokens[0, 4] + 1) % config.vocab)
    moved = jnp.abs(apply(config, params, tokens) - apply(config, params, changed))[0].max(-1)
    # C reaches two positions back and D two more.
    assert (moved > 1e-4).nonzero()[0].tolist() == [4, 5, 6, 7, 8]


def test_a_new_model_computes_as_one_without() -> None:
    config = config_of("gpt2", canon="ABCD")
    plain = dataclasses.replace(config, canon="")
    params = model.init(config, jax.random.key(3))
    logits = apply(config, params, some_tokens())
    want = apply(plain, model.init(plain, jax.random.key(3)), some_tokens())
    np.testing.assert_allclose(logits, want, atol=1e-6)
    # And every Canon layer has a gradient, so that it does not stay so.
    _, grads = _logits_and_grads(config, params, some_tokens())
    canon = [g for path, g in jax.tree.leaves_with_path(grads) if "canon" in str(path)]
    assert len(canon) == 6
    assert all((jnp.abs(grad).max(axis=tuple(range(1, grad.ndim))) > 0).all() for grad in canon)


def test_canon_layers_begin_as_in_the_published_code_where_that_is_asked_for() -> None:
    """Uniform within 1/sqrt(W), as PyTorch's depthwise convolutions are; no two layers alike."""
    config = config_of("gpt2", canon="ABCD", canon_init="uniform", canon_width=4)
    leaves = jax.tree.leaves_with_path(model.init(config, jax.random.key(3)))
    kernels = [np.asarray(leaf) for path, leaf in leaves if "canon" in str(path)]
    drawn = np.concatenate([kernel.ravel() for kernel in kernels])
    assert len(kernels) == 6 and len(np.unique(drawn)) > 0.99 * len(drawn)
    assert 0.45 < drawn.max() <= 0.5 and -0.5 <= drawn.min() < -0.45
    assert abs(drawn.std() - 0.5 / 3**0.5) < 0.02


@pytest.mark.parametrize("changes", [{"scan": True}, {"remat": "dots"}, {"remat": "full"}], ids=str)
def test_scans_and_rematerialisation_change_nothing(changes: dict[str, Any]) -> None:
    other = dataclasses.replace(EVERY, **changes)
    for got, want in zip(
        jax.tree.leaves(_logits_and_grads(other, params_of(EVERY), some_tokens())),
        jax.tree.leaves(_logits_and_grads(EVERY, params_of(EVERY), some_tokens())),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"canon": "AE"}, r"canon is 'AE'; it must be "),
        ({"canon": "CA"}, r"canon is 'CA'; it must be "),
        ({"canon": "AA"}, r"canon is 'AA'; it must be "),
        ({"canon": "D", "variant": "mixtral"}, r"canon is 'D'; it must be without D "),
        ({"canon_width": 1}, r"canon_width is 1; it must be "),
        ({"canon": "A", "canon_width": 13}, r"canon_width is 13; it must be .*12"),
        ({"rotary_fraction": 0.3}, r"rotary_fraction is 0\.3; it must be "),
        ({"rotary_fraction": 0.125}, r"rotary_fraction is 0\.125; it must .* pairs"),
        ({"rotary_fraction": 1.5}, r"rotary_fraction is 1\.5; it must be "),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        config_of(**({"variant": "gpt2"} | changes))
