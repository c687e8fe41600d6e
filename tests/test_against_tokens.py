"""The figure of accuracy against the tokens written for a problem."""

import itertools

import matplotlib.axes
import pytest
from fake_results import fake_rows
from test_figures import ACCOUNT, rows_of, texts

from physlm.experiments import registry
from physlm.experiments.figures import AgainstTokens, Shown
from physlm.experiments.summary import pooled, summarise


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn of curves: their points' x, y and bars, and how they look."""
    found, known = [], matplotlib.axes.Axes.errorbar

    def errorbar(axes, x, y, yerr, **look):
        found.append((list(x), list(y), [list(side) for side in yerr], look))
        return known(axes, x, y, yerr=yerr, **look)

    monkeypatch.setattr(matplotlib.axes.Axes, "errorbar", errorbar)
    return found


def decoded(seeds=1):
    """Rows of an error-free model that is judged greedily and by beams."""
    return [
        row
        | {
            "condition": {"retry_rate": 0.0, "decode": decode},
            "evaluation": decode,
            "account": {**ACCOUNT, "tokens": tokens},
        }
        for decode, tokens in (("greedy", 50.0), ("beam:4", 300.0))
        for row in fake_rows((0.0,), seeds=seeds)
    ]


def test_accuracy_against_tokens_has_the_intervals_of_the_tables(drawn):
    """Seeds are the same ones on all cells, so that cells do not vary on their own."""
    lines = summarise(decoded(seeds=2))
    assert AgainstTokens().draw(Shown(lines, "what")) is not None
    share = pooled(lines[0], lambda point: point.op > 4 and not point.inside, lines)
    heights = [round(y, 6) for _, ys, _, _ in drawn for y in ys]
    assert round(100 * share.mean, 6) in heights
    ends = {
        (round(y, 6), round(below, 6), round(above, 6))
        for _, ys, (belows, aboves), _ in drawn
        for y, below, above in zip(ys, belows, aboves, strict=True)
    }
    wanted = (share.mean, share.mean - share.low, share.high - share.mean)
    assert tuple(round(100 * x, 6) for x in wanted) in ends


@pytest.mark.parametrize("spread", [0.001, 0.02, 0.4])
def test_ticks_of_accuracy_against_tokens_differ(spread):
    """However near each other shares are: rounded, they would be one number twice."""
    rows = [
        row
        | {
            "accuracy": 0.5 + spread * place,
            "ci_low": 0.499 + spread * place,
            "ci_high": 0.501 + spread * place,
            "n": 10**6,
        }
        for row in decoded()
        for place in [row["evaluation"] != "greedy"]
    ]
    drawing = AgainstTokens().draw(Shown(summarise(rows), "what"))
    marks = [text for text in texts(drawing) if text.endswith("%") and " " not in text]
    values = [float(mark.removesuffix("%")) for mark in marks]
    assert len(values) > 2 and all(0 <= value <= 100 for value in values)
    # Of each panel from bottom to top.
    assert sum(b <= a for a, b in itertools.pairwise(values)) == 1
    assert spread < 0.01 or all(value.is_integer() for value in values)


def at_tokens(name):
    """The conditions of a study, each of which writes other numbers of tokens than the others."""
    rows, seen = rows_of(registry.load(name)), {}
    for row in rows:
        number = seen.setdefault((row["run"], row["evaluation"]), 100 + 10 * len(seen))
        row["account"] = ACCOUNT | {"tokens": float(number)}
    lines = summarise(rows)
    return lines, {line.points[0].account["tokens"]: line.condition for line in lines}


@pytest.mark.parametrize(
    ("name", "joined"),
    [
        ("regret", {("beam:4", "beam:16", "beam:32"), ("regret:perfect", "regret:perfect,tries=50"),
                    ("regret:perfect,beams=4", "regret:perfect,tries=50,beams=4")}),
        ("inference", {("beam:4", "beam:16"), ("regret:perfect", "regret:perfect,tries=50"),
                       tuple(f"sample:{n},temperature=0.7" for n in (1, 4, 16))}),
        ("temperature", set()),
    ],
)  # fmt: skip
def test_only_what_differs_in_its_budget_alone_is_joined(drawn, name, joined):
    lines, of_tokens = at_tokens(name)
    drawing = AgainstTokens().draw(Shown(lines, "what"))
    curves = [[of_tokens[x] for x in xs] for xs, *_ in drawn]
    assert {tuple(said["decode"] for said in curve) for curve in curves if len(curve) > 1} == joined
    for curve in curves:
        alike = [{key: v for key, v in said.items() if key != "decode"} for said in curve]
        assert all(one == alike[0] for one in alike)
    # On a light ground and a dark one, in two panels each.
    assert sum(map(len, curves)) == 4 * len(lines)
    if name == "inference":
        assert "sample, temperature 0.7; n 1, 4, 16" in texts(drawing)


def test_a_strategy_whose_file_is_not_here_is_drawn_by_its_text(drawn):
    rows = decoded()
    for row in rows:
        if row["evaluation"] != "greedy":
            row["condition"]["decode"] = "nowhere.mine.Second:margin=0.2"
    drawing = AgainstTokens().draw(Shown(summarise(rows), "what"))
    assert "nowhere.mine.Second:margin=0.2" in " ".join(texts(drawing))
    assert {tuple(xs) for xs, *_ in drawn} == {(50.0,), (300.0,)}


def test_each_kind_of_training_data_has_a_colour(drawn):
    lines, of_tokens = at_tokens("regret")
    AgainstTokens().draw(Shown(lines, "what"))
    colours = {}
    for xs, _, _, look in drawn:
        for x in xs:
            said = of_tokens[x]
            data = (said["retry_rate"], said["retry_rate"] and said["mask"])
            colours.setdefault(data, set()).add(look["color"])
    assert len(colours) == 3 and all(len(of) == 1 for of in colours.values())
    assert len(set.union(*colours.values())) == 3
