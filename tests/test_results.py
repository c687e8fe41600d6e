import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physlm import paths
from physlm.experiments import evaluation, results, run
from physlm.experiments.store import Store
from physlm.experiments.view import FILE, View

ROW = {
    "study": "quickstart",
    "run": "retry-0.5,gpt2-2-2,20.5k,seed=0-0123abcd",
    "evaluation": "step=20,greedy,problems=64-0123abcd",
    "condition": {"retry_rate": 0.5},
    "seed": 0,
    "step": 20,
    "tokens": 20480,
    "cell": "<=4",
    "op": 4,
    "n": 64,
    "accuracy": 0.5,
    "answer_accuracy": 0.625,
    "ci_low": 0.381,
    "ci_high": 0.619,
    "retries": 0.25,
    "unnecessary": 0,
}

SHARES = st.floats(0, 1)
ROWS = st.builds(
    lambda rate, seed, cell, shares: (
        ROW
        | {"condition": {"retry_rate": rate}, "seed": seed, "cell": cell}
        | dict(zip(("accuracy", "answer_accuracy", "ci_low", "ci_high"), shares, strict=True))
    ),
    st.floats(0, 0.99),
    st.integers(0, 9),
    st.text(min_size=1),
    st.tuples(SHARES, SHARES, SHARES, SHARES),
)


PROTOCOL = {"decode": "greedy", "evaluate": {"problems": 64, "beyond": [5], "seed": 0}}


def write_run(workdir, view="quickstart-smoke", **changes):
    """A trained and judged run, which a study shows; returns the file with its result."""
    row = ROW | changes
    directory = workdir / "models" / row["run"]
    directory.mkdir(parents=True)
    run.finish(directory, row["step"], 1.0)
    path = evaluation.result_of(directory, PROTOCOL)
    path.parent.mkdir(parents=True)
    result = {name: row[name] for name in results.RESULT_FIELDS}
    result["cells"] = [{name: row[name] for name in results.CELL_FIELDS}]
    path.write_text(json.dumps(result))
    shown = workdir / view / FILE
    shown.parent.mkdir(exist_ok=True)
    before = json.loads(shown.read_text()) if shown.exists() else []
    entry = {"run": row["run"], "condition": row["condition"], "evaluation": PROTOCOL}
    shown.write_text(json.dumps([*before, entry]))
    return path


def collect(workdir):
    return View(Store(workdir), "quickstart", "smoke").rows()


@given(rows=st.lists(ROWS, max_size=5))
def test_rows_survive_writing_and_reading(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("results") / results.FILE
    results.write(path, rows)
    assert results.read(path) == rows
    assert [list(row) for row in results.read(path)] == [list(results.FIELDS)] * len(rows)
    assert [file.name for file in path.parent.iterdir()] == [results.FILE]


def test_fields_are_the_contract():
    assert list(results.FIELDS) == list(ROW)


@pytest.mark.parametrize("name", results.FIELDS)
def test_missing_field_is_named_with_its_line(tmp_path, name):
    path = tmp_path / results.FILE
    broken = {key: value for key, value in ROW.items() if key != name}
    path.write_text(f"{json.dumps(ROW)}\n{json.dumps(broken)}\n")
    with pytest.raises(ValueError, match=rf"line 2 of .* lacks the field '{name}'"):
        results.read(path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"study": ', "line 1 of .* is not valid JSON"),
        ("[1, 2]", "line 1 of .* is not a JSON object"),
        (json.dumps(ROW | {"extra": 1}), "unknown field 'extra'"),
        (json.dumps(ROW | {"accuracy": 50.0}), "accuracy = 50.0, outside 0..1"),
        (json.dumps(ROW | {"accuracy": float("nan")}), "accuracy = nan, not a number"),
        (json.dumps(ROW | {"n": 1.5}), "n = 1.5, not a whole number"),
        (json.dumps(ROW | {"n": True}), "n = True, not a whole number"),
        (json.dumps(ROW | {"condition": "x"}), "condition = 'x', not an object"),
        (json.dumps(ROW | {"retries": -1}), "retries = -1, below 0"),
    ],
)
def test_bad_lines_are_refused(tmp_path, line, complaint):
    path = tmp_path / results.FILE
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=complaint):
        results.read(path)


def test_refused_rows_leave_the_file_alone(tmp_path):
    path = tmp_path / results.FILE
    results.write(path, [ROW])
    with pytest.raises(ValueError, match="row 2"):
        results.write(path, [ROW, ROW | {"accuracy": 2.0}])
    assert results.read(path) == [ROW]


def test_collected_rows_are_ordered_by_condition_then_seed(tmp_path):
    for rate in (0.5, 0.05, 0):
        for seed in (1, 0):
            write_run(tmp_path, run=f"{rate}-{seed}", condition={"retry_rate": rate}, seed=seed)
    (tmp_path / "models" / "unfinished").mkdir()
    order = [(row["condition"]["retry_rate"], row["seed"]) for row in collect(tmp_path)]
    assert order == [(0, 0), (0, 1), (0.05, 0), (0.05, 1), (0.5, 0), (0.5, 1)]


def test_conditions_of_mixed_kinds_have_an_order(tmp_path):
    values = ("retry", 0.5, [1, 2], True)
    for number, value in enumerate(values):
        write_run(tmp_path, run=str(number), condition={"kind": value})
    assert len(collect(tmp_path)) == len(values)


def test_a_study_shows_its_own_runs_and_evaluations_only(tmp_path):
    path = write_run(tmp_path, run="0")
    write_run(tmp_path, view="masking-smoke", run="1")
    # Another evaluation of the same run.
    other = evaluation.directory_of(path.parents[2], PROTOCOL, 10)
    other.mkdir()
    (other / "result.json").write_text(path.read_text())
    assert [row["run"] for row in collect(tmp_path)] == ["0"]
    # What is not judged has no rows.
    path.unlink()
    assert collect(tmp_path) == []


def test_what_a_result_says_of_shared_problems_is_not_in_the_rows(tmp_path):
    path = write_run(tmp_path)
    result = json.loads(path.read_text())
    parts = {"held_out": {"n": 60, "accuracy": 0.4}, "shared": {"n": 4, "accuracy": 1.0}}
    result["cells"][0] |= parts
    path.write_text(json.dumps(result))
    assert results.cells(path)[0]["held_out"] == parts["held_out"]
    (row,) = collect(tmp_path)
    assert list(row) == list(results.FIELDS)
    result["cells"][0]["more"] = 1
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"cell 1 of .*result\.json has the unknown field 'more'"):
        collect(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", '{"study": 1}', "3"])
def test_damaged_run_result_is_named(tmp_path, text):
    path = write_run(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"/result.json is not the result of an evaluation"):
        collect(tmp_path)


def test_results_of_another_study_are_refused(tmp_path):
    path = tmp_path / results.FILE
    results.refuse_other_study(path, "masking")
    results.write(path, [ROW])
    results.refuse_other_study(path, "quickstart")
    with pytest.raises(ValueError, match="'quickstart', not of 'masking'"):
        results.refuse_other_study(path, "masking")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(paths.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        paths.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_were_writing_is_removed_and_what_others_write_is_not(tmp_path):
    path, now = tmp_path / "file", time.time()
    dead, alive, other = (tmp_path / f".{name}.tmp" for name in ("file.7", "file.8", "file2.7"))
    for left, age in ((dead, 2), (alive, 0.5), (other, 2)):
        left.write_text("half")
        os.utime(left, (now - age * paths.STALE,) * 2)
    paths.write_atomically(path, "new")
    assert path.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == sorted([path, alive, other])


def test_who_stood_still_while_writing_writes_once_more(tmp_path, monkeypatch):
    path, fsync, taken = tmp_path / "file", os.fsync, []

    def stand_still(descriptor):
        fsync(descriptor)
        if not taken:
            taken.append([left.unlink() for left in tmp_path.glob(".file.*.tmp")])

    monkeypatch.setattr(paths.os, "fsync", stand_still)
    paths.write_atomically(path, "new")
    assert taken == [[None]] and path.read_text() == "new"
    with pytest.raises(FileNotFoundError):
        paths.write_atomically(tmp_path / "nowhere" / "file", "new")
