"""The engine: decoding with a cache against the model without one."""

import dataclasses
import functools
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physlm import model
from physlm.architecture import ModelConfig
from physlm.decoding import engine, loop
from physlm.decoding.sampling import Greedy

CONFIG = ModelConfig(vocab=11, window=16, layers=2, heads=2, head_dim=8)
NEW = 14


def _params(seed: int, config: ModelConfig = CONFIG) -> model.Params:
    return model.init(dataclasses.replace(config, init_std=0.6), jax.random.key(seed))


def _greedy(
    config: ModelConfig, params: Any, prompts: Any, lengths: Any, **rest: Any
) -> np.ndarray:
    return engine.decode(config, params, prompts, lengths, strategy=Greedy(), **rest).tokens_NxSxM[
        :, 0
    ]


def _reference(params: model.Params, prompt: list[int], new: int, stop: int) -> list[int]:
    # The whole text is read again for each token; right padding keeps one shape.
    apply = jax.jit(model.apply, static_argnums=0)
    text = list(prompt)
    while len(text) < len(prompt) + new:
        padded = np.zeros((1, 40), np.int32)
        padded[0, : len(text)] = text
        text.append(int(jnp.argmax(apply(CONFIG, params, padded)[0, len(text) - 1])))
        if text[-1] == stop:
            break
    answer = text[len(prompt) :]
    return answer + [stop] * (new - len(answer))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_row_equals_decoding_without_a_cache(seed: int) -> None:
    params = _params(seed)
    generator = np.random.default_rng(seed)
    lengths = np.array([9, 1, 4, 9, 6, 2, 8, 5, 3, 7])
    # Padding is garbage on purpose.
    prompts = generator.integers(0, CONFIG.vocab, (10, 9), dtype=np.int32)
    # The stop token is one that some row really says.
    stop = _reference(params, prompts[0, :9].tolist(), NEW, -1)[5]
    got = _greedy(CONFIG, params, prompts, lengths, max_new_tokens=NEW, stop=stop)
    want = [
        _reference(params, row[:length].tolist(), NEW, stop)
        for row, length in zip(prompts, lengths, strict=True)
    ]
    np.testing.assert_array_equal(got, want)
    ends = [stop in row for row in want]
    assert any(ends)
    assert len({tuple(row) for row in want}) > 3


@pytest.mark.parametrize("remat", ["dots", "full"])
@pytest.mark.parametrize("scan", [False, True])
def test_what_is_computed_twice_in_training_is_decoded_the_same(remat: str, scan: bool) -> None:
    params = _params(3)
    prompts = np.random.default_rng(3).integers(0, CONFIG.vocab, (4, 9), dtype=np.int32)
    lengths = np.array([9, 4, 7, 1])
    expected = _greedy(CONFIG, params, prompts, lengths, max_new_tokens=NEW, stop=10)
    config = dataclasses.replace(CONFIG, remat=remat, scan=scan)
    got = _greedy(config, params, prompts, lengths, max_new_tokens=NEW, stop=10)
    np.testing.assert_array_equal(got, expected)


def test_padding_and_neighbours_change_nothing() -> None:
    params = _params(3)
    prompt = np.array([[3, 1, 4, 1, 5]], np.int32)
    alone = _greedy(CONFIG, params, prompt, np.array([5]), max_new_tokens=NEW, stop=10)
    wide = np.concatenate([np.pad(prompt, ((0, 0), (0, 4)), constant_values=7)] * 2)
    wide[1] = 2
    among = _greedy(CONFIG, params, wide, np.array([5, 9]), max_new_tokens=NEW, stop=10)
    np.testing.assert_array_equal(alone[0], among[0])


def test_decoding_beyond_the_window_in_a_growing_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FIRST_GROWTH", 4)
    params = _params(4)
    prompt = np.arange(10, dtype=np.int32)[None]
    got = _greedy(CONFIG, params, prompt, np.array([10]), max_new_tokens=28, stop=10)
    assert got.shape == (1, 28)
    assert got[0].tolist() == _reference(params, list(range(10)), 28, 10)


def test_impossible_prompts_are_refused() -> None:
    params = _params(0)
    prompts = np.zeros((2, 4), np.int32)
    for lengths, new, message in [
        ([4, 5], 3, "lengths range from 4 to 5; they must be in 1..4."),
        ([0, 4], 3, "lengths range from 0 to 4; they must be in 1..4."),
        ([4, 4], 0, "max_new_tokens is 0; it must be at least 1."),
        ([4], 3, "they must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            _greedy(CONFIG, params, prompts, np.array(lengths), max_new_tokens=new, stop=1)


_ON_A_MESH = """
import jax, numpy as np
jax.config.update('jax_num_cpu_devices', 4)
from physlm import model, sharding
from physlm.decoding import engine
from physlm.decoding.beam import Beam
from physlm.decoding.sampling import Greedy, Sample
config = model.ModelConfig(vocab=11, window=16, layers=2, heads=2, head_dim=8, init_std=0.6)
params = model.init(config, jax.random.key(0))
prompts = np.random.default_rng(0).integers(0, 11, (7, 5), dtype=np.int32)
lengths = np.array([5, 1, 2, 3, 4, 5, 5])
def answers(params, strategy):
    return engine.decode(
        config, params, prompts, lengths, strategy=strategy, max_new_tokens=12, stop=3
    ).tokens_NxSxM
every, one = (Greedy(), Sample(n=2), Beam(beams=2)), (Greedy(),)
for axes, strategies in (({}, every), ({'tensor': 2}, one), ({'fsdp': 2}, one)):
    mesh = sharding.make_mesh(sharding.MeshConfig(**axes))
    spread = jax.device_put(params, sharding.shardings(params, mesh))
    for strategy in strategies:
        got = answers(spread, strategy)
        assert got.shape == (7, strategy.samples, 12), got.shape
        np.testing.assert_array_equal(got, answers(params, strategy))
"""


@pytest.mark.slow
def test_a_mesh_decodes_the_same() -> None:
    subprocess.run([sys.executable, "-c", _ON_A_MESH], check=True, timeout=240)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="is about XLA for CPUs")
@pytest.mark.parametrize("option", loop.OPTIONS["cpu"])
def test_each_option_of_the_compiler_does_something(option: str) -> None:
    def several(x: jax.Array) -> jax.Array:
        parts = [jnp.exp(x @ (x + n)).max(-1).sum() for n in range(4)]
        return functools.reduce(jnp.multiply, parts)

    def compiled(options: dict[str, str | bool] | None) -> str:
        lowered = jax.jit(several, compiler_options=options).lower(jnp.ones((300, 300)))
        return re.sub(r", metadata=\{.*?\}", "", lowered.compile().as_text().split("ENTRY")[1])

    assert compiled({option: loop.OPTIONS["cpu"][option]}) != compiled(None)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="is about XLA for CPUs")
def test_the_loop_is_compiled_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def run(*arguments: Any) -> Any:
        given.append(arguments)
        raise InterruptedError

    monkeypatch.setattr(loop, "run", run)
    prompt = np.arange(10, dtype=np.int32)[None]
    with pytest.raises(InterruptedError):
        # Texts so long that XLA would sum the scores of their tokens as a tree.
        _greedy(CONFIG, _params(0), prompt, np.array([10]), max_new_tokens=64, stop=10)

    def summed_as_a_tree(platform: str) -> bool:
        return "reduce-window" in loop._run_on(platform).lower(*given[0]).compile().as_text()

    assert not summed_as_a_tree("cpu") and summed_as_a_tree("another")
