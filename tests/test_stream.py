"""Training windows: packed as the paper packs, and a function of (seed, number) alone."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from drawn import SMALL, drawn, facts_of
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen import language, packing
from data_gen.mistakes import Mistakes
from data_gen.stream import (
    SEGMENT,
    Stream,
    check_window,
    problems_a_window,
    shortest_document,
)
from data_gen.tokenizer import tokenizer


def pack_slowly(documents, weights, windows, size, whole):
    """The rule in plain Python: lay down, cut on the right (or leave a gap), next window."""
    tokens_out = np.zeros((windows, size), np.int32)
    weights_out = np.zeros((windows, size), np.float32)
    window = offset = 0
    for document, weight in zip(documents, weights, strict=True):
        if len(document) <= size and whole and offset + len(document) > size:
            window, offset = window + 1, 0
        if len(document) > size or window == windows:
            continue
        part = document[: size - offset]
        tokens_out[window, offset : offset + len(part)] = part
        weights_out[window, offset : offset + len(part)] = weight[: len(part)]
        offset += len(document)
        if offset >= size:
            window, offset = window + 1, 0
    return tokens_out, weights_out, window, offset


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(1, 12), min_size=12, max_size=12),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_packing_equals_the_rule_in_python(lengths, seed, whole):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 99, (12, 12))
    weights = rng.random((12, 12)).astype(np.float32)
    expected = pack_slowly(
        [row[:n] for row, n in zip(tokens, lengths, strict=True)],
        [row[:n] for row, n in zip(weights, lengths, strict=True)],
        4,
        10,
        whole,
    )
    packed = packing.empty(4, 10, 0)
    # In two goes: what is packed first does not depend on what comes later.
    for rows in (slice(0, 5), slice(5, 12)):
        packed = packing.extend(
            packed,
            jnp.array(tokens[rows]),
            jnp.array(weights[rows]),
            jnp.array(lengths[rows]),
            whole=whole,
        )
    for ours, theirs in zip(packed, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def make(batch, window=96, seed=0, rate=0.5, **settings):
    return Stream(SMALL, Mistakes(rate=rate), seed=seed, batch=batch, window=window, **settings)


def test_whole_documents_are_not_cut():
    stream = make(64, pack="whole")
    vocab = language.vocabulary(SMALL)
    whole, cut = stream.batch(0)["tokens"], make(64).batch(0)["tokens"]

    def begun_and_ended(ids):
        ends = (ids[:, 1:] == vocab.end) & (ids[:, :-1] != vocab.end)
        return (ids == vocab.problem).sum(), ends.sum()

    begun, ended = begun_and_ended(whole)
    assert begun == ended > 64
    begun, ended = begun_and_ended(cut)
    assert begun > ended


def test_windows_do_not_depend_on_batch_size_or_order():
    narrow, wide = make(8), make(32)
    windows = np.concatenate([narrow.batch(step)["tokens"] for step in range(8)])
    later_first = [wide.batch(step)["tokens"] for step in (1, 0)]
    np.testing.assert_array_equal(windows, np.concatenate(later_first[::-1]))
    far = make(8).batch(1000)
    np.testing.assert_array_equal(far["tokens"], make(8).batch(1000)["tokens"])
    assert (far["tokens"] != narrow.batch(0)["tokens"]).any()
    assert (make(8, seed=1).batch(0)["tokens"] != narrow.batch(0)["tokens"]).any()
    assert 8 % SEGMENT, "a batch smaller than a segment is what this tests"


def test_windows_hold_whole_documents_cut_on_the_right():
    stream = make(64)
    vocab = language.vocabulary(SMALL)
    batch = stream.batch(0)
    assert batch["tokens"].shape == (64, 97) and batch["weights"].shape == (64, 96)
    for ids, weights in zip(batch["tokens"], batch["weights"], strict=True):
        text = vocab.decode(ids)
        assert text.startswith("<|problem|>")
        *whole, _ = text.split("<|end|>")
        for document in whole:
            assert re.fullmatch(
                r"<\|problem\|> The .+ have\?<\|solution\|> Define .+\.<\|answer\|> \d+", document
            )
        # With loss on all, every token of every window bears loss: there is no padding.
        assert weights.all()


def test_weights_stand_at_the_tokens_that_are_predicted():
    everything, solution = make(16, loss_on="all"), make(16, loss_on="solution")
    vocab = language.vocabulary(SMALL)
    np.testing.assert_array_equal(everything.batch(0)["tokens"], solution.batch(0)["tokens"])
    for ids, weights in zip(*solution.batch(0).values(), strict=True):
        inside = False
        for t in range(96):
            inside = (inside or ids[t] == vocab.solution) and ids[t] != vocab.end
            assert weights[t] == inside


def test_mistakes_leave_the_problems_alone():
    """Two rates see the same problems in the same order, so that their runs can be compared."""
    vocab = language.vocabulary(SMALL)
    first = [
        vocab.decode(make(16, rate=rate).batch(0)["tokens"][0]).split("<|solution|>")[0]
        for rate in (0.0, 0.5)
    ]
    assert first[0] == first[1]


def test_segments_number_the_documents_of_a_window():
    batch = Stream(SMALL, Mistakes(), seed=0, batch=16, window=96, attention="document").batch(0)
    vocab = language.vocabulary(SMALL)
    for ids, segments in zip(batch["tokens"], batch["segments"], strict=True):
        assert segments[0] == 0 and set(np.diff(segments)) <= {0, 1}
        starts = np.flatnonzero(np.diff(segments, prepend=-1))
        assert (ids[starts] == vocab.problem).all()
        assert (ids[:-1] == vocab.problem).sum() == len(starts) == segments[-1] + 1


def test_shortest_document_is_a_lower_bound_that_is_nearly_met():
    _, documents, found = drawn(SMALL)
    assert shortest_document(SMALL) <= documents.length.min() <= shortest_document(SMALL) + 6
    assert all(facts_of(record, SMALL).answer == record["answer"] for record in found[:64])


def test_bad_settings_are_refused_before_anything_compiles():
    with pytest.raises(ValueError, match="window=20 is too short: the shortest document"):
        make(8, window=20)
    with pytest.raises(ValueError, match="batch=0 is not allowed"):
        make(0)
    with pytest.raises(ValueError, match="attention='all' is unknown; choose one of window"):
        Stream(SMALL, Mistakes(), seed=0, batch=8, window=96, attention="all")
    with pytest.raises(ValueError, match="loss_on='answers' is unknown; choose one of"):
        make(8, loss_on="answers")


def test_problems_a_window_are_those_in_the_stream():
    spec, mistakes = SMALL, Mistakes("retry", 0.5)
    count = problems_a_window(spec, mistakes, seed=3, window=160)
    stream = Stream(spec, mistakes, seed=3, batch=128, window=160)
    tokens = np.concatenate([stream.batch(step)["tokens"] for step in range(8)])
    stream.close()
    assert count == (tokens == tokenizer(spec).problem).sum() / 1024


def test_a_window_too_short_to_begin_anew_in_is_refused():
    mistakes = Mistakes("skip", 0.2, mend="back:0.5,restart:0.5")
    shortest = shortest_document(SMALL)
    check_window(SMALL, shortest)
    with pytest.raises(ValueError, match=r"the shortest document that begins anew \(mend='back"):
        check_window(SMALL, shortest, mistakes)
    check_window(SMALL, shortest_document(SMALL, mistakes), mistakes)
