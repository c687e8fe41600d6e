"""The sentences of a model's card, and the commands in it, without exporting a model."""

import shlex

from data_gen import options as drawing
from physlm.experiments import card, options
from physlm.experiments import config as config_lib
from physlm.experiments import run as run_lib


def _run(**changes):
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return run_lib.make_run(config_lib.override(config_lib.base("smoke"), given))


def test_what_bears_no_loss_is_said_where_something_does() -> None:
    made = "with solutions that hold mistakes (`skip`, rate 0.5) and their corrections"
    given = {"mistakes__kind": "skip", "mistakes__rate": 0.5}
    assert card._condition(_run(mistakes__rate=0.0)) == "with error-free solutions"
    assert card._condition(_run(**given, mistakes__mask="none")) == made
    for mask in ("name", "sentence", "all"):
        said = card._condition(_run(**given, mistakes__mask=mask))
        assert said == f"{made}, without loss on what is wrong"


def test_its_commands_ask_for_its_class_and_its_run() -> None:
    """Also where texts have spaces, numbers several digits, and lists commas."""
    changes = [
        {},
        {"mistakes__rate": 0.0, "mistakes__mask": "name", "seed": 3},
        {"mistakes__kind": "skip:0.7,calculation:0.3", "mistakes__rate": 0.25},
        {"data__max_op": 7, "evaluate__beyond": (8, 9), "optimizer__learning_rate": 1e-05},
        {"data__order": "qp", "model__variant": "llama", "model__tied": True},
    ]
    for given in changes:
        run = _run(**given)
        words = shlex.split(card._training_command(run))
        assert words[:3] == ["python", "-m", "physlm.experiments.sweep"]
        asked = options.entries(options.parse(words[3:]))
        assert {entry.run.name for entry in asked} == {run.name}
        assert all(entry.evaluation.settings == run.settings.evaluate for entry in asked)
        words = shlex.split(card._drawing(run.settings.data))
        assert words[:3] == ["python", "-m", "data_gen"]
        spec = drawing.problem_class(drawing.parse(words[3:], ""))
        for name in ("max_op", "max_edges", "modulus", "order", "names", "hierarchies"):
            assert getattr(spec, name) == getattr(run.settings.data, name)
        assert spec.split == "test"
