"""Effective robustness: the fit against textbook formulas, its errors by simulation, its figure."""

import dataclasses
import re

import numpy as np
import pytest
from fake_results import fake_rows, kept_figures
from scipy import special, stats
from test_figure_layout import check

from physlm.experiments import figures, inference, robustness
from physlm.experiments.figures import Robustness, Shown
from physlm.experiments.figures import robustness as drawing
from physlm.experiments.summary import summarise

MANY = (10**9, 10**9)


def models(rng, counts, heights, slope=1.0, rest=0.2):
    """Shares within and beyond of models on parallel lines, by condition."""
    within, beyond = [], []
    for count, height in zip(counts, heights, strict=True):
        x = rng.normal(-0.5, 0.5, count)
        within.append(special.expit(x))
        beyond.append(special.expit(-1.5 + height + slope * x + rng.normal(0, rest, count)))
    return within, beyond


def test_two_conditions_agree_with_the_analysis_of_covariance():
    """Of two groups it has closed formulas: Cochran, Biometrics 13, 1957."""
    within, beyond = models(np.random.default_rng(0), (6, 4), (0.0, 0.5))
    found = robustness.fit(within, beyond, MANY)
    (x0, x1), (y0, y1) = ([special.logit(one) for one in shares] for shares in (within, beyond))
    sxx = sum(np.sum((x - x.mean()) ** 2) for x in (x0, x1))
    sxy = sum(np.sum((x - x.mean()) * (y - y.mean())) for x, y in ((x0, y0), (x1, y1)))
    syy = sum(np.sum((y - y.mean()) ** 2) for y in (y0, y1))
    slope = sxy / sxx
    height = y1.mean() - y0.mean() - slope * (x1.mean() - x0.mean())
    variance = (syy - slope * sxy) / 7
    error = np.sqrt(variance * (1 / 6 + 1 / 4 + (x1.mean() - x0.mean()) ** 2 / sxx))
    assert found.slope == pytest.approx(slope)
    assert (found.rest, found.freedom) == (pytest.approx(np.sqrt(variance)), 7)
    effect = found.effect(1, 0)
    line = y0.mean() + slope * (x1.mean() - x0.mean())
    spread = stats.t.ppf(0.975, 7) * error
    assert effect.expected == pytest.approx(special.expit(line))
    for found, part in ((effect.value, 0.0), (effect.low, -spread), (effect.high, spread)):
        assert found == pytest.approx(special.expit(line + height + part) - special.expit(line))
    assert effect.p == pytest.approx(2 * stats.t.sf(abs(height) / error, 7))


def test_what_is_better_within_alone_is_on_the_line():
    """Both solve more of all, as the line says, and nothing is left to say."""
    rng = np.random.default_rng(1)
    (weak,), (low,) = models(rng, (8,), (0.0,), rest=0.01)
    x = special.logit(weak) + 1.0
    within, beyond = [weak, special.expit(x)], [low, special.expit(special.logit(low) + 1.0)]
    effect = robustness.fit(within, beyond, MANY).effect(1, 0)
    assert abs(effect.value) < 0.01 and effect.low < 0 < effect.high
    assert np.mean(beyond[1]) - np.mean(beyond[0]) > 0.15


def test_where_nothing_differs_one_case_in_twenty_says_so():
    rng = np.random.default_rng(2)
    ps = []
    for _ in range(1000):
        within, beyond = models(rng, (3, 3, 1), (0.0, 0.0, 0.0))
        found = robustness.fit(within, beyond, MANY)
        ps.append([found.effect(number, 0).p for number in (1, 2)])
    rates = (np.array(ps) < 0.05).mean(0)
    assert ((rates > 0.033) & (rates < 0.07)).all()


def test_shares_of_few_problems_have_log_odds():
    found = robustness.fit(
        [[0.4, 0.5, 0.6], [0.5, 0.7, 0.6]], [[0.0, 0.1, 0.2], [1.0] * 3], (10, 9)
    )
    assert np.isfinite([*found.levels, found.slope, found.effect(1, 0).value]).all()


def test_models_on_their_lines_leave_no_doubt():
    """Without any rest, what is off the line is so for certain, and what is on it is not off."""
    x = np.array([-1.0, 0.0, 1.0, 2.0])
    within = [special.expit(x)] * 3
    heights = (-1.0, 0.0, -1.0)
    found = robustness.fit(within, [special.expit(x + height) for height in heights], MANY)
    exact = dataclasses.replace(
        found, levels=np.array(heights), _covariance=np.zeros_like(found._covariance)
    )
    above, equal = (exact.effect(number, 0) for number in (1, 2))
    assert above.p == 0.0 and above.low == above.value == above.high > 0
    assert equal.p == 1.0 and equal.value == 0.0


@pytest.mark.parametrize(
    "within",
    [
        pytest.param([[0.4, 0.5], [0.5, 0.6]], id="too few models"),
        pytest.param([[0.5] * 4, [0.6] * 4], id="all alike within"),
    ],
)
def test_what_gives_no_line_is_refused(within):
    beyond = [[0.1 + 0.01 * n for n in range(len(each))] for each in within]
    assert robustness.fit(within, beyond, MANY) is None


def rows_of(seeds=4):
    """Models of mistakes solve more beyond training than their accuracy within says."""
    rows = fake_rows(seeds=seeds)
    for row in rows:
        rng = np.random.default_rng(row["seed"] + (100 if row["condition"]["retry_rate"] else 0))
        x = rng.normal(0, 0.7)
        beyond = x - 1.5 + rng.normal(0, 0.05) + (1.0 if row["condition"]["retry_rate"] else 0.0)
        row["accuracy"] = float(special.expit(x if row["op"] == 4 else beyond))
    return rows


@pytest.fixture
def drawn(monkeypatch):
    return kept_figures(monkeypatch, drawing)


def test_the_figure_has_a_mark_for_each_model_and_a_line(drawn):
    made = Robustness().draw(Shown(summarise(rows_of()), "what was run"))
    (figure,) = drawn
    (axes,) = figure.axes
    *marks, line = axes.get_lines()
    assert [len(one.get_xdata()) for one in marks] == [4, 4] and line.get_linestyle() == "--"
    low, high = (np.array(one.get_ydata()) for one in marks)
    assert np.mean(high) - np.mean(low) > 0.3
    check(figure)
    ((head, table),) = made.tables
    assert head.startswith("Beyond 4 operations") and len(table) == 2
    values = [float(word) for word in table[1][1:5]]
    assert values[0] == 4 and values[2] > values[3] + 10
    assert "p < 0.001 (Holm p < 0.001)" in table[1][-1]
    (note,) = made.notes
    assert "8 models" in note


def conditions(count, seeds=3):
    """Rows of error-free models and of so many rates, all on one line but for chance."""
    rates = [0.0, *(0.01 * number for number in range(1, count + 1))]
    rows = fake_rows(rates, seeds=seeds)
    for row in rows:
        rate = row["condition"]["retry_rate"]
        rng = np.random.default_rng((row["seed"], round(100 * rate)))
        x = rng.normal(0, 0.7)
        beyond = x - 1.5 + rng.normal(0, 0.3)
        row["accuracy"] = float(special.expit(x if row["op"] == 4 else beyond))
    return rows


def test_many_comparisons_are_corrected_and_many_names_shortened(drawn):
    made = Robustness().draw(Shown(summarise(conditions(20)), "what was run"))
    (figure,) = drawn
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(names) == 15 and names[-1] == "and 7 more"
    ((_, table),) = made.tables
    said = [re.findall(r"p [=<] ([\d.]+)", row[-1]) for row in table[1:]]
    ps, corrected = np.array(said, float).T
    assert len(ps) == 20
    assert corrected == pytest.approx(np.array(inference.holm(ps)), abs=0.03)
    assert (corrected > ps + 0.05).any()


def test_rates_and_masks_have_marks_of_their_own(drawn):
    rows = fake_rows([0.0, 0.1, 0.2, 0.5], seeds=3)
    masked = [row | {"condition": row["condition"] | {"mask": "name"}} for row in rows]
    rows += [
        row | {"run": row["run"] + "m"} for row in masked if row["condition"]["retry_rate"] > 0
    ]
    Robustness().draw(Shown(summarise(rows), "what was run"))
    (figure,) = drawn
    marks = [line for line in figure.axes[0].get_lines() if line.get_marker() != "None"]
    looks = {(line.get_color(), line.get_marker(), line.get_fillstyle()) for line in marks}
    assert len(looks) == len(marks) == 7
    # A colour is a rate.
    assert len({line.get_color() for line in marks}) == 4


def test_it_is_among_the_usual_figures():
    assert any(isinstance(figure, Robustness) for figure in figures.USUAL)


def test_what_is_no_model_that_solves_is_left_out():
    lines = summarise(rows_of())
    made = Robustness().draw(Shown(lines, "what"))
    assert made is not None
    probes = [
        dataclasses.replace(
            line,
            points=tuple(dataclasses.replace(p, probe={"auroc": 0.9}) for p in line.points),
        )
        for line in lines
    ]
    assert Robustness().draw(Shown(probes, "probes")) is None
    # Of a condition whose seeds do not all have all cells, nothing is paired.
    free, mistakes = lines
    cut = [
        dataclasses.replace(p, by_seed=p.by_seed[:2]) if p.op == 5 else p for p in mistakes.points
    ]
    short = dataclasses.replace(mistakes, points=tuple(cut))
    assert Robustness().draw(Shown([free, short], "half of it")) is None


def test_there_is_no_figure_without_lines():
    rows = rows_of()
    shown = Shown(summarise(rows), "what")
    assert Robustness().draw(Shown(summarise(rows_of(seeds=2)), "few")) is None
    mistakes = [line for line in shown.lines if line.condition["retry_rate"]]
    assert Robustness().draw(Shown(mistakes, "no error-free one")) is None
    within = [row for row in rows if row["op"] == 4]
    assert Robustness().draw(Shown(summarise(within), "none beyond")) is None
    # A model that was judged in two ways is one model.
    ways = [(line, way) for line in shown.lines for way in ("greedy", "beam:4")]
    twice = [
        dataclasses.replace(line, label=way, condition={**line.condition, "decode": way})
        for line, way in ways
    ]
    assert Robustness().draw(Shown(twice, "twice")) is None
