"""Ways of decoding: what is drawn and how often, what is chosen, and how it is said."""

import dataclasses
import functools
import itertools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from drawn import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen import keys
from data_gen.keys import Purpose
from data_gen.settings import RefusedError
from physlm import cells, evaluate, model
from physlm.architecture import ModelConfig
from physlm.decoding import engine, recipe
from physlm.decoding.beam import Beam
from physlm.decoding.sampling import Drawing, Greedy, Sample
from physlm.decoding.selection import chosen
from physlm.decoding.strategy import Rows, Strategy
from physlm.experiments import plan, registry

CONFIG = ModelConfig(vocab=7, window=16, layers=1, heads=2, head_dim=8)
PARAMS = functools.cache(
    lambda: model.init(dataclasses.replace(CONFIG, init_std=0.4), jax.random.key(0))
)


def prompts(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 6, (count, 5), dtype=np.int32), rng.integers(1, 6, count)


def decode(strategy: Strategy, count: int = 6, **changes: Any) -> engine.Written:
    given: dict[str, Any] = {"strategy": strategy, "max_new_tokens": 12, "stop": 6} | changes
    rows, lengths = given.pop("prompts", prompts(count))
    return engine.decode(CONFIG, PARAMS(), rows, lengths, **given)


@pytest.mark.parametrize(
    "how", [Sample(n=400), Sample(temperature=0.5, n=400), Sample(top_k=3, n=400)], ids=str
)
def test_tokens_are_drawn_by_the_softmax(how: Sample) -> None:
    rows, lengths = prompts(2)
    found = decode(how, prompts=(rows, lengths), max_new_tokens=1).tokens_NxSxM[:, :, 0]
    logits = model.apply(CONFIG, PARAMS(), rows)
    for row, length, tokens in zip(logits, lengths, found, strict=True):
        left = np.asarray(row[length - 1], np.float64) / how.temperature
        if how.top_k:
            left[np.argsort(left)[: -how.top_k]] = -np.inf
        share = np.exp(left - left.max())
        share /= share.sum()
        counts = np.bincount(tokens, minlength=7)
        assert not counts[share == 0].any()
        there = share > 0
        assert scipy.stats.chisquare(counts[there], 400 * share[there]).pvalue > 1e-3


def test_a_sample_depends_on_key_problem_and_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on how many are drawn, on neighbours or their order, nor on how many rows there are or
    wait."""
    rows, lengths = prompts(12)
    key = keys.root(4, Purpose.DECODING)
    all_of = decode(Sample(n=3), prompts=(rows, lengths), key=key)
    assert len({tuple(row) for row in all_of.tokens_NxSxM.reshape(-1, 12)}) > 20
    for order, n, at_once in (
        (np.arange(12), 3, 4),
        (np.arange(11, -1, -2), 3, 8),
        (np.array([7]), 1, 1),
    ):
        some = decode(
            Sample(n=n), prompts=(rows[order], lengths[order]), key=key, ids_N=order, rows=at_once
        )
        for ours, theirs in zip(some, all_of, strict=True):
            # Scores are sums in another order; all else is whole numbers.
            np.testing.assert_allclose(ours, theirs[order][:, :n], rtol=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_WAITING", 2)
        done: list[int] = []
        some = decode(Sample(n=3), prompts=(rows, lengths), key=key, rows=8, done=done.append)
        assert done == [6, 12]
        np.testing.assert_array_equal(some.tokens_NxSxM, all_of.tokens_NxSxM)
    other = decode(Sample(n=3), prompts=(rows, lengths), key=keys.root(5, Purpose.DECODING))
    assert (other.tokens_NxSxM != all_of.tokens_NxSxM).any()


@pytest.mark.parametrize(
    "how", [Greedy(), Sample(n=2), Beam(beams=3), Beam(beams=3, sample=True)], ids=str
)
def test_neither_rows_nor_neighbours_change_what_is_written(how: Strategy) -> None:
    rows, lengths = prompts(9)
    whole = decode(how, prompts=(rows, lengths), rows=8)
    for at_once in (3, 5):
        part = decode(how, prompts=(rows[4:], lengths[4:]), ids_N=np.arange(4, 9), rows=at_once)
        for name in ("tokens_NxSxM", "length_NxS", "spent_NxS", "passes_NxS"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[4:])


def test_scores_are_log_likelihoods_and_tokens_are_counted() -> None:
    rows, lengths = prompts(5)
    found = decode(Sample(temperature=1.3, n=2), prompts=(rows, lengths))
    for n, sample in itertools.product(range(5), range(2)):
        length = int(found.length_NxS[n, sample])
        written = found.tokens_NxSxM[n, sample]
        assert length == (list(written).index(6) + 1 if 6 in written else 12)
        text = np.concatenate([rows[n, : lengths[n]], written[:length]])
        log = jax.nn.log_softmax(model.apply(CONFIG, PARAMS(), text[None])[0])
        want = sum(float(log[at - 1, text[at]]) for at in range(lengths[n], len(text)))
        assert found.score_NxS[n, sample] == pytest.approx(want, abs=1e-4)
    np.testing.assert_array_equal(found.spent_NxS, found.length_NxS)
    np.testing.assert_array_equal(found.passes_NxS, found.length_NxS + 1)


def test_a_beam_as_wide_as_all_texts_finds_the_likeliest() -> None:
    """Every text of up to 3 tokens, scored by hand."""
    rows, lengths = prompts(1)
    prompt = rows[0, : lengths[0]]

    # Drawn before they are traced, since they are kept for other tests.
    params = PARAMS()

    @jax.jit
    def log_of(text: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(model.apply(CONFIG, params, text[None])[0])

    best: tuple[float, list[int]] = (-np.inf, [])
    open_ = [(0.0, [])]
    for length in range(1, 4):
        following = []
        for score, text in open_:
            padded = jnp.asarray([*prompt, *text, *[0] * (3 - len(text))])
            log = log_of(padded)[len(prompt) + len(text) - 1]
            for token in range(7):
                more = (score + float(log[token]), [*text, token])
                if token == 6 or length == 3:
                    best = max(best, (more[0] / length, more[1]))
                if token != 6:
                    following.append(more)
        open_ = following
    found = decode(Beam(beams=49), prompts=(rows, lengths), max_new_tokens=3, rows=49)
    length = int(found.length_NxS[0, 0])
    assert found.tokens_NxSxM[0, 0, :length].tolist() == best[1]
    assert found.score_NxS[0, 0] == pytest.approx(best[0], abs=1e-5)


@pytest.mark.parametrize(
    "how",
    [
        Beam(beams=2, sample=True),
        Beam(beams=2, sample=True, temperature=3),
        Beam(beams=2, sample=True, temperature=5, top_k=5),
    ],
    ids=str,
)
def test_a_beam_that_draws_is_drawn_without_replacement(how: Beam) -> None:
    """At the first token, by the softmax: the first of two is the best of four drawn tokens."""
    rows, lengths = prompts(1)
    count = 600
    many = (np.repeat(rows, count, axis=0), np.repeat(lengths, count))
    found = decode(how, prompts=many, max_new_tokens=1).tokens_NxSxM[:, 0, 0]
    logits = np.array(model.apply(CONFIG, PARAMS(), rows)[0, lengths[0] - 1]) / how.temperature
    rank = np.argsort(-logits)
    if how.top_k:
        logits[rank[how.top_k :]] = -np.inf
    share = np.exp(logits - logits.max())
    # Of four drawn ones, the likeliest token is missing with this probability.
    missing = 0.0

    def miss(left: np.ndarray, depth: int) -> float:
        total = left.sum()
        if not depth:
            return 1.0
        return sum(
            left[at] / total * miss(np.where(np.arange(7) == at, 0, left), depth - 1)
            for at in range(7)
            if left[at] and at != rank[0]
        )

    missing = miss(share.astype(np.float64), 4)
    got = int((found != rank[0]).sum())
    assert scipy.stats.binomtest(got, count, missing).pvalue > 1e-3


def test_a_beam_draws_anew_for_each_token_and_each_problem() -> None:
    how = Beam(beams=2, sample=True)
    nothing: Any = dict.fromkeys(Rows._fields)
    key_B = jax.random.split(jax.random.key(0), 6)

    def drawn(number: int) -> np.ndarray:
        rows = Rows(**nothing)._replace(key_B=key_B, tokens_B=jnp.full(6, number))
        return np.asarray(how._candidates(rows, jnp.zeros((3, 14)))[1])

    first, second = drawn(0), drawn(1)
    np.testing.assert_array_equal(first, drawn(0))
    assert (first != second).any(axis=1).all()
    assert len(np.unique(first, axis=0)) == 3


def test_beams_that_may_draw_one_token_alone_are_greedy() -> None:
    """The rules hold at every token, not at the first alone."""
    found = decode(Beam(beams=2, sample=True, top_k=1))
    greedy = decode(Greedy())
    np.testing.assert_array_equal(found.tokens_NxSxM, greedy.tokens_NxSxM)
    np.testing.assert_array_equal(found.length_NxS, greedy.length_NxS)
    by_length = greedy.score_NxS / greedy.length_NxS
    np.testing.assert_allclose(found.score_NxS, by_length, atol=1e-5)


def test_too_few_rows_for_a_problem_are_refused() -> None:
    with pytest.raises(ValueError, match="8 rows work on a problem, and there are 4 at once"):
        decode(Beam(beams=8), rows=4)


def test_more_rows_than_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot of CONFIG has keys and values of 16 numbers; texts here have up to 17 tokens."""
    monkeypatch.setattr(engine.devices, "room", lambda device: 4 * 17 * 2 * 16 * 4)
    assert decode(Greedy(), rows=4).length_NxS.shape == (6, 1)
    with pytest.raises(ValueError, match=r"5 rows of 17 tokens take .* at most 4 rows fit"):
        decode(Greedy(), rows=5)


LOGITS = np.random.default_rng(3).normal(size=(40, 9)).astype(np.float32) * 2


@pytest.mark.parametrize(
    "rules",
    [
        {"temperature": 0.7}, {"top_k": 4}, {"top_p": 0.8}, {"top_p": 0.01}, {"min_p": 0.2},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "min_p": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_rules_are_hugging_faces(rules: dict[str, Any]) -> None:
    why = "parity needs torch and transformers 5.14, the extra `parity`"
    torch = pytest.importorskip("torch", reason=why)
    process = pytest.importorskip("transformers.generation.logits_process", reason=why)
    theirs = torch.tensor(LOGITS)
    for name, kind in (
        ("temperature", "TemperatureLogitsWarper"), ("top_k", "TopKLogitsWarper"),
        ("top_p", "TopPLogitsWarper"), ("min_p", "MinPLogitsWarper"),
    ):  # fmt: skip
        if name in rules:
            theirs = getattr(process, kind)(rules[name])(None, theirs)
    ours = Drawing(**rules).warped(jnp.asarray(LOGITS))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    assert np.isinf(ours).any() or set(rules) == {"temperature"}


@pytest.mark.parametrize(
    ("pick", "answers", "score", "trust", "want"),
    [
        ("vote", ["1", "2", "2"], [-1, -9, -8], None, 2),
        ("vote", ["1", None, None], [-5, -1, -1], None, 0),
        ("vote", [None, None], [-5, -1], None, 1),
        ("vote", ["3", "4"], [-2, -1], None, 0),
        ("likeliest", ["1", "2", "2"], [-1, -9, -8], None, 0),
        ("weighted", ["1", "2", "2"], [-9, -1, -1], [0.9, 0.3, 0.4], 0),
        ("weighted", ["1", "2", "2"], [-1, -9, -9], [0.6, 0.3, 0.4], 2),
    ],
)
def test_the_solution_that_counts(
    pick: str, answers: list[str | None], score: list[int], trust: list[float] | None, want: int
) -> None:
    trust_S = None if trust is None else np.array(trust)
    assert chosen(pick, answers, np.array(score, float), trust_S) == want


@pytest.mark.parametrize("scale", [1, 1e4])
@pytest.mark.parametrize("rules", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
def test_at_the_least_temperature_the_likeliest_is_drawn(
    rules: dict[str, Any], scale: float
) -> None:
    logits_BxV = jnp.asarray(LOGITS) * scale
    left_BxV = Drawing(temperature=0.001, **rules).warped(logits_BxV)
    assert not jnp.isnan(left_BxV).any()
    share_BxV = jax.nn.softmax(left_BxV)
    np.testing.assert_array_equal(share_BxV.argmax(-1), LOGITS.argmax(-1))
    gap_B = np.diff(np.sort(LOGITS, axis=-1))[:, -1]
    assert (share_BxV.max(-1)[gap_B > 0.05] > 0.999).all() and (gap_B > 0.05).mean() > 0.9


def test_of_equally_likely_tokens_the_first_is_written() -> None:
    logits_BxV = jnp.array([[0.0, 3.0, 3.0, 1.0], [2.0, 1.0, 0.0, 2.0]])
    rows: Any = None
    assert Greedy().choose(rows, (), logits_BxV, 0, 1).token_B.tolist() == [1, 0]


@pytest.mark.parametrize("pick", ["vote", "likeliest"])
def test_the_solution_that_counts_is_the_one_that_is_judged(pick: str) -> None:
    """With its length."""
    rng = np.random.default_rng(2)
    # Ids of words.
    tokens_NxSxM = rng.integers(30, 40, (5, 3, 4), dtype=np.int32)
    length_NxS, nothing_NxS = rng.integers(1, 5, (5, 3)), np.zeros((5, 3), int)
    score_NxS = rng.normal(size=(5, 3))
    written = engine.Written(tokens_NxSxM, length_NxS, score_NxS, *[nothing_NxS] * 3)
    config = cells.EvalConfig(decode=f"sample:3,pick={pick}")
    tests: Any = None
    found = evaluate._chosen(written, tests, CONFIG, SMALL, config, None)
    # No text has an answer, so that there is nothing to vote about.
    best_N = score_NxS.argmax(1)
    assert len(set(best_N)) == 3
    np.testing.assert_array_equal(found.tokens_NxM, tokens_NxSxM[np.arange(5), best_N])
    np.testing.assert_array_equal(found.of_chosen(length_NxS), length_NxS[np.arange(5), best_N])


def test_what_is_drawn_is_one_program_for_all_ways_to_choose() -> None:
    texts = ("sample:4", "sample:4,pick=likeliest", "sample:4,pick=weighted,detector=perfect")
    ways = [recipe.parse(text) for text in texts]
    assert len(set(ways)) == 3
    assert {way.bound(SMALL, CONFIG) for way in ways} == {Sample(n=4)}
    other = recipe.parse("sample:4,pick=likeliest,top_k=2").bound(SMALL, CONFIG)
    assert other == Sample(n=4, top_k=2)


def test_unknown_ways_to_choose_are_refused() -> None:
    for pick in ("weighted", "best"):
        with pytest.raises(ValueError, match=f"solutions cannot be chosen by '{pick}'"):
            chosen(pick, ["1"], np.zeros(1))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gredy", "decode is 'gredy'; it must be one of greedy, sample, beam, regret"),
        ("beam:1", "decode is 'beam:1', in which '1' must be a whole number in 2..64"),
        (
            "beam:4,width=3",
            "'beam:4,width=3', in which 'width=3' must be SETTING=VALUE, where 'beam'",
        ),
        ("greedy:3", "'greedy:3', in which '3' must be left out, as 'greedy' has no"),
        ("sample:4,n=2", "decode is 'sample:4,n=2', in which 'n=2' must be the only value of n"),
        ("sample:temperature=0", "in which 'temperature=0' must be a number at least 0.001"),
        ("beam:4,sample=true,temperature=1e-38", "'temperature=1e-38' must be .* at least 0.001"),
        ("regret:perfect,temperature=9e-4", "'temperature=9e-4' must be .* at least 0.001"),
        ("beam:4,top_k=2", "decode is 'beam:4,top_k=2', in which sample must be true where"),
        ("sample:1,pick=likeliest", "decode is .*, in which pick must be left out where n is 1"),
        ("sample:4,detector=perfect", "which detector must be left out where pick is not weighted"),
        ("regret:probe,beams=4,top_k=2", "in which beams must be 1 where temperature"),
        ("regret:probe,least=1", "'least=1' must be a number above 0 and below 1"),
        ("regret:perfect,least=0.2", "in which least must be left out where detector is perfect"),
        ("sample:", "decode is 'sample:', in which '' must be"),
        ("nowhere.at.All", "'nowhere.at.All'; .* Python finds no module nowhere.at in"),
        ("os.path.All", "and os.path has no All"),
        ("beams:4", "decode is 'beams:4', in which 'beams' must be one of greedy"),
        ("..", r"decode is '\.\.'; it must be one of"),
        (".own.Strategy", "or package.module.Class"),
        ("os.path", "decode is 'os.path'; .*, a dataclass"),
        ("", "decode is ''; it must be one of"),
    ],
)
def test_texts_that_say_no_strategy_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(RefusedError, match=complaint):
        recipe.parse(text)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"temperature": st.floats(0.1, 3), "top_k": st.integers(0, 9), "n": st.integers(2, 99),
         "pick": st.sampled_from(["vote", "weighted", "likeliest"])}
    )
)  # fmt: skip
def test_a_strategy_is_read_as_it_is_written(values: dict[str, Any]) -> None:
    text = f"sample:{','.join(f'{key}={value}' for key, value in values.items())}"
    assert recipe.parse(text) == recipe.parse(recipe.canonical(text)) == Sample(**values)
    assert recipe.canonical(recipe.canonical(text)) == recipe.canonical(text)


@dataclasses.dataclass(frozen=True)
class Least(Greedy):
    """A strategy of one's own: the least likely token."""

    def choose(self, rows: Any, own: Any, logits_BxV: jax.Array, stop: int, most: int) -> Any:
        return super().choose(rows, own, -logits_BxV, stop, most)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("import there_is_no_such", "own_way ends in ModuleNotFoundError: No module named 'there_"),
        ("1 / 0", "own_way ends in ZeroDivisionError: division by zero"),
        ("class Own(:", "own_way ends in SyntaxError"),
        ("x = 1", "or package.module.Class"),
        (
            "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Own:\n"
            "    def bound(self, spec, model): ...",
            "one that has `asks`, `select`",
        ),
        (
            "import dataclasses\nfrom physlm.decoding.sampling import Greedy\n"
            "@dataclasses.dataclass(frozen=True)\nclass Own(Greedy):\n    size: int",
            "of a class whose fields all have a value; .*size",
        ),
    ],
)
def test_what_is_wrong_with_a_strategy_of_ones_own_is_said(
    lines: str, sentence: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_way.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_way", raising=False)
    with pytest.raises(RefusedError, match=sentence):
        recipe.parse("own_way.Own")


def test_rows_for_all_beams_of_a_problem_are_asked_for_before_anything_is_drawn() -> None:
    with pytest.raises(RefusedError, match=r"batch is 16; it must be at least 32, .* with beam:32"):
        cells.EvalConfig(decode="beam:32", batch=16)
    with pytest.raises(RefusedError, match=r"beyond is \(7, 7\); it must be numbers of which none"):
        cells.EvalConfig(beyond=(7, 7))
    for scale in ("smoke", "quick", "paper"):
        assert plan.plan(registry.load("regret"), scale)


def test_a_strategy_of_ones_own_is_one_file() -> None:
    mine: Any = recipe.parse(f"{__name__}.Least")
    assert mine == Least() and recipe.canonical(f"{__name__}.Least") == f"{__name__}.Least"
    rows, lengths = prompts(3)
    found = decode(mine, prompts=(rows, lengths), max_new_tokens=1)
    logits = model.apply(CONFIG, PARAMS(), rows)
    want = [int(logits[n, lengths[n] - 1].argmin()) for n in range(3)]
    assert found.tokens_NxSxM[:, 0, 0].tolist() == want


@pytest.mark.parametrize("more", ["", ",beams=2"])
def test_how_sure_a_probe_has_to_be_is_said(more):
    for text, least in (("", 0.5), (",least=0.2", 0.2)):
        bound = recipe.parse(f"regret:probe{text}{more}").bound(SMALL, CONFIG)
        assert bound.detector.least == least
