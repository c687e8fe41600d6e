"""Figures on speed: what a step costs, what of the machine it uses, and traces of it."""

import types

import jax
import jax.numpy as jnp
import pytest

from physlm import model, throughput
from physlm.architecture import ModelConfig
from physlm.throughput import Meter, Trace, model_flops, peak_flops


def test_flops_of_the_published_model() -> None:
    """Worked out by hand for GPT2-12-12 of 768 tokens: 85M weights in blocks, 12 L d T."""
    config = ModelConfig(vocab=500, window=768, layers=12, heads=12, head_dim=64)
    weights = 12 * 12 * 768 * 768 + 768 * 500
    assert model_flops(config, 1) == 6 * weights + 12 * 12 * 768 * 768
    assert model_flops(config, 1000) == 1000 * model_flops(config, 1)


def test_flops_count_every_matrix_and_nothing_else() -> None:
    config = ModelConfig(vocab=40, window=16, layers=3, heads=2, head_dim=8, mlp_width=48)
    params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
    kernels = [
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel"
    ]
    attention = 12 * config.layers * config.width * config.window
    assert model_flops(config, 1) == 6 * sum(kernels) + attention


def test_flops_are_those_that_the_compiler_counts() -> None:
    """Three products as large as the forward one's: it, and two for the gradients."""
    config = ModelConfig(vocab=64, window=32, layers=2, heads=2, head_dim=16)
    tokens = jnp.zeros((1, 32), jnp.int32)
    params = model.init(config, jax.random.key(0))
    compiled = jax.jit(model.apply, static_argnums=0).lower(config, params, tokens).compile()
    # Softmax and norms come on top, half of the attention falls away.
    assert compiled.cost_analysis()["flops"] == pytest.approx(model_flops(config, 32) / 3, rel=0.15)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("cpu", None),
    ],
)
def test_peaks_by_kind_of_device(kind: str, peak: float | None) -> None:
    assert peak_flops(types.SimpleNamespace(device_kind=kind)) == peak


def test_figures_are_of_the_steps_since_the_last_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(throughput.clock, "seconds", lambda: now[0])
    meter = Meter(step=10, tokens=50, flops=1e6, peak=1e7)
    now[0] += 1.5
    with meter.waiting():
        now[0] += 0.5
    assert meter.mark(14) == {
        "tokens_per_s": 100.0,
        "step_seconds": 0.5,
        "input_share": 0.25,
        "model_flops_per_s": 2e6,
        "mfu": 0.2,
    }
    now[0] += 4.0
    assert meter.mark(18)["step_seconds"] == 1.0
    assert meter.mark(18)["input_share"] == 0.0
    assert "mfu" not in Meter(step=0, tokens=50, flops=1e6, peak=None).mark(1)


@pytest.mark.parametrize(
    ("steps", "upto", "written"), [(2, 20, True), (0, 20, False), (9, 6, True)]
)
def test_a_trace_is_written_of_some_steps(tmp_path, steps: int, upto: int, written: bool) -> None:
    trace = Trace(tmp_path / "profile", 0, steps)
    for step in range(1, upto):
        trace(step, jnp.ones(3) * step)
    trace.stop()
    assert bool(list(tmp_path.rglob("perfetto_trace.json.gz"))) == written
