"""The study of scaling: its sizes, and its figure with a law, without one and with nothing."""

import dataclasses
import functools

import numpy as np
import pytest
from fake_results import fake_rows, kept_figures

from physlm import model
from physlm.experiments import (
    condition,
    config,
    figures,
    files,
    fits,
    material,
    plan,
    registry,
    run,
)
from physlm.experiments.figures.drawing import Trained
from physlm.experiments.fits import Law
from physlm.experiments.summary import summarise

STUDY = registry.load("scaling")
LAW = Law(0.05, 0.4, 0.3, 0.1, 0.2, (1e6, 1e8))
SIZES = {(1, 1): 1e5, (2, 1): 3e5, (4, 2): 1e6, (8, 2): 3e6}
STEPS = {100: 1e7, 200: 2e7, 400: 4e7}


def test_sizes_of_the_paper_are_those_of_part_2_1():
    entries = plan.plan(STUDY, "paper")
    models = {entry.run.settings.model for entry in entries}
    sizes = {(one.layers, one.heads): model.count(one) for one in models}
    first = [sizes[size] for size in ((4, 21), (8, 15), (12, 12), (16, 10), (20, 9))]
    second = [sizes[size] for size in ((4, 30), (8, 21), (12, 17), (16, 15), (20, 13))]
    for of_set in (first, second):
        assert max(of_set) < 1.15 * min(of_set)
    assert 1.9 < np.mean(second) / np.mean(first) < 2.1
    assert len(entries) == 3 * 2 * len(sizes) == 72
    # The recipe's own model is trained on all of its tokens too, as other studies have it.
    ours = {entry.run.name for entry in plan.plan(registry.load("retry_rate"), "paper")}
    assert len(ours & {entry.run.name for entry in entries}) == 2


@pytest.mark.parametrize("scale", ["smoke", "quick", "mini", "paper"])
def test_sizes_and_tokens_are_enough_for_a_law(scale):
    entries = plan.plan(STUDY, scale)
    for rate in (0.0, 0.5):
        runs = [entry.run for entry in entries if entry.condition["retry_rate"] == rate]
        measured = [
            fits.Measured(model.count(one.settings.model), one.tokens, 1 + 1 / number)
            for number, one in enumerate(runs, 1)
        ]
        # Raises where they are too few.
        fits.fit(measured, resampled=0)
    most = max(entry.run.tokens for entry in entries)
    assert sorted({entry.run.tokens / most for entry in entries}) == [0.25, 0.5, 1.0]
    (masks,) = {e.run.settings.mistakes.mask for e in entries if e.condition["retry_rate"]}
    assert masks == "name"


def shown_of(law=LAW, sizes=SIZES, rates=(0.0, 0.5), noise=0.0):
    """A study's conditions, as if their errors and losses followed a law."""
    rng = np.random.default_rng(0)
    rows, known = [], {}
    for (layers, heads), parameters in sizes.items():
        for steps, tokens in STEPS.items():
            for rate in rates:
                said = {"retry_rate": rate, "layers": layers, "heads": heads, "steps": steps}
                value = float(law(parameters, tokens)) * float(np.exp(noise * rng.normal()))
                run_name = f"{rate}-{layers}-{heads}-{steps}-0"
                known[run_name] = Trained(int(parameters), tokens, value)
                rows += [
                    {
                        **row,
                        "run": run_name,
                        "condition": said,
                        "accuracy": 1 - value,
                        "n": 10**9,
                        "tokens": int(tokens),
                    }
                    for row in fake_rows(rates=(rate,))
                ]
    lines = summarise(rows)
    trained = {line.label: [known[name] for name, _ in line.judged] for line in lines}
    return figures.Shown(lines, "what was run", trained=trained)


@pytest.mark.parametrize("figure", [figures.Scaling("error"), figures.Scaling("loss")])
@pytest.mark.slow
def test_the_figure_finds_the_law_for_each_rate(figure):
    made = figure.draw(shown_of())
    assert made.png and made.svg != made.dark and made.name == f"scaling-{figure.y}"
    ((head, table),) = made.tables
    assert "[95% interval]" in head
    assert [row[0] for row in table[1:]] == [
        "error-free solutions",
        "with mistakes and corrections, rate 0.5",
    ]
    for row in table[1:]:
        assert row[1:4] == ["12", "12", "0"]
        assert row[4].startswith("0.400 [") and row[5].startswith("0.300 [")
        assert row[-1] == "0.0"
    assert any("residuals drawn again" in note for note in made.notes)


def test_a_figure_without_a_law_says_why():
    few = dict(list(SIZES.items())[:2])
    made = figures.Scaling("loss").draw(shown_of(sizes=few))
    assert made.png
    ((_, table),) = made.tables
    assert [row[3:] for row in table[1:]] == [["–"] * 5] * 2
    assert made.notes == [
        f"Training loss, {label}: a law of scaling needs 3 numbers of parameters, each at least a "
        "fifth above the one before, and there are 2."
        for label in ("error-free solutions", "with mistakes and corrections, rate 0.5")
    ]


def test_pairs_that_the_law_is_fitted_without_are_named_and_hollow(monkeypatch):
    drawn = kept_figures(monkeypatch, figures.scaling)
    monkeypatch.setattr(fits, "fit", functools.partial(fits.fit, resampled=2))
    most = float(LAW(3e5, 1e7))
    shown = shown_of(lambda size, tokens: np.minimum(LAW(size, tokens), most), rates=(0.0,))
    made = figures.Scaling("loss").draw(shown)
    bound = [(n, d) for n in SIZES.values() for d in STEPS.values() if LAW(n, d) >= most]
    ((_, table),) = made.tables
    assert [row[1:4] for row in table[1:]] == [["12", str(12 - len(bound)), str(len(bound))]]
    # What is off by much is what is left out.
    assert table[1][-1] == "0.0"
    said = made.notes[0]
    assert f"error-free solutions: the law is fitted without {len(bound)} pairs" in said
    assert f"share {most:.4g}" in said
    named = [f"{run.rounded(int(n))} × {run.rounded(int(d))}" for n, d in bound]
    assert said.endswith(f"which are hollow: {', '.join(named)}.")
    for axes in drawn[0].axes:
        dots = [line for line in axes.lines if line.get_linestyle() == "None"]
        hollow = [line for line in dots if line.get_markerfacecolor() == "none"]
        assert sum(len(line.get_xdata()) for line in hollow) == len(bound)
        assert sum(len(line.get_xdata()) for line in dots) == 12
    assert any("hollow: left out of the fit" in text.get_text() for text in drawn[0].texts)


def test_nothing_is_drawn_where_nothing_is_told_apart_or_known():
    shown = shown_of()
    unknown = {label: [Trained(None, 1e7, None)] for label in shown.trained}
    assert figures.Scaling().draw(dataclasses.replace(shown, trained=unknown)) is None
    one = shown_of(sizes={(4, 2): 1e6})
    alone = [line for line in one.lines if line.condition["steps"] == 100]
    assert figures.Scaling().draw(dataclasses.replace(one, lines=alone)) is None
    assert figures.Scaling(wanted=lambda said: False).draw(shown) is None
    with pytest.raises(ValueError, match="y is 'retries'; it must be one of loss, error"):
        figures.Scaling("retries")


def test_errors_are_of_the_cells_that_are_asked_for():
    shown = shown_of()
    figure = figures.Scaling(cell="4")
    lines = shown.lines
    (point,) = [point for point in lines[0].points if point.cell == "4"]
    (value,) = figure._values(lines[0], shown.trained[lines[0].label], 4)
    assert value == pytest.approx(1 - point.accuracy, abs=1e-8)
    # No error at all is half of one problem.
    perfect = dataclasses.replace(point, by_seed=(1.0,), n=99)
    line = dataclasses.replace(lines[0], points=(perfect,))
    assert figure._values(line, [], 4) == [pytest.approx(0.005)]
    assert figures.Scaling(cell="17")._values(lines[0], [], 4) == []


def test_conditions_are_grouped_by_what_is_not_size():
    said = {"retry_rate": 0.5, "mask": "name", "layers": 4, "heads": 2, "steps": 9, "decode": "x"}
    assert condition.size_of(said) == {"layers": 4, "heads": 2}
    assert condition.beside_scale(said) == {"retry_rate": 0.5, "mask": "name", "decode": "x"}


def test_parameters_and_the_last_loss_come_from_the_store(shown):
    planned = run.make_run(config.base("smoke"))
    rows = [row | {"run": planned.name} for row in fake_rows(rates=(0.0,))]
    directory = shown.parent / "models" / planned.name
    assert material.Material(shown, rows).trained == {
        "error-free solutions": [Trained(None, 1_000_000, None)]
    }
    directory.mkdir(parents=True)
    files.write_json(directory / run.CONFIG_FILE, planned.config)
    lines = [f'{{"tokens": {n}, "recent_loss": {1 / n}}}\n' for n in range(1, 1002)]
    (directory / "metrics.jsonl").write_text("".join(lines))
    (found,) = material.Material(shown, rows).trained["error-free solutions"]
    assert found == Trained(model.count(planned.settings.model), 1_000_000, 1 / 1001)
