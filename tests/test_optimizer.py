"""The update rules: schedule, decay, Muon's matrices, clipping."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physlm import matrices, model, optimizer, sharding
from physlm.architecture import ModelConfig
from physlm.optimizer import OptimizerConfig

CONFIG = ModelConfig(vocab=16, window=8, layers=1, heads=2, head_dim=8)


def test_the_learning_rate_warms_up_and_ends_at_its_fraction() -> None:
    rate = optimizer.schedule(
        OptimizerConfig(learning_rate=1.0, warmup_steps=10, final_fraction=0.1), 110
    )
    assert [float(rate(s)) for s in (5, 10, 60, 110)] == pytest.approx([0.5, 1.0, 0.55, 0.1])


@pytest.mark.parametrize("warmup", [0, 10])
def test_a_linear_decay_is_a_line_to_its_fraction(warmup: int) -> None:
    config = OptimizerConfig(
        learning_rate=1.0, warmup_steps=warmup, final_fraction=0.0, decay="linear"
    )
    rate = optimizer.schedule(config, 100 + warmup)
    assert [float(rate(warmup + s)) for s in (0, 25, 50, 100)] == pytest.approx([1, 0.75, 0.5, 0])
    assert float(rate(warmup // 2)) == pytest.approx(0.5 if warmup else 1.0)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decay_spares_biases_and_norms(name: str) -> None:
    params = jax.tree.map(jnp.ones_like, model.init(CONFIG, jax.random.key(0)))
    config = OptimizerConfig(name=name, learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    transform = optimizer.make(config, 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transform.update(zeros, transform.init(params), params)
    moved = {
        sharding.path_of(path): float(jnp.abs(leaf).max())
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    for path, size in moved.items():
        hidden = path.startswith("blocks") and path.endswith("kernel")
        other = path in ("embed/embedding", "head/kernel") and name == "adamw"
        assert size == pytest.approx(0.05 if hidden or other else 0.0), path


@pytest.mark.parametrize("variant", ["gpt2", "mixtral"])
def test_muon_makes_each_hidden_matrix_orthogonal(variant: str) -> None:
    config = dataclasses.replace(CONFIG, variant=variant, experts=4 * (variant == "mixtral"))
    params = model.init(config, jax.random.key(0))
    config = OptimizerConfig(
        name="muon", learning_rate=1.0, warmup_steps=0, weight_decay=0.0, clip_norm=0.0
    )
    transform = optimizer.make(config, 10)
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    updates, _ = transform.update(grads, transform.init(params), params)
    found = {
        sharding.path_of(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates["blocks"])
        if path[-1].key == "kernel" and "router" not in sharding.path_of(path)
    }
    matrices = []
    for path, kernels in found.items():
        kernels = kernels.reshape(-1, *kernels.shape[2:]) if "mixture" in path else kernels
        rows = kernels.shape[1] * kernels.shape[2] if "out" in path else kernels.shape[1]
        matrices += [kernel.reshape(rows, -1) for kernel in kernels]
    # Of two layers: query, key, value, out, and two or three kernels of each MLP.
    mlp = 3 * 4 if variant == "mixtral" else 2
    assert len(matrices) == CONFIG.layers * (4 + mlp)
    for matrix in matrices:
        # 0.2 times the root of the longer side, by a polynomial that maps about 1 to 0.7..1.3.
        values = np.linalg.svd(matrix / (0.2 * max(matrix.shape) ** 0.5), compute_uv=False)
        assert 0.3 < values.min() <= values.max() < 1.4


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8)])
def test_muons_updates_have_the_size_of_adamws(shape: tuple[int, int]) -> None:
    """0.2 times the root of the longer side in each direction, whatever the matrix's shape."""
    params = {"blocks": {"mlp": {"up": {"kernel": jnp.zeros((1, *shape))}}}}
    [(path, _)] = jax.tree_util.tree_leaves_with_path(params)
    assert matrices.hidden_axes(sharding.path_of(path)) is not None
    config = OptimizerConfig(
        name="muon", learning_rate=1.0, warmup_steps=0, weight_decay=0.0, clip_norm=0.0
    )
    transform = optimizer.make(config, 10)
    # All singular values are 1, so that Newton and Schulz's iteration is one of numbers.
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(max(shape), min(shape))))
    turned = turned if shape[0] > shape[1] else turned.T
    grads = jax.tree.map(lambda _: jnp.asarray(turned, jnp.float32)[None], params)
    updates, _ = transform.update(grads, transform.init(params), params)
    size = min(shape) ** -0.5
    for _ in range(5):
        size = 3.4445 * size - 4.775 * size**3 + 2.0315 * size**5
    [update] = jax.tree.leaves(updates)
    np.testing.assert_allclose(
        update[0], -0.2 * max(shape) ** 0.5 * size * turned, rtol=1e-3, atol=1e-4
    )


def test_gradients_are_clipped_by_their_global_norm() -> None:
    params = {"head": {"kernel": jnp.zeros(4)}}
    config = OptimizerConfig(
        learning_rate=1.0, warmup_steps=0, clip_norm=1.0, beta1=0.0, beta2=0.0, epsilon=1.0
    )
    transform = optimizer.make(config, 10)
    grads = {"head": {"kernel": jnp.array([30.0, 0.0, 40.0, 0.0])}}
    updates, _ = transform.update(grads, transform.init(params), params)
    # With these settings the update is g / (|g| + 1) of the clipped gradient.
    np.testing.assert_allclose(updates["head"]["kernel"], [-0.6 / 1.6, 0, -0.8 / 1.8, 0], rtol=1e-5)
