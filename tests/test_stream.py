"""Training windows: packed as the paper packs, and a function of (seed, number) alone."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from drawn import SMALL, drawn, facts_of
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.settings import RefusedError
from data_gen.solutions import language
from data_gen.solutions.mistakes import Mistakes
from data_gen.windows import packing
from data_gen.windows.configuration import Windows, shortest_document
from data_gen.windows.stream import SEGMENT, Stream, problems_a_window
from data_gen.windows.tokenizer import tokenizer


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


def make(batch, seed=0, rate=0.5, rows=None, **settings):
    windows = Windows(**{"window": 96, **settings})
    return Stream(SMALL, Mistakes(rate=rate), windows, seed=seed, batch=batch, rows=rows)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("batch", [8, 24, 32])
def test_rows_are_those_of_the_whole_batch(batch, monkeypatch):
    # Small blocks, so that there are several of them at little cost.
    monkeypatch.setattr("data_gen.windows.stream.BLOCK_WINDOWS", 96)
    steps, half = (2 * 96 // batch + 1, 0, 96 // batch, 1, 0), batch // 2
    settings = {"loss_on": "solution", "attention": "document"}
    whole = make(batch, **settings)
    expected = [whole.batch(step) for step in steps]
    whole.close()
    for rows in (range(half), range(half, batch), range(1, batch, 2), [half + 1], range(batch)):
        stream = make(batch, rows=rows, **settings)
        for step, full in zip(steps, expected, strict=True):
            found = stream.batch(step)
            assert found.keys() == full.keys() == {"tokens", "weights", "segments"}
            for name, value in found.items():
                assert value.dtype == full[name].dtype
                np.testing.assert_array_equal(value, full[name][list(rows)])
        stream.close()


@pytest.mark.parametrize(
    ("batch", "rows", "count"),
    [
        # As many at once as of whole batches, whatever the share.
        (512, range(256), 32),
        (512, range(256, 512), 32),
        (512, np.array([300]), 32),
        (512, range(0, 512, 32), 32),
        (64, range(16), 32),
        (48, range(16, 32), 32),
        (40, range(20), 32),
        (600, [0], 32),
        # Each segment holds such rows.
        (8, [0], 32),
        (32, range(1, 32, 2), 32),
        (32, None, 32),
        # A whole number of batches and segments.
        (48, None, 30),
    ],
)
def test_only_segments_that_hold_rows_are_made(batch, rows, count, monkeypatch):
    calls = []

    def numbered(root, numbers_Q, *, windows, **settings):
        """Windows that are filled with their own number."""
        calls.append(numbers_Q)
        windows_QxK = numbers_Q[:, None] * SEGMENT + np.arange(SEGMENT, dtype=np.int32)
        tokens_QxKxS = np.repeat(windows_QxK[..., None], windows.window + 1, axis=-1)
        return packing.Packed(tokens_QxKxS, np.ones(tokens_QxKxS.shape, np.float32), 0, 0)

    monkeypatch.setattr("data_gen.windows.stream.segments", numbered)
    stream = make(batch, rows=rows)
    taken = np.arange(batch) if rows is None else np.array(rows)
    for step in (0, 1, 40, 3):
        found = stream.batch(step)
        assert found["tokens"].shape == (len(taken), 97) and found["weights"].all()
        assert (found["tokens"] == (step * batch + taken)[:, None]).all()
    stream.close()
    for numbers_Q in calls:
        assert numbers_Q.dtype == np.int32 and numbers_Q.shape == (count,)
        rows_QxK = (numbers_Q[:, None] * SEGMENT + np.arange(SEGMENT)) % batch
        # No segment without such rows.
        assert np.isin(rows_QxK, taken).any(1).all()


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


@pytest.mark.slow
def test_mistakes_leave_the_problems_alone():
    """Two rates see the same problems in the same order, so that their runs can be compared."""
    vocab = language.vocabulary(SMALL)
    first = [
        vocab.decode(make(16, rate=rate).batch(0)["tokens"][0]).split("<|solution|>")[0]
        for rate in (0.0, 0.5)
    ]
    assert first[0] == first[1]


def test_segments_number_the_documents_of_a_window():
    batch = make(16, rate=0.0, attention="document").batch(0)
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
    with pytest.raises(RefusedError, match=r"window is 20; it must be at least .*: the short"):
        make(8, window=20)
    with pytest.raises(RefusedError, match="batch is 0; it must be a whole number, at least 1"):
        make(0)
    for field, value, allowed in (
        ("window", 0, "a whole number, at least 1"),
        ("attention", "all", "one of window, document"),
        ("loss_on", "answers", "one of all, solution"),
        ("pack", "tight", "one of cut, whole"),
    ):
        said = re.escape(f"{field} is {value!r}; it must be {allowed}.")
        with pytest.raises(RefusedError, match=f"^{said}$"):
            Windows(**{field: value})
    for rows in ([], [1, 0], np.zeros(2, int), [-1, 0], [7, 8]):
        with pytest.raises(ValueError, match=r"rows is \[[-0-9, ]*\]; it must be one or more of"):
            make(8, rows=rows)


@pytest.mark.slow
def test_problems_a_window_are_those_in_the_stream():
    spec, mistakes = SMALL, Mistakes("retry", 0.5)
    windows = Windows(window=160)
    count = problems_a_window(spec, mistakes, windows, seed=3)
    stream = Stream(spec, mistakes, windows, seed=3, batch=128)
    tokens = np.concatenate([stream.batch(step)["tokens"] for step in range(8)])
    stream.close()
    assert count == (tokens == tokenizer(spec).problem).sum() / 1024


def test_a_window_too_short_to_begin_anew_in_is_refused():
    mistakes = Mistakes("skip", 0.2, mend="back:0.5,restart:0.5")
    shortest = shortest_document(SMALL)
    Windows(shortest).check(SMALL)
    with pytest.raises(ValueError, match=r"the shortest document that begins anew \(mend='back"):
        Windows(shortest).check(SMALL, mistakes)
    Windows(shortest_document(SMALL, mistakes)).check(SMALL, mistakes)
