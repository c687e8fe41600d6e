"""Evaluation by cell, with decoders whose every answer is known."""

import contextlib
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import SMALL as UNSHARED

from data_gen.solutions import language
from physlm import cells as cells_lib
from physlm import evaluate, model
from physlm.adaptation import Adaptation, AdaptationConfig
from physlm.architecture import ModelConfig
from physlm.cells import EvalConfig
from physlm.decoding import engine
from physlm.decoding.engine import Written
from physlm.decoding.naming import marks_of
from physlm.metrics import wilson_interval

pytestmark = pytest.mark.slow

# So that some test problems have templates that training shows.
SMALL = dataclasses.replace(UNSHARED, split="train", unsplit_op=2)
CONFIG = EvalConfig(problems=24, batch=10, beyond=(5,), max_new_tokens=120)


class Silent(contextlib.nullcontext):
    def __init__(self, *_):
        super().__init__(self)
        self.seen = []

    def update(self, done, **_):
        self.seen.append(done)


def model_of(spec, window=160):
    return ModelConfig(
        vocab=language.vocabulary(spec).size, window=window, layers=1, heads=1, head_dim=2
    )


def gold(record, vocab):
    """The ids of a record's solution and answer, by longest match of the vocabulary's tokens."""
    text = f"{record['solution']}<|answer|> {record['answer']}<|end|>"
    tokens = sorted(vocab.tokens, key=len, reverse=True)
    ids = []
    while text:
        token = next(t for t in tokens if text.startswith(t))
        ids.append(vocab.ids[token])
        text = text[len(token) :]
    return ids


def run(monkeypatch, write, keep=None):
    """Evaluates a decoder that sees only prompts, and looks the record up by its prompt."""
    spec = cells_lib.test_spec(SMALL, CONFIG)
    vocab = language.vocabulary(spec)
    known = {}
    for cell in cells_lib.of(SMALL, CONFIG):
        tests = cells_lib.test_set(cell, spec, CONFIG, 160)
        for ids, n, record in zip(tests.prompts_NxP, tests.lengths_N, tests.records, strict=True):
            known[tuple(ids[:n].tolist())] = record

    def decode(model, params, prompts, lengths, *, max_new_tokens, stop, done, **rest):
        out = np.full((len(prompts), 1, max_new_tokens), stop, np.int32)
        said = np.zeros((len(prompts), 1), np.int32)
        for n, (ids, length) in enumerate(zip(prompts, lengths, strict=True)):
            written = write(known[tuple(ids[:length].tolist())], vocab)
            out[n, 0, : len(written)] = written
            said[n] = len(written)
        done(len(prompts))
        return Written(out, said, -said, said + 1, said + 2, 0 * said)

    monkeypatch.setattr(evaluate.engine, "decode", decode)
    found = evaluate.evaluate(
        {}, model=model_of(SMALL), spec=SMALL, config=CONFIG, progress=Silent, keep=keep
    )
    return {cell["cell"]: cell for cell in found}


def test_perfect_decoder_is_all_right(monkeypatch):
    found = run(monkeypatch, gold)
    assert list(found) == ["<=4", "4", "5"]
    for cell in found.values():
        assert cell["n"] == 24
        assert cell["accuracy"] == cell["answer_accuracy"] == 1.0
        assert (cell["ci_low"], cell["ci_high"]) == wilson_interval(24, 24)
        assert cell["retries"] == cell["unnecessary"] == 0
        assert cell["held_out"]["n"] + cell["shared"]["n"] == 24


def test_problems_and_templates_that_differ_are_counted():
    """Of one operation there are two templates: a cell of such problems shows no more."""
    config = dataclasses.replace(CONFIG, beyond=())
    (_, some), _ = cells_lib.test_sets(SMALL, config, 160, Silent)
    texts = [record["problem"] + record["question"] for record in some.records]
    assert cells_lib.distinct(some)["problems"] == len(set(texts))
    tiny = dataclasses.replace(
        SMALL, max_op=1, max_edges=2, max_depth=2, modulus=2, hierarchies=1, subcategories=1,
        names=2, letters=1,
    )  # fmt: skip
    many = dataclasses.replace(config, problems=400)
    (_, few), _ = cells_lib.test_sets(tiny, many, 160, Silent)
    texts = [record["problem"] + record["question"] for record in few.records]
    assert cells_lib.distinct(few) == {"problems": len(set(texts)), "templates": 2}
    assert len(set(texts)) < len(texts) == 400


def test_a_run_on_another_split_shows_all_templates():
    for split, shown in (("train", False), ("all", True), ("test", True)):
        spec = dataclasses.replace(UNSHARED, split=split)
        for _, tests in cells_lib.test_sets(spec, CONFIG, 160, Silent):
            assert (tests.shared_N == shown).all()


def test_problems_of_shared_templates_are_judged_apart(monkeypatch):
    """Here those of at most two operations: a decoder that solves just these shows it."""

    def write(record, vocab):
        return gold(record, vocab) if record["op"] <= 2 else []

    found = run(monkeypatch, write)
    mixed = found.pop("<=4")
    assert mixed["shared"]["accuracy"] == 1.0 and mixed["held_out"]["accuracy"] == 0.0
    assert mixed["shared"]["n"] == round(mixed["accuracy"] * mixed["n"]) > 0
    for cell in found.values():
        assert cell["shared"] == {"n": 0, "accuracy": None}
        assert cell["held_out"] == {"n": 24, "accuracy": 0.0}


def test_answer_without_its_steps_counts_as_answer_only(monkeypatch):
    def write(record, vocab):
        return gold(record, vocab)[-3:]  # answer marker, number, end

    found = run(monkeypatch, write)
    for cell in found.values():
        assert cell["accuracy"] == 0.0 and cell["answer_accuracy"] == 1.0


def test_retries_are_counted_and_forgiven(monkeypatch):
    def write(record, vocab):
        ids = gold(record, vocab)
        back = [*ids[:5], vocab.ids[" BACK"], vocab.ids["."]]
        return [*back, *back, *ids]

    found = run(monkeypatch, write)
    assert all(cell["accuracy"] == 1.0 and cell["retries"] == 2.0 for cell in found.values())


def test_what_was_written_is_kept(monkeypatch):
    """With its problem and what is to be said of it, so that it can be mended."""
    kept, judged = [], []

    def write(record, vocab):
        ids = gold(record, vocab)
        return ids if record["op"] % 2 else ids[:1] + ids[3:]  # a name without its owner

    found = run(
        monkeypatch, write, lambda rows, verdicts: (kept.extend(rows), judged.extend(verdicts))
    )
    assert len(kept) == len(judged) == sum(cell["n"] for cell in found.values())
    assert {row["cell"] for row in kept} == set(found)
    for row, verdict in zip(json.loads(json.dumps(kept)), judged, strict=True):
        assert row["correct"] == verdict.correct == bool(row["op"] % 2)
        assert (row["written"] == row["solution"]) == verdict.correct
        assert (row["retries"], row["unnecessary"]) == (verdict.retries, verdict.unnecessary)
        assert row["written_answer"].strip() == str(row["answer"])
        assert row["kind"] == ("" if verdict.correct else "unknown")


def test_text_that_never_ends_is_wrong(monkeypatch):
    def write(record, vocab):
        return [vocab.ids[" Define"]] * CONFIG.max_new_tokens

    found = run(monkeypatch, write)
    assert all(cell["accuracy"] == cell["answer_accuracy"] == 0 for cell in found.values())


def test_what_solutions_took_is_counted(monkeypatch):
    """By a decoder that mends twice in problems of an even number of operations, and answers those
    of an odd one without a step."""

    def write(record, vocab):
        ids = gold(record, vocab)
        back = [*ids[:5], vocab.ids[" BACK"], vocab.ids["."]]
        return [*back, *back, *ids] if record["op"] % 2 == 0 else ids[-3:]

    found = run(monkeypatch, write)
    even, odd = found["4"]["account"], found["5"]["account"]
    assert even["retries_right"] == 2.0 and even["retries_wrong"] is None
    assert even["wrong"] == even["wrong_step"] == {} and even["operations_right"] == 0
    assert odd["retries_right"] is None and odd["retries_wrong"] == 0
    assert sum(odd["wrong"].values()) == 24 and odd["wrong_step"] == {"0": 24}
    for cell in (even, odd):
        # As the decoder of these tests says.
        assert cell["passes"] == cell["tokens"] + 1 and cell["capped"] == 0


def test_what_is_cut_off_is_counted(monkeypatch):
    def write(record, vocab):
        return [vocab.ids[" Define"]] * CONFIG.max_new_tokens if record["op"] == 5 else []

    found = run(monkeypatch, write)
    assert [found[cell]["account"]["capped"] for cell in ("4", "5")] == [0.0, 1.0]


@functools.cache
def namer():
    """A model that writes names and sentences, if no solutions, and a probe of it that finds no
    fault with any."""
    spec = cells_lib.test_spec(SMALL, CONFIG)
    marks = marks_of(spec)
    config = dataclasses.replace(model_of(SMALL), head_dim=8, init_std=0.6)
    params = model.init(config, jax.random.key(0))
    # Where a logit is large, it is one of these.
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = kernel.at[:, jnp.array([marks.after, marks.stop])].multiply(6)
    adaptation = Adaptation(AdaptationConfig("probe", on="embed/embedding", rank=2), 2)
    trained, _ = adaptation.split(params, config, jax.random.key(1))
    trained["probe"]["bias"] = jnp.array([-50.0, 50.0])
    return config, params, adaptation.join(trained, params), marks


@pytest.mark.parametrize(
    ("decode", "solutions", "width", "asks", "judged"),
    [
        ("greedy", 1, 1, False, 0),
        ("sample:3", 3, 1, False, 0),
        ("beam:2", 1, 2, False, 0),
        ("sample:2,pick=weighted,detector=perfect", 2, 1, False, 0),
        ("sample:2,pick=weighted", 2, 1, False, 2),
        ("regret:perfect", 1, 1, False, 0),
        ("regret:probe", 1, 1, True, 0),
    ],
)
def test_a_forward_pass_is_the_same_by_every_way_of_decoding(
    monkeypatch, decode, solutions, width, asks, judged
):
    """One for the prompt of each solution, one for each token, of all beams at once, one for each
    question to a probe, and one for each solution that it judges in the end."""
    config, params, probed, marks = namer()
    probe = "its run" if asks or judged else ""
    settings = EvalConfig(
        problems=5, batch=8, beyond=(), max_new_tokens=24, decode=decode, probe=probe
    )
    kept, engine_decode = [], engine.decode

    def kept_of(*given, **rest):
        kept.append(engine_decode(*given, **rest))
        return kept[-1]

    monkeypatch.setattr(evaluate.engine, "decode", kept_of)
    cells = evaluate.evaluate(
        params, model=config, spec=SMALL, config=settings, progress=Silent,
        probed=probed if probe else None,
    )  # fmt: skip
    for cell, written in zip(cells, kept, strict=True):
        place_M = np.arange(written.tokens_NxSxM.shape[2])
        inside_NxSxM = place_M < written.length_NxS[..., None]
        names = ((written.tokens_NxSxM == marks.after) & inside_NxSxM).sum() / 5
        tokens = cell["account"]["tokens"]
        assert tokens >= width * written.length_NxS.sum() / 5
        want = solutions + tokens / width + asks * names + judged
        assert cell["account"]["passes"] == pytest.approx(want)
        assert names > 2 and tokens > 10
