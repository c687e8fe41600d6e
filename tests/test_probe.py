"""Probes: branches of a document, the answers read off them, and what is said of these."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import SMALL, facts_of
from test_train import one_device

from data_gen import keys
from data_gen.keys import Purpose
from data_gen.solutions.mistakes import Mistakes
from data_gen.text.records import records
from data_gen.windows import stream
from data_gen.windows.questions import QuestionStream, names, questions
from data_gen.windows.tokenizer import tokenizer
from physlm import branches, cache, detection, model, optimizer, probe, probing
from physlm import cells as cells_lib
from physlm import step as step_lib
from physlm.adaptation import Adaptation, AdaptationConfig
from physlm.architecture import ModelConfig
from physlm.attention import causal
from physlm.block import Reading
from physlm.canon import with_zeros
from physlm.metrics import auroc
from physlm.optimizer import OptimizerConfig
from physlm.step import Learning

CONFIG = ModelConfig(
    vocab=tokenizer(SMALL).size, window=200, layers=2, heads=2, head_dim=8, init_std=0.2
)
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "canon": {"canon": "ABCD", "canon_init": "uniform", "rotary_fraction": 0.5, "qk_norm": True},
    "llama": {"variant": "llama", "kv_heads": 1, "scan": True},
    "gemma": {"variant": "gemma", "kv_heads": 1, "canon": "B", "canon_init": "uniform"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_branch_is_what_the_prefix_and_it_would_be_alone(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, vocab=30, window=24, **changes)
    params = model.init(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (3, 20), 0, 30)
    asked = jax.random.randint(jax.random.key(2), (3, 4, 5), 0, 30)
    cuts = jnp.array([[20, 0, 7, 2], [1, 3, 19, 20], [5, 5, 5, 12]])
    document = cache.read(config, model.unrolled(config, params), tokens)
    found = jax.jit(branches.states, static_argnums=0)(config, params, document, cuts, asked)
    assert found.shape == (3, 4, 5, config.width)

    @jax.jit
    def alone(text: jax.Array) -> jax.Array:
        """Every row that is needed, padded on the right."""
        reading = Reading(
            lambda layer, *qkv: (causal(config, *qkv), None),
            lambda layer, name, x, place: (with_zeros(x, config.canon_width - 1), None),
        )
        unrolled = model.unrolled(config, params)
        frame, x, _, _ = model.run(config, unrolled, text, jnp.arange(text.shape[1]), reading)
        return frame.norm(x)

    rows = np.zeros((12, 25), np.int32)
    for number in range(12):
        cut = int(cuts.reshape(-1)[number])
        rows[number, :cut] = tokens[number // 4, :cut]
        rows[number, cut : cut + 5] = asked.reshape(-1, 5)[number]
    want = np.asarray(alone(jnp.asarray(rows)))
    for number in range(12):
        cut = int(cuts.reshape(-1)[number])
        got = found.reshape(12, 5, -1)[number]
        np.testing.assert_allclose(got, want[number, cut : cut + 5], atol=2e-5)


def batch_of(count: int = 4, task: str = "can_next") -> dict[str, jax.Array]:
    one = QuestionStream(SMALL, Mistakes(), window=200, task=task, count=5, seed=0, batch=count)
    found = {name: jnp.asarray(value) for name, value in one.batch(0).items()}
    one.close()
    return found


def probe_of(apart: bool = False, **changes: Any) -> Learning:
    changes = {"on": "embed/embedding", "rank": 2, **changes}
    return Learning(Adaptation(AdaptationConfig("probe", **changes), 2, apart), probe.objective)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[pytest.mark.slow] * (name != "canon"))
        for name, changes in VARIANTS.items()
    ],
)
def test_texts_may_be_read_by_the_frozen_model(changes: dict[str, Any]) -> None:
    """As if a token of a question were another than the same one in a text."""
    config = dataclasses.replace(CONFIG, **changes)
    base = model.init(config, jax.random.key(0))
    trained, _ = probe_of().adaptation.split(base, config, jax.random.key(1))
    factors, head = trained["lora"]["embed"]["embedding"], trained["probe"]
    factors["a"] = jax.random.normal(jax.random.key(2), factors["a"].shape)
    head["kernel"] = jax.random.normal(jax.random.key(3), head["kernel"].shape)
    plain, apart = (probe_of(one).adaptation.join(trained, base) for one in (False, True))
    batch = batch_of()
    found = probe.logits(config, apart, batch)
    both = jnp.concatenate([base["embed"]["embedding"], plain["embed"]["embedding"]])
    doubled = {**plain, "embed": {**base["embed"], "embedding": both}}
    if "head" in base:
        kernel = base["head"]["kernel"]
        doubled["head"] = {**base["head"], "kernel": jnp.concatenate([kernel, kernel], axis=1)}
    wide = dataclasses.replace(config, vocab=2 * config.vocab)
    want = probe.logits(wide, doubled, {**batch, "asked": batch["asked"] + config.vocab})
    np.testing.assert_allclose(found, want, atol=1e-4)
    assert float(jnp.abs(found - probe.logits(config, plain, batch)).max()) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_a_probe_learns_by_heart_and_its_model_stays(apart: bool) -> None:
    learning, batch = probe_of(apart, rank=8), batch_of()
    base = model.init(CONFIG, jax.random.key(0))
    transform = optimizer.make(OptimizerConfig(learning_rate=0.03, warmup_steps=3), 250)
    state = step_lib.first_state(CONFIG, transform, one_device(), 1, learning.adaptation, base)
    assert set(state.params) == {"lora", "probe"}
    step = step_lib.make_step(CONFIG, transform, one_device(), 1, learning)
    losses = []
    for _ in range(250):
        state, out = step(state, batch, base)
        losses.append(float(out["loss"]))
    assert losses[0] == pytest.approx(np.log(2), abs=0.3) and losses[-1] < 0.2 * losses[0]
    joined = learning.adaptation.join(state.params, base)
    for path in ("blocks", "head", "norm"):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), joined[path], base[path])
        assert jax.tree.all(same)
    assert (joined["embed"]["embedding"] != base["embed"]["embedding"]).any()
    logits = probe.logits(CONFIG, joined, batch)
    asked = batch["weights"] > 0
    assert float((logits.argmax(-1) == batch["answers"])[asked].mean()) > 0.9


def test_the_loss_is_the_mean_over_questions_that_are_asked() -> None:
    learning, batch = probe_of(on=""), batch_of()
    base = model.init(CONFIG, jax.random.key(0))
    trained, _ = learning.adaptation.split(base, CONFIG, jax.random.key(1))
    trained["probe"]["kernel"] = jax.random.normal(jax.random.key(2), (CONFIG.width, 2))
    batch["weights"] = batch["weights"].at[1, 2:].set(0.0).at[3].set(0.0)

    def loss(batch: dict[str, jax.Array]) -> float:
        found, grads = jax.jit(
            step_lib.loss_and_grads, static_argnums=(0, 1), static_argnames="learning"
        )(CONFIG, one_device(), trained, batch, learning=learning, frozen=base)
        assert set(grads["probe"]) == {"kernel", "bias"} and grads["lora"] == {}
        return float(found)

    joined = learning.adaptation.join(trained, base)
    share = probe.probabilities(CONFIG, joined, batch)
    right = jnp.take_along_axis(share, batch["answers"][..., None], -1)[..., 0]
    asked = batch["weights"] > 0
    assert int(asked.sum()) == 12
    assert loss(batch) == pytest.approx(float(-jnp.log(right[asked]).mean()), rel=1e-4)
    # What is not asked has no influence.
    other = {**batch, "answers": jnp.where(asked, batch["answers"], 1 - batch["answers"])}
    assert loss(other) == pytest.approx(loss(batch), abs=1e-7)


def test_detectors_say_of_each_text_alone_what_they_say_of_all() -> None:
    learning = probe_of()
    base = model.init(CONFIG, jax.random.key(0))
    trained, _ = learning.adaptation.split(base, CONFIG, jax.random.key(1))
    detect = probe.detector(CONFIG, learning.adaptation.join(trained, base))
    batch = jax.tree.map(np.asarray, batch_of())
    rows = tuple(batch[name] for name in ("tokens", "cuts", "asked", "ends"))
    found = detect(*rows)
    assert found.shape == (4, 5) and ((found > 0) & (found < 1)).all()
    assert len(np.unique(found)) > 10
    for n in range(4):
        # What comes after the prefix is not read.
        text = rows[0][n : n + 1].copy()
        text[0, rows[1][n, 2] :] = 7
        one = detect(text, *(part[n : n + 1, 2:3] for part in rows[1:]))
        assert one[0, 0] == pytest.approx(found[n, 2], abs=1e-5)


@pytest.mark.slow
def test_the_perfect_detector_is_right_and_has_the_same_signature() -> None:
    keys_N = keys.all_numbered(keys.root(5, Purpose.SAMPLE), np.arange(40))
    rate = Mistakes(rate=0.5)
    problems = stream.problems(keys_N, spec=SMALL)
    documents = stream.documents(keys_N, problems, size=320, spec=SMALL, mistakes=rate)
    found = questions(
        keys_N, problems, size=320, task="can_next", count=8, spec=SMALL, mistakes=rate
    )
    found, problems, documents = jax.tree.map(np.asarray, (found, problems, documents))
    facts = [facts_of(record, SMALL) for record in records(problems, documents, SMALL)]
    detect: probe.Detector = detection.perfect(facts, tokenizer(SMALL))
    said = detect(found.tokens_NxT, found.cut_NxQ, found.asked_NxQxA, found.length_NxQ)
    np.testing.assert_array_equal(said, found.answer_NxQ)
    assert set(said.reshape(-1).tolist()) == {0.0, 1.0}


@pytest.mark.slow
def test_a_models_own_steps_are_asked_about_up_to_the_first_wrong_one() -> None:
    """Solutions that are right, and ones whose steps are in the wrong order."""
    config = cells_lib.EvalConfig(problems=32, beyond=(), batch=16, max_new_tokens=200)
    spec = cells_lib.test_spec(SMALL, config)
    cell = cells_lib.of(SMALL, config)[1]
    tests = cells_lib.test_set(cell, spec, config, 320)
    table, most = tokenizer(spec), 200
    written = np.full((32, most), table.end, np.int32)
    documents = stream.documents(
        keys.all_numbered(keys.numbered(keys.root(0, Purpose.TESTING), cell.op), tests.index_N),
        jax.tree.map(jnp.asarray, tests.problems_N),
        size=520,
        spec=spec,
        mistakes=Mistakes(),
    )
    turned = 0
    stop = table.pieces.index(b".")
    for n in range(32):
        ids = np.asarray(documents.tokens_N[n, documents.prompt[n] : documents.length[n] - 1])
        ids = ids[: np.flatnonzero(ids == table.answer)[0]]
        ends = np.flatnonzero(ids == stop) + 1
        if n % 2 and len(ends) > 2:
            # The last step, which needs all others, stands before the first.
            ids = np.concatenate([ids[ends[-2] :], ids[: ends[-2]]])
            turned += 1
        written[n, : len(ids)] = ids
    facts = [facts_of(record, spec) for record in tests.records]

    rows_of = {tests.prompts_NxP[n, : tests.lengths_N[n]].tobytes(): n for n in range(32)}

    def perfect(texts: Any, *asked: Any) -> np.ndarray:
        found = []
        for number, text in enumerate(texts):
            begin = int(np.flatnonzero(text == table.solution)[0]) + 1
            one = slice(number, number + 1)
            detect = detection.perfect([facts[rows_of[text[:begin].tobytes()]]], table)
            found.append(detect(texts[one], *(part[one] for part in asked))[0])
        return np.array(found)

    own = probing._own(perfect, tests, written, spec, 16)
    assert turned >= 10
    assert own == {
        "n": own["n"], "accuracy": 1.0, "false_alarms": 0.0, "too_early": turned, "caught": 1.0
    }  # fmt: skip
    assert own["n"] > 60
    never = probing._own(lambda *rows: np.ones(rows[1].shape), tests, written, spec, 16)
    assert (never["caught"], never["false_alarms"]) == (0.0, 0.0)
    assert never["accuracy"] == pytest.approx(1 - turned / own["n"])


@pytest.mark.slow
def test_names_are_the_questions_that_are_asked() -> None:
    keys_N = keys.all_numbered(keys.root(5, Purpose.SAMPLE), np.arange(8))
    problems = stream.problems(keys_N, spec=SMALL)
    found = questions(
        keys_N, problems, size=320, task="can_next", count=4, spec=SMALL, mistakes=Mistakes()
    )
    all_NxPxA, ends_NxP = jax.vmap(lambda problem: names(problem, SMALL))(problems)
    for n in range(8):
        for q in range(4):
            slot = found.slot_NxQ[n, q]
            np.testing.assert_array_equal(all_NxPxA[n, slot], found.asked_NxQxA[n, q])
            assert ends_NxP[n, slot] == found.length_NxQ[n, q]


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(0)
    score, positive = random.integers(0, 6, 60), random.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert auroc(score, positive) == pytest.approx(np.mean(pairs))
    assert auroc(score, np.ones(60, bool)) is None
