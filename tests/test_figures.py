"""Figures of studies, drawn of results that are made up."""

import re
from dataclasses import replace

import matplotlib.axes
import matplotlib.figure
import numpy as np
import pytest
from fake_results import fake_rows, png_size
from matplotlib.backends.backend_agg import FigureCanvasAgg

from physlm import model
from physlm.experiments import figures, inference, outcomes, published, registry, tables
from physlm.experiments.figures import (
    Against,
    Losses,
    Robustness,
    Shown,
    against,
    losses,
    quantities,
    style,
)
from physlm.experiments.figures.drawing import Trained
from physlm.experiments.plan import plan
from physlm.experiments.published import Published
from physlm.experiments.summary import independent, pooled, summarise

OPS = {"<=15": 15, "15": 15, "20": 20, "23": 23, "20re": 20}
ACCOUNT = {
    "tokens": 90.0,
    "capped": 0.1,
    "retries_right": 0.2,
    "retries_wrong": 0.7,
    "unnecessary_right": 0.01,
    "operations_right": 0.02,
}


def rows_of(study):
    """A row for each entry of a study at scale `paper` and each of some cells."""
    return [
        {
            **fake_rows()[0],
            "study": study.name,
            "run": entry.run.name,
            "evaluation": str(entry.evaluation.config),
            "condition": dict(entry.condition),
            "cell": cell,
            "op": op,
            "account": ACCOUNT,
            **({"probe": {"auroc": 0.9, "n": 200}} if "task" in entry.condition else {}),
        }
        for entry in plan(study, "paper")
        for cell, op in OPS.items()
    ]


# Texts are measured, as rendering would, in `test_figure_layout.py`.
@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("name", registry.names())
def test_every_study_draws_its_figures_and_finds_its_rows_of_the_paper(name):
    study = registry.load(name)
    rows = rows_of(study)
    one = outcomes.Outcomes("", np.zeros(200, bool), None, {"skip": 3})
    found = {(row["run"], row["evaluation"]): dict.fromkeys(OPS, one) for row in rows}
    lines = summarise(rows, found)
    assert len({line.label for line in lines}) == len(lines)
    known = {}
    for beside in study.beside:
        for line in lines:
            row = beside.find(line.condition, {})
            if row is not None:
                assert (row.table, row.row) not in known.values(), "two conditions for one row"
                known.setdefault((line.label, row.quantity), (row.table, row.row))
    # Each row that the study names is that of a condition which it runs.
    named = {(beside.table, row) for beside in study.beside for row in beside.rows}
    missing = named - set(known.values())
    if name == "quickstart":
        # It runs masked ones; others are shown beside theirs where somebody asks for them.
        missing -= {("Fig4b_acc", "retry 0.5")}
    assert not missing
    runs = {entry.run.name: entry.run for entry in plan(study, "paper")}
    trained = {
        line.label: [
            Trained(model.count(runs[run].settings.model), runs[run].tokens, 1.0)
            for run, _ in line.judged
        ]
        for line in lines
    }
    shown = Shown(lines, name, trained=trained)
    several = Shown(summarise(of_seeds(rows)), name)
    for figure in study.figures:
        # Lines need models that differ.
        asked = several if isinstance(figure, Robustness) else shown
        assert figure.draw(asked) is not None, figure


def of_seeds(rows, seeds=3):
    """Runs of several seeds, which solve more the larger the seed is."""
    return [
        {
            **row,
            "run": f"{row['run']}-{seed}",
            "seed": seed,
            "accuracy": 0.5 * row["accuracy"] + 0.1 * seed / (1 + (row["op"] > 15)),
        }
        for row in rows
        for seed in range(seeds)
    ]


def lines_of(*rates, seeds=2):
    return summarise(fake_rows(rates=rates, seeds=seeds))


def texts(drawing):
    """What stands in a picture, which draws letters as paths and names them in comments."""
    return re.findall(r"<!-- (.*?) -->", drawing.svg.decode())


def test_the_paper_s_error_free_number_is_a_line_in_its_panel():
    rows = [
        row | {"condition": {**row["condition"], **({"mask": mask} if mask else {})}, "run": run}
        for rate, mask, run in ((0.0, "", "a"), (0.5, "none", "b"), (0.5, "name", "c"))
        for row in fake_rows((rate,))
    ]
    lines = summarise(rows)
    beside = {
        "accuracy": {
            line.label: Published("Fig4b_acc", line.label, {published.AVERAGE: 60.0 + 10 * number})
            for number, line in enumerate(lines)
        }
    }
    with_paper = Against("mask").draw(Shown(lines, "what", beside))
    # Ours stands in two panels, the paper's in the third.
    assert with_paper.svg.decode().count("stroke-dasharray") > (
        Against("mask").draw(Shown(lines, "what")).svg.decode().count("stroke-dasharray")
    )
    assert "55%" in texts(with_paper)


def test_a_setting_of_mistakes_has_error_free_data_as_its_zero():
    drawing = Against("retry_rate", "retry rate").draw(Shown(lines_of(0.0, 0.2, 0.5), "what"))
    assert {"0", "0.2", "0.5", "retry rate"} <= set(texts(drawing))
    assert "error-free solutions" not in texts(drawing)
    rows = [
        row | {"condition": {**row["condition"], **({"mask": mask} if mask else {})}, "run": run}
        for rate, mask, run in ((0.0, "", "a"), (0.5, "none", "b"), (0.5, "name", "c"))
        for row in fake_rows((rate,))
    ]
    drawing = Against("mask").draw(Shown(summarise(rows), "what"))
    assert {"none", "name", "error-free solutions"} <= set(texts(drawing))


def test_one_value_is_no_figure():
    assert Against("retry_rate").draw(Shown(lines_of(0.5), "what")) is None
    assert Against("layers").draw(Shown(lines_of(0.0, 0.5), "what")) is None
    with pytest.raises(ValueError, match="y is 'speed'; it must be one of accuracy"):
        Against("retry_rate", y="speed")


def test_the_papers_numbers_stand_beside():
    study, lines = registry.load("quickstart"), lines_of(0.0, 0.5)
    (beside,) = study.beside
    rows = {line.label: beside.find(line.condition, {}) for line in lines}
    drawing = Against("retry_rate").draw(Shown(lines, "what", {"accuracy": rows}))
    assert "in the paper, mean of 30 cells" in texts(drawing)
    assert "in the paper, mean of 30 cells" not in texts(
        Against("retry_rate").draw(Shown(lines, "what"))
    )


@pytest.mark.parametrize(
    ("y", "table", "shown"),
    [
        ("accuracy", "Fig4b_acc", True),
        ("retries", "Fig4b_acc", False),
        ("retries_right", "Fig5a_11a_retries_on_right", True),
        ("retries_wrong", "Fig5a_11a_retries_on_right", False),
        ("retries_wrong", "Fig5b_retries_on_wrong", True),
    ],
)
def test_the_papers_numbers_stand_beside_those_of_the_same_quantity_alone(y, table, shown):
    lines = summarise([{**row, "account": ACCOUNT} for row in fake_rows((0.0, 0.2, 0.5), 2)])
    row = Published(table, "some", {"avg": 91.0, "med_pq:23": 77.0})
    drawing = Against("retry_rate", y=y).draw(
        Shown(lines, "what", beside={row.quantity: {line.label: row for line in lines}})
    )
    assert any("in the paper" in text for text in texts(drawing)) is shown


def test_values_stand_in_the_order_of_the_study():
    curves = [("", [(value, None) for value in ("all", "name", "none")])]
    assert list(against._ticks(curves)) == ["all", "name", "none"]
    assert list(against._ticks(curves, ("none", "name", "sentence"))) == ["none", "name", "all"]


def test_problems_with_another_question_have_a_panel_where_they_are_asked_for():
    """And count neither as problems up to the cap nor as those beyond it."""
    rows = [{**row, "account": ACCOUNT} for row in fake_rows((0.0, 0.2, 0.5), 2)]
    asked = [
        {**row, "cell": "6re", "account": ACCOUNT | {"unnecessary_right": 0.5}}
        for row in rows
        if row["cell"] == "6"
    ]
    plain = Against("retry_rate", y="unnecessary_right")
    figure = replace(plain, reasked=True)
    lines = summarise(rows + asked)
    name = "another question, 6 operations"
    assert name in texts(figure.draw(Shown(lines, "what")))
    assert name not in texts(figure.draw(Shown(summarise(rows), "what")))
    assert name not in texts(plain.draw(Shown(lines, "what")))
    (inside, beyond), (other,) = (
        quantities.by_length(lines).values(),
        quantities.reasked(lines).values(),
    )
    means = [
        quantities.mean(lines[1], plain.y, kind, lines).mean for kind in (inside, beyond, other)
    ]
    assert means == pytest.approx([0.01, 0.01, 0.5])


def test_what_is_lost_to_steps_taken_too_early_has_intervals_over_seeds():
    rows = fake_rows((0.0, 0.2, 0.5), 2)
    found = {}
    for number, row in enumerate(rows):
        wrong = {"skip": number + 1} if number else {"end": 3}
        one = outcomes.Outcomes("", np.zeros(200, bool), None, wrong)
        found.setdefault((row["run"], row["evaluation"]), {})[row["cell"]] = one
    lines = summarise(rows, found)

    def inside(point):
        return point.inside

    height = quantities.mean(lines[0], "skip", inside, lines)
    # Cells of four of each run, of which the first is that of all up to the cap.
    assert height.by_seed == (0.0, 5 / 200)
    theirs = [(9 / 200, 13 / 200), (17 / 200, 21 / 200)]
    assert (height.low, height.high) == inference.of_share((0.0, 5 / 200), 200, theirs)
    # Conditions of which it is not known say nothing, and those that lose none have lost none.
    some = {key: cells for key, cells in found.items() if "retry-0.5" not in key[0]}
    part = summarise(rows, some)
    height_of_some = quantities.mean(part[0], "skip", inside, part)
    ends = inference.of_share((0.0, 5 / 200), 200, theirs[:1])
    assert (height_of_some.low, height_of_some.high) == ends
    none = {key: {c: replace(one, wrong={}) for c, one in of.items()} for key, of in found.items()}
    assert quantities.mean(summarise(rows, none)[0], "skip", inside, []).by_seed == (0.0, 0.0)
    drawing = Against("retry_rate", y="skip").draw(Shown(lines, "what"))
    assert any("over seeds and problems" in text for text in texts(drawing))
    ((_, (head, first, *_)),) = drawing.tables
    within = f"{100 * height.mean:.1f} [{100 * height.low:.1f}, {100 * height.high:.1f}]"
    assert head == ["condition", "op ≤ 4", "op > 4"] and first[:2] == [lines[0].label, within]
    assert Against("retry_rate", y="skip").draw(Shown(summarise(rows), "what")) is None


def test_losses_are_drawn_where_they_are_known():
    lines = lines_of(0.0, 0.5)
    curves = {lines[0].label: [[(1000, 2.0), (2000, 1.0)], []], lines[1].label: [[]]}
    shown = Shown(lines, "what", curves=curves)
    assert png_size(Losses().draw(shown).png)[0] > 0
    assert Losses().draw(Shown(lines_of(0.5), "what")) is None


def test_pictures_are_the_same_bytes_each_time_and_dark_ones_differ():
    shown = Shown(lines_of(0.0, 0.5), "what")
    one, other = (figures.AgainstOp().draw(shown) for _ in range(2))
    assert one == other
    assert one.svg != one.dark


def test_cells_are_pooled_by_seed():
    (line,) = lines_of(0.0, seeds=3)
    points = [point for point in line.points if not point.inside]
    found = pooled(line, lambda point: not point.inside)
    assert len(found.by_seed) == 3
    assert found.by_seed[1] == pytest.approx(sum(p.by_seed[1] for p in points) / 3)
    assert found.low < found.mean == pytest.approx(sum(p.accuracy for p in points) / 3)


def test_seeds_of_all_conditions_widen_intervals_of_one():
    rows = fake_rows((0.0,), 1) + fake_rows((0.2, 0.5), 3)
    line, *others = lines = summarise(rows)
    (alone,) = summarise(fake_rows((0.0,), 1))
    cells = {
        point.cell: [o.points[n].by_seed for o in others] for n, point in enumerate(line.points)
    }
    for point, before in zip(line.points, alone.points, strict=True):
        known = inference.of_share(point.by_seed, point.n, cells[point.cell])
        assert (point.low, point.high) == known != (before.low, before.high)
    found = pooled(line, lambda point: point.op > 4, lines)
    means = [
        [sum(seed) / 2 for seed in zip(*(cells[cell][n] for cell in "56"), strict=True)]
        for n in range(2)
    ]
    assert (found.low, found.high) == inference.of_share([found.mean], 400, means)
    assert pooled(line, lambda point: point.op > 4).low > found.low
    assert pooled(line, lambda point: False, lines) is None


def test_figures_and_tables_show_intervals_from_all_conditions(monkeypatch):
    rows = fake_rows((0.0,), 1) + fake_rows((0.2, 0.5), 3)
    rows += [
        row | {"run": f"m-{row['run']}", "condition": row["condition"] | {"mask": "name"}}
        for row in fake_rows((0.2, 0.5), 2)
    ]
    lines, seen = summarise(rows), []
    known = against._curve

    def curve(axes, points, ticks, height, *rest):
        seen.append((points, ticks, height))
        known(axes, points, ticks, height, *rest)

    monkeypatch.setattr(against, "_curve", curve)
    assert Against("retry_rate").draw(Shown(lines, "what")) is not None
    line = lines[0]
    within = pooled(line, lambda point: point.inside, lines)
    assert within.low < pooled(line, lambda point: point.inside).low
    (points, ticks, height), (_, others, _) = seen[:2]
    assert points[0][1] is line and height(line) == within
    # Bars of one rate do not hide each other.
    assert all(0 < abs(ticks[rate] - others[rate]) < 0.03 for rate in ticks)
    cell = tables.pooled_table(lines)[1][2]
    assert cell == f"{100 * within.mean:.1f} [{100 * within.low:.1f}, {100 * within.high:.1f}]"


def test_a_run_that_was_judged_in_several_ways_is_no_seed_more():
    rows = fake_rows((0.0, 0.5), 2)
    again = [
        {**row, "evaluation": "other", "condition": row["condition"] | {"decode": "beam:4"}}
        for row in rows
    ]
    first, *_ = lines = summarise(rows + again)
    assert len(lines) == 4
    (other,) = independent([first], lines)
    assert other.judged[0][0] != first.judged[0][0]
    assert independent(lines, lines) == []
    assert independent([], summarise(fake_rows(seeds=1))) == []


@pytest.mark.parametrize(
    ("highest", "top"), [(3.0, 20), (20.0, 20), (21.0, 30), (31.0, 50), (51.0, 100), (100.0, 100)]
)
def test_an_axis_is_no_longer_than_its_values(highest, top):
    axes = matplotlib.figure.Figure().add_subplot()
    style.percent(axes, highest)
    assert axes.get_yticklabels()[-1].get_text() == f"{top}%"
    assert top <= axes.get_ylim()[1] < 1.05 * top


@pytest.mark.parametrize(
    ("seeds", "over"),
    [
        ((1, 1), "problems, one seed"),
        ((2, 2), "seeds and problems"),
        ((1, 2), "seeds and problems"),
    ],
)
def test_what_bars_are_over_is_said(seeds, over):
    rows = [row for rate, n in zip((0.0, 0.5), seeds, strict=True) for row in fake_rows((rate,), n)]
    shown = Shown(summarise(rows), "what was run")
    assert against._about(shown, "accuracy").endswith(f"95% intervals over {over}")


@pytest.mark.parametrize("count", [2, 9, 40])
def test_names_of_losses_stay_in_the_picture(count):
    curves = {f"run {n} of a condition {'that is long ' * 8}": [[(1e3, 2.0)]] for n in range(count)}
    figure = matplotlib.figure.Figure(figsize=losses.SIZE_INCHES)
    FigureCanvasAgg(figure)
    losses._build(figure, curves, {label: style.style(0) for label in curves}, "what")
    figure.canvas.draw()
    legend = figure.axes[0].get_legend()
    names = legend.get_window_extent()
    assert names.y0 >= 0 and names.x1 <= figure.bbox.width
    last = legend.get_texts()[-1].get_text()
    assert (last == f"and {count - 14} more") == (count > 14)


def test_a_model_that_is_judged_in_several_ways_has_one_loss():
    rows = [
        row | {"condition": {"retry_rate": rate, "decode": way}, "run": str(rate)}
        for rate in (0.0, 0.5)
        for way in ("greedy", "beam:4")
        for row in fake_rows((rate,))
    ]
    lines = summarise(rows)
    curves = {line.label: [[(1e3, 2.0 + line.condition["retry_rate"])]] for line in lines}
    drawing = Losses().draw(Shown(lines, "what", curves=curves))
    told = " ".join(texts(drawing))
    assert told.count("error-free solutions") == told.count("rate 0.5") == 1
