"""Decoding with a cache beside a writer without one, for all that changes what the model computes.

For every setting of the architecture each token that greedy decoding writes is the argmax of a
forward pass over the whole text so far, and a text's score is its log-likelihood by such a pass;
in float32.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest
from test_variants import apply, params_of

from physlm import model
from physlm.architecture import CANON, VARIANTS, ModelConfig
from physlm.decoding import engine, loop
from physlm.decoding.sampling import Greedy

# Texts are longer than the window of training, and the cache grows on the way.
PLAIN = ModelConfig(vocab=19, window=8, layers=2, heads=4, head_dim=4, positions=64)
PROMPT, NEW = 7, 12

# Each case is programs to compile, so that it has several settings at once.
CASES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt2 no positions": {"rotary_fraction": 0.0, "tied": True, "scan": True, "canon": "AC"},
    "gpt2 shared": {"kv_heads": 1, "qk_norm": True, "logit_cap": 2.0, "rotary_fraction": 0.5},
    "gpt2 experts": {"experts": 3, "experts_per_token": 1, "canon": "B", "canon_width": 2},
    "llama": {"variant": "llama", "kv_heads": 2, "scan": True, "remat": "full"},
    "llama canon": {"variant": "llama", "kv_heads": 2, "qk_norm": True, "canon": "ABCD"},
    "gemma": {"variant": "gemma", "kv_heads": 1, "tied": True, "logit_cap": 3.0, "canon": "D"},
    "mixtral": {"variant": "mixtral", "experts": 4, "kv_heads": 2, "canon": "ABC", "scan": True},
}
LETTERS = [
    "".join(letters)
    for count in range(1, len(CANON) + 1)
    for letters in itertools.combinations(CANON, count)
]


@functools.cache
def _params(config: ModelConfig) -> model.Params:
    # Of large weights, so that a text is not one token again and again.
    return jax.tree.map(lambda x: 2 * x, params_of(config))


def _prompts() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, PLAIN.vocab, (7, PROMPT), dtype=np.int32), np.array(
        [7, 1, 4, 7, 2, 6, 3]
    )


def _without_a_cache(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """What is written if every token comes of a pass over the whole text, and the
    log-probability of each token; it goes on after the end of a text."""
    prompts_NxP, prompt_N = _prompts()
    text_NxL = np.pad(prompts_NxP, ((0, 0), (0, NEW)))
    every_N, log_NxM = np.arange(len(prompt_N)), np.zeros((len(prompt_N), NEW))
    for number in range(NEW):
        last_N = prompt_N + number - 1
        logits_NxV = np.asarray(apply(config, _params(config), text_NxL))[every_N, last_N]
        token_N = logits_NxV.argmax(-1)
        text_NxL[every_N, last_N + 1] = token_N
        log_NxM[:, number] = np.asarray(jax.nn.log_softmax(logits_NxV))[every_N, token_N]
    new_NxM = np.stack([row[n : n + NEW] for row, n in zip(text_NxL, prompt_N, strict=True)])
    return new_NxM, log_NxM


@pytest.mark.parametrize(
    "changes",
    [
        *(pytest.param(changes, id=name) for name, changes in CASES.items()),
        *(
            pytest.param({"canon": letters, "canon_width": 3}, id=letters, marks=pytest.mark.slow)
            for letters in LETTERS
        ),
    ],
)
def test_every_token_is_the_argmax_over_the_whole_text(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FIRST_GROWTH", 8)
    config = dataclasses.replace(PLAIN, **changes)
    want_NxM, log_NxM = _without_a_cache(config)
    # Texts end after different numbers of tokens, so that others begin in their place.
    ends_VxNxM = want_NxM == np.arange(config.vocab)[:, None, None]
    length_VxN = np.where(ends_VxNxM.any(-1), ends_VxNxM.argmax(-1) + 1, NEW)
    kinds_V = [len(set(length_N)) * (max(length_N) == NEW) for length_N in length_VxN]
    stop = int(np.argmax(kinds_V))
    length_N = length_VxN[stop]
    assert kinds_V[stop] > 3
    prompts_NxP, prompt_N = _prompts()
    got = engine.decode(
        config, _params(config), prompts_NxP, prompt_N,
        strategy=Greedy(), max_new_tokens=NEW, stop=stop, rows=3,
    )  # fmt: skip
    written_NxM = np.arange(NEW) < length_N[:, None]
    np.testing.assert_array_equal(got.length_NxS[:, 0], length_N)
    np.testing.assert_array_equal(got.tokens_NxSxM[:, 0], np.where(written_NxM, want_NxM, stop))
    score_N = (log_NxM * written_NxM).sum(1)
    np.testing.assert_allclose(got.score_NxS[:, 0], score_N, atol=1e-4)


def test_every_setting_of_the_architecture_is_decoded_with() -> None:
    """But those that say how large a model is, or that only training reads."""
    size = {"vocab", "window", "layers", "heads", "head_dim", "mlp_width", "positions"}
    training = {"balance", "dropout", "init_std", "canon_init", "kernel", "dtype"}
    numbers = {"rotary_base", "norm_eps"}
    set_here = {name for changes in CASES.values() for name in changes}
    every = {field.name for field in dataclasses.fields(ModelConfig)}
    assert every - size - training - numbers == set_here
    families = [CASES[name].get("variant", "gpt2") for name in CASES]
    assert set(families) == set(VARIANTS)
    assert (
        "".join(sorted({c for changes in CASES.values() for c in changes.get("canon", "")}))
        == CANON
    )
