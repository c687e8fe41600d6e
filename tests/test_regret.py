"""Retry upon regret beside a writer that asks at once and reads everything anew."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_gen import keys
from data_gen.keys import Purpose
from physlm import model, probe
from physlm.adaptation import Adaptation, AdaptationConfig
from physlm.architecture import ModelConfig
from physlm.decoding import engine
from physlm.decoding.beam import Beam
from physlm.decoding.detectors import Probed
from physlm.decoding.naming import Marks, Named
from physlm.decoding.pruned import Pruned
from physlm.decoding.regret import Regret, Retrying
from physlm.decoding.sampling import Sample
from physlm.decoding.strategy import Rows, Strategy

CONFIG = ModelConfig(vocab=11, window=24, layers=2, heads=2, head_dim=8, positions=96)
END, NEW, SEED = 10, 40, 3
# A sentence is a token, a name, the token `after`, others, and `stop`.
MARKS = Marks(stop=9, lead=1, after=8, opening=2, closing=3, back=(4,), restart=5, room=5)


@dataclasses.dataclass(frozen=True)
class Refuses:
    """Says no where the sum of all that stands before the sentence, and of the name, is one of
    these numbers modulo `of`."""

    these: tuple[int, ...]
    of: int = 3
    passes: int = 1

    def begin(self, resources: Any, prompts: jax.Array, lengths: jax.Array, room: int) -> Any:
        del resources, prompts, room
        return jnp.zeros_like(lengths)

    def resized(self, own: jax.Array, slots: int) -> jax.Array:
        del slots
        return own

    def continued(self, own: jax.Array, source_B: jax.Array, shared_B: jax.Array) -> jax.Array:
        del shared_B
        return own[source_B]

    def ask(
        self, resources: Any, rows: Rows, named: Named, own: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del resources
        place = jnp.arange(rows.text_BxL.shape[1])
        before = jnp.where(place < named.cut_BxQ[..., None], rows.text_BxL[:, None], 0).sum(-1)
        inside = jnp.arange(named.asked_BxQxA.shape[2]) < named.count_BxQ[..., None]
        name = jnp.where(inside, named.asked_BxQxA, 0).sum(-1)
        no = jnp.isin((before + name) % self.of, jnp.array(self.these))
        return ~no, own + named.there_BxQ.sum(-1)


@functools.cache
def _params(canon: str) -> tuple[ModelConfig, model.Params]:
    """A model that writes sentences: what it says most often is made to be their marks."""
    config = dataclasses.replace(CONFIG, canon=canon, canon_init="uniform")
    params = model.init(dataclasses.replace(config, init_std=0.6), jax.random.key(0))
    prompts, lengths = _prompts(64)
    said = engine.decode(
        config, params, prompts, lengths, strategy=Sample(), max_new_tokens=NEW, stop=-1
    ).tokens_NxSxM
    often = np.argsort(-np.bincount(said.reshape(-1), minlength=11), kind="stable")
    order = np.zeros(11, int)
    order[[MARKS.after, MARKS.stop]] = often[:2]
    order[[token for token in range(11) if token not in (MARKS.after, MARKS.stop)]] = often[2:]
    kernel = params["head"]["kernel"][:, order]
    return config, {**params, "head": {"kernel": kernel}}


_apply = jax.jit(model.apply, static_argnums=0)


class Alone(NamedTuple):
    """What is written and how likely it is, how many tokens were, how often it went back, and what
    was asked."""

    text: list[int]
    score: float
    spent: int
    returns: int
    questions: int


def _alone(
    config: ModelConfig, params: model.Params, prompt: list[int], number: int, how: Retrying
) -> Alone:
    key = keys.numbered(keys.numbered(keys.root(SEED, Purpose.DECODING), number), 0)
    text, spent, returns, again, questions = list(prompt), 0, 0, False, 0
    logs: list[float] = []
    # The step that was refused last, and by which names.
    place, known = 0, set[tuple[int, ...]]()
    while len(text) - len(prompt) < NEW:
        padded = np.zeros((1, 64), np.int32)
        padded[0, : len(text)] = text
        logits = _apply(config, params, padded)[0, len(text) - 1]
        token = int(jnp.argmax(logits))
        if again:
            # The rules by hand, of which there are none but these two.
            left = np.asarray(logits) / np.float32(how.how.temperature)
            if how.how.top_k:
                left[np.argsort(left)[: -how.how.top_k]] = -np.inf
            token = int(jax.random.categorical(keys.numbered(key, spent), left))
        text.append(token)
        logs.append(float(jax.nn.log_softmax(logits)[token]))
        spent += 1
        again = again and token not in (MARKS.stop, END)
        if token == MARKS.after and returns < how.how.tries:
            cut, name = _cut(text, len(prompt)), tuple(_asked(text, len(prompt)))
            named_again = cut == place and name in known
            # What it has refused there before it is not asked again.
            questions += not named_again
            if named_again or _refused(how.detector, text, len(prompt)):
                known = {*known, name} if cut == place else {name}
                text, place, again, returns = text[:cut], cut, True, returns + 1
                logs = logs[: cut - len(prompt)]
        if text[-1] == END and len(text) > len(prompt):
            break
    return Alone(text[len(prompt) :], sum(logs), spent, returns, questions)


def _prompts(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 11, (count, 7), dtype=np.int32), rng.integers(1, 8, count)


@pytest.mark.parametrize(
    ("refuses", "how", "canon", "often"),
    [
        pytest.param(
            Refuses((0,)), Regret(), "AC", ((1, 1), (5, 3), (16, 1), (16, 4)),
            marks=pytest.mark.slow, id="often",
        ),
        pytest.param(Refuses((0, 1, 2)), Regret(tries=3), "", ((5, 2),), id="all refused"),
        pytest.param(Refuses(()), Regret(), "", ((5, 2),), id="none refused"),
        pytest.param(
            Refuses((1,), passes=0), Regret(tries=4, temperature=2.5, top_k=3), "B", ((7, 3),),
            id="rules",
        ),
    ],
)  # fmt: skip
def test_it_writes_what_one_writes_who_asks_at_once(
    refuses: Refuses, how: Regret, canon: str, often: tuple[tuple[int, int], ...]
) -> None:
    """Bit for bit, and with the same counts; whenever the engine asks."""
    config, params = _params(canon)
    prompts, lengths = _prompts(9)
    retrying = Retrying(how, refuses, MARKS)
    want = [
        _alone(config, params, row[:n].tolist(), number, retrying)
        for number, (row, n) in enumerate(zip(prompts, lengths, strict=True))
    ]
    returns = [one.returns for one in want]
    for every, together in often:
        got = engine.decode(
            config, params, prompts, lengths,
            strategy=dataclasses.replace(retrying, often=every, together=together),
            max_new_tokens=NEW, stop=END, key=keys.root(SEED, Purpose.DECODING),
        )  # fmt: skip
        texts = [
            row[:n].tolist()
            for row, n in zip(got.tokens_NxSxM[:, 0], got.length_NxS[:, 0], strict=True)
        ]
        assert texts == [one.text for one in want]
        assert got.spent_NxS[:, 0].tolist() == [one.spent for one in want]
        assert got.returns_NxS[:, 0].tolist() == returns
        np.testing.assert_allclose(got.score_NxS[:, 0], [one.score for one in want], atol=1e-4)
        # The prompt, each token, and each question.
        passes = [1 + one.spent + refuses.passes * one.questions for one in want]
        assert got.passes_NxS[:, 0].tolist() == passes
    if refuses.these == (0, 1, 2):
        assert max(returns) == how.tries
    assert bool(max(returns)) == bool(refuses.these)
    assert max(one.questions for one in want) > 1


def _decoded(strategy: Strategy, canon: str = "AC") -> engine.Written:
    config, params = _params(canon)
    prompts, lengths = _prompts(9)
    return engine.decode(
        config, params, prompts, lengths, strategy=strategy, max_new_tokens=NEW, stop=END, rows=12
    )


@pytest.mark.parametrize("apart", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_probe_refuses_what_it_refuses_where_all_is_read_anew(apart: bool) -> None:
    """Whether it reads the text itself, or questions alone in the cache of decoding."""
    config, params = _params("AC")
    adaptation = Adaptation(AdaptationConfig("probe", on="embed/embedding", rank=2), 2, apart)
    trained, _ = adaptation.split(params, config, jax.random.key(1))
    factors, head = trained["lora"]["embed"]["embedding"], trained["probe"]
    factors["a"] = jax.random.normal(jax.random.key(2), factors["a"].shape)
    head["kernel"] = jax.random.normal(jax.random.key(5), head["kernel"].shape)
    joined = adaptation.join(trained, params)
    said: list[bool] = []

    def refuses(text: list[int], start: int) -> bool:
        name, tokens = _asked(text, start), np.zeros((1, 64), np.int32)
        tokens[0, : len(text)] = text
        asked = np.full((1, 1, MARKS.room), MARKS.closing, np.int32)
        asked[0, 0, : len(name)] = name
        batch = {"tokens": tokens, "cuts": [[_cut(text, start)]], "asked": asked}
        share = probe.probabilities(config, joined, {**batch, "ends": np.array([[len(name)]])})
        said.append(float(share[0, 0, 1]) < 0.5)
        return said[-1]

    prompts, lengths = _prompts(9)
    asks = Probed(config, MARKS.room)
    for alone, ours in (
        (Retrying(Regret(), refuses, MARKS), Retrying(Regret(), asks, MARKS)),  # type: ignore[arg-type]
        (Pruned(Beam(beams=3), refuses, MARKS, 4), Pruned(Beam(beams=3), asks, MARKS, 4)),  # type: ignore[arg-type]
    ):
        got = engine.decode(
            config, params, prompts, lengths, strategy=ours, max_new_tokens=NEW, stop=END, rows=12,
            key=keys.root(SEED, Purpose.DECODING), resources=model.unrolled(config, joined),
        )  # fmt: skip
        for n in range(9 if isinstance(alone, Retrying) else 3):
            prompt = prompts[n, : lengths[n]].tolist()
            if isinstance(alone, Retrying):
                want = _alone(config, params, prompt, n, alone)
            else:
                want = _search(alone, prompt)
            length = int(got.length_NxS[n, 0])
            assert got.tokens_NxSxM[n, 0, :length].tolist() == want.text
            assert int(got.returns_NxS[n, 0]) == want.returns
        assert got.returns_NxS.any()
    assert 0.1 < np.mean(said) < 0.9 and len(said) > 30


def test_beams_of_which_nothing_is_refused_are_beams() -> None:
    beam = Beam(beams=3)
    ours, plain = _decoded(Pruned(beam, Refuses(()), MARKS, 10)), _decoded(beam)
    np.testing.assert_array_equal(ours.tokens_NxSxM, plain.tokens_NxSxM)
    np.testing.assert_array_equal(ours.spent_NxS, plain.spent_NxS)
    assert (ours.passes_NxS > plain.passes_NxS).any() and not ours.returns_NxS.any()
    free = _decoded(Pruned(beam, Refuses((), passes=0), MARKS, 10))
    np.testing.assert_array_equal(free.passes_NxS, plain.passes_NxS)


def test_what_is_refused_leaves_the_beam() -> None:
    """As in a search by hand, of whole texts that are read anew at every token."""
    # Of two beams it is often both that are refused, and stay.
    for these, tries, beams in (((0,), 100, 3), ((0, 1), 4, 2)):
        how = Pruned(Beam(beams=beams), Refuses(these), MARKS, tries)
        found = _decoded(how)
        prompts, lengths = _prompts(9)
        for n in range(4):
            want = _search(how, prompts[n, : lengths[n]].tolist())
            length = int(found.length_NxS[n, 0])
            assert found.tokens_NxSxM[n, 0, :length].tolist() == want.text
            assert int(found.returns_NxS[n, 0]) == want.returns
            assert found.score_NxS[n, 0] == pytest.approx(want.score, abs=1e-4)
            # Each of the beams is given a token in each pass, and asked about with the others.
            assert int(found.spent_NxS[n, 0]) == want.spent
            assert int(found.passes_NxS[n, 0]) == 1 + want.spent / how.width + want.questions
        assert found.returns_NxS.any()


def _search(how: Pruned, prompt: list[int]) -> Alone:
    """Beam search in plain Python: the best finished text, and how many texts were left."""
    config, params = _params("AC")
    width, size = how.width, len(prompt)
    running: list[tuple[float, list[int]]] = [(0.0, prompt)]
    finished: list[tuple[float, list[int]]] = []
    returns = spent = questions = 0
    for written in range(1, NEW + 1):
        spent += width
        candidates = []
        padded = np.zeros((3, 64), np.int32)
        for row, (_, text) in zip(padded, running, strict=False):
            row[: len(text)] = text
        logs = jax.nn.log_softmax(_apply(config, params, padded))[:, size + written - 2]
        for (score, text), log in zip(running, np.asarray(logs), strict=False):
            candidates += [(score + float(log[token]), [*text, token]) for token in range(11)]
        candidates.sort(key=lambda pair: -pair[0])
        best = candidates[: 2 * width]
        ends = [text[-1] == END or written == NEW for _, text in best]
        new = [(s / written, t) for (s, t), end in zip(best[:width], ends, strict=False) if end]
        finished = sorted([*finished, *new], key=lambda pair: -pair[0])[:width]
        running = [pair for pair, end in zip(best, ends, strict=True) if not end][:width]
        if not running:
            break
        if len(finished) == width and running[0][0] / written <= finished[-1][0]:
            break
        refused = [
            text[-1] == MARKS.after and _refused(how.detector, text, size) for _, text in running
        ]
        questions += any(text[-1] == MARKS.after for _, text in running)
        if any(refused) and not all(refused) and returns < how.tries:
            returns += sum(refused)
            running = [pair for pair, no in zip(running, refused, strict=True) if not no]
    return Alone(finished[0][1][size:], finished[0][0], spent, returns, questions)


def _cut(text: list[int], start: int) -> int:
    borders = [i for i in range(start, len(text) - 1) if text[i] == MARKS.stop]
    return borders[-1] + 1 if borders else start


def _asked(text: list[int], start: int) -> list[int]:
    """The name in brackets of the sentence that a text ends with."""
    begin = _cut(text, start) + MARKS.lead
    name = text[begin:-1] if begin < len(text) else []
    return [MARKS.opening, *name, MARKS.closing][: MARKS.room]


def _refused(detector: Any, text: list[int], start: int) -> bool:
    if callable(detector):
        return bool(detector(text, start))
    before = sum(text[: _cut(text, start)])
    return (before + sum(_asked(text, start))) % detector.of in detector.these
