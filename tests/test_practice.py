"""A model's own mistakes: found on the split for training, mended, and trained on."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
from drawn import SMALL, drawn
from fake_runs import times

from data_gen.solutions.mistakes import Mistakes
from data_gen.text.judge import judge
from data_gen.text.reader import read
from physlm import cells, model, practice
from physlm.experiments import (
    condition,
    config,
    hosts,
    identity,
    overlap,
    plan,
    records,
    registry,
    results,
    run,
    sweep,
)
from physlm.experiments.evaluation import Evaluation

STUDY = registry.load("on_policy")
SMOKE = config.base("smoke")
OWN = {"train.records": "parent", "parent.run": "a-12345678"}


def refused(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        run.make_run(config.override(SMOKE, changes))


def file_of(tmp_path, count=4, name="mended.jsonl", spec=SMALL):
    """Retry solutions of a class as a file of records."""
    path = tmp_path / name
    path.write_text(
        "".join(f"{json.dumps(one)}\n" for one in drawn(spec, Mistakes("skip", 0.4))[2][:count])
    )
    return str(path)


# The class of `smoke`.
OF_SMOKE = dataclasses.replace(config.resolve(SMOKE).data, split="all")


@pytest.mark.slow
def test_what_does_not_go_with_records_is_refused(tmp_path):
    refused({"train.records": "parent"}, "train.records is 'parent'; it must be a file, or empty,")
    said = "data.split is 'all'; it must be 'train' where train.records is 'parent'"
    refused({**OWN, "data.split": "all"}, said)
    refused(
        {**OWN, "train.budget": "problems"},
        "train.budget is 'problems'; it must be tokens where there are records.",
    )
    said = "train.records is 'parent'; it must be empty for a probe."
    refused({**OWN, "adaptation.kind": "probe"}, said)
    refused({"train.records": str(tmp_path / "x")}, "it must be a file that can be read (No such")
    path = file_of(tmp_path, spec=SMALL)
    refused({"train.records": path, "data.modulus": 3}, "train.records is ")
    path = file_of(tmp_path, spec=OF_SMOKE)
    refused({"train.records": path, "train.window": 40}, "above the 41 of a window.")
    for value in (0.0, 1.5):
        refused({"train.records_share": value}, f"train.records_share is {value}; it must be a")
    said = "train.records_decode is 'regret:perfect'; it must be a strategy that asks nobody."
    refused({"train.records_decode": "regret:perfect"}, said)
    refused({"train.records_decode": "guess"}, "train.records_decode is 'guess'; it must be one of")


def test_a_file_counts_by_what_it_holds(tmp_path):
    def named(path, **more):
        changes = {"train.records": path, **more} if path else more
        return run.make_run(config.override(SMOKE, changes))

    first, second, third = (named(file_of(tmp_path, n, x, OF_SMOKE)) for x, n in
                            (("a", 4), ("b", 4), ("c", 5)))  # fmt: skip
    assert first.name == second.name != third.name
    assert first.name.startswith("error-free+records,")
    path = file_of(tmp_path, 4, "a", OF_SMOKE)
    assert named(path, **{"train.records_share": 0.25}).name != first.name
    assert named(path, **{"mistakes.mask": "all"}).name != first.name
    # Of a file nobody decodes anything; without records nothing of them is read.
    assert named(path, **{"train.records_problems": 7}).name == first.name
    plain = named("")
    changes = {"train.records_share": 0.25, "train.records_problems": 7, "mistakes.mask": "all"}
    assert named("", **changes).name == plain.name
    assert not any(key.startswith("train.records") for key in plain.facts)


def test_own_mistakes_are_told_apart_by_how_they_are_found():
    def facts(**changes):
        values = config.override(SMOKE, {**OWN, **changes})
        return identity.of_run(values.to_dict(), config.resolve(values).data)

    assert facts()["train.records"] == "parent"
    for changes in ({"train.records_problems": 7}, {"train.records_decode": "greedy"}):
        assert facts(**changes) != facts()
    assert facts(**{"parent.run": "b-87654321"}) != facts()


def test_conditions_with_records_are_not_error_free():
    free, own = {"retry_rate": 0.0}, {"retry_rate": 0.0, "records": "parent", "records_share": 0.4}
    retry = {"retry_rate": 0.1}
    assert condition.is_error_free(free) and not condition.is_error_free(own)
    assert condition.baseline(own, [own, retry, free]) == 2
    assert condition.meant(own) == own
    assert condition.label(own, [free, own]) == (
        "error-free solutions, with own mistakes, mended, in 0.4 of the documents"
    )
    assert condition.label(free, [free, own]) == "error-free solutions"
    # What an error-free condition does not read sets none apart.
    assert condition.meant({**free, "records_share": 0.4}) == free


@pytest.mark.parametrize("scale", ["smoke", "quick", "paper"])
def test_the_study_compares_ways_to_go_on(scale):
    first, *others = plan.plan(STUDY, scale)
    assert [entry.run.parent for entry in others] == [first.run] * 3
    assert first.run.name in {e.run.name for e in plan.plan(registry.load("quickstart"), scale)}
    assert len({entry.run.tokens for entry in (first, *others)}) == 1
    own = others[-1].run.settings
    assert own.practice.records == "parent" and own.mistakes.rate == 0
    # The parent is trained before it, so that there is somebody to make mistakes.
    names = [task.run.name for task in plan.tasks([others[-1]])]
    assert names == [first.run.name, others[-1].run.name]


@pytest.fixture(scope="module")
def made():
    """What a model that is only drawn does wrong on some problems."""
    settings = config.resolve(config.override(SMOKE, {**OWN, "train.records_problems": 96}))
    params = model.init(settings.model, jax.random.key(0))

    def collected(batch=32, count=96):
        config_ = dataclasses.replace(settings.practice, records_problems=count)
        return practice.own_mistakes(
            params,
            model=settings.model,
            spec=settings.data,
            config=config_,
            seed=5,
            batch=batch,
            progress=hosts.progress,
        )

    return settings, collected


@pytest.mark.slow
def test_own_mistakes_are_mended_and_of_no_test_problem(made):
    settings, collected = made
    found, left_out = collected()
    assert len(found) >= 3 and len(found) + left_out <= 96
    for record in found:
        facts = read(record["layers"], record["problem"], record["question"], settings.data.modulus)
        assert " BACK." in record["solution"]
        verdict = judge(facts, record["solution"], f" {record['answer']}")
        assert verdict.correct and len(verdict.mended) >= 1
    # Neither on another number at once nor on how many more are asked for does one depend.
    fewer, _ = collected(batch=16, count=80)
    assert len(fewer) > 0 and found[: len(fewer)] == fewer
    # Every problem is of a template for training, and no text is a test problem's.
    evaluation = Evaluation(settings.evaluate)
    sets = cells.test_sets(settings.data, evaluation.settings, 128, hosts.progress)
    tested = {one["problem"] for _, tests in sets for one in tests.records}
    assert not tested & {record["problem"] for record in found}
    root = practice.keys.root(5, practice.Purpose.PRACTICE)
    numbers = np.arange(64, dtype=np.int32)
    keys_N = practice.keys.all_numbered(root, numbers)
    drawn_, _ = cells.fitting(keys_N, numbers, settings.data, 128)
    assert drawn_.shared_N.all()
    assert not any(tests.shared_N.any() for _, tests in sets)


FEWER = ("evaluate.problems=4", "evaluate.beyond=4")


def swept(workdir, *more):
    arguments = ["on_policy", "--scale", "smoke", "--workdir", str(workdir), "--set", *FEWER]
    assert sweep.main([*arguments, *more]) == 0
    return (workdir / "on_policy-smoke" / results.FILE).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("devices_stay")
def test_the_study_runs_and_comes_out_the_same_when_part_of_it_is_lost(tmp_path, capsys):
    rows = swept(tmp_path)
    first, _, _, own = plan.plan(STUDY, "smoke", FEWER)
    directory = tmp_path / "models" / own.run.name
    (path,) = (tmp_path / "models" / first.run.name / records.DIRECTORY).iterdir()
    assert path == records.path_of(own.run, directory)
    told = capsys.readouterr()
    count = len(path.read_text().splitlines())
    assert f"of 256 problems for training its parent made {count} mistakes" in told.err
    assert "with own mistakes, mended, in 0.4 of the documents" in told.out
    losses = (directory / "metrics.jsonl").read_text().splitlines()[-1]
    # Its windows hold them: the same run without would have another loss.
    plain = next(one.run for one in plan.plan(STUDY, "smoke", FEWER)[1:2])
    without = tmp_path / "models" / plain.name / "metrics.jsonl"
    assert json.loads(losses)["loss"] != json.loads(without.read_text().splitlines()[-1])["loss"]
    # What is there is not made again.
    before, kept = times(path.parent), path.read_bytes()
    shutil.rmtree(directory)
    assert swept(tmp_path) == rows
    assert times(path.parent) == before
    again = (directory / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(again)["loss"] == json.loads(losses)["loss"]
    # Killed between the two, it is made as it was.
    shutil.rmtree(directory)
    shutil.rmtree(path.parent)
    assert swept(tmp_path) == rows
    assert path.read_bytes() == kept
    # Overlap with training would be counted of fresh problems alone.
    with pytest.raises(ValueError, match="--overlap is given for error-free"):
        overlap.counted(own.run, own.evaluation, directory)


@pytest.mark.slow
def test_a_parent_without_a_mistake_is_said(tmp_path, monkeypatch):
    own = plan.plan(STUDY, "smoke")[-1].run
    monkeypatch.setattr(records.practice, "own_mistakes", lambda *rest, **more: ([], 3))
    monkeypatch.setattr(records.weights, "parent", lambda *rest: lambda: ({}, None))
    path = tmp_path / "records.jsonl"
    with pytest.raises(ValueError, match=r"of 256 problems the parent of .* solved none with a "):
        records._make(own, tmp_path, path, hosts.progress, print)
    assert not path.exists()
