"""The decoder: what depends on what, and the shape of its parameters."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physlm import attention, block, model
from physlm.architecture import ModelConfig

CONFIG = ModelConfig(vocab=17, window=12, layers=2, heads=2, head_dim=8)


def _params(config: ModelConfig, seed: int = 0) -> model.Params:
    # Ten times the usual spread, so that attention is far from uniform.
    return model.init(dataclasses.replace(config, init_std=0.2), jax.random.key(seed))


def _tokens(config: ModelConfig, rows: int = 3, seed: int = 1) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (rows, config.window), 0, config.vocab)


@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_logit_depends_on_this_and_earlier_tokens_only(place: int) -> None:
    params = _params(CONFIG)
    # Distinct tokens: the gradient of an embedding row is that of one position.
    tokens = jnp.arange(CONFIG.window)[None]

    def logit(embedding: jax.Array) -> jax.Array:
        changed = {**params, "embed": {"embedding": embedding}}
        return jnp.sum(model.apply(CONFIG, changed, tokens)[0, place] ** 2)

    grads_VxD = jax.jit(jax.grad(logit))(params["embed"]["embedding"])
    seen = np.abs(np.asarray(grads_VxD)).max(axis=1)
    assert (seen[: place + 1] > 1e-6).all()
    assert (seen[place + 1 :] == 0).all()


def test_rotated_products_depend_on_the_distance_only() -> None:
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, CONFIG.head_dim))

    def product(m: int, n: int) -> float:
        turned = [
            attention.rotate(x, attention.rotary_angles(CONFIG, jnp.array([at])))
            for x, at in ((q, m), (k, n))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert product(3, 1) == pytest.approx(product(103, 101), abs=1e-4)
    assert product(0, 0) == pytest.approx(product(57, 57), abs=1e-4)
    assert abs(product(3, 1) - product(3, 2)) > 1e-2


def test_pairs_of_channels_turn_at_the_published_speeds() -> None:
    """Those of RoFormer (arXiv 2104.09864, section 3.2.2), each counted by itself."""
    config = dataclasses.replace(CONFIG, head_dim=16, rotary_fraction=0.5)
    cos_TxR, sin_TxR = attention.rotary_angles(config, jnp.array([0, 1, 7]))
    for row, position in enumerate([0, 1, 7]):
        for pair in range(4):
            angle = position / config.rotary_base ** (2 * pair / 8)
            assert cos_TxR[row, pair] == pytest.approx(math.cos(angle), abs=1e-6)
            assert sin_TxR[row, pair] == pytest.approx(math.sin(angle), abs=1e-6)
    assert cos_TxR.shape == (3, 4)


def test_positions_matter_and_a_common_shift_does_not() -> None:
    params, tokens = _params(CONFIG), _tokens(CONFIG, rows=1)

    def hidden(positions: jax.Array) -> jax.Array:
        def attend(layer, q, k, v):
            return attention.in_blocks(q, k, v), None

        def not_asked(*_):
            raise AssertionError("there are no Canon layers")

        return model.run(CONFIG, params, tokens, positions, block.Reading(attend, not_asked))[1]

    plain = hidden(jnp.arange(CONFIG.window))
    np.testing.assert_allclose(hidden(jnp.arange(CONFIG.window) + 40), plain, atol=2e-4)
    assert np.abs(hidden(2 * jnp.arange(CONFIG.window)) - plain).max() > 1e-2


@pytest.mark.parametrize("length", [1, 7, 64, 200])
def test_causal_attention_is_the_textbook_formula(length: int) -> None:
    keys = jax.random.split(jax.random.key(length), 4)
    q, k, v, probe = (np.asarray(jax.random.normal(key, (2, 3, length, 8))) for key in keys)

    def textbook(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        scores = jnp.exp(jnp.einsum("bhtk,bhsk->bhts", q, k) / 8**0.5)
        scores = jnp.tril(scores)
        return jnp.einsum("bhts,bhsk->bhtk", scores / scores.sum(-1, keepdims=True), v)

    np.testing.assert_allclose(jax.jit(attention.in_blocks)(q, k, v), textbook(q, k, v), atol=2e-5)

    def grads(function: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
        probed = jax.grad(lambda *qkv: jnp.sum(function(*qkv) * probe), argnums=(0, 1, 2))
        return jax.jit(probed)(q, k, v)

    for got, want in zip(grads(attention.in_blocks), grads(textbook), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_document_in_a_segment_of_its_own_reads_as_if_it_were_alone() -> None:
    config = dataclasses.replace(CONFIG, window=200)
    params = jax.tree.map(lambda x: 5 * x, model.init(config, jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (2, 150), 0, config.vocab)
    apply = jax.jit(model.apply, static_argnums=0)
    segments = jnp.broadcast_to(jnp.arange(150) // 60, (2, 150))
    packed = apply(config, params, tokens, segments)
    for start, end in ((0, 60), (60, 120), (120, 150)):
        alone = apply(config, params, tokens[:, start:end])
        np.testing.assert_allclose(packed[:, start:end], alone, atol=1e-4)
    whole = apply(config, params, tokens)
    np.testing.assert_allclose(packed[:, :60], whole[:, :60], atol=1e-4)
    assert jnp.abs(packed[:, 60:] - whole[:, 60:]).max() > 1e-2


@pytest.mark.parametrize("changes", [{"rotary_base": 100.0}, {"norm_eps": 1.0}])
def test_numerics_are_as_configured(changes: dict[str, float]) -> None:
    params = jax.tree.map(lambda x: 5 * x, model.init(CONFIG, jax.random.key(0)))
    tokens = jnp.arange(12)[None]
    other = dataclasses.replace(CONFIG, **changes)
    assert (
        jnp.abs(model.apply(CONFIG, params, tokens) - model.apply(other, params, tokens)).max()
        > 1e-3
    )


def test_hidden_width_is_as_configured() -> None:
    params = model.init(dataclasses.replace(CONFIG, mlp_width=48), jax.random.key(0))
    assert params["blocks"]["mlp"]["up"]["kernel"].shape == (2, 16, 48)


def test_initial_weights_are_gpt2s() -> None:
    config = dataclasses.replace(CONFIG, heads=4, head_dim=32, layers=8, vocab=500)
    params = jax.jit(model.init, static_argnums=0)(config, jax.random.key(0))
    block = jax.tree.map(lambda leaf: leaf[3], params["blocks"])
    for kernel, std in [
        (params["embed"]["embedding"], 0.02),
        (params["head"]["kernel"], 0.02),
        (block["attention"]["query"]["kernel"], 0.02),
        (block["attention"]["key"]["kernel"], 0.02),
        (block["attention"]["value"]["kernel"], 0.02),
        (block["mlp"]["up"]["kernel"], 0.02),
        (block["attention"]["out"]["kernel"], 0.02 / 4),
        (block["mlp"]["down"]["kernel"], 0.02 / 4),
    ]:
        assert float(jnp.std(kernel)) == pytest.approx(std, rel=0.03)
    assert float(jnp.abs(block["mlp"]["up"]["bias"]).max()) == 0
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    # An untrained model is indifferent.
    logits = jax.jit(model.apply, static_argnums=0)(config, params, _tokens(config))
    loss = -jnp.mean(jax.nn.log_softmax(logits)[..., 0])
    assert float(loss) == pytest.approx(np.log(500), rel=0.05)


def test_the_head_is_tied_or_not() -> None:
    tied = dataclasses.replace(CONFIG, tied=True)
    count = {c: sum(leaf.size for leaf in jax.tree.leaves(_params(c))) for c in (CONFIG, tied)}
    assert count[CONFIG] - count[tied] == CONFIG.vocab * CONFIG.width
    params = _params(tied)
    tokens = _tokens(tied)
    logits = model.apply(tied, params, tokens)
    # Turned embeddings turn the logits of a model whose stream they do not enter.
    alone = {**params, "embed": jax.tree.map(lambda x: x[::-1], params["embed"])}
    np.testing.assert_allclose(
        model.apply(tied, alone, CONFIG.vocab - 1 - tokens), logits[..., ::-1], atol=1e-5
    )


def test_bfloat16_computes_in_bfloat16_and_stays_near() -> None:
    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    params, tokens = _params(CONFIG), _tokens(CONFIG)
    text = jax.jit(model.apply, static_argnums=0).lower(half, params, tokens).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("bf16" in line for line in products)
    exact, near = (model.apply(c, params, tokens) for c in (CONFIG, half))
    assert near.dtype == jnp.float32
    error = jnp.linalg.norm(exact - near) / jnp.linalg.norm(exact)
    assert 0 < float(error) < 0.03


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab", 0),
        ("layers", 0),
        ("head_dim", 7),
        ("rotary_base", 1.0),
        ("norm_eps", 0.0),
        ("init_std", -1.0),
        ("dtype", "float16"),
    ],
)
def test_impossible_shapes_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is .*{value}.*; it must .*\.$"):
        dataclasses.replace(CONFIG, **{field: value})
