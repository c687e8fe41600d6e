"""The paper's numbers, and which conditions of ours stand beside them."""

import csv
import dataclasses
import hashlib
import importlib.resources
import statistics

import pytest
from fake_results import fake_rows, fake_sweep

from data_gen.spec import HARD, MED
from physlm import cells
from physlm.experiments import config, material, published, registry, report, tables
from physlm.experiments.summary import summarise

# The first half of the SHA-256 of each table's rows, as they were when each number was the one that
# arXiv 2408.16293 prints in the figure of that name. Of 146 rows 116 have a mean, which a cell that
# is off by a point or less does not spoil.
DIGESTS = {
    "Fig3b_acc": "6e17fdbbfc1e6bfc5464a5759b083a4a",
    "Fig4b_acc": "3abb8afc713340309cd454c09eaeba7c",
    "Fig8_acc": "ad4463786937ad527b4169d74ed1b5f7",
    "Fig10_acc": "bdd4ced129ab549e017a42da5985e6fa",
    "Fig5a_11a_retries_on_right": "ce5665abf9a192e365c06e5ae9a0c643",
    "Fig5b_retries_on_wrong": "084b370964880f383518aa3b38e4b7ea",
}


def beside(lines, shared=None):
    """The paper's rows by our labels, of the study quickstart."""
    (known,) = registry.load("quickstart").beside
    rows = {line.label: known.find(line.condition, shared or {}) for line in lines}
    return {label: row for label, row in rows.items() if row is not None}


def test_paper_stands_beside_its_own_conditions_only():
    lines = summarise(fake_rows())
    table = tables.paper_table(lines, beside(lines))
    assert [row[-2:] for row in table[1:]] == [["91.8", "77.7"], ["97.5", "93.6"]]
    other = summarise(fake_rows(rates=(0.33, 0.66)))
    assert tables.paper_table(other, beside(other)) is None
    other = summarise(fake_rows(condition=lambda rate: {"retry_rate": rate, "layers": 4}))
    assert tables.paper_table(other, beside(other)) is None
    masked = summarise(fake_rows(condition=lambda rate: {"retry_rate": rate, "mask": "name"}))
    for mixed, shared in ((masked, {}), (lines, {"mask": "name"})):
        table = tables.paper_table(mixed, beside(mixed, shared))
        assert [row[-2:] for row in table[1:]] == [["91.8", "77.7"], ["97.7", "94.8"]]
    # What all runs share and does not set conditions apart makes them others than the paper's.
    for name, value in (("kind", "skip:0.5,value:0.5"), ("mend", "restart"), ("late", 1)):
        assert tables.paper_table(lines, beside(lines, {name: value})) is None


def test_every_column_of_the_papers_tables_is_a_cell_that_can_be_solved():
    """By models of the scales `paper` and `paper_hard`, in both orders."""
    file = importlib.resources.files(published.__package__) / published.FILE
    (header, *_) = csv.reader(file.read_text().splitlines())
    found = published.cells()
    assert [*found, "avg"] == header[2:] and len(found) == 30
    for name, (spec, evaluation, cell) in found.items():
        of, _, cell_name = name.partition(":")
        assert (cell.name, evaluation.problems, evaluation.window_tokens) == (
            cell_name,
            4096,
            "gpt2",
        )
        scale = {"med": "paper", "hard": "paper_hard"}[of.partition("_")[0]]
        asked = config.override(config.base(scale), {"data.order": spec.order})
        settings = config.resolve(asked)
        assert (settings.data, settings.evaluate) == (spec, evaluation)
        assert cell in cells.of(settings.data, settings.evaluate)
        assert published.class_of(spec) == of
        # As Part 2.2 says: 2,048 tokens in all.
        assert settings.windows.window + evaluation.max_new_tokens == 2048


def test_a_class_is_the_papers_whatever_its_names_and_tokens():
    assert published.class_of(dataclasses.replace(HARD, order="qp", split="test")) == "hard_qp"
    assert published.class_of(dataclasses.replace(MED, tokenizer="gpt2")) == "med_pq"
    assert published.class_of(dataclasses.replace(MED, modulus=5)) is None
    assert published.class_of(dataclasses.replace(MED, max_op=21)) is None


@pytest.mark.parametrize("data, of, hardest", [
    ({"order": "qp"}, "med_qp", "78.3"),
    ({"max_op": 21, "max_edges": 28}, "hard_pq", "84"),
    ({"max_op": 6}, "med_pq", "77.7"),
])  # fmt: skip
def test_the_papers_numbers_are_of_the_class_of_ours(shown, data, of, hardest):
    fake_sweep(shown, fake_rows(), data=data)
    report.make(shown)
    page = (shown / "results.md").read_text()
    title, op = f"paper, {of} op ", {"hard_pq": 32}.get(of, 23)
    assert f"{title}{op}" in page
    (row,) = [line for line in page.splitlines() if "| 91.8 |" in line]
    assert row.split("|")[-2].strip() == hardest


def test_what_all_runs_share_of_mistakes_is_read_off_their_configurations(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    assert material.Material(shown, rows).shared == {}
    fake_sweep(shown, rows, kind="retry_weak")
    assert material.Material(shown, rows).shared == {"kind": "retry_weak"}
    assert "Beside the paper" not in report.make(shown)
    fake_sweep(shown, rows)
    assert "Beside the paper" in report.make(shown)


def test_nothing_stands_beside_the_paper_at_smoke(tmp_path):
    shown = tmp_path / "quickstart-smoke"
    shown.mkdir()
    fake_sweep(shown, fake_rows())
    assert "Beside the paper" not in report.make(shown)


def test_tables_of_retries_are_no_accuracies(tmp_path):
    shown = tmp_path / "retries-quick"
    shown.mkdir()
    rows = [{**row, "study": "retries"} for row in fake_rows((0.0, 0.2, 0.5))]
    fake_sweep(shown, rows)
    report.make(shown)
    page = (shown / "report.html").read_text()
    assert "Beside the paper" not in page
    for row in ("Fig5a_11a_retries_on_right", "Fig5b_retries_on_wrong"):
        numbers = published.rows(row)["retry 0.5"].cells["med_pq:23"]
        assert f">{numbers:g}<" in page
    assert "in right solutions (arXiv" in page and "in wrong solutions (arXiv" in page


def test_cells_below_the_cap_are_not_in_the_mean_beside_the_papers():
    plain, within = (
        fake_rows(),
        [row | {"cell": "1", "op": 1, "accuracy": 0.0} for row in fake_rows()[::4]],
    )
    means = []
    for rows in (plain, plain + within):
        lines = summarise(rows)
        means.append(tables.paper_table(lines, beside(lines))[1][1])
    assert means[0] == means[1]


def digest(lines, table):
    """Of the names and numbers of a table's rows, and of the columns that these stand in."""
    rows = [list(line.items()) for line in lines if line["table"] == table]
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:32]


def test_not_one_number_of_the_paper_was_changed():
    assert {t: digest(published._lines(), t) for t in published.tables()} == DIGESTS


def test_numbers_of_the_paper_are_those_of_its_tables():
    rows = published.rows("Fig4b_acc")
    assert rows["retry 0.5 mask"].by_op == {15: 100, 20: 98.8, 21: 97.9, 22: 96.8, 23: 94.8}
    for table in published.tables():
        for row in published.rows(table).values():
            accuracies = [value for cell, value in row.cells.items() if cell != "avg"]
            if "avg" in row.cells:
                assert len(accuracies) == 30
                assert statistics.fmean(accuracies) == pytest.approx(row.cells["avg"], abs=0.06)
    with pytest.raises(ValueError, match="must be one of Fig3b_acc"):
        published.rows("Fig99")
    with pytest.raises(ValueError, match=r"has no row 'retry 0\.3'"):
        published.Beside("Fig4b_acc", {"retry 0.3": {"retry_rate": 0.3}})
