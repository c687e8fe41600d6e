"""What became of every problem, read from what evaluations write."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from fake_results import drawn, fake_rows, fake_sweep, png_size

from physlm.experiments import inference, outcomes, report, results, tables
from physlm.experiments.figures import FirstWrong, Shown
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


def test_how_far_retries_vary_between_seeds_is_taken_from_all_conditions(shown):
    rows = fake_rows(rates=(0.0, 0.2, 0.5), seeds=2)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    found = {
        judged: {
            cell: dataclasses.replace(one, retries_N=one.retries_N * (2 + number % 3))
            for cell, one in cells.items()
        }
        for number, (judged, cells) in enumerate(found_in(shown, rows).items())
    }
    for line in (lines := summarise(rows, found)):
        counts, *others = (
            np.stack([found[judged]["6"].retries_N for judged in other.judged])
            for other in [line, *(other for other in lines if other is not line)]
        )
        (point,) = [point for point in line.points if point.cell == "6"]
        low, high = inference.of_mean(counts, others)
        assert point.retries_within == (max(0.0, low), high)
        assert (low, high) != inference.of_mean(counts)


def test_solutions_from_before_retries_were_counted_are_read(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    write_solutions(shown, rows, retries=False)
    assert summarise(rows, found_in(shown, rows))[0].points[0].retries_within is None
    assert "97.5 [94.3, 98.9]" in report.make(shown)


def test_what_goes_wrong_first_has_an_interval_and_a_picture(shown):
    rows = fake_rows(rates=(0.0, 0.2, 0.5), seeds=2)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    found = found_in(shown, rows)
    lines = summarise(rows, found)
    every = {}
    for line in lines:
        for point in line.points:
            lost = [200 - round(200 * share) for share in point.by_seed]
            assert sum(share.mean for share in point.wrong.values()) == pytest.approx(
                1 - point.accuracy
            )
            # Every other one of the last problems, those of odd numbers by `value`.
            assert point.wrong["value"].by_seed == tuple((n + 1) // 2 / 200 for n in lost)
            every[line.label, point.cell] = point.wrong["value"].by_seed
    point = lines[0].points[-1]
    theirs = [every[line.label, point.cell] for line in lines[1:]]
    value = point.wrong["value"]
    assert (value.low, value.high) == inference.of_share(value.by_seed, 200, theirs)
    drawing = FirstWrong().draw(Shown(lines, "what"))
    said = re.findall("<!-- (.*?) -->", drawing.svg.decode())
    assert {"skip", "value", "a wrong number for a letter"} <= set(said)
    assert lines[2].label in said and "reference" not in said
    # Nothing is drawn of what is not known of all, or of what nobody can tell apart.
    some = dict(list(found.items())[1:])
    assert FirstWrong().draw(Shown(summarise(rows, some), "what")) is None
    many = [dataclasses.replace(lines[0], label=str(number)) for number in range(7)]
    assert FirstWrong().draw(Shown(many[:6], "what")) is not None
    assert FirstWrong().draw(Shown(many, "what")) is None


def test_what_is_taken_back_first_is_counted_and_kept(shown):
    rows = fake_rows(seeds=2)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    # Of each hundred problems one takes back a right step first, two a wrong and one a needless.
    firsts = ["right", "skip", "value", "unneeded"]
    for path in (shown.parent / "models").glob("retry-0.5*/evaluations/*/solutions.jsonl"):
        solved = [json.loads(line) for line in path.read_text().splitlines()]
        for number, line in enumerate(solved):
            kinds = [firsts[number % 100], "right"] if number % 100 < 4 else []
            line["mended"] = [{"kind": kind} for kind in kinds]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in solved))
    found = found_in(shown, rows)
    lines = summarise(rows, found)
    of_cell = found[lines[1].judged[0]]["6"]
    solved = {kind: [of_cell.correct_N[number::100].sum()] for number, kind in enumerate(firsts)}
    assert of_cell.taken_back == {kind: (right, 2 - right) for kind, (right,) in solved.items()}
    head, within, beyond = tables.taken_back_table(lines, found)
    assert [within[:2], beyond[:2]] == [[lines[1].label, "≤ 4"], [lines[1].label, "> 4"]]
    assert beyond[2::2] == ["2.0", "1.0", "1.0"] and len(head) == len(beyond) == 8
    cells = [found[judged][cell] for judged in lines[1].judged for cell in "56"]
    right = [sum(one.correct_N[number::100].sum() for one in cells) for number in range(4)]
    shares = [(right[1] + right[2]) / 16, right[0] / 8, right[3] / 8]
    assert beyond[3::2] == [f"{100 * share:.1f}" for share in shares]
    no_cap = [
        dataclasses.replace(line, points=tuple(p for p in line.points if not p.inside))
        for line in lines
    ]
    assert tables.taken_back_table(no_cap, found) is None
    reasked = dataclasses.replace(lines[1].points[-1], cell="4re")
    more = dataclasses.replace(lines[1], points=(*lines[1].points, reasked))
    others = {j: dataclasses.replace(of["6"], taken_back={}) for j, of in found.items()}
    kept = {judged: {**of, "4re": others[judged]} for judged, of in found.items()}
    assert tables.taken_back_table([lines[0], more], kept)[2] == beyond
    # A report keeps it, and does without where an earlier one did not.
    assert "What solutions take back first" in report.make(shown)
    kept, damaged = outcomes.kept(shown / outcomes.FILE)
    assert not damaged and kept[lines[1].judged[0]]["6"].taken_back == of_cell.taken_back
    text = [json.loads(line) for line in (shown / outcomes.FILE).read_text().splitlines()]
    for row in text:
        del row["taken_back"]
    (shown / outcomes.FILE).write_text("".join(f"{json.dumps(row)}\n" for row in text))
    kept, damaged = outcomes.kept(shown / outcomes.FILE)
    assert not damaged and tables.taken_back_table(lines, kept) is None


def test_a_kind_that_a_seed_has_none_of_counts_there(shown):
    rows = fake_rows(rates=(0.5,), seeds=2)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    found = found_in(shown, rows)
    first, second = (found[judged] for judged in summarise(rows)[0].judged)
    first["6"] = dataclasses.replace(first["6"], wrong={"skip": 10})
    second["6"] = dataclasses.replace(second["6"], wrong={"end": 4})
    (line,) = summarise(rows, found)
    assert {kind: share.by_seed for kind, share in line.points[-1].wrong.items()} == {
        "end": (0.0, 0.02),
        "skip": (0.05, 0.0),
    }


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


def statistics(text):
    """What a report says that takes every problem's outcome."""
    wanted = ("Against error-free", "Wrong solutions by")
    tables_in = [part.split("\n\n")[1] for part in text.split("## ") if part.startswith(wanted)]
    assert len(tables_in) == 2
    return [
        line for line in text.splitlines() if ", against error-free solutions: " in line
    ], tables_in


def made(directory):
    report.make(directory)
    return statistics((directory / report.MARKDOWN_FILE).read_text())


def test_a_report_says_the_same_where_its_store_is_not(shown, tmp_path):
    rows = fake_rows(seeds=2)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    said = made(shown)
    found = found_in(shown, rows)
    kept, damaged = outcomes.kept(shown / outcomes.FILE)
    assert kept.keys() == found.keys() and not damaged
    for key, cells in found.items():
        assert list(kept[key]) == list(cells)
        for cell, one in cells.items():
            other = kept[key][cell]
            assert (other.problems, other.wrong) == (one.problems, one.wrong)
            np.testing.assert_array_equal(other.correct_N, one.correct_N)
            np.testing.assert_array_equal(other.retries_N, one.retries_N)
    alone = tmp_path / "elsewhere" / shown.name
    alone.mkdir(parents=True)
    for name in (results.FILE, outcomes.FILE):
        shutil.copy(shown / name, alone / name)
    assert made(alone) == said
    assert (alone / outcomes.FILE).read_bytes() == (shown / outcomes.FILE).read_bytes()


@pytest.mark.usefixtures("unrendered")
def test_results_of_several_stores_are_one_after_the_other(shown, tmp_path):
    rows = fake_rows(seeds=3)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    said = made(shown)
    together = tmp_path / "together" / shown.name
    together.mkdir(parents=True)
    for seeds in ((0, 2), (1,)):
        store = tmp_path / f"store-{len(seeds)}" / shown.name
        store.mkdir(parents=True)
        mine = [row for row in rows if row["seed"] in seeds]
        fake_sweep(store, mine)
        write_solutions(store, mine)
        made(store)
        for name in (results.FILE, outcomes.FILE):
            with (together / name).open("ab") as file:
                file.write((store / name).read_bytes())
    assert made(together) == said


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: json.dumps(row)[:-20],
        lambda row: json.dumps({name: row[name] for name in row if name != "problems"}),
        lambda row: json.dumps(row | {"run": 3}),
        lambda row: json.dumps(row | {"correct": row["correct"] + "2"}),
        lambda row: json.dumps(row | {"correct": row["correct"] + "1"}),
        lambda row: json.dumps(row | {"retries": [0.5] * len(row["correct"])}),
        lambda row: json.dumps(row | {"wrong": {"skip": "many"}}),
        lambda row: "[" * 10_000,
    ],
)
@pytest.mark.usefixtures("unrendered")
def test_damaged_lines_are_left_out_and_said(shown, damage):
    rows = fake_rows()
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    report.make(shown)
    path = shown / outcomes.FILE
    whole = path.read_bytes()
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([damage(json.loads(first)), *rest]) + "\n")
    said = "1 line of outcomes.jsonl could not be read and left out."
    # What the store still knows is not lost.
    assert said in report.make(shown) and path.read_bytes() == whole
    assert said not in report.make(shown)
    path.write_text("\n".join([damage(json.loads(first)), *rest]) + "\n")
    shutil.rmtree(shown.parent / "models")
    assert said in report.make(shown)
    assert outcomes.kept(path)[1] == 0
