"""How many conditions are told apart in one figure: by colour, and by dashes."""

from fake_results import RETRY, drawn, fake_rows, png_size

from physlm.experiments.condition import baseline
from physlm.experiments.figures.looks import looks
from physlm.experiments.summary import summarise


def test_many_conditions_and_seeds_can_be_drawn():
    lines = summarise(fake_rows(rates=[n / 10 for n in range(9)], seeds=2))
    assert png_size(drawn(lines))[0] > 0


def twice_trained(*rates):
    """Rows of four ways of training, of which one is error-free, too."""
    rows = []
    for way in ("", "continued", "full finetuning", "LoRA of rank 8"):

        def condition(rate, way=way):
            more = {"trained": way, "parent": "error-free"} if way else {}
            return {"retry_rate": rate, **more}

        found = fake_rows(rates if way else (0.0, *rates), condition=condition)
        rows += [{**row, "run": f"{way or 'plain'} {row['run']}"} for row in found]
    return rows


def test_few_that_were_trained_in_several_ways_have_a_colour_each():
    lines = summarise(twice_trained(0.5))
    assert [line.label for line in lines] == [
        "error-free solutions",
        RETRY,
        "continued, rate 0.5",
        "full finetuning, rate 0.5",
        "LoRA of rank 8, rate 0.5",
    ]
    assert len({style["color"] for style in looks(lines)}) == len(lines)
    assert png_size(drawn(lines)) == png_size(drawn(lines[:2]))
    # All are compared with the one that is error-free, which was trained once.
    conditions = [line.condition for line in lines]
    assert [baseline(one, conditions) for one in conditions[1:]] == [0] * 4


def test_of_many_ways_of_training_have_a_colour_each_and_data_a_dash():
    lines = summarise(twice_trained(0.2, 0.5))
    of = {line.label: style for line, style in zip(lines, looks(lines), strict=True)}
    assert len({style["color"] for style in of.values()}) == 4
    free, half = of["error-free solutions"], of[RETRY]
    assert free["color"] == half["color"] and free["linestyle"] != half["linestyle"]
    assert half["linestyle"] == of["LoRA of rank 8, rate 0.5"]["linestyle"] == "--"
    assert of["continued, rate 0.2"]["linestyle"] == "-" and free["linestyle"] == ":"


def test_of_many_probes_kinds_have_a_colour_each_and_models_a_dash():
    told = {"n": 8, "accuracy": 0.9, "auroc": 0.9}
    kinds = [
        ("linear probe", {}),
        ("probe of rank 8", {}),
        ("probe of rank 8", {"reads": "frozen"}),
    ]
    parts = []
    for way, more in (*kinds, ("reader of rank 16", {})):
        parts += [{"trained": way, "parent": whose, **more} for whose in ("error-free", "rate 0.5")]
    parts.append({"trained": "probe of rank 8 of a random model"})
    rows = []
    for part in parts:
        found = fake_rows((0.0,), condition=lambda rate, part=part: {"retry_rate": rate, **part})
        rows += [{**row, "run": f"{part} {row['run']}", "probe": told} for row in found]
    lines = summarise(rows)
    each = [
        (line.condition["trained"], line.condition.get("reads"), line.condition.get("parent"), look)
        for line, look in zip(lines, looks(lines), strict=True)
    ]
    assert len(each) == 9 == len({(look["color"], str(look["linestyle"])) for *_, look in each})
    colour = {}
    dash = {}
    for way, reads, whose, look in each:
        assert colour.setdefault((way, reads), look["color"]) == look["color"]
        assert dash.setdefault(whose or "error-free", look["linestyle"]) == look["linestyle"]
    assert len({*colour.values()}) == 5 and len({str(one) for one in dash.values()}) == 2
