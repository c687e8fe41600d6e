"""One run: every setting reaches the room that reads it."""

import contextlib

import pytest

from data_gen import stream
from data_gen.mistakes import Mistakes
from physlm.experiments import config, registry, run
from physlm.progress import Progress


@pytest.fixture
def seen(monkeypatch):
    """What one run hands to the rooms below it, without doing any of it."""
    calls = {}

    class Stream(contextlib.nullcontext):
        def __init__(self, spec, mistakes, **settings):
            super().__init__()
            calls["stream"] = {"data": spec, "mistakes": mistakes, **settings}

        def close(self):
            calls["closed"] = True

    class State:
        params, step = "parameters", 7

    def train(**settings):
        calls["train"] = settings
        return State()

    def evaluate(params, **settings):
        calls["evaluate"] = {"params": params, **settings}
        return []

    monkeypatch.setattr(run, "Stream", Stream)
    monkeypatch.setattr(run.train, "train", train)
    monkeypatch.setattr(run.evaluate, "evaluate", evaluate)
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
    run.execute(one, tmp_path)
    assert seen["stream"] == {
        "data": settings.data,
        "mistakes": settings.mistakes,
        "seed": 5,
        "batch": 24,
        "window": settings.train.window,
        "loss_on": "all",
        "attention": "document",
        "pack": "whole",
    }
    assert seen["closed"]
    trained = seen["train"]
    assert {key: trained[key] for key in ("model", "optimizer", "train", "seed")} == {
        "model": settings.model,
        "optimizer": settings.optimizer,
        "train": settings.train,
        "seed": 5,
    }
    assert trained["run_dir"] == tmp_path / one.name
    assert seen["evaluate"] == {
        "params": "parameters",
        "model": settings.model,
        "spec": settings.data,
        "config": settings.evaluate,
        "progress": Progress,
        "keep": seen["evaluate"]["keep"],
    }


def test_a_budget_of_problems_takes_as_many_steps_more_as_documents_are_longer():
    shared = registry.configure(registry.load("quickstart"), "smoke")
    changes = {"mistakes.rate": 0.5, "train.steps": 1000, "train.budget": "problems"}
    one = run.make_run(config.override(shared, changes), varied=changes)
    settings = run.budgeted(one.settings)
    assert settings == run.budgeted(one.settings)
    steps = settings.train.steps
    window, seed = settings.train.window, settings.seed
    each = [
        stream.problems_a_window(settings.data, mistakes, seed=seed, window=window)
        for mistakes in (Mistakes(), settings.mistakes)
    ]
    # As many problems are seen, in more windows.
    assert steps > 1050
    assert abs(steps * each[1] / (1000 * each[0]) - 1) < 1e-3
    same = {**changes, "mistakes.rate": 0.0}
    error_free = run.make_run(config.override(shared, same), varied=same).settings
    assert run.budgeted(error_free) == error_free
    by_tokens = run.make_run(config.override(shared, {"mistakes.rate": 0.5}), varied=()).settings
    assert run.budgeted(by_tokens) == by_tokens
