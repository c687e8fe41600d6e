"""What a report says and draws of a sweep's results."""

import base64
import csv
import json
import re
import statistics

import pytest
from fake_results import CELLS, RETRY, drawn, fake_rows, fake_sweep, png_size, solved

from physlm import metrics
from physlm.experiments import (
    inference,
    material,
    overlap,
    report,
    results,
    run,
    tables,
)
from physlm.experiments.figures import against_op, by_op
from physlm.experiments.figures.drawing import DOTS_PER_INCH
from physlm.experiments.summary import summarise


def test_table_has_the_numbers_of_the_rows():
    rows = fake_rows()
    table = tables.accuracy_table(summarise(rows))
    assert table[0] == ["condition", "op ≤ 4", "op 4", "op 5", "op 6"]
    assert [line[0] for line in table[1:]] == ["error-free solutions", RETRY]
    shown = [[float(n) for n in re.findall(r"[\d.]+", t)] for line in table[1:] for t in line[1:]]
    for numbers, row in zip(shown, rows, strict=True):
        wanted = [100 * row[name] for name in ("accuracy", "ci_low", "ci_high")]
        assert numbers == pytest.approx(wanted, abs=0.0501)


def test_interval_text():
    # Wilson's interval of 195 of 200, by hand: 0.975 -> [0.9428, 0.9893].
    table = tables.accuracy_table(summarise(fake_rows()))
    assert table[1][1] == "97.5 [94.3, 98.9]"


def test_seeds_are_merged_into_mean_interval_and_spread():
    (line,) = summarise(fake_rows(rates=(0.0,), seeds=3))
    point = line.points[0]
    # 195, 188 and 181 of 200.
    assert point.by_seed == (0.975, 0.94, 0.905)
    assert point.accuracy == pytest.approx(0.94)
    assert (point.low, point.high) == inference.of_share([0.975, 0.94, 0.905], 200)
    assert point.low < metrics.wilson_interval(188, 200)[0]
    assert point.n == 200
    assert tables.accuracy_table([line])[1][1].endswith("±3.5")


def test_details_have_both_accuracies_retries_and_unnecessary_steps():
    head, first, *_ = tables.detail_table(summarise(fake_rows(rates=(0.5,))))
    assert dict(zip(head, first, strict=True)) == {
        "condition": RETRY,
        "op": "≤ 4",
        "strict %": "97.5",
        "answer %": "98.5",
        "retries": "0.50",
        "unnecessary": "0.01",
        "n": "200",
        "seeds": "1",
    }


def test_problems_that_training_shares_are_told_apart_where_there_are_any(shown):
    parts = {
        "<=4": {"held_out": {"n": 150, "accuracy": 0.9}, "shared": {"n": 50, "accuracy": 1.0}},
        "4": {"held_out": {"n": 0, "accuracy": 0.0}, "shared": {"n": 200, "accuracy": 1.0}},
        "5": {"held_out": {"n": 200, "accuracy": 0.5}, "shared": {"n": 0, "accuracy": 0.0}},
    }
    rows = fake_rows(rates=(0.5,), seeds=2)
    fake_sweep(shown, rows, parts=parts)
    report.make(shown)
    text = (shown / report.MARKDOWN_FILE).read_text()
    details = text[text.index("## Details") :]
    assert "| seeds | shared with training | held out: strict % |" in details
    ends = [line.split("|")[-3:-1] for line in details.splitlines() if line.startswith("| with")]
    assert [[cell.strip() for cell in end] for end in ends] == [
        ["50", "90.0"],
        ["200", "–"],
        ["0", "50.0"],
        ["0", "–"],
    ]
    fake_sweep(shown, rows, parts={"5": parts["5"]})
    assert "shared" not in report.make(shown)


def test_problems_and_templates_that_differ_are_shown(shown):
    rows = fake_rows(rates=(0.5,))
    fake_sweep(shown, rows, parts={"5": {"distinct": {"problems": 140, "templates": 3}}})
    report.make(shown)
    details = (shown / report.MARKDOWN_FILE).read_text().split("## Details")[1]
    assert "| seeds | distinct | templates |" in details
    ends = [line.split("|")[-3:-1] for line in details.splitlines() if line.startswith("| with")]
    assert [[cell.strip() for cell in end] for end in ends] == [
        ["–", "–"],
        ["–", "–"],
        ["140", "3"],
        ["–", "–"],
    ]


def counted(directory, row, text=0, template=0, windows=100):
    """Leaves what was counted of a run's overlap beside its evaluation."""
    cells = [{"cell": "5", "n": 200, "distinct": 190, "template": template, "text": text}]
    found = {
        "run": row["run"], "evaluation": row["evaluation"], "step": 100, "of_windows": 100,
        "windows": windows, "problems": 1500, "distinct": 1400, "cut": 9, "templates": 70,
        "cells": cells,
    }  # fmt: skip
    where = directory.parent / "models" / row["run"] / "evaluations" / row["evaluation"]
    (where / overlap.FILE).write_text(json.dumps(found))


def test_report_says_what_training_shows_of_test_problems(shown):
    rows = fake_rows()
    parts = {"5": {"held_out": {"n": 190, "accuracy": 0.5}, "shared": {"n": 10, "accuracy": 0.5}}}
    one, other = rows[0], rows[-1]

    def said():
        lines = report.make(shown).splitlines()
        return [line for line in lines if "template" in line and "training" in line][-1]

    fake_sweep(shown, rows)
    assert "word for word" not in report.make(shown)
    fake_sweep(shown, rows, parts=parts)
    assert said().startswith("10 test problems have a template that training may show; whether")
    fake_sweep(shown, rows, parts={"5": {"shared": {"n": 0, "accuracy": None}}})
    assert said().startswith("No test problem has a template that training may show; whether any")
    counted(shown, one)
    assert said().startswith(
        "No test problem occurs in training, by template or word for word: checked for 1,500 "
        "training problems of 1 of the 2 runs. No test problem has a template"
    )
    counted(shown, other, windows=50)
    assert said() == (
        "No test problem occurs in training, by template or word for word: checked for 3,000 "
        "training problems of the 2 runs, 150 of 200 windows."
    )
    counted(shown, other, text=3, template=7)
    assert said() == (
        "Of 200 test problems at most 3 stand in a run's training word for word, and at most 7 "
        "have a template that it shows: checked for 3,000 training problems of the 2 runs."
    )


def test_labels_leave_out_what_all_conditions_share():
    rows = fake_rows(condition=lambda rate: {"retry_rate": rate, "mask": "names", "layers": 4})
    assert [line.label for line in summarise(rows)] == ["error-free solutions", RETRY]
    masks = {0.0: "none", 0.5: "name"}
    rows = fake_rows(condition=lambda rate: {"retry_rate": 0.5, "mask": masks[rate]})
    assert [line.label for line in summarise(rows)] == ["not masked", "masked"]


def test_conditions_are_called_in_words_and_stand_by_their_rate():
    """What an error-free run does not read does not set it apart: it is one line."""
    rows = []
    for mask in ("none", "name"):
        made = fake_rows(rates=(0.2, 0.0, 0.1))
        for row in made:
            rate = row["condition"]["retry_rate"]
            apart = {"run": row["run"] + (mask if rate else "")}
            rows.append(row | apart | {"condition": {"retry_rate": rate, "mask": mask}})
    lines = summarise(rows)
    assert [line.label for line in lines] == [
        "error-free solutions",
        "with mistakes and corrections, rate 0.1",
        "with mistakes and corrections, rate 0.1, masked",
        "with mistakes and corrections, rate 0.2",
        "with mistakes and corrections, rate 0.2, masked",
    ]
    assert len(lines[0].judged) == len(lines[0].points[0].by_seed) == 1


def test_report_writes_plot_page_and_markdown(shown, capsys):
    fake_sweep(shown, fake_rows())
    assert report.main([str(shown)]) == 0
    text = capsys.readouterr().out
    markdown = (shown / report.MARKDOWN_FILE).read_text()
    page = (shown / report.PAGE_FILE).read_text()
    for output in (text, markdown, page):
        assert "97.5 [94.3, 98.9]" in output
        assert "93.6" in output  # The paper's figure at rate 0.5.
    png = (shown / "accuracy.png").read_bytes()
    width, height = (round(inches * DOTS_PER_INCH) for inches in against_op.SIZE_INCHES)
    assert png_size(png) == (width, height)
    svg = (shown / "accuracy.svg").read_bytes()
    dark, light = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)[:2]
    assert base64.b64decode(light) == svg != base64.b64decode(dark)
    # The dark one is for screens alone; a query that browsers cannot read is never true.
    assert 'media="screen and (prefers-color-scheme: dark)"' in page
    # Nothing is fetched from elsewhere.
    assert not re.findall(r"(?:src|href)=.(?!data:)", page)
    assert "mistakes.rate</th><td>0.0, 0.5</td>" in page
    # How a run is judged is said by the evaluation, not by the run.
    assert "evaluate.problems</th><td>200</td>" in page and "evaluate.old" not in page


def test_parents_are_told_apart_where_they_differ():
    rows = [
        {**row, "condition": {"retry_rate": 0.5, "trained": "continued", "parent": parent}}
        for parent in ("error-free", "rate 0.2")
        for row in [{**fake_rows((0.5,))[0], "run": parent}]
    ]
    assert [line.label for line in summarise(rows)] == [
        "of a model of error-free data",
        "of a model of rate 0.2 data",
    ]


def test_probes_are_shown_as_answers(shown):
    rows = [{**row, "condition": {**row["condition"], "trained": "a probe"}} for row in fake_rows()]
    own = {"n": 50, "accuracy": 0.6, "false_alarms": 0.25, "too_early": 7, "caught": None}
    found = {"n": 200, "accuracy": 0.9, "balanced": 0.8, "auroc": 0.95, "yes": 0.3, "own": own}
    fake_sweep(shown, rows, parts={cell: {"probe": found} for cell in CELLS})
    text = report.make(shown)
    assert "Right answers by number of operations" in text and "Strict accuracy" not in text
    lines = [line.split() for line in text.splitlines() if line.startswith("error-free solutions")]
    (line,) = [line for line in lines if line[2] == "5"]
    assert line[2:] == ["5", "200", "90.0", "80.0", "95.0", "30.0", "25.0", "7"]
    assert "Several questions are about one problem" in text
    assert "McNemar" not in text and "paper" not in text


def test_a_line_goes_through_every_op_that_has_a_cell():
    """The cell of all up to the cap stands beside it only where nothing else is within."""
    (line,) = summarise(fake_rows(rates=(0.5,)))
    assert [point.cell for point in by_op.visible(line)] == ["<=4", "4", "5", "6"]
    within = [row | {"cell": "2", "op": 2} for row in fake_rows(rates=(0.5,))[:1]]
    (line,) = summarise(fake_rows(rates=(0.5,)) + within)
    assert [point.cell for point in by_op.visible(line)] == ["2", "4", "5", "6"]
    # The table has them all, in order.
    assert tables.accuracy_table([line])[0][1:] == ["op ≤ 4", "op 2", "op 4", "op 5", "op 6"]


@pytest.mark.parametrize("cells", [["<=4"], ["5"], ["4", "5"]])
def test_some_cells_alone_can_be_drawn(cells):
    lines = summarise([row for row in fake_rows() if row["cell"] in cells])
    assert png_size(drawn(lines))[0] > 0


def test_what_is_missing_is_said(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    entry = {"condition": {}, "evaluation": {"decode": "greedy", "evaluate": {}}}
    asked = [entry | {"run": name} for name in (rows[0]["run"], "another", "a-third")]
    (shown / "shown.json").write_text(json.dumps(asked))
    assert "Incomplete: 2 of 3 runs are not trained and judged: a-third, another." in report.make(
        shown
    )


def test_evaluations_that_are_missing_are_said(shown):
    """A run that is judged in one way may have to be judged in others."""
    rows = fake_rows()
    fake_sweep(shown, rows)
    ways = [{"decode": way, "evaluate": {}} for way in ("greedy", "beam:4", "beam:8")]
    runs = list(dict.fromkeys(row["run"] for row in rows))
    asked = [{"condition": {}, "evaluation": way, "run": runs[0]} for way in ways]
    asked.append({"condition": {}, "evaluation": ways[0], "run": runs[1]})
    (shown / "shown.json").write_text(json.dumps(asked))
    text = report.make(shown)
    assert f"Incomplete: 2 of 4 evaluations are not done: 2 of {runs[0]}." in text
    assert "runs are not trained" not in text


def test_a_line_that_broke_off_is_left_out_and_said(shown):
    fake_sweep(shown, fake_rows())
    with (shown / results.FILE).open("a") as file:
        file.write('{"study": "quick')
    text = report.make(shown)
    assert "1 line of results.jsonl could not be read and left out." in text
    assert "97.5 [94.3, 98.9]" in text


def test_cells_are_taken_together_and_the_best_run_is_told():
    head, first = tables.pooled_table(summarise(fake_rows(rates=(0.0,), seeds=3)))
    found = dict(zip(head, first, strict=True))
    shares = [[solved(0.0, seed, op) / 200 for op in (5, 6)] for seed in range(3)]
    means = [statistics.fmean(each) for each in shares]
    assert found["seeds"] == "3"
    assert found["op > 4"].startswith(f"{100 * statistics.fmean(means):.1f} [")
    assert found["op > 4, best run"] == f"{100 * max(means):.1f}"


def test_what_runs_took_is_told_where_it_is_known(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    assert "What it took" not in report_page(shown)
    path = shown.parent / "models" / rows[0]["run"] / run.FINISHED_FILE
    path.write_text(json.dumps({"step": 100, "train_seconds": 90.0}))
    found = material.Material(shown, rows)
    table = tables.cost_table(found.lines, rows, found.seconds)
    assert table[1][1:] == ["1", "1,000,000", "1.5", "–"]
    assert "What it took" in report_page(shown)


def report_page(shown):
    report.make(shown)
    return (shown / report.PAGE_FILE).read_text()


def test_tables_for_programs_have_all_numbers(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    report.make(shown)
    with (shown / report.CSV_FILE).open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    for line, row in zip(read, rows, strict=True):
        for name in ("accuracy", "retries", "unnecessary", "ci_low"):
            assert float(line[name]) == pytest.approx(row[name], rel=1e-5)
        assert float(line["retry_rate"]) == row["condition"]["retry_rate"]


def test_results_are_shown_without_their_store(shown):
    results.write(shown / results.FILE, fake_rows())
    assert "97.5 [94.3, 98.9]" in report.make(shown)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "has no results.jsonl: run the sweep first, or name .* DIR/STUDY-SCALE"),
        ("", "is empty: no run has finished yet; .*status .* tells how they stand"),
        ("{}\n", "line 1 of .* lacks the field 'study'"),
        ("oops\n", "has no line that can be read, and 1 that cannot"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, content, complaint):
    if content is not None:
        (tmp_path / results.FILE).write_text(content)
    assert report.main([str(tmp_path)]) == 2
    sentence = capsys.readouterr().err
    assert re.search(complaint, sentence)
    assert sentence.count("\n") == 1


def test_a_scale_that_teaches_nothing_says_so():
    assert report._about("masking", "smoke", "2 runs").endswith("it shows that all works.")
    assert report._about("masking", "quick", "2 runs") == "masking at scale quick: 2 runs."


def test_missing_directory_is_one_sentence(tmp_path, capsys):
    assert report.main([str(tmp_path / "none")]) == 2
    assert "is not the directory of a study" in capsys.readouterr().err


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_intervals_are_over_is_said(shown, seeds):
    fake_sweep(shown, fake_rows(seeds=seeds))
    text = report.make(shown)
    assert ("problems solved, over problems alone (Wilson's)." in text) == (seeds == 1)
    assert ("problems solved, over seeds and problems. How far" in text) == (seeds == 2)
