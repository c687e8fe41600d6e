"""One run: every setting reaches the room that reads it."""

import contextlib
import dataclasses

import pytest

from data_gen.windows.configuration import Windows
from physlm.experiments import config, execution, registry, run


@pytest.fixture
def seen(monkeypatch):
    """What one run hands to the rooms below it, without doing any of it."""
    calls = {}

    class Stream(contextlib.nullcontext):
        def __init__(self, spec, mistakes, windows, **settings):
            super().__init__()
            calls["stream"] = {"data": spec, "mistakes": mistakes, "windows": windows, **settings}
            calls["stream"]["rows"] = settings["rows"].tolist()

        def close(self):
            calls["closed"] = True

    class State:
        params, step = "parameters", 7

    def train_together(members, **settings):
        calls["train"] = {"members": members, **settings}
        return [State()]

    def evaluate(params, **settings):
        calls["evaluate"] = {"params": params, **settings}
        return []

    monkeypatch.setattr(execution, "Stream", Stream)
    monkeypatch.setattr(execution.train, "train_together", train_together)
    monkeypatch.setattr(execution.evaluate, "evaluate", evaluate)
    return calls


def test_every_setting_reaches_its_room(seen, tmp_path):
    changes = {
        "seed": 5,
        "mistakes.rate": 0.25,
        "train.batch": 24,
        "train.loss_on": "all",
        "train.attention": "document",
        "train.pack": "whole",
    }
    shared = registry.configure(registry.load("quickstart"), "smoke")
    one = run.make_run(config.override(shared, changes), varied=changes)
    settings = one.settings
    assert list(execution.execute([one], tmp_path)) == [(one, None)]
    assert seen["stream"] == {
        "data": settings.data,
        "mistakes": settings.mistakes,
        "seed": 5,
        "batch": 24,
        "windows": Windows(128, loss_on="all", attention="document", pack="whole"),
        "rows": list(range(24)),
    }
    assert seen["closed"]
    trained = seen["train"]
    assert {key: trained[key] for key in ("model", "optimizer", "train")} == {
        "model": settings.model,
        "optimizer": settings.optimizer,
        "train": settings.train,
    }
    (member,) = trained["members"]
    assert (member.seed, member.run_dir) == (5, tmp_path / one.name)
    assert member.learning_rate == settings.optimizer.learning_rate
    assert seen["evaluate"] == {
        "params": "parameters",
        "model": settings.model,
        "spec": settings.data,
        "config": settings.evaluate,
        "progress": execution.progress,
        "keep": seen["evaluate"]["keep"],
    }


def test_a_budget_of_problems_takes_as_many_steps_more_as_windows_hold_fewer(monkeypatch):
    asked = []

    def count(spec, mistakes, **settings):
        asked.append((spec, settings))
        return 3.0 if mistakes.rate == 0 else 2.5

    monkeypatch.setattr(execution, "problems_a_window", count)
    shared = registry.configure(registry.load("quickstart"), "smoke")

    def budgeted(**changes):
        changes = {"train.steps": 1000, **{k.replace("_", ".", 1): v for k, v in changes.items()}}
        settings = run.make_run(config.override(shared, changes), varied=changes).settings
        return settings, execution.budgeted(settings)

    plain, longer = budgeted(mistakes_rate=0.5, train_budget="problems", train_pack="whole")
    assert longer.train == dataclasses.replace(plain.train, steps=1200)
    assert dataclasses.replace(longer, train=plain.train) == plain
    assert plain.windows.pack == "whole"
    assert asked == [(plain.data, {"seed": 0, "windows": plain.windows})] * 2
    # As many problems are in the data as it is, or only tokens count.
    for plain, same in (
        budgeted(mistakes_rate=0.0, train_budget="problems"),
        budgeted(mistakes_rate=0.5),
    ):
        assert same == plain
    assert len(asked) == 2
