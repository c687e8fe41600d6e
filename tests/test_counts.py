"""How certain counts of steps taken back are: over all solutions, right ones and wrong ones."""

import dataclasses

import numpy as np
import pytest
from fake_results import fake_rows, fake_sweep
from scipy import stats
from test_figures import ACCOUNT, texts
from test_outcomes import write_solutions

from physlm.experiments import inference, outcomes, report, tables
from physlm.experiments.figures import Against, Shown, quantities
from physlm.experiments.summary import summarise


def counted(rates=(0.0, 0.2, 0.5), seeds=2):
    """Rows, and what became of their problems: counts that follow the rate, most in wrong ones."""
    rows = [{**row, "account": ACCOUNT} for row in fake_rows(rates, seeds)]
    random = np.random.default_rng(0)
    found = {}
    for row in rows:
        right_N = np.arange(row["n"]) < row["accuracy"] * row["n"]
        of_seed = row["condition"]["retry_rate"] * random.uniform(1, 3)
        counts_N = random.poisson(np.where(right_N, of_seed, 4 * of_seed))
        one = outcomes.Outcomes("same", right_N, counts_N)
        found.setdefault((row["run"], row["evaluation"]), {})[row["cell"]] = one
        row["retries"] = float(counts_N.mean())
    return rows, found


def beyond(point):
    return point.op > 4


def of_cells(found, line, what="retries_N"):
    return np.stack(
        [
            np.concatenate([getattr(found[judged][cell], what) for cell in ("5", "6")])
            for judged in line.judged
        ]
    )


def test_a_count_over_cells_has_the_interval_of_all_their_problems():
    rows, found = counted()
    lines = summarise(rows, found)
    for line in lines[1:]:
        share = quantities.mean(line, "retries", beyond, lines)
        counts, *others = (
            of_cells(found, one) for one in (line, *(x for x in lines if x is not line))
        )
        assert share.mean == pytest.approx(counts.mean())
        low, high = inference.of_mean(counts, others)
        assert (share.low, share.high) == (pytest.approx(max(0.0, low)), pytest.approx(high))
        assert share.low < share.mean < share.high
    # Who has taken back nothing has no interval, and where it was not counted there is none.
    free = quantities.mean(lines[0], "retries", beyond, lines)
    assert free.low == free.mean == free.high == 0.0
    unknown = quantities.mean(summarise(rows)[1], "retries", beyond, summarise(rows))
    assert unknown.low == unknown.mean == unknown.high > 0


@pytest.mark.parametrize("right", [True, False])
def test_of_right_or_wrong_solutions_the_others_do_not_count(right):
    """Of one seed it is Student's interval of a mean, but for how many are right being chance."""
    rows, found = counted((0.5,), seeds=1)
    what = "retries_right" if right else "retries_wrong"
    (line,) = lines = summarise(rows, found)

    def last(point):
        return point.cell == "6"

    share = quantities.mean(line, what, last, lines)
    one = found[line.judged[0]]["6"]
    chosen_N = one.retries_N[one.correct_N == right]
    spread = stats.t.ppf(0.975, len(chosen_N) - 1) * stats.sem(chosen_N)
    assert share.mean == pytest.approx(chosen_N.mean())
    assert share.high - share.mean == pytest.approx(spread, rel=0.03)
    changed = np.where(one.correct_N == right, one.retries_N, 9 * one.retries_N + 5)
    found[line.judged[0]]["6"] = dataclasses.replace(one, retries_N=changed)
    (again,) = summarise(rows, found)
    assert quantities.mean(again, what, last, [again]).high == pytest.approx(share.high)
    assert quantities.mean(again, "retries", last, [again]).high != pytest.approx(share.high)


def test_figures_and_tables_of_counts_have_intervals_where_they_are_known():
    rows, found = counted()
    lines = summarise(rows, found)
    figure = Against("retry_rate", y="retries")
    picture = figure.draw(Shown(lines, "what"))
    assert any("95% intervals over seeds and problems" in text for text in texts(picture))
    ((head, (_, *table)),) = picture.tables
    assert head.endswith("[95% interval]") and "%," not in head
    share = quantities.mean(lines[2], "retries", beyond, lines)
    assert table[2][2] == f"{share.mean:.2f} [{share.low:.2f}, {share.high:.2f}]"
    assert table[0][1:] == ["0.00", "0.00"]
    point = lines[2].points[-1]
    low, high = point.retries_within
    column = tables.detail_table(lines)[0].index("retries")
    row = tables.detail_table(lines)[-1]
    assert row[column] == f"{point.retries:.2f} [{low:.2f}, {high:.2f}]"
    # Without what became of every problem there is none.
    alone = summarise(rows)
    picture = figure.draw(Shown(alone, "what"))
    assert not any("95% intervals" in text for text in texts(picture)) and not picture.tables
    assert tables.detail_table(alone)[-1][column] == f"{point.retries:.2f}"


@pytest.mark.parametrize("known", [(), (0,), (0, 1)])
def test_counts_are_of_all_seeds_whoever_has_accounts(known):
    """Accounts of some seeds alone, as where others are of an earlier version, say less."""
    rows, found = counted((0.0, 0.5))
    told = [
        row if row["seed"] in known else {k: v for k, v in row.items() if k != "account"}
        for row in rows
    ]
    lines = summarise(told, found)
    right_SxN, counts_SxN = (of_cells(found, lines[1], w) for w in ("correct_N", "retries_N"))
    for name, chosen_SxN in (("retries_right", right_SxN), ("retries_wrong", ~right_SxN)):
        point = lines[1].points[-1]
        half = counts_SxN.shape[1] // 2
        mean = counts_SxN[:, half:][chosen_SxN[:, half:]].mean()
        assert point.spent(name) == pytest.approx(mean)
        assert Against("retry_rate", y=name).draw(Shown(lines, "what")) is not None
        (head, *_, last) = tables.flat(lines)
        assert float(last[head.index(name)]) == pytest.approx(mean, rel=1e-5)
        assert len(set(head)) == len(head)
    (head, *_, last) = tables.detail_table(lines)
    assert last[head.index("wrong")] == f"{mean:.2f}"
    assert ("tokens" in head) == bool(known)


def test_lengths_of_which_nothing_is_solved_are_left_out_of_right_solutions():
    """Of the mean and of its interval alike, though accounts may tell of a single solution."""
    rows, found = counted((0.0, 0.5))
    whole = summarise(rows, found)
    for judged in whole[1].judged:
        cell = found[judged]["6"]
        found[judged]["6"] = dataclasses.replace(cell, correct_N=np.zeros_like(cell.correct_N))
    lines = summarise(rows, found)
    share = quantities.mean(lines[1], "retries_right", beyond, lines)
    one = quantities.mean(whole[1], "retries_right", lambda point: point.cell == "5", whole)
    assert share.mean == one.mean and share.low == pytest.approx(one.low)
    assert share.low < share.mean < share.high == pytest.approx(one.high)


def test_reports_explain_what_goes_wrong_first(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    text = report.make(shown)
    assert "skip (computes what cannot be computed yet)" in text
    assert "value (a wrong number for a letter)" in text and "misread (" not in text
