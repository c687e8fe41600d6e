"""Records as training documents: what is refused, and windows that hold them among fresh ones."""

import dataclasses
import json
import re

import numpy as np
import pytest
from drawn import SMALL, drawn

from data_gen.settings import RefusedError
from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.text.judge import standing
from data_gen.windows import recorded
from data_gen.windows.configuration import Windows
from data_gen.windows.stream import Stream
from data_gen.windows.tokenizer import tokenizer

WINDOW = 128


@pytest.fixture(scope="module")
def records():
    """Solutions with mistakes, taken back, that fit a window."""
    _, _, found = drawn(SMALL, Mistakes("skip", 0.4))
    fit = [one for one in found if not recorded.why_not(one, WINDOW, SMALL)]
    return [one for one in fit if "BACK" in one["solution"]][:40]


def stream(records, *, share=0.5, batch=8, rows=None, seed=0, mask="none", spec=SMALL, **windows):
    mistakes = dataclasses.replace(ERROR_FREE, mask=mask)
    made = None if records is None else recorded.laid(records, share, WINDOW, spec)
    kept = Windows(**{"window": WINDOW, "attention": "document", "pack": "whole", **windows})
    return Stream(spec, mistakes, kept, seed=seed, batch=batch, rows=rows, records=made)


def documents(tokens):
    """The texts of whole documents in windows."""
    text = "".join(vocabulary(SMALL).decode(row) for row in tokens)
    return re.findall(r"<\|problem\|>(.*?)<\|solution\|>(.*?)<\|answer\|>", text)


def test_a_share_of_the_documents_are_records(records):
    solutions = {record["solution"] for record in records}
    texts = {record["problem"] + record["question"] for record in records}
    found = documents(stream(records, batch=128).batch(0)["tokens"])
    kept = [problem in texts and solution in solutions for problem, solution in found]
    assert len(found) > 100
    # Of those of no record none has a mistake: fresh ones are error-free.
    for (_, solution), is_kept in zip(found, kept, strict=True):
        assert ("BACK" in solution) == is_kept
    assert abs(np.mean(kept) - 0.5) < 4 * np.sqrt(0.25 / len(found))
    # All are taken, each about as often.
    assert len(solutions & {solution for _, solution in found}) > 30


def test_all_documents_are_records_where_the_share_is_one(records):
    found = documents(stream(records[:3], share=1.0).batch(0)["tokens"])
    assert {solution for _, solution in found} == {record["solution"] for record in records[:3]}


def test_what_is_not_taken_is_what_a_stream_without_records_has(records):
    """A share changes which documents there are, and not the others."""
    fresh = set(documents(stream(None, batch=64).batch(0)["tokens"]))
    known = {record["solution"] for record in records}
    mixed = documents(stream(records, batch=64).batch(0)["tokens"])
    others = [one for one in mixed if one[1] not in known]
    assert len(others) > 20 and len(fresh & set(others)) > 0.5 * len(others)


def test_windows_depend_on_seed_and_number_alone(records):
    narrow, wide = stream(records, batch=8), stream(records, batch=32)
    windows = np.concatenate([narrow.batch(step)["tokens"] for step in range(4)])
    later_first = [wide.batch(step)["tokens"] for step in (1, 0)]
    np.testing.assert_array_equal(windows, later_first[1])
    # A host of several makes its rows alone; and a stream that begins anew goes on the same.
    half = stream(records, batch=32, rows=range(16, 32))
    for name, value in half.batch(1).items():
        np.testing.assert_array_equal(value, wide.batch(1)[name][16:])
    np.testing.assert_array_equal(stream(records, batch=8).batch(3)["tokens"], windows[24:])
    assert (stream(records, seed=1).batch(0)["tokens"] != narrow.batch(0)["tokens"]).any()


@pytest.mark.parametrize("mask", ["none", "all"])
def test_masks_hide_what_records_take_back(records, mask):
    batch = stream(records, share=1.0, mask=mask, loss_on="solution").batch(0)
    vocab = vocabulary(SMALL)
    known = {record["solution"]: record for record in records}
    seen = 0
    rows = zip(batch["tokens"], batch["weights"], batch["segments"], strict=True)
    for ids, weights, segments in rows:
        for number in range(segments[-1] + 1):
            places = np.flatnonzero(segments == number)
            ((_, solution),) = documents([ids[places]]) or [(None, None)]
            if solution is None:
                continue
            kept = vocab.decode(ids[places[1:]][weights[places[1:] - 1] > 0])
            right = "".join(f" {text}." for text in standing(known[solution]["solution"]))
            seen += "BACK" in solution
            assert kept.startswith(right if mask == "all" else solution)
    assert seen >= 8


@pytest.mark.parametrize("kind", ["word", "parameter"])
def test_every_tokenizer_reads_records_back(records, kind):
    spec = dataclasses.replace(SMALL, tokenizer=kind)
    assert not any(recorded.why_not(record, WINDOW, spec) for record in records)
    made = recorded.tokens_of(records, WINDOW, spec)
    table = tokenizer(spec)
    for ids, length, prompt, record in zip(
        made.tokens_N, made.length, made.prompt, records, strict=True
    ):
        assert table.decode(ids[prompt:length]).startswith(record["solution"])
        assert not recorded.why_not(record, int(length) - 1, spec)
        assert recorded.why_not(record, int(length) - 2, spec).startswith(f"has {length} tokens")


def test_a_name_alone_has_no_token_where_parameters_have_one(records):
    spec = dataclasses.replace(SMALL, tokenizer="parameter")
    record = records[0]
    name = json.loads(json.dumps(record["layers"]))[0][1][0]
    wrong = record | {"solution": f" Define {name} BACK.{record['solution']}"}
    assert not recorded.why_not(wrong, WINDOW, SMALL)
    assert "for which there is no token" in recorded.why_not(wrong, WINDOW, spec)


def written(path, records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return str(path)


def test_files_are_read_again_where_they_change(tmp_path, records):
    path = written(tmp_path / "a.jsonl", records[:5])
    assert recorded.of_file(path, WINDOW, SMALL) == records[:5]
    # Layers may be JSON text, as frozen sets have them.
    texts = [record | {"layers": json.dumps(record["layers"])} for record in records[:7]]
    written(tmp_path / "a.jsonl", texts)
    assert len(recorded.of_file(path, WINDOW, SMALL)) == 7


def test_what_cannot_be_trained_on_is_refused(tmp_path, records):
    record = records[0]
    other = dataclasses.replace(SMALL, modulus=3)
    long = len(vocabulary(SMALL).encode(record["problem"]))
    cases = {
        "has no record": ([], SMALL, WINDOW, "must be a file with a record"),
        "is no object": ([3], SMALL, WINDOW, "and line 1 is not a JSON object"),
        "lacks a field": (
            [record, {"problem": ""}], SMALL, WINDOW, "and line 2 has no field 'layers'",
        ),
        "is of another class": ([record], other, WINDOW, "and line 1 is "),
        "does not fit": ([record], SMALL, long, "of a window"),
        "is wrong": (
            [record | {"answer": (record["answer"] + 1) % SMALL.modulus}], SMALL, WINDOW,
            "and line 1 is no right solution in this class (",
        ),
    }  # fmt: skip
    for name, (found, spec, window, said) in cases.items():
        path = written(tmp_path / f"{name}.jsonl", found)
        with pytest.raises(RefusedError, match=re.escape(said)) as refused:
            recorded.of_file(path, window, spec)
        assert str(refused.value).startswith(f"records is '{path}'; it must be ")
    (tmp_path / "cut.jsonl").write_text(json.dumps(record)[:40])
    with pytest.raises(RefusedError, match="line 1 is none"):
        recorded.of_file(str(tmp_path / "cut.jsonl"), WINDOW, SMALL)
    with pytest.raises(RefusedError, match="a file that can be read"):
        recorded.of_file(str(tmp_path / "none.jsonl"), WINDOW, SMALL)
    with pytest.raises(RefusedError, match="can be read"):
        recorded.of_file(str(tmp_path), WINDOW, SMALL)
