import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physlm.experiments import results

ROW = {
    "study": "quickstart",
    "run": "retry_rate=0.5,seed=0-0123abcd",
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


def write_run(workdir, **changes):
    row = ROW | changes
    directory = workdir / row["run"]
    directory.mkdir()
    result = {name: row[name] for name in results.RUN_FIELDS}
    result["cells"] = [{name: row[name] for name in results.CELL_FIELDS}]
    (directory / results.RUN_FILE).write_text(json.dumps(result))


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
    (tmp_path / "unfinished").mkdir()
    order = [(row["condition"]["retry_rate"], row["seed"]) for row in results.collect(tmp_path)]
    assert order == [(0, 0), (0, 1), (0.05, 0), (0.05, 1), (0.5, 0), (0.5, 1)]


def test_conditions_of_mixed_kinds_have_an_order(tmp_path):
    values = ("retry", 0.5, [1, 2], True)
    for number, value in enumerate(values):
        write_run(tmp_path, run=str(number), condition={"kind": value})
    assert len(results.collect(tmp_path)) == len(values)


@pytest.mark.parametrize("text", ["{", "{}", '{"study": 1}', "3"])
def test_damaged_run_result_is_named(tmp_path, text):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / results.RUN_FILE
    path.write_text(text)
    with pytest.raises(ValueError, match=r"run/result.json is not the result of a run"):
        results.collect(tmp_path)


def test_results_of_another_study_are_refused(tmp_path):
    results.write(tmp_path / results.FILE, [ROW])
    results.refuse_other_study(tmp_path, "quickstart")
    with pytest.raises(ValueError, match="'quickstart', not of 'masking'"):
        results.refuse_other_study(tmp_path, "masking")
    # Without the file, the runs themselves tell.
    (tmp_path / results.FILE).unlink()
    write_run(tmp_path)
    with pytest.raises(ValueError, match="'quickstart', not of 'masking'"):
        results.refuse_other_study(tmp_path, "masking")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(results.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
