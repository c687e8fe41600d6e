"""Retry upon regret beside a writer that asks at once and reads everything anew."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_gen import keys
from data_gen.keys import Purpose
from physlm import model
from physlm.architecture import ModelConfig
from physlm.decoding import engine
from physlm.decoding.beam import Beam
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

    def begin(self, resources: Any, prompts: jax.Array, lengths: jax.Array, room: int) -> Any:
        del resources, prompts, room
        return jnp.zeros_like(lengths)

    def resized(self, own: jax.Array, slots: int) -> jax.Array:
        del slots
        return own

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


def _alone(
    config: ModelConfig, params: model.Params, prompt: list[int], number: int, how: Retrying
) -> tuple[list[int], int, int]:
    """What is written, how many tokens were, and how often it went back."""
    key = keys.numbered(keys.numbered(keys.root(SEED, Purpose.DECODING), number), 0)
    text, spent, returns, again = list(prompt), 0, 0, False
    while len(text) - len(prompt) < NEW:
        padded = np.zeros((1, 64), np.int32)
        padded[0, : len(text)] = text
        logits = _apply(config, params, padded)[0, len(text) - 1]
        token = int(jnp.argmax(logits))
        if again:
            token = int(jax.random.categorical(keys.numbered(key, spent), logits))
        text.append(token)
        spent += 1
        again = again and token not in (MARKS.stop, END)
        if token == MARKS.after:
            refused = _refused(how.detector, text, len(prompt))
            if refused and returns < how.how.tries:
                text, again, returns = text[: _cut(text, len(prompt))], True, returns + 1
        if text[-1] == END and len(text) > len(prompt):
            break
    return text[len(prompt) :], spent, returns


def _prompts(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 11, (count, 7), dtype=np.int32), rng.integers(1, 8, count)


@pytest.mark.parametrize(
    ("these", "tries", "canon", "often"),
    [
        pytest.param(
            (0,), 10, "AC", ((1, 1), (5, 3), (16, 1), (16, 4)), marks=pytest.mark.slow, id="often"
        ),
        ((0, 1, 2), 3, "", ((5, 2),)),
        ((), 10, "", ((5, 2),)),
        ((1,), 2, "B", ((7, 3),)),
    ],
)
def test_it_writes_what_one_writes_who_asks_at_once(
    these: tuple[int, ...], tries: int, canon: str, often: tuple[tuple[int, int], ...]
) -> None:
    """Bit for bit, and with the same counts; whenever the engine asks."""
    config, params = _params(canon)
    prompts, lengths = _prompts(9)
    how = Retrying(Regret(tries=tries), Refuses(these), MARKS)
    want = [
        _alone(config, params, row[:n].tolist(), number, how)
        for number, (row, n) in enumerate(zip(prompts, lengths, strict=True))
    ]
    returns = [returns for _, _, returns in want]
    for every, together in often:
        got = engine.decode(
            config, params, prompts, lengths,
            strategy=dataclasses.replace(how, often=every, together=together),
            max_new_tokens=NEW, stop=END, key=keys.root(SEED, Purpose.DECODING),
        )  # fmt: skip
        texts = [
            row[:n].tolist()
            for row, n in zip(got.tokens_NxSxM[:, 0], got.length_NxS[:, 0], strict=True)
        ]
        assert texts == [text for text, _, _ in want]
        assert got.spent_NxS[:, 0].tolist() == [spent for _, spent, _ in want]
        assert got.returns_NxS[:, 0].tolist() == returns
    if these == (0, 1, 2):
        assert max(returns) == tries
    assert bool(max(returns)) == bool(these)


def _decoded(strategy: Strategy, canon: str = "AC") -> engine.Written:
    config, params = _params(canon)
    prompts, lengths = _prompts(9)
    return engine.decode(
        config, params, prompts, lengths, strategy=strategy, max_new_tokens=NEW, stop=END, rows=12
    )


def test_beams_of_which_nothing_is_refused_are_beams() -> None:
    beam = Beam(beams=3)
    ours, plain = _decoded(Pruned(beam, Refuses(()), MARKS, 10)), _decoded(beam)
    np.testing.assert_array_equal(ours.tokens_NxSxM, plain.tokens_NxSxM)
    np.testing.assert_array_equal(ours.spent_NxS, plain.spent_NxS)
    assert (ours.passes_NxS > plain.passes_NxS).any() and not ours.returns_NxS.any()


def test_what_is_refused_leaves_the_beam() -> None:
    """As in a search by hand, of whole texts that are read anew at every token."""
    for these, tries in (((0,), 100), ((0, 1), 4)):
        how = Pruned(Beam(beams=3), Refuses(these), MARKS, tries)
        found = _decoded(how)
        prompts, lengths = _prompts(9)
        for n in range(4):
            text, returns = _search(how, prompts[n, : lengths[n]].tolist())
            length = int(found.length_NxS[n, 0])
            assert found.tokens_NxSxM[n, 0, :length].tolist() == text
            assert int(found.returns_NxS[n, 0]) == returns
        assert found.returns_NxS.any()


def _search(how: Pruned, prompt: list[int]) -> tuple[list[int], int]:
    """Beam search in plain Python: the best finished text, and how many texts were left."""
    config, params = _params("AC")
    width, size = how.width, len(prompt)
    running: list[tuple[float, list[int]]] = [(0.0, prompt)]
    finished: list[tuple[float, list[int]]] = []
    returns = 0
    for written in range(1, NEW + 1):
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
        if any(refused) and not all(refused) and returns < how.tries:
            returns += sum(refused)
            running = [pair for pair, no in zip(running, refused, strict=True) if not no]
    return finished[0][1][size:], returns


def _cut(text: list[int], start: int) -> int:
    borders = [i for i in range(start, len(text) - 1) if text[i] == MARKS.stop]
    return borders[-1] + 1 if borders else start


def _refused(detector: Any, text: list[int], start: int) -> bool:
    cut = _cut(text, start)
    asked = [MARKS.opening, *text[cut + MARKS.lead : -1], MARKS.closing]
    if cut + MARKS.lead > len(text) - 1:
        asked = [MARKS.opening, MARKS.closing]
    return (sum(text[:cut]) + sum(asked[: MARKS.room])) % detector.of in detector.these
