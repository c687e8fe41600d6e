"""One run: every setting reaches the room that reads it."""

import contextlib
import dataclasses

import jax
import pytest

from data_gen.windows.configuration import Windows
from physlm.experiments import config, execution, files, hosts, judging, registry, run
from physlm.experiments.evaluation import Evaluation, directory_of
from physlm.experiments.store import Store


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
    monkeypatch.setattr(judging.evaluate, "evaluate", evaluate)
    return calls


def test_every_setting_reaches_its_room(seen, tmp_path):
    changes = {
        "seed": 5,
        "mistakes.rate": 0.25,
        "train.batch": 24,
        "train.loss_on": "all",
        "train.attention": "document",
        "train.pack": "whole",
        "mesh.input": "cpu",
    }
    shared = registry.configure(registry.load("quickstart"), "smoke")
    one = run.make_run(config.override(shared, changes))
    settings, store = one.settings, Store(tmp_path)
    task = execution.Task(one, (Evaluation(settings.evaluate),))
    assert list(execution.execute([task], store)) == [(one, None)]
    assert seen["stream"] == {
        "data": settings.data,
        "mistakes": settings.mistakes,
        "device": jax.local_devices(backend="cpu")[0],
        "seed": 5,
        "batch": 24,
        "windows": Windows(128, loss_on="all", attention="document", pack="whole"),
        "rows": list(range(24)),
        "records": None,
    }
    assert seen["closed"]
    trained = seen["train"]
    assert {key: trained[key] for key in ("model", "optimizer", "train")} == {
        "model": settings.model,
        "optimizer": settings.optimizer,
        "train": settings.train,
    }
    (member,) = trained["members"]
    assert (member.seed, member.run_dir) == (5, tmp_path / "models" / one.name)
    assert member.learning_rate == settings.optimizer.learning_rate
    assert member.made_by == one.facts
    assert seen["evaluate"] == {
        "params": "parameters",
        "model": settings.model,
        "spec": settings.data,
        "config": settings.evaluate,
        "progress": hosts.progress,
        "probed": None,
        "keep": seen["evaluate"]["keep"],
    }


def test_what_is_trained_or_judged_is_left_as_it_is(seen, tmp_path, monkeypatch):
    one = run.make_run(registry.configure(registry.load("quickstart"), "smoke"))
    store, directory = Store(tmp_path), Store(tmp_path).of_run(one.name)
    first = Evaluation(one.settings.evaluate)
    second = Evaluation(dataclasses.replace(first.settings, problems=17))
    assert list(execution.execute([execution.Task(one, (first,))], store)) == [(one, None)]
    assert run.status(directory) == "finished"
    assert run.last_step(directory) == 7
    del seen["train"], seen["evaluate"]
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    assert list(execution.execute([execution.Task(one, (first,))], store)) == [(one, None)]
    assert "train" not in seen and "evaluate" not in seen
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before

    # A further evaluation takes the model from its checkpoint.
    class State:
        params, step = "restored", 7

    monkeypatch.setattr(execution.weights, "restored", lambda *arguments: State())
    task = execution.Task(one, (first, second))
    assert not task.is_done(directory)
    assert list(execution.execute([task], store)) == [(one, None)]
    assert "train" not in seen
    assert (seen["evaluate"]["params"], seen["evaluate"]["config"].problems) == ("restored", 17)
    assert task.is_done(directory)
    where = directory_of(directory, second.config, 7)
    assert files.read_json(where / "config.json") == {"step": 7, **second.config}


def test_errors_are_left_where_they_came_up(seen, tmp_path, monkeypatch):
    one = run.make_run(registry.configure(registry.load("quickstart"), "smoke"))
    store, directory = Store(tmp_path), Store(tmp_path).of_run(one.name)
    first = Evaluation(one.settings.evaluate)
    second = Evaluation(dataclasses.replace(first.settings, problems=17))
    task = execution.Task(one, (first, second))
    train_together = execution.train.train_together

    def fail(*arguments, **settings):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(execution.train, "train_together", fail)
    ((_, error),) = execution.execute([task], store)
    assert str(error) == "the loss is nan"
    assert run.status(directory) == "failed"
    assert "the loss is nan" in (directory / run.ERROR_FILE).read_text()

    # In judging, one that fails leaves the others, and the run, as they are.
    monkeypatch.setattr(execution.train, "train_together", train_together)
    evaluate = judging.evaluate.evaluate

    def judge(params, *, config, **settings):
        if config.problems == 16:
            raise RuntimeError("out of memory")
        return evaluate(params, config=config, **settings)

    monkeypatch.setattr(judging.evaluate, "evaluate", judge)
    ((_, error),) = execution.execute([task], store)
    assert str(error) == "out of memory"
    assert run.status(directory) == "finished" and not (directory / run.ERROR_FILE).exists()
    where = directory_of(directory, first.config, 7)
    assert "out of memory" in (where / run.ERROR_FILE).read_text()
    assert (directory_of(directory, second.config, 7) / "result.json").exists()
    assert not list(tmp_path.rglob("*.lock"))


def test_a_budget_of_problems_takes_as_many_steps_more_as_windows_hold_fewer(monkeypatch):
    asked = []

    def count(spec, mistakes, **settings):
        asked.append((spec, settings))
        return 3.0 if mistakes.rate == 0 else 2.5

    monkeypatch.setattr(execution, "problems_a_window", count)
    shared = registry.configure(registry.load("quickstart"), "smoke")

    def budgeted(**changes):
        changes = {"train.steps": 1000, **{k.replace("_", ".", 1): v for k, v in changes.items()}}
        settings = run.make_run(config.override(shared, changes)).settings
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
