"""What became of every problem, read from what evaluations write."""

import json

import pytest
from fake_results import drawn, fake_rows, fake_sweep, png_size

from physlm.experiments import outcomes, report, tables
from physlm.experiments.summary import summarise


def write_solutions(directory, rows, problems=lambda row: "", retries=True):
    """What the fake runs wrote: the first problems are those that they solve."""
    for row in rows:
        path = directory.parent / "models" / row["run"] / "evaluations" / row["evaluation"]
        right = round(row["accuracy"] * row["n"])
        lines = [
            {
                "cell": row["cell"],
                "problem": f"{problems(row)}{number}",
                "question": row["cell"],
                "correct": number < right,
                "kind": "" if number < right else ("skip", "value")[number % 2],
            }
            | ({"retries": number % 2} if retries else {})
            for number in range(row["n"])
        ]
        with (path / "solutions.jsonl").open("a") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in lines)


def found_in(directory, rows):
    models = directory.parent / "models"
    return {
        (row["run"], row["evaluation"]): outcomes.read(
            models / row["run"] / "evaluations" / row["evaluation"]
        )
        for row in rows
    }


def test_retries_have_an_interval_where_they_were_counted(shown):
    rows = fake_rows(rates=(0.5,), seeds=2)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    found = found_in(shown, rows)
    (line,) = summarise(rows, found)
    low, high = line.points[0].retries_within
    assert low < 0.5 < high and high - low < 0.2  # every other problem: 0.5 a problem
    assert png_size(drawn([line]))[0] > 0
    (line,) = summarise(rows)
    assert line.points[0].retries_within is None


def test_solutions_from_before_retries_were_counted_are_read(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    write_solutions(shown, rows, retries=False)
    assert summarise(rows, found_in(shown, rows))[0].points[0].retries_within is None
    assert "97.5 [94.3, 98.9]" in report.make(shown)


def test_wrong_solutions_are_counted_by_kind(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    found = found_in(shown, rows)
    head, first, _ = tables.wrong_table(summarise(rows, found), found)
    shares = dict(zip(head, first, strict=True))
    wrong = [row["n"] - round(row["accuracy"] * row["n"]) for row in rows[:4]]
    assert shares["wrong"] == f"{100 * sum(wrong) / 800:.1f}"
    assert float(shares["skip"]) + float(shares["value"]) == pytest.approx(
        float(shares["wrong"]), abs=0.11
    )
    assert "Wrong solutions by their first wrong step" in report.make(shown)
    assert tables.wrong_table(summarise(rows), {}) is None


def test_damaged_solutions_are_named(shown, capsys):
    rows = fake_rows()
    fake_sweep(shown, rows)
    path = shown.parent / "models" / rows[0]["run"] / "evaluations" / rows[0]["evaluation"]
    (path / "solutions.jsonl").write_text("{")
    assert report.main([str(shown)]) == 2
    assert "solutions.jsonl is not what an evaluation writes" in capsys.readouterr().err
