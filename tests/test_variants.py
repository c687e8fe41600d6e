"""Every variant of the decoder, and every option: what each does, and what none may change."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physlm import attention, block, model
from physlm.architecture import VARIANTS, ModelConfig, sized

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow

CONFIG = ModelConfig(vocab=23, window=12, layers=2, heads=4, head_dim=8, init_std=0.2)

every_variant = pytest.mark.parametrize("variant", list(VARIANTS))

apply = jax.jit(model.apply, static_argnums=0)


def config_of(variant: str, **changes: Any) -> ModelConfig:
    # Grouped queries too, where nothing of a variant speaks against them.
    defaults = {"kv_heads": 0 if variant == "gpt2" else 2}
    if variant == "mixtral":
        defaults["experts"] = 4
    return dataclasses.replace(CONFIG, variant=variant, **(defaults | changes))


def some_tokens(rows: int = 3) -> jax.Array:
    return jax.random.randint(jax.random.key(1), (rows, CONFIG.window), 0, CONFIG.vocab)


def _shapes(config: ModelConfig) -> model.Params:
    return jax.eval_shape(functools.partial(model.init, config), jax.random.key(0))


@functools.cache
def params_of(config: ModelConfig) -> model.Params:
    """Parameters of which no bias is 0 and no scale 1, without a program to compile."""
    rng = np.random.default_rng(0)

    def drawn(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + 0.2 * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(drawn, _shapes(config))


def changed_at(params: model.Params, path: str, change: Any) -> model.Params:
    """The parameters with one of them, as `blocks/mlp/up/kernel`, replaced."""
    name, _, rest = path.partition("/")
    inside = changed_at(params[name], rest, change) if rest else change(params[name])
    return {**params, name: inside}


# What a variant is.


@every_variant
def test_a_logit_depends_on_this_and_earlier_tokens_only(variant: str) -> None:
    config = config_of(variant)
    # Distinct tokens: the gradient of an embedding row is that of one position.
    tokens = jnp.arange(config.window)[None]

    @jax.jit
    def seen(embedding_VxD: jax.Array, weights_T: jax.Array) -> jax.Array:
        def weighed(embedding_VxD: jax.Array) -> jax.Array:
            changed = {**params_of(config), "embed": {"embedding": embedding_VxD}}
            return weights_T @ jnp.sum(model.apply(config, changed, tokens)[0] ** 2, axis=-1)

        return jnp.abs(jax.grad(weighed)(embedding_VxD)).max(axis=1)

    embedding_VxD = params_of(config)["embed"]["embedding"]
    for place in range(config.window):
        seen_V = seen(embedding_VxD, jnp.eye(config.window)[place])
        assert (seen_V[: place + 1] > 1e-6).all()
        assert (seen_V[place + 1 :] == 0).all()


@every_variant
def test_later_tokens_do_not_move_a_logit(variant: str) -> None:
    # Which expert a token takes has no gradient.
    config, tokens = config_of(variant), some_tokens()
    later = tokens.at[:, 7:].set((tokens[:, 7:] + 1) % config.vocab)
    before, after = (apply(config, params_of(config), x) for x in (tokens, later))
    np.testing.assert_allclose(before[:, :7], after[:, :7], atol=1e-5)
    assert (jnp.abs(before - after)[:, 7:].max(axis=-1) > 1e-2).all()


@every_variant
@pytest.mark.parametrize(
    "changes",
    [{"scan": True}, {"remat": "dots"}, {"scan": True, "remat": "full"}],
    ids=str,
)
def test_scans_and_rematerialisation_change_nothing(variant: str, changes: dict[str, Any]) -> None:
    plain = config_of(variant)
    other, params, tokens = dataclasses.replace(plain, **changes), params_of(plain), some_tokens()
    traced = _logits_and_grads.trace(other, params, tokens)
    assert ("remat" in str(traced.jaxpr)) == ("remat" in changes)
    for got, want in zip(
        jax.tree.leaves(traced.lower().compile()(params, tokens)),
        jax.tree.leaves(_logits_and_grads(plain, params, tokens)),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def _logits_and_grads(config: ModelConfig, params: model.Params, tokens: jax.Array) -> Any:
    def loss_of(params: model.Params) -> tuple[jax.Array, jax.Array]:
        logits, imbalance = model.apply_with_loss(config, params, tokens)
        return -jnp.mean(jax.nn.log_softmax(logits)[..., 0]) + 0.1 * imbalance, logits

    return jax.value_and_grad(loss_of, has_aux=True)(params)


@every_variant
def test_initial_weights_spread_as_configured(variant: str) -> None:
    config = config_of(variant, heads=8, head_dim=16, layers=8, vocab=500, init_std=0.03)
    assert config.residual_std == pytest.approx(0.03 / 4)
    second = "mixture" if variant == "mixtral" else "mlp"
    params = jax.jit(model.init, static_argnums=0)(config, jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("kernel") or name.endswith("embedding"):
            residual = name in ("blocks/attention/out/kernel", f"blocks/{second}/down/kernel")
            std = config.residual_std if residual else config.init_std
            assert float(leaf.std()) == pytest.approx(std, rel=0.04), name
            assert abs(float(leaf.mean())) < 5 * std / leaf.size**0.5, name
        else:
            assert (leaf == (1 if name.endswith("scale") else 0)).all(), name


@pytest.mark.parametrize("heads", [3, 4, 12])
def test_gated_mlps_have_as_many_parameters(heads: int) -> None:
    def count(variant: str) -> int:
        config = config_of(variant, heads=heads, kv_heads=heads, experts=1)
        kernels = [part["kernel"] for part in _shapes(config)["blocks"]["mlp"].values()]
        return sum(kernel.size for kernel in kernels) // config.layers

    hidden = {3: 8, 4: 11, 12: 32}[heads] * CONFIG.head_dim
    width = heads * CONFIG.head_dim
    assert count("llama") == count("gemma") == 3 * width * hidden
    # Up to what rounding to whole heads adds.
    plain = 8 * width**2
    assert count("gpt2") == plain
    assert plain <= count("llama") < plain + 3 * width * CONFIG.head_dim
    assert (count("llama") == plain) == (heads % 3 == 0)


@every_variant
def test_parameters_are_as_many_as_the_shapes_say(variant: str) -> None:
    config = config_of(variant, qk_norm=True)
    width, hidden, shared = config.width, config.hidden, config.shared_heads * config.head_dim
    block = 2 * width**2 + 2 * width * shared + 2 * width + 2 * config.head_dim
    if variant == "gpt2":
        block += 2 * width * hidden + 2 * width + 5 * width + hidden
    elif variant == "mixtral":
        block += 4 * 3 * width * hidden + 4 * width
    else:
        block += 3 * width * hidden
    frame = 2 * config.vocab * width + (2 if variant == "gpt2" else 1) * width
    leaves = jax.tree.leaves(_shapes(config))
    assert sum(leaf.size for leaf in leaves) == config.layers * block + frame


# What an option does.


def test_normalised_queries_and_keys_have_no_size() -> None:
    plain, normed = config_of("llama"), config_of("llama", qk_norm=True)
    params, tokens = params_of(normed), some_tokens()
    want = apply(normed, params, tokens)
    for name in ("query", "key"):
        larger = changed_at(params, f"blocks/attention/{name}/kernel", lambda x: 7 * x)
        np.testing.assert_allclose(apply(normed, larger, tokens), want, atol=1e-4)
        scaled = changed_at(params, f"blocks/attention/norm_{name}/scale", lambda x: 3 * x)
        assert jnp.abs(apply(normed, scaled, tokens) - want).max() > 1e-2
    inside = {k: v for k, v in params["blocks"]["attention"].items() if "norm" not in k}
    bare = changed_at(params, "blocks/attention", lambda _: inside)
    assert jnp.abs(apply(plain, bare, tokens) - want).max() > 1e-2


@pytest.mark.parametrize("tied", [False, True])
def test_capped_logits_stay_within_the_cap(tied: bool) -> None:
    config, tokens = config_of("gemma", tied=tied), some_tokens()
    params = changed_at(params_of(config), "norm/scale", lambda x: 5 * x)
    free = apply(config, params, tokens)
    assert jnp.abs(free).max() > 6
    capped = apply(dataclasses.replace(config, logit_cap=3.0), params, tokens)
    assert jnp.abs(capped).max() <= 3
    np.testing.assert_allclose(capped, 3 * np.tanh(free / 3), atol=1e-5)


@every_variant
def test_grouped_queries_are_full_heads_with_repeated_kernels(variant: str) -> None:
    grouped, full = config_of(variant, kv_heads=2), config_of(variant, kv_heads=4)
    params, tokens = params_of(grouped), some_tokens()
    assert params["blocks"]["attention"]["key"]["kernel"].shape == (2, 32, 2, 8)
    want = apply(grouped, params, tokens)

    def wide(repeat: Any) -> model.Params:
        changed = params
        for name in ("key", "value"):
            # Heads are the last axis but one of kernels and biases.
            for leaf in params["blocks"]["attention"][name]:
                changed = changed_at(changed, f"blocks/attention/{name}/{leaf}", repeat)
        return changed

    each_twice = wide(lambda x: jnp.repeat(x, 2, axis=-2))
    np.testing.assert_allclose(apply(full, each_twice, tokens), want, atol=1e-5)
    in_turn = wide(lambda x: jnp.concatenate([x, x], axis=-2))
    assert jnp.abs(apply(full, in_turn, tokens) - want).max() > 1e-2


@pytest.mark.parametrize("variant", ["llama", "mixtral"])
def test_hidden_width_is_as_configured(variant: str) -> None:
    config, tokens = config_of(variant, mlp_width=40), some_tokens()
    params, wide = params_of(config), dataclasses.replace(config, mlp_width=56)
    second = "mixture" if variant == "mixtral" else "mlp"
    parts = params["blocks"][second]
    assert parts["up"]["kernel"].shape[-1] == parts["down"]["kernel"].shape[-2] == 40
    assert params_of(wide)["blocks"][second]["up"]["kernel"].shape[-1] == 56
    before, after = apply(config, params, tokens), apply(wide, params_of(wide), tokens)
    assert jnp.abs(after - before).max() > 1e-2


# Dropout.

DROPPING = dataclasses.replace(config_of("llama"), dropout=0.3)


@functools.partial(jax.jit, static_argnums=0)
def _dropped(
    config: ModelConfig, params: model.Params, tokens: jax.Array, keys_B: jax.Array
) -> jax.Array:
    return model.apply_with_loss(config, params, tokens, None, keys_B)[0]


def _keys(rows: int, seed: int = 5) -> jax.Array:
    return jax.random.split(jax.random.key(seed), rows)


@pytest.mark.parametrize("variant", ["gpt2", "mixtral"])
def test_nothing_is_dropped_without_keys_or_at_rate_0(variant: str) -> None:
    config, tokens = config_of(variant), some_tokens()
    params, some = params_of(config), dataclasses.replace(config, dropout=0.3)
    want = apply(config, params, tokens)
    np.testing.assert_array_equal(apply(some, params, tokens), want)
    np.testing.assert_array_equal(_dropped(config, params, tokens, _keys(3)), want)
    assert jnp.abs(_dropped(some, params, tokens, _keys(3)) - want).max() > 1e-2


def test_a_row_is_dropped_by_its_own_key_alone() -> None:
    params, tokens = params_of(DROPPING), some_tokens()
    keys = _keys(3)
    logits = _dropped(DROPPING, params, tokens, keys)
    np.testing.assert_array_equal(_dropped(DROPPING, params, tokens, keys), logits)
    for rows in ([2], [2, 0, 1]):
        at = jnp.array(rows)
        some = _dropped(DROPPING, params, tokens[at], keys[at])
        np.testing.assert_allclose(some, logits[at], atol=1e-5)
    same = jnp.broadcast_to(tokens[:1], tokens.shape)
    rows = _dropped(DROPPING, params, same, keys)
    assert jnp.abs(rows[0] - rows[1]).max() > 1e-2
    twice = _dropped(DROPPING, params, same, keys[jnp.array([0, 0, 1])])
    np.testing.assert_allclose(twice[0], twice[1], atol=1e-5)


def _not_asked(*_: Any) -> Any:
    raise AssertionError("without Canon layers nothing is read from before but by attention")


@pytest.mark.parametrize("changes", [{}, {"scan": True}, {"remat": "full"}], ids=str)
def test_dropout_keeps_the_mean_and_every_place_draws_anew(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, layers=3, dropout=0.25, **changes)

    # An embedding of ones, and halves of blocks that add one whatever they read: what a dimension
    # ends with is how many of the seven were kept.
    def constant(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        one = name.endswith(("embedding", "out/bias", "down/bias"))
        return jnp.full(leaf.shape, float(one))

    params = jax.tree_util.tree_map_with_path(constant, params_of(config))

    @jax.jit
    def stream(keys_B: jax.Array) -> jax.Array:
        def attend(layer: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
            return attention.in_blocks(q, k, v), None

        tokens, positions = jnp.zeros((64, config.window), jnp.int32), jnp.arange(config.window)
        reading = block.Reading(attend, behind=_not_asked)
        return model.run(config, params, tokens, positions, reading, keys_B)[1]

    kept = stream(_keys(64)) * 0.75
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-4)
    places = 1 + 2 * config.layers
    # A binomial's moments, some four standard errors of 24,576 draws either way.
    assert float(kept.mean()) == pytest.approx(places * 0.75, abs=0.03)
    assert float(kept.var()) == pytest.approx(places * 0.75 * 0.25, rel=0.05)
    # Neither positions nor dimensions nor rows share what is dropped.
    for axis in (0, 1, 2):
        centred = kept - kept.mean()
        related = (centred * jnp.roll(centred, 1, axis)).mean() / kept.var()
        assert abs(float(related)) < 0.05


# What is refused.


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"variant": "gpt3"},
            "variant is 'gpt3'; it must be one of gpt2, llama, gemma, mixtral.",
        ),
        ({"kv_heads": 3}, "kv_heads is 3; it must be a divisor of heads, 4."),
        ({"kv_heads": -1}, "kv_heads is -1; it must be a whole number, not negative."),
        (
            {"window": 3000},
            "positions is 2048; it must be at least the window (train.window), 3000.",
        ),
        ({"dropout": 1.0}, "dropout is 1.0; it must be a number at least 0 and below 1."),
        ({"dropout": -0.1}, "dropout is -0.1; it must be a number at least 0 and below 1."),
        ({"logit_cap": -1.0}, "logit_cap is -1.0; it must be a number at least 0."),
        ({"balance": -0.1}, "balance is -0.1; it must be a number at least 0."),
        (
            {"remat": "some"},
            "remat is 'some'; it must be one of none, dots, full.",
        ),
        (
            {"kernel": "flash"},
            "kernel is 'flash'; it must be one of auto, blocks, cudnn, splash.",
        ),
        (
            {"variant": "mixtral", "experts_per_token": 9},
            "experts_per_token is 9; it must be at most experts, 8.",
        ),
        (
            {"experts": 2, "experts_per_token": 3},
            "experts_per_token is 3; it must be at most experts, 2.",
        ),
        (
            {"experts_per_token": 0},
            "experts_per_token is 0; it must be a whole number, at least 1.",
        ),
        ({"head_dim": 7}, "head_dim is 7; it must be even."),
        ({"vocab": 0}, "vocab is 0; it must be a whole number, at least 1."),
        ({"rotary_base": 1.0}, "rotary_base is 1.0; it must be a number above 1."),
        ({"dtype": "float16"}, "dtype is 'float16'; it must be one of float32, bfloat16."),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        dataclasses.replace(CONFIG, **changes)
    assert str(refused.value) == sentence


def test_sizes_are_written_as_the_paper_writes_them() -> None:
    assert sized("12-12") == {"layers": 12, "heads": 12, "head_dim": 64}
    assert sized("8-20") == {"layers": 8, "heads": 20, "head_dim": 64}
    for name in ("12", "12-", "12-12-64", "0-12", "12x12", " 12-12"):
        with pytest.raises(ValueError, match=rf"^model\.size is '{name}'; it must be .*\.$"):
            sized(name)
