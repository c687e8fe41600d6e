"""Detectors on the device beside those that read the same texts anew."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import SMALL, drawn, facts_of

from data_gen.solutions.mistakes import Mistakes
from data_gen.windows.tokenizer import tokenizer
from physlm import cache, detection, model, probe
from physlm.adaptation import Adaptation, AdaptationConfig
from physlm.architecture import ModelConfig
from physlm.decoding import detectors
from physlm.decoding.naming import Marks, Named, marks_of, names
from physlm.decoding.strategy import Resources, Rows

pytestmark = pytest.mark.slow

COUNT, ROOM = 24, 400
MARKS = marks_of(SMALL)


def texts(mistakes: Mistakes) -> tuple[Any, list[dict[str, Any]], Rows]:
    """Problems, and their documents as if a model had written the solutions."""
    problems, documents, records = drawn(SMALL, mistakes)
    fits = np.flatnonzero(documents.length < ROOM)[:COUNT]
    zero = jnp.zeros(COUNT, jnp.int32)
    rows = Rows(
        problem_B=zero,
        text_BxL=jnp.asarray(documents.tokens_N[fits, :ROOM]),
        prompt_B=jnp.asarray(documents.prompt[fits]),
        length_B=jnp.asarray(documents.length[fits]),
        score_BxL=jnp.zeros((COUNT, ROOM)),
        done_B=zero > 0,
        tokens_B=zero,
        passes_B=zero,
        returns_B=zero,
        key_B=zero,
    )
    problems = jax.tree.map(lambda x: jnp.asarray(x[fits]), problems)
    return problems, [records[n] for n in fits], rows


def asked(
    detector: Any,
    resources: Resources,
    rows: Rows,
    host: probe.Detector,
    together: int,
    marks: Marks = MARKS,
) -> list[bool]:
    """Asks about every name of every text in order; the host's detector reads each prefix anew."""
    said = []
    own = detector.begin(resources, rows.text_BxL[:, :160], rows.prompt_B, ROOM)
    own = detector.resized(own, ROOM)
    named_of = jax.jit(lambda asked_B: names(marks, rows, rows.length_B, asked_B, together))
    ask = jax.jit(detector.ask)
    done_B = rows.prompt_B
    while True:
        named: Named = named_of(done_B)
        there_BxQ = np.asarray(named.there_BxQ)
        if not there_BxQ.any():
            return said
        yes_BxQ, own = ask(resources, rows, named, own)
        parts = (named.cut_BxQ, named.asked_BxQxA, named.count_BxQ)
        want_BxQ = host(np.asarray(rows.text_BxL), *map(np.asarray, parts))
        sure_BxQ = there_BxQ & (abs(want_BxQ - 0.5) > 1e-4)
        np.testing.assert_array_equal(yes_BxQ[sure_BxQ], want_BxQ[sure_BxQ] >= 0.5)
        said += np.asarray(yes_BxQ)[there_BxQ].tolist()
        done_B = jnp.where(named.there_BxQ, named.after_BxQ, done_B[:, None]).max(1)


@pytest.mark.parametrize(
    "mistakes",
    [
        Mistakes(rate=0.5),
        Mistakes(rate=0.3, whole=True, late=2),
        Mistakes(rate=0.3, mend="restart:0.5,fix:0.5"),
    ],
    ids=["back", "late", "restart"],
)
def test_the_perfect_detector_knows_what_stands_before_a_name(mistakes: Mistakes) -> None:
    """What the text takes back itself does not stand, however much it is."""
    problems, records, rows = texts(mistakes)
    facts = [facts_of(record, SMALL) for record in records]
    known = detectors.known(problems, spec=SMALL)
    host = detection.perfect(facts, tokenizer(SMALL))
    for together in (1, 3):
        said = asked(detectors.Perfect(MARKS), Resources((), known), rows, host, together)
        assert len(said) > 60 and 0.1 < np.mean(said) < 0.95


@pytest.mark.parametrize("apart", [False, True])
def test_a_probe_reads_on_what_it_would_read_anew(apart: bool) -> None:
    config = ModelConfig(
        vocab=tokenizer(SMALL).size, window=200, layers=2, heads=2, head_dim=8, canon="AC",
        canon_init="uniform", init_std=0.3, positions=512,
    )  # fmt: skip
    base = model.init(config, jax.random.key(0))
    adaptation = Adaptation(AdaptationConfig("probe", on="embed/embedding", rank=2), 2, apart)
    trained, _ = adaptation.split(base, config, jax.random.key(1))
    factors = trained["lora"]["embed"]["embedding"]
    factors["a"] = jax.random.normal(jax.random.key(3), factors["a"].shape)
    trained["probe"]["kernel"] = jax.random.normal(jax.random.key(2), (config.width, 2))
    _, _, rows = texts(Mistakes(rate=0.5))
    # Half of the first names are to be refused.
    first = names(MARKS, rows, rows.length_B, rows.prompt_B, 1)
    parts = (first.cut_BxQ, first.asked_BxQxA, first.count_BxQ)
    host = probe.detector(config, adaptation.join(trained, base))
    share_B = host(np.asarray(rows.text_BxL), *map(np.asarray, parts))[:, 0]
    trained["probe"]["bias"] = jnp.array([np.median(np.log(share_B / (1 - share_B))), 0.0])
    joined = adaptation.join(trained, base)
    host = probe.detector(config, joined)
    # As decoding would have filled it, which has not read the last token of a text.
    written = cache.read(config, model.unrolled(config, base), rows.text_BxL)
    resources = Resources(model.unrolled(config, joined), (), written)
    # Names may take more tokens than are usually read at once.
    for together, marks in ((1, MARKS), (3, MARKS), (1, dataclasses.replace(MARKS, room=20))):
        detector = detectors.Probed(config, marks.room)
        said = asked(detector, resources, rows, host, together, marks)
        assert len(said) > 60 and 0.05 < np.mean(said) < 0.95
