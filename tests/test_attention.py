"""Attention by the kernels of accelerators."""

import functools
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physlm import attention
from physlm.model import ModelConfig

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("heads", "shared"), [(2, 2), (4, 2)])
@pytest.mark.parametrize("segmented", [False, True])
def test_splash_attention_is_attention(heads: int, shared: int, segmented: bool) -> None:
    length, width = 200, 16
    keys = jax.random.split(jax.random.key(0), 4)
    q, probe = (jax.random.normal(key, (1, heads, length, width)) for key in keys[:2])
    k, v = (jax.random.normal(key, (1, shared, length, width)) for key in keys[2:])
    segments = (jnp.arange(length) // 70)[None] if segmented else None

    def read_and_grads(attend: Any) -> Any:
        def probed(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
            read = attend(*qkv, segments)
            return jnp.sum(read * probe), read

        return jax.jit(jax.grad(probed, argnums=(0, 1, 2), has_aux=True))(q, k, v)

    splash = functools.partial(attention.splash, interpret=True)
    for got, want in zip(
        jax.tree.leaves(read_and_grads(splash)),
        jax.tree.leaves(read_and_grads(attention.in_blocks)),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize(
    ("backend", "dtype", "kernel"),
    [
        ("gpu", "bfloat16", "_cudnn"),
        ("gpu", "float32", "in_blocks"),
        ("tpu", "bfloat16", "splash"),
        ("tpu", "float32", "splash"),
        ("cpu", "bfloat16", "in_blocks"),
    ],
)
def test_each_backend_has_a_kernel(monkeypatch, backend: str, dtype: str, kernel: str) -> None:
    """cuDNN knows no float32."""
    called = []
    for name in ("_cudnn", "splash", "in_blocks"):
        monkeypatch.setattr(attention, name, lambda *_, name=name: called.append(name))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = jnp.zeros((1, 1, 2, 4))
    attention.causal(ModelConfig(vocab=16, window=2, dtype=dtype), x, x, x)
    assert called == [kernel]


def test_keys_in_several_arrays_are_keys_one_after_the_other() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (2, 4, 5, 16))
    k, v = (jax.random.normal(key, (2, 2, 9, 16)) for key in keys[1:])
    visible = jnp.arange(9) <= 4 + jnp.arange(5)[:, None]
    parts = (jnp.split(x, [2, 7], axis=2) for x in (k, v))
    got, want = attention.attention(q, *parts, visible), attention.attention(q, k, v, visible)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("shared", [2, 4])
@pytest.mark.parametrize("segmented", [False, True])
def test_what_cudnn_is_asked_for_is_attention(monkeypatch, shared: int, segmented: bool) -> None:
    """JAX's own implementation answers in place of cuDNN's."""
    length, width = 40, 16
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (2, 4, length, width))
    k, v = (jax.random.normal(key, (2, shared, length, width)) for key in keys[1:])
    segments = jnp.stack([jnp.arange(length) // 7, jnp.arange(length) // 11]) if segmented else None
    asked = jax.nn.dot_product_attention

    def answered(*qkv: jax.Array, implementation: str, **how: Any) -> jax.Array:
        assert implementation == "cudnn"
        return asked(*qkv, implementation="xla", **how)

    monkeypatch.setattr(jax.nn, "dot_product_attention", answered)
    got, want = attention._cudnn(q, k, v, segments), attention.in_blocks(q, k, v, segments)
    np.testing.assert_allclose(got, want, atol=2e-6)


# What of cuDNN's a step calls on a GPU, and what XLA would have to divide by itself. JAX is as it
# is where there is a GPU, as far as it asks to make a program for one.
_CALLS = """
import json, re, sys
import jax, jax.numpy as jnp, numpy as np
from jax._src.cudnn import fused_attention_stablehlo as kernels
jax.config.update("jax_num_cpu_devices", 8)
kernels.check_cudnn_version = lambda: 91_000
kernels.check_compute_capability = lambda capability: True
kernels.is_cuda_compute_capability_equal = lambda capability: False
from physlm import optimizer, sharding, step
from physlm.architecture import ModelConfig
from physlm.population import Population
config = ModelConfig(vocab=40, window=96, layers=2, heads=4, kv_heads=2, head_dim=64,
                     dtype="bfloat16", kernel="cudnn")
transform = optimizer.make(optimizer.OptimizerConfig(warmup_steps=1), 5)
batch = {"tokens": jax.ShapeDtypeStruct((8, 97), jnp.int32),
         "weights": jax.ShapeDtypeStruct((8, 96), jnp.float32)}
divided = {**batch, "segments": jax.ShapeDtypeStruct((8, 96), jnp.int32)}

def twice(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), tree)

def calls(jitted, *arguments):
    text = jitted.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    return sorted(re.findall(r"__cudnn\\$\\w+|CustomSPMDPartitioning", text))

found = {}
for name, shape in {"one": (1, 1, 1, 1), "many": (2, 2, 1, 2)}.items():
    mesh = sharding.make_mesh(sharding.MeshConfig(*shape))
    state, place = step.abstract_state(config, transform, mesh), sharding.batch_sharding(mesh)
    for kind, these in {"": batch, " divided": divided}.items():
        these = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
                 for k, x in these.items()}
        with jax.set_mesh(mesh):
            found[name + kind] = calls(step.make_step(config, transform, mesh), state, these)
    if name == "one":
        several = Population(config, transform, mesh, [1.0, 2.0], vectorized=True)
        for kind, these in {"": batch, " divided": divided}.items():
            found["population" + kind] = calls(
                several._step, twice(state), twice(these), np.ones(2, np.float32), None)
print(json.dumps(found))
"""


def test_gpus_call_cudnn_each_for_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CALLS], check=True, capture_output=True, text=True, timeout=200
    )
    kernel, biased = "__cudnn$fmhaSoftmax", "__cudnn$fmhaScaleBiasSoftmax"
    # Two layers; where parameters are divided, attention is computed again on the way back.
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "one": [kernel, kernel, f"{kernel}Backward", f"{kernel}Backward"],
        "one divided": [biased, biased, f"{biased}Backward", f"{biased}Backward"],
        "population": [kernel, kernel, f"{kernel}Backward", f"{kernel}Backward"],
        "population divided": [biased, biased, f"{biased}Backward", f"{biased}Backward"],
        "many": [kernel] * 4 + [f"{kernel}Backward"] * 2,
        "many divided": [biased] * 4 + [f"{biased}Backward"] * 2,
    }
