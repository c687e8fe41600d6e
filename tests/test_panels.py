"""How a study's conditions are divided into panels."""

import dataclasses
import json

import pytest
from fake_results import fake_rows
from test_figures import rows_of, texts

from physlm.experiments import condition, registry
from physlm.experiments.figures import AgainstOp, Shown
from physlm.experiments.figures.looks import looks
from physlm.experiments.figures.panels import LINES, PANELS, divided
from physlm.experiments.figures.style import COLOURS, RAMP
from physlm.experiments.summary import summarise


def lines_of(name):
    return summarise(rows_of(registry.load(name)))


@pytest.mark.parametrize("name", registry.names())
def test_every_condition_is_in_one_panel_and_error_free_ones_beside_all_that_is_like_them(name):
    lines = lines_of(name)
    panels = divided(lines)
    assert len(panels) <= PANELS
    where = {line.judged: [] for line in lines}
    for number, panel in enumerate(panels):
        for line in panel.lines:
            where[line.judged].append(number)
        labels = [line.label for line in panel.lines]
        assert len(set(labels)) == len(labels), "two lines of one name"
    for line in lines:
        assert len(where[line.judged]) == 1 or condition.is_error_free(line.condition)
        assert where[line.judged], line.label
    headings = [panel.heading for panel in panels]
    assert len(set(headings)) == len(headings) or set(headings) == {""}
    # What has one name in several panels is one thing beside what the panels differ in.
    meanings = {}
    for panel in panels:
        for line in panel.lines:
            said = json.dumps(line.condition, sort_keys=True)
            assert meanings.setdefault(line.label, said) == said


@pytest.mark.parametrize(
    ("name", "headings"),
    [
        ("quickstart", [""]),
        ("on_policy", [""]),
        ("retry_rate", ["Masked", "Not masked"]),
        ("masking", ["Rate 0.2", "Rate 0.5"]),
        ("mending", ["Late 0", "Late 1", "Late 2"]),
        ("architectures", [f"Variant {one}" for one in ("gpt2", "llama", "gemma", "mixtral")]),
        # Ten kinds of one rate have nothing in common.
        ("mistake_kinds", ["", ""]),
    ],
)
def test_what_divides_a_study(name, headings):
    panels = divided(lines_of(name))
    assert sorted(panel.heading for panel in panels) == sorted(headings)
    assert all(len(panel.lines) <= LINES for panel in panels)
    if name not in ("quickstart", "on_policy"):
        for panel in panels:
            free = [line for line in panel.lines if condition.is_error_free(line.condition)]
            assert len(free) == (2 if name == "architectures" else 1)


def test_what_nothing_divides_is_dealt_out_or_one_panel():
    """Conditions of a setting that has a value of its own in each."""
    (line, *_) = [x for x in lines_of("retry_rate") if not condition.is_error_free(x.condition)]
    for count, panels in ((7, 2), (54, 9), (55, 1)):
        lines = [
            dataclasses.replace(line, label=str(n), condition={**line.condition, "late": n})
            for n in range(count)
        ]
        found = divided(lines)
        assert len(found) == panels
        assert [one.label for panel in found for one in panel.lines] == [x.label for x in lines]


def test_a_setting_of_no_value_is_called_none():
    labels = {line.label for panel in divided(lines_of("architectures")) for line in panel.lines}
    assert {"error-free solutions, canon none", "error-free solutions, canon AC"} <= labels


def test_what_is_trained_once_says_so_beside_what_is_trained_twice():
    panels = divided(lines_of("finetune"))
    names = {line.label for panel in panels for line in panel.lines}
    assert {"error-free solutions", "trained once", "continued"} <= names
    assert {panel.heading for panel in panels} >= {"Rate 0.5", "Rate 0.5, masked"}
    assert len(names) < len(lines_of("finetune")) / 3


def test_a_panel_has_one_error_free_condition():
    """What was trained for twice as long is beside what was trained as long, and nothing else."""
    lines = [
        line
        for line in lines_of("finetune")
        if line.condition["retry_rate"] in (0.0, 0.2, 0.5)
        and line.condition.get("trained", "LoRA of rank 8").startswith(("f", "c", "LoRA of rank 8"))
    ]
    by_way = {panel.heading: panel.lines for panel in divided(lines)}
    assert set(by_way) >= {"Trained once", "For twice as long", "LoRA of rank 8"}
    once, twice, lora = (
        by_way[way] for way in ("Trained once", "For twice as long", "LoRA of rank 8")
    )
    assert [line.label for line in twice] == [line.label for line in once]
    assert len({line.label for line in twice}) == 5
    assert lora[0].judged == once[0].judged != twice[0].judged


@pytest.mark.parametrize("kinds", [1, 2, 4, 5])
@pytest.mark.parametrize("rates", [1, 3, 7, 8])
def test_no_two_conditions_look_alike(rates, kinds):
    """Be there more of them than rates have colours, or kinds dashes."""
    conditions = {
        (rate + kind / 10) / 10: {"retry_rate": rate / 10, "kind": f"kind {kind}"}
        for kind in range(kinds)
        for rate in range(1, rates + 1)
    }
    rows = fake_rows(conditions, condition=conditions.get)
    lines = summarise([*rows, *fake_rows((0.0,))])
    styles = [tuple(sorted(style.items())) for style in looks(lines)]
    assert len(styles) == len(set(styles)) == rates * kinds + 1


def test_many_conditions_are_drawn_in_panels_and_rates_in_their_order():
    lines = lines_of("retry_rate")
    drawing = AgainstOp().draw(Shown(lines, "what"))
    assert {"Masked", "Not masked", "error-free solutions"} <= set(texts(drawing))
    assert sum("rate 0.5" in text for text in texts(drawing)) == 1
    shown = drawing.svg.decode().lower()
    used = [shown.find(colour.lower()) for colour in RAMP]
    # Five of seven colours, from the first to the last, in the order of the rates.
    assert [at for at in used if at >= 0] == sorted(at for at in used if at >= 0)
    assert used[0] >= 0 and used[-1] >= 0 and sum(at >= 0 for at in used) == 5
    assert COLOURS[0].lower() in shown and COLOURS[1].lower() not in shown
    few = AgainstOp().draw(Shown(lines[:3], "what"))
    assert "Masked" not in texts(few) and RAMP[0].lower() not in few.svg.decode().lower()


def test_ranks_have_colours_in_their_order():
    lines = lines_of("finetune")
    of = dict(zip((line.condition.get("trained", "") for line in lines), looks(lines), strict=True))
    ranks = [of[f"LoRA of rank {rank}"]["color"] for rank in (4, 8, 16, 32, 64, 128, 256)]
    assert ranks == list(RAMP)
    assert len({of[way]["color"] for way in ("", "continued", "full finetuning")}) == 3


def test_each_condition_of_few_has_a_colour():
    lines = lines_of("on_policy")
    assert len({style["color"] for style in looks(lines)}) == len(lines) == 4
