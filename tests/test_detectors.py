"""Detectors on the device beside those that read the same texts anew."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import SMALL, drawn, facts_of

from data_gen.solutions.mistakes import Mistakes
from data_gen.windows.tokenizer import tokenizer
from physlm import detection, model, probe
from physlm.adaptation import Adaptation, AdaptationConfig
from physlm.architecture import ModelConfig
from physlm.decoding import detectors
from physlm.decoding.naming import Named, first_named, marks_of
from physlm.decoding.strategy import Rows

pytestmark = pytest.mark.slow

COUNT, ROOM = 24, 400


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


def asked(detector: Any, resources: Any, rows: Rows, host: probe.Detector) -> list[bool]:
    """Asks about every name of every text in order; the host's detector reads each prefix anew."""
    marks, said = marks_of(SMALL), []
    own = detector.begin(resources, rows.text_BxL[:, :160], rows.prompt_B, ROOM)
    named_of = jax.jit(functools.partial(first_named, marks))
    ask = jax.jit(detector.ask)
    done_B = rows.prompt_B
    while True:
        named: Named = named_of(rows, rows.length_B, done_B)
        if not named.there_B.any():
            return said
        yes_B, own = ask(resources, rows, named, own)
        parts = (named.cut_B[:, None], named.asked_BxA[:, None], named.count_B[:, None])
        want_B = host(np.asarray(rows.text_BxL), *map(np.asarray, parts))[:, 0]
        there_B = np.asarray(named.there_B)
        sure_B = there_B & (abs(want_B - 0.5) > 1e-4)
        np.testing.assert_array_equal(yes_B[sure_B], want_B[sure_B] >= 0.5)
        said += np.asarray(yes_B)[there_B].tolist()
        done_B = jnp.where(named.there_B, named.after_B, done_B)


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
    said = asked(detectors.Perfect(marks_of(SMALL)), ((), known), rows, host)
    assert len(said) > 60 and 0.1 < np.mean(said) < 0.95


def test_a_probe_reads_on_what_it_would_read_anew() -> None:
    config = ModelConfig(
        vocab=tokenizer(SMALL).size, window=200, layers=2, heads=2, head_dim=8, canon="AC",
        canon_init="uniform", init_std=0.3, positions=512,
    )  # fmt: skip
    base = model.init(config, jax.random.key(0))
    adaptation = Adaptation(AdaptationConfig("probe", on="embed/embedding", rank=2), 2)
    trained, _ = adaptation.split(base, config, jax.random.key(1))
    trained["probe"]["kernel"] = jax.random.normal(jax.random.key(2), (config.width, 2))
    _, _, rows = texts(Mistakes(rate=0.5))
    # Half of the first names are to be refused.
    first = first_named(marks_of(SMALL), rows, rows.length_B, rows.prompt_B)
    parts = (first.cut_B[:, None], first.asked_BxA[:, None], first.count_B[:, None])
    host = probe.detector(config, adaptation.join(trained, base))
    share_B = host(np.asarray(rows.text_BxL), *map(np.asarray, parts))[:, 0]
    trained["probe"]["bias"] = jnp.array([np.median(np.log(share_B / (1 - share_B))), 0.0])
    joined = adaptation.join(trained, base)
    host = probe.detector(config, joined)
    resources = (model.unrolled(config, joined), ())
    said = asked(detectors.Probed(config), resources, rows, host)
    assert len(said) > 60 and 0.05 < np.mean(said) < 0.95
