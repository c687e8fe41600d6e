"""The step: whose loss it lowers, and what it follows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import CONFIG, Stream, distance, one_device

from physlm import model, optimizer
from physlm import step as step_lib
from physlm.architecture import ModelConfig
from physlm.optimizer import OptimizerConfig


def test_a_tiny_batch_is_learnt_by_heart() -> None:
    key = jax.random.key(3)
    batch = {"tokens": jax.random.randint(key, (2, 9), 0, 16), "weights": jnp.ones((2, 8))}
    config = OptimizerConfig(learning_rate=1e-2, warmup_steps=5, weight_decay=0.0)
    transform = optimizer.make(config, 150)
    state = step_lib.first_state(CONFIG, transform, one_device(), seed=3)
    step = step_lib.make_step(CONFIG, transform, one_device())
    for _ in range(150):
        state, out = step(state, batch)
    assert float(out["loss"]) < 0.02


@functools.partial(jax.jit, static_argnums=0)
def loss_and_grads(
    config: ModelConfig, params: model.Params, tokens: jax.Array, weights: jax.Array
) -> tuple[jax.Array, model.Params]:
    batch = {"tokens": tokens, "weights": weights}
    return step_lib.loss_and_grads(config, one_device(), params, batch)


def test_unbalanced_experts_are_a_loss() -> None:
    config = dataclasses.replace(CONFIG, variant="mixtral", experts=4, balance=0.5)
    params = model.init(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (6, CONFIG.window + 1), 0, 16)
    batch = {"tokens": tokens, "weights": jnp.ones((6, CONFIG.window))}
    objective, loss = step_lib.next_token(config, params, batch, 12)
    _, imbalance = model.apply_with_loss(config, params, tokens[:, :-1])
    assert imbalance > 0
    assert float(objective - loss) == pytest.approx(0.5 / 12 * float(imbalance), rel=1e-3)


def test_the_loss_is_the_weighted_mean_over_the_batch() -> None:
    # Rows long enough to be taken in several parts, whose weights differ widely.
    config = dataclasses.replace(CONFIG, window=200)
    params = model.init(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (6, 201), 0, 16)
    weights = jnp.zeros((6, 200)).at[0, 2].set(1.0).at[5, 50].set(3.0)
    assert step_lib.rows_at_once(6, 200, one_device()) == 2
    assert step_lib.rows_at_once(6, 768, one_device()) == 1

    @jax.jit
    def want(params: model.Params) -> jax.Array:
        logp = jax.nn.log_softmax(model.apply(config, params, tokens[:, :-1]))
        return -(logp[0, 2, tokens[0, 3]] + 3 * logp[5, 50, tokens[5, 51]]) / 4

    loss, grads = loss_and_grads(config, params, tokens, weights)
    assert float(loss) == pytest.approx(float(want(params)), rel=1e-5)
    assert distance(grads, jax.jit(jax.grad(want))(params)) < 1e-5


def test_targets_of_weight_zero_have_no_influence() -> None:
    params = model.init(CONFIG, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, 16)
    # The last target is nobody's input, and so appears through its loss only.
    weights = jnp.ones((2, 8)).at[:, -1].set(0.0)
    changed = tokens.at[:, -1].set((tokens[:, -1] + 5) % 16)

    def grads(tokens: jax.Array, weights: jax.Array) -> model.Params:
        return loss_and_grads(CONFIG, params, tokens, weights)[1]

    assert distance(grads(tokens, weights), grads(changed, weights)) == 0
    assert distance(grads(tokens, jnp.ones((2, 8))), grads(changed, jnp.ones((2, 8)))) > 1e-3
    # Without any weight there is neither loss nor gradient, and no division by zero.
    nothing = grads(tokens, jnp.zeros((2, 8)))
    assert distance(nothing, jax.tree.map(jnp.zeros_like, nothing)) == 0


def test_segments_keep_documents_apart() -> None:
    """A window of two documents costs what the two cost alone."""
    params = jax.tree.map(lambda x: 5 * x, model.init(CONFIG, jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, CONFIG.vocab)
    segments = jnp.array([[0] * 5 + [1] * 3] * 2)
    weights = jnp.ones((2, 8))
    together = {"tokens": tokens, "weights": weights, "segments": segments}

    def loss(batch: dict[str, jax.Array]) -> float:
        compute = jax.jit(step_lib.loss_and_grads, static_argnums=(0, 1))
        return float(compute(CONFIG, one_device(), params, batch)[0])

    first = loss({"tokens": tokens[:, :6], "weights": weights[:, :5]})
    second = loss({"tokens": tokens[:, 5:], "weights": weights[:, :3]})
    assert loss(together) == pytest.approx((5 * first + 3 * second) / 8, rel=1e-5)
    assert abs(loss(together) - loss({"tokens": tokens, "weights": weights})) > 1e-3


@pytest.mark.parametrize("leap", [0.0, 3.0])
def test_a_leap_of_the_loss_is_recorded(leap: float) -> None:
    random = np.random.default_rng(0)
    trend, step, rises = step_lib.Trend(jnp.zeros(()), jnp.zeros(())), 0, []
    losses = 2 + 0.1 * random.standard_normal(300)
    losses[250] += leap
    follow = jax.jit(step_lib._followed)
    for step, loss in enumerate(losses):
        trend, rise = follow(trend, jnp.int32(step), jnp.float32(loss))
        rises.append(float(rise))
        if step == 99:
            assert float(trend.mean) == pytest.approx(losses[:100].mean(), abs=1e-4)
            assert float(trend.variance) == pytest.approx(losses[:100].var(), rel=1e-2)
    assert rises[:100] == [0] * 100
    assert (rises[250] > 20) == bool(leap)
    assert max(rises[:250]) < 4


def test_dropout_is_by_seed_step_and_row() -> None:
    config = dataclasses.replace(CONFIG, dropout=0.5)
    params = model.init(config, jax.random.key(0))
    batch = {**Stream().batch(0)}

    @jax.jit
    def loss(keys: jax.Array, rows: jax.Array) -> jax.Array:
        part = jax.tree.map(lambda x: x[rows], {**batch, "keys": keys})
        return step_lib.next_token(config, params, part, 4)[1]

    keys = step_lib.row_keys(0, 7, np.arange(4))
    every = jnp.arange(4)
    assert loss(keys, every) == pytest.approx(float(loss(keys, every[::-1])), rel=1e-5)
    assert (keys[2:] == step_lib.row_keys(0, 7, np.array([2, 3]))).all()
    for other in (step_lib.row_keys(0, 8, np.arange(4)), step_lib.row_keys(1, 7, np.arange(4))):
        assert abs(loss(keys, every) - loss(other, every)) > 1e-3
