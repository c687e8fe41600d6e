"""Tables in colours, of studies of many conditions."""

import pytest
from fake_results import fake_rows, kept_figures
from matplotlib.colors import to_hex
from test_figure_layout import shown_of
from test_figures import texts

from experiments import finetune
from physlm.experiments.figures import AgainstOp, Grid, Shown, grid, quantities
from physlm.experiments.summary import summarise

FIGURE = finetune.FIGURES[0]


@pytest.fixture
def tables(monkeypatch):
    """The tables that are drawn."""
    return kept_figures(monkeypatch, grid)


def written(axes):
    """What stands in each cell, by column and row."""
    return {
        (round(x), round(y)): text.get_text()
        for text in axes.texts
        for x, y in [text.get_position()]
        if text.get_text()[0] not in "±nmr"
    }


def test_each_condition_is_a_cell_in_the_order_of_the_study(tables):
    _, shown = shown_of("finetune")
    FIGURE.draw(shown)
    inside, beyond, paper = tables[0].axes
    ways = [label.get_text().replace("\n", " ") for label in inside.get_yticklabels()]
    assert ways[0] == "error-free solutions" and ways[2:] == list(finetune.WAYS)
    rates = [label.get_text() for label in inside.get_xticklabels()]
    assert rates == ["0.05", "0.1", "0.2", "0.5"] * 2
    for axes in (inside, beyond):
        assert len(written(axes)) == len(shown.lines) == 98
    theirs = written(paper)
    assert theirs[7, 2] == f"{_published(shown, 0.5, 'name', '').cells['avg']:.1f}"
    assert theirs[1, 7] == f"{_published(shown, 0.1, 'none', 'LoRA of rank 4').cells['avg']:.1f}"
    # The paper has no numbers of these.
    assert theirs[0, 2 + finetune.WAYS.index("full finetuning")] == "–"


def _published(shown, rate, mask, way):
    (line,) = [
        line
        for line in shown.lines
        if (line.condition["retry_rate"], line.condition.get("mask")) == (rate, mask)
        and line.condition.get("trained", "") == way
    ]
    return shown.beside["accuracy"][line.label]


def test_colours_say_what_is_better_than_error_free_data_and_by_how_much(tables):
    def way(said):
        return said.get("trained", "pretraining") if said["retry_rate"] else None

    rows = []
    for rate, trained, solved in ((0.0, "", 0.5), (0.5, "", 0.7), (0.5, "continued", 0.4)):
        said = {"retry_rate": rate, **({"trained": trained} if trained else {})}
        rows += [
            {**row, "run": f"{rate} {trained}", "condition": said, "accuracy": solved}
            for row in fake_rows((rate,))
        ]
    lines = summarise(rows)
    Grid(way, ("trained",)).draw(Shown(lines, "what"))
    axes = tables[0].axes[0]
    known = {round(patch.get_y() + 0.47): patch for patch in axes.patches}
    colours = [(to_hex(known[row].get_facecolor()), known[row].get_alpha()) for row in (1, 2)]
    assert colours == [("#0072b2", pytest.approx(0.6)), ("#d55e00", pytest.approx(0.3))]
    assert [written(axes)[0, row] for row in range(3)] == ["50.0", "70.0", "40.0"]
    (inside, *_) = quantities.by_length(lines).values()
    share = quantities.mean(lines[0], "accuracy", inside, lines)
    assert f"±{50 * (share.high - share.low):.1f}" in [text.get_text() for text in axes.texts]


def test_one_way_is_no_table():
    lines = summarise(fake_rows((0.0, 0.5)))
    assert Grid(lambda said: "pretraining", ()).draw(Shown(lines, "what")) is None


def test_some_conditions_alone_can_be_drawn_by_the_number_of_operations():
    lines = summarise(fake_rows((0.0, 0.2, 0.5)))
    figure = AgainstOp(wanted=lambda said: said["retry_rate"] != 0.2, which="two alone")
    picture = figure.draw(Shown(lines, "what"))
    assert picture == AgainstOp().draw(Shown([lines[0], lines[2]], "what, two alone"))
    assert figure.draw(Shown(lines[::2], "what")) == AgainstOp().draw(Shown(lines[::2], "what"))
    assert figure.draw(Shown(lines[1:2], "what")) is None


def test_who_says_nothing_of_decoding_is_decoded_greedily():
    """Models of data with mistakes stand beside the error-free one, which has other ways, too."""
    study, shown = shown_of("regret")
    (figure,) = [figure for figure in study.figures if isinstance(figure, AgainstOp)]
    names = texts(figure.draw(shown))
    assert {"error-free solutions", "mistakes, not masked", "mistakes, masked"} <= set(names)
    assert not any("beam" in name for name in names)
