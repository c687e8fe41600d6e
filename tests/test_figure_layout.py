"""Figures of every study at scale `paper`: nothing that is written in them meets anything else."""

import itertools

import numpy as np
import pytest
from fake_results import fake_rows, kept_figures
from test_figures import rows_of

from physlm.experiments import outcomes, registry
from physlm.experiments.figures import Against, FirstWrong, Grid, Shown, against, first_wrong, grid
from physlm.experiments.summary import summarise


@pytest.fixture
def drawn(monkeypatch):
    """The figures themselves, instead of pictures of them."""
    return kept_figures(monkeypatch, against, first_wrong, grid)


def found_of(rows):
    """Half of the problems are right, and two fifths of the others come too early."""
    half = np.arange(200) % 2 == 0
    one = outcomes.Outcomes("", half, np.arange(200) % 3, {"skip": 40, "end": 60})
    found = {}
    for row in rows:
        found.setdefault((row["run"], row["evaluation"]), {})[row["cell"]] = one
    return found


def shown_of(name):
    study = registry.load(name)
    rows = rows_of(study)
    lines = summarise(rows, found_of(rows))
    beside = {}
    for one in study.beside:
        for line in lines:
            if (row := one.find(line.condition, {})) is not None:
                beside.setdefault(row.quantity, {})[line.label] = row
    return study, Shown(lines, name, beside)


def boxes(artists):
    """Where texts stand, in pixels."""
    return [text.get_window_extent() for text in artists if text.get_text().strip()]


def check(figure):
    height, width = figure.bbox.height, figure.bbox.width
    legends = [one.get_window_extent() for one in figure.legends]
    for axes in figure.axes:
        ticks = [x for x in axes.get_xticklabels() if x.get_text()]
        if not any(tick.get_rotation() for tick in ticks):
            # A point of room on each side, without which numbers read as one.
            places = [box.padded(figure.dpi / 72) for box in boxes(ticks)]
            assert not any(one.overlaps(two) for one, two in itertools.pairwise(places))
        named = boxes([axes.xaxis.label])
        written = [*boxes(ticks), *named]
        assert not any(legend.overlaps(box) for legend in legends for box in written)
        assert not any(name.overlaps(box) for name in named for box in boxes(ticks))
        others = [*written, *boxes(axes.get_yticklabels()), *boxes([axes.title, axes.yaxis.label])]
        for box in [*others, *legends]:
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        # Nor is any curve cut off.
        low, high = axes.get_ylim()
        for line in axes.get_lines():
            ys = np.ma.compressed(np.ma.masked_invalid(np.asarray(line.get_ydata(), float)))
            if line.get_transform() == axes.transData and len(ys):
                assert min(low, high) <= ys.min() and ys.max() <= max(low, high)


ALL = [
    (name, number)
    for name in registry.names()
    for number, figure in enumerate(registry.load(name).figures)
    if isinstance(figure, Against | Grid)
]


@pytest.mark.parametrize(("name", "number"), ALL)
def test_nothing_meets(drawn, name, number):
    study, shown = shown_of(name)
    study.figures[number].draw(shown)
    (figure,) = drawn
    check(figure)
    above = [text.get_window_extent() for text in figure.texts]
    assert all(box.x1 <= figure.bbox.width for box in above)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_legend_leaves_the_axis_of_what_goes_wrong_its_name(drawn, count):
    rows = fake_rows([number / 10 for number in range(count)])
    FirstWrong().draw(Shown(summarise(rows, found_of(rows)), "what"))
    (figure,) = drawn
    check(figure)
    assert len(figure.legends[0].get_texts()) == count


def test_a_long_name_of_the_last_value_stays_in_the_figure(drawn):
    kinds = {0.0: {}, 0.2: {"kind": "skip"}, 0.5: {"kind": "mykinds.again"}}
    rows = fake_rows(kinds, condition=lambda rate: {"retry_rate": min(rate, 0.1), **kinds[rate]})
    Against("kind", "kind of mistake").draw(Shown(summarise(rows, found_of(rows)), "what"))
    (figure,) = drawn
    check(figure)
    assert (
        figure.texts[0].get_text() == "Problems solved, every step right, against kind of mistake"
    )
