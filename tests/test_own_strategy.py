"""Strategies of one's own: what identifies them, and what they may choose."""

import contextlib
import dataclasses
import pathlib
import re
import sys

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from drawn import SMALL

from data_gen.solutions import language
from physlm import cells, evaluate, model
from physlm.architecture import ModelConfig
from physlm.cells import EvalConfig
from physlm.decoding import recipe
from physlm.experiments import evaluation

OWN = """
import dataclasses

import jax.numpy as jnp

from data_gen import settings
from physlm.decoding.sampling import Sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(Sample):
    FIRST = "n"

    chosen: int = settings.whole(0, "Which solution counts.")

    def select(self, answers, score_S, trust_S):
        assert len(answers) == len(score_S) == self.n and trust_S is None
        return self.chosen
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "a_way_of_my_own.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    # Modules are written again within a second here, which Python does not see by itself.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield path
    sys.modules.pop(path.stem, None)


def config_of(decode):
    return evaluation.Evaluation(EvalConfig(decode=decode)).config


def test_an_evaluation_is_identified_by_the_file_of_a_strategy_of_ones_own(file):
    first = config_of("a_way_of_my_own.Own:2")
    names = {evaluation.name_of(first, 10)}
    sys.modules.pop(file.stem)
    assert config_of("a_way_of_my_own.Own:2") == first
    for text in (OWN + "\n\n# Other code.\n", OWN.replace("return self.chosen", "return 0")):
        file.write_text(text)
        sys.modules.pop(file.stem)
        names.add(evaluation.name_of(config_of("a_way_of_my_own.Own:2"), 10))
    assert len(names) == 3
    # Ours are known by their names, so that results are found by later versions.
    for decode in ("greedy", "sample:4", "beam:4", "regret:perfect"):
        assert recipe.code_of(decode) is None and "code" not in config_of(decode)


class Silent(contextlib.nullcontext):
    def __init__(self, *_):
        super().__init__(self)

    def update(self, done, **_):
        pass


def test_a_strategy_of_ones_own_selects_one_of_its_solutions(file):
    config = EvalConfig(problems=3, batch=8, beyond=(), max_new_tokens=6)
    spec = cells.test_spec(SMALL, config)
    vocab = language.vocabulary(spec).size
    settings = ModelConfig(vocab=vocab, window=160, layers=1, heads=1, head_dim=2, positions=200)
    params = model.init(settings, jax.random.key(0))
    (cell, tests), *_ = cells.test_sets(SMALL, config, 160, Silent)
    for chosen in (0, 3):
        asked = dataclasses.replace(config, decode=f"a_way_of_my_own.Own:4,chosen={chosen}")
        found = evaluate.solved(params, cell, tests, model=settings, spec=spec, config=asked)
        assert found.written.tokens_NxSxM.shape[1] == 4
        assert set(found.chosen_N) == {chosen}
        np.testing.assert_array_equal(found.tokens_NxM, found.written.tokens_NxSxM[:, chosen])


@pytest.fixture
def typical(tmp_path, monkeypatch):
    """The strategy that the page about models shows."""
    page = pathlib.Path(__file__).parents[1] / "physlm/README.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "class Typical" in block]
    (tmp_path / "typical.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield recipe.parse
    sys.modules.pop("typical", None)


@hypothesis.given(st.integers(0, 1000), st.floats(0.1, 1), st.sampled_from([0, 3]))
@hypothesis.settings(
    max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_the_strategy_that_is_shown_keeps_typical_tokens(typical, seed, mass, top_k):
    way = typical(f"typical.Typical:n=2,mass={mass},temperature=0.7,top_k={top_k}")
    logits_BxV = np.random.default_rng(seed).normal(size=(3, 7)).astype(np.float32) * 2
    warped_BxV = np.asarray(way.warped(logits_BxV))
    for given, warped in zip(logits_BxV / np.float32(0.7), warped_BxV, strict=True):
        allowed = np.argsort(-given)[: top_k or None]
        p = np.exp(given[allowed] - given[allowed].max())
        p /= p.sum()
        off = np.abs(-np.log(p) + (p * np.log(p)).sum())
        kept, total = set(), 0.0
        for at in np.argsort(off):
            if total < mass - 1e-6:
                kept.add(allowed[at])
            # Where the sum is all but the mass, rounding may decide either way.
            hypothesis.assume(abs(total - mass) > 1e-5)
            total += p[at]
        assert set(np.flatnonzero(np.isfinite(warped))) == kept
        np.testing.assert_allclose(warped[sorted(kept)], given[sorted(kept)], rtol=1e-6)


def test_the_strategy_that_is_shown_warps_as_theirs_does(typical):
    transformers = pytest.importorskip("transformers", reason="needs physlm[parity]")
    torch = pytest.importorskip("torch", reason="needs physlm[parity]")
    logits_BxV = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32) * 3
    theirs = transformers.TypicalLogitsWarper(mass=0.6)(None, torch.tensor(logits_BxV)).numpy()
    ours = typical("typical.Typical:n=2,mass=0.6").warped(logits_BxV)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
