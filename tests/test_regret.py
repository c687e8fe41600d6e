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
from physlm.decoding.naming import Marks, Named
from physlm.decoding.regret import Regret, Retrying
from physlm.decoding.sampling import Sample
from physlm.decoding.strategy import Rows

CONFIG = ModelConfig(vocab=11, window=24, layers=2, heads=2, head_dim=8, positions=96)
END, NEW, SEED = 10, 40, 3
# A sentence is a token, a name, the token `after`, others, and `stop`.
MARKS = Marks(
    solution=6, stop=9, lead=1, after=8, opening=2, closing=3, back=(4,), restart=5, room=5
)


@dataclasses.dataclass(frozen=True)
class Refuses:
    """Says no where the sum of all that stands before the sentence, and of the name, is one of
    these numbers modulo `of`."""

    these: tuple[int, ...]
    of: int = 3

    def begin(self, resources: Any, prompts: jax.Array, lengths: jax.Array, room: int) -> Any:
        del resources, prompts, room
        return jnp.zeros_like(lengths)

    def ask(
        self, resources: Any, rows: Rows, named: Named, own: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del resources
        place = jnp.arange(rows.text_BxL.shape[1])
        before = jnp.where(place < named.cut_B[:, None], rows.text_BxL, 0).sum(-1)
        inside = jnp.arange(named.asked_BxA.shape[1]) < named.count_B[:, None]
        name = jnp.where(inside, named.asked_BxA, 0).sum(-1)
        no = jnp.isin((before + name) % self.of, jnp.array(self.these))
        return ~no, own + named.there_B


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
            borders = [i for i in range(len(prompt), len(text) - 1) if text[i] == MARKS.stop]
            cut = borders[-1] + 1 if borders else len(prompt)
            name = text[cut + MARKS.lead : -1]
            asked = [MARKS.opening, *name, MARKS.closing]
            if cut + MARKS.lead > len(text) - 1:
                asked = [MARKS.opening, MARKS.closing]
            total = sum(text[:cut]) + sum(asked[: MARKS.room])
            refused = total % how.detector.of in how.detector.these
            if refused and returns < how.how.tries:
                text, again, returns = text[:cut], True, returns + 1
        if text[-1] == END and len(text) > len(prompt):
            break
    return text[len(prompt) :], spent, returns


def _prompts(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 11, (count, 7), dtype=np.int32), rng.integers(1, 8, count)


@pytest.mark.parametrize(
    ("these", "tries", "canon"),
    [((0,), 10, "AC"), ((0, 1, 2), 3, ""), ((), 10, ""), ((1,), 2, "B")],
)
def test_it_writes_what_one_writes_who_asks_at_once(
    these: tuple[int, ...], tries: int, canon: str
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
    for every in (1, 5, 16):
        got = engine.decode(
            config, params, prompts, lengths, strategy=dataclasses.replace(how, often=every),
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
