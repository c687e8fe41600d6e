"""Conditions with mistakes against error-free ones, on what fake runs wrote."""

import dataclasses
import json

import numpy as np
import pytest
from fake_results import RETRY, fake_rows, fake_sweep
from test_outcomes import found_in, write_solutions

from physlm.experiments import comparison, inference, report, verdicts
from physlm.experiments.summary import summarise

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.mark.parametrize("seeds", [1, 2])
def test_retry_is_compared_with_error_free_by_problem(shown, seeds):
    rows = fake_rows(seeds=seeds)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    text = report.make(shown)
    found = found_in(shown, rows)
    (one,) = comparison.compare(summarise(rows), found)
    assert list(one.cells) == ["<=4", "4", "5", "6", "beyond 4"]
    solved_RxN = [
        found[row["run"], row["evaluation"]]["5"].correct_N for row in rows if row["cell"] == "5"
    ]
    known = inference.difference(solved_RxN[seeds:], solved_RxN[:seeds])
    assert one.cells["5"] == known and known.value > 0
    assert one.cells["beyond 4"].value == pytest.approx(
        (one.cells["5"].value + one.cells["6"].value) / 2
    )
    shown_text = f"{100 * known.value:+.1f} [{100 * known.low:+.1f}, {100 * known.high:+.1f}], p "
    for output in (
        text,
        (shown / report.MARKDOWN_FILE).read_text(),
        (shown / report.PAGE_FILE).read_text(),
    ):
        assert "Against error-free solutions" in output and shown_text in output
        assert ("nothing of other seeds" in output) == (seeds == 1)
        assert ("over seeds and problems" in output) == (seeds > 1)
        # One comparison a row needs no correction.
        assert "Holm" not in output


def test_whoever_has_no_error_free_partner_is_named(shown):
    rows = fake_rows()
    beams = [
        {**row, "condition": {**row["condition"], "decode": "beam:4"}, "evaluation": "beams"}
        for row in fake_rows((0.5,))
    ]
    rows = [{**row, "condition": {**row["condition"], "decode": "greedy"}} for row in rows] + beams
    compared = comparison.compare(summarise(rows), found_in(shown, rows))
    (one,) = [each for each in compared if "beam" in each.label]
    assert not one.cells and "no error-free condition" in one.why_not
    assert any(note.startswith(f"Not compared: {one.label}") for note in verdicts.notes(compared))
    # Where nothing is error-free, nothing is missed.
    assert comparison.compare(summarise(beams), {}) == []


def test_several_comparisons_are_corrected_and_told_in_words(shown):
    rows = fake_rows(rates=(0.0, 0.2, 0.5))
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    compared = comparison.compare(summarise(rows), found_in(shown, rows))
    ps = [one.cells["6"].p for one in compared]
    assert [one.adjusted["6"] for one in compared] == inference.holm(ps)
    said, further = verdicts.sentences(compared)
    assert len(said) == 3 and not further and said[0].startswith("One seed each")
    assert said[2].startswith(f"{RETRY}, against error-free solutions: up to 4")
    assert "beyond 4 operations ahead by" in said[2]
    text = report.make(shown)
    assert said[2] in text and "(Holm p" in text and "with Holm's correction a whole row" in text


@pytest.mark.parametrize("both", [True, False])
def test_what_is_compared_with_is_named_where_two_conditions_are_error_free(shown, both):
    continued = {"trained": "continued", "parent": "error-free"}
    rows = fake_rows(
        (0.0, 0.1, 0.2, 0.5) if both else (0.0, 0.2, 0.5),
        seeds=2,
        condition=lambda rate: {
            "retry_rate": 0.0 if rate == 0.1 else rate,
            **(continued if rate else {}),
        },
    )
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    compared = comparison.compare(summarise(rows), found_in(shown, rows))
    base = "continued, error-free solutions" if both else "error-free solutions"
    first, further = verdicts.sentences(compared)
    said = first + further
    # Two rates, and both together.
    assert len(said) == 3 and all(f", against {base}: up to 4" in text for text in said), said
    heads = [row[0] for row in verdicts.table(compared)]
    assert heads[1] == ("against" if both else "≤ 4"), heads


def test_what_is_told_apart_is_said_first_where_much_is_compared():
    def compared(label, value, p, rates=1):
        one = inference.Difference(value, value - 0.1, value + 0.1, p, over_seeds=True)
        cells, adjusted = {"<=4": one, "beyond 4": one}, {"<=4": 1.0, "beyond 4": p}
        return comparison.Comparison(label, "others", cells, adjusted, rates=rates)

    few = [compared("a", 0.02, 0.5), compared("b", 0.2, 0.01), compared("c", -0.2, 0.049)]
    few.append(compared("rates", 0.01, 0.9, rates=3))
    first, further = verdicts.sentences(few)
    assert [said[0] for said in first] == ["a", "b", "c", "r"] and not further
    first, further = verdicts.sentences([*few, compared("d", -0.3, 0.05)])
    assert [said[0] for said in first] == ["r", "b", "c"]
    assert [said[0] for said in further] == ["a", "d"]
    assert "ahead by 20.0 points" in first[1] and "behind by 20.0 points" in first[2]
    assert all(said.count("not told apart") == 2 for said in further)
    assert verdicts.sentences([]) == ([], [])


def test_a_difference_is_told_by_seed_where_there_are_several(shown):
    """One run that fails is behind a mean of three, which says so of itself."""
    rows = fake_rows((0.0, 0.5), 3)
    for row in rows:
        if row["seed"] == 1 and row["condition"]["retry_rate"]:
            row["accuracy"] -= 0.3
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    found = found_in(shown, rows)
    (one,) = comparison.compare(summarise(rows), found)
    solved = {(r["condition"]["retry_rate"], r["seed"], r["cell"]): r["accuracy"] for r in rows}
    for cell in ("<=4", "6"):
        known = [solved[0.5, seed, cell] - solved[0.0, seed, cell] for seed in range(3)]
        assert one.by_seed[cell] == pytest.approx(known, abs=0.006)
        assert np.mean(one.by_seed[cell]) == pytest.approx(one.cells[cell].value)
    ((said,), _) = verdicts.sentences([one])
    shown_seeds = [f"{100 * value:+.1f}" for value in one.by_seed["<=4"]]
    assert f"; by seed {', '.join(shown_seeds)})" in said
    (alone,) = comparison.compare(summarise([row for row in rows if row["seed"] == 1]), found)
    assert not any(alone.by_seed.values())
    assert "by seed" not in verdicts.sentences([alone])[0][0]


def test_seeds_of_all_conditions_tell_how_far_seeds_vary(shown):
    """Those of runs that are neither of the two that are compared, each run once."""
    rates = (0.0, 0.1, 0.2, 0.5)
    rows = [
        row
        for row in fake_rows(rates, seeds=3)
        if row["seed"] == 0 or row["condition"]["retry_rate"] < 0.5
    ]
    again = [{**row, "condition": {**row["condition"], "decode": "beam:4"}} for row in rows]
    again = [{**row, "evaluation": "step=100,beam-4-89abcdef"} for row in again]
    fake_sweep(shown, rows + again)
    write_solutions(shown, rows + again)
    found = found_in(shown, rows + again)
    solved = {
        rate: np.stack(
            [
                found[row["run"], row["evaluation"]]["5"].correct_N
                for row in rows
                if row["condition"]["retry_rate"] == rate and row["cell"] == "5"
            ]
        )
        for rate in rates
    }
    for known in (rows, rows + again):
        compared = comparison.compare(summarise(known), found)
        one = next(one for one in compared if "0.5" in one.label and "beam" not in one.label)
        assert one.cells["5"] == inference.difference(
            solved[0.5], solved[0.0], [solved[0.1], solved[0.2]]
        )
    assert one.cells["5"].over_seeds and len(solved[0.5]) == 1


def test_what_is_of_some_seeds_alone_says_of_which(shown):
    """Beside conditions of more seeds it would be read as one of all."""
    rows = fake_rows((0.0, 0.2, 0.5), seeds=3)
    fake_sweep(shown, rows)
    write_solutions(shown, rows)

    def said(kept):
        known = [row for row in rows if kept(row["condition"]["retry_rate"], row["seed"])]
        compared = comparison.compare(summarise(known), found_in(shown, known))
        texts = [text for part in verdicts.sentences(compared) for text in part]
        heads = [text.partition(": ")[0].partition(", against ") for text in texts]
        return {head: of.removeprefix("error-free solutions") for head, _, of in heads}

    together = "2 rates together"
    every = said(lambda rate, seed: True)
    assert set(every) == {RETRY, RETRY.replace("0.5", "0.2"), together}
    assert set(every.values()) == {""}
    less = said(lambda rate, seed: rate < 0.5 or seed == 1)
    assert less == every | {
        RETRY: ", of seed 1 against seeds 0, 1, 2",
        together: ", of seeds 0, 1, 2 and seed 1 against seeds 0, 1, 2",
    }
    assert said(lambda rate, seed: rate == 0.2 or seed == 1)[RETRY] == ", of seed 1 alone"
    some = said(lambda rate, seed: rate == 0.2 or seed)
    assert some[RETRY] == ", of seeds 1, 2 alone"
    assert some[together] == ", of seeds 0, 1, 2 and seeds 1, 2 against seeds 1, 2"
    assert set(said(lambda rate, seed: seed == 2).values()) == {""}


def test_rates_are_compared_together_where_seeds_are_several(shown):
    rows = fake_rows((0.0,), 2) + [
        {**row, "run": f"{mask}-{row['run']}", "condition": row["condition"] | {"mask": mask}}
        for mask in ("none", "name")
        for row in fake_rows((0.2, 0.5), 2)
    ]
    for row in rows:
        if row["condition"].get("mask") == "name":
            row["accuracy"] -= 0.1 + 0.1 * row["seed"]
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    lines, found = summarise(rows), found_in(shown, rows)
    compared = comparison.compare(lines, found, {"mask": "none"})
    together = {(one.label, one.against): one for one in compared if "together" in one.label}
    free, versus = "error-free solutions", "the same, not masked"
    assert together.keys() == {
        ("2 rates together, masked", free),
        ("2 rates together, not masked", free),
        ("2 rates together, masked", versus),
    }
    cells = {
        json.dumps(line.condition): np.stack([found[one]["6"].correct_N for one in line.judged])
        for line in lines
    }
    every = {name: [s for c, s in cells.items() if name in c] for name in ('"none"', '"name"')}
    (base,) = (s for c, s in cells.items() if "mask" not in c)
    expected = inference.contrast([*every['"name"'], base], [0.5, 0.5, -1], every['"none"'])
    one = together["2 rates together, masked", free]
    assert dataclasses.astuple(one.cells["6"]) == pytest.approx(dataclasses.astuple(expected))
    one = together["2 rates together, masked", versus]
    assert one.cells["6"].value == pytest.approx(
        np.mean(every['"name"']) - np.mean(every['"none"'])
    )
    # Of each seed alone, in whichever order its rows stand.
    backwards = comparison.compare(summarise(rows[::-1]), found, {"mask": "none"})
    for of_both in (compared, backwards):
        (both,) = (x for x in of_both if (x.label, x.against) == (one.label, one.against))
        name, none = (np.mean([s.mean(1) for s in every[mask]], 0) for mask in ('"name"', '"none"'))
        assert both.by_seed["6"] == pytest.approx(sorted(name - none)[::-1])
        (said,) = (x for x in verdicts.sentences([both])[0] if x.startswith("2 rates together"))
        assert said.count("; by seed ") == 2
    # Seeds that not all conditions have are none to compare in.
    some = [row for row in rows if row["seed"] == 0 or row["condition"].get("mask") != "name"]
    (few,) = (
        x
        for x in comparison.compare(summarise(some), found, {"mask": "none"})
        if x.rates > 1 and x.against == one.against
    )
    assert not any(few.by_seed.values())
    assert any("Rates together are their mean" in said for said in verdicts.notes(compared))
    # One seed each says nothing of the mean over rates.
    rows = [row for row in rows if row["seed"] == 0]
    alone = comparison.compare(summarise(rows), found, {"mask": "none"})
    assert not any("together" in one.label for one in alone)


def test_other_problems_are_neither_pooled_nor_averaged(shown):
    rows = fake_rows((0.0, 0.2, 0.5), 2)
    fake_sweep(shown, rows)
    elsewhere = ("0.5", "5")
    write_solutions(shown, rows, lambda r: "x" if (r["run"][6:9], r["cell"]) == elsewhere else "")
    found = found_in(shown, rows)
    compared = comparison.compare(summarise(rows), found)
    one = next(one for one in compared if one.label.endswith("rate 0.2"))
    for cell, pools in (("5", False), ("6", True)):
        free, low, high = (
            np.stack([found[k][cell].correct_N for k in found if k[0].startswith(f"retry-{rate}")])
            for rate in ("0.0", "0.2", "0.5")
        )
        assert one.cells[cell] == inference.difference(low, free, [high] if pools else [])
    (together,) = (one for one in compared if one.rates > 1)
    assert "6" in together.cells and "5" not in together.cells


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        # Holm's own example of the method: 0.01 x 3, 0.02 x 2, and none below one before it.
        ([0.04, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.5, 0.9, 0.6], [1.0, 1.0, 1.0]),
    ],
)
def test_holms_correction(ps, corrected):
    assert inference.holm(ps) == pytest.approx(corrected)


def test_a_study_says_what_else_is_compared(shown):
    masks = {0.2: "none", 0.5: "name"}
    rows = fake_rows((0.2, 0.5), condition=lambda rate: {"retry_rate": 0.5, "mask": masks[rate]})
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    lines, found = summarise(rows), found_in(shown, rows)
    assert comparison.compare(lines, found) == []
    (one,) = comparison.compare(lines, found, {"mask": "none"})
    assert (one.label, one.against) == ("masked", "the same, not masked")
    assert one.cells["6"].value > 0


def test_a_probe_that_decoding_asks_is_no_other_setting(shown):
    ways = {0.2: {"decode": "greedy"}, 0.5: {"decode": "regret:probe", "probe": "probe of rank 8"}}
    rows = fake_rows((0.2, 0.5), condition=lambda rate: {"retry_rate": 0.0, **ways[rate]})
    fake_sweep(shown, rows)
    write_solutions(shown, rows)
    lines, found = summarise(rows), found_in(shown, rows)
    (one,) = comparison.compare(lines, found, {"decode": "greedy"})
    assert one.against == "the same, decode greedy" and "regret:probe" in one.label


def test_what_was_judged_on_other_problems_is_not_compared(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    write_solutions(shown, rows, lambda row: f"{row['run']}-" if row["cell"] == "5" else "")
    (one,) = comparison.compare(summarise(rows), found_in(shown, rows))
    assert [cell for cell, found in one.cells.items() if found is None] == ["5", "beyond 4"]
    assert "judged on different problems are not compared" in report.make(shown)


def test_without_solutions_or_an_error_free_run_nothing_is_compared(shown):
    rows = fake_rows()
    fake_sweep(shown, rows)
    text = report.make(shown)
    assert "Against error-free" not in text
    assert f"Not compared: {RETRY} (what the models made of each problem is" in text
    rows = fake_rows(rates=(0.2, 0.5))
    assert comparison.compare(summarise(rows), {}) == []
    # The error-free run of another setting is none to compare with.
    rows = fake_rows(condition=lambda rate: {"retry_rate": rate, "layers": 4 + (rate > 0)})
    assert comparison.compare(summarise(rows), {}) == []
