import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from contextlib import ExitStack

import pytest

from physlm.experiments import (
    evaluation,
    execution,
    files,
    plan,
    registry,
    results,
    run,
    store,
    sweep,
    versions,
)
from physlm.experiments.config import override
from physlm.experiments.store import Store

QUICKSTART = registry.load("quickstart")
VIEW = "quickstart-smoke"


@pytest.fixture(autouse=True)
def leave_jax_alone(monkeypatch):
    # The devices of this process were chosen when the first test touched JAX.
    monkeypatch.setattr(sweep.devices, "prepare", lambda mesh, batch, cache_dir: None)


class FakeRuns:
    """Stands in for training and judging: counts both, and fails to train where it is told to."""

    def __init__(self, failing=(), error=None):
        self.trained, self.judged, self.failing = [], [], failing
        self.error = error or RuntimeError("out of memory\nin the fourth layer")

    def __call__(self, group, store):
        for task in group:
            directory = store.of_run(task.run.name)
            try:
                self.train(task.run, directory)
            except Exception as error:
                execution.record_failure(directory, error)
                yield task.run, error
                continue
            for one in task.evaluations:
                self.judge(task.run, one, directory)
            yield task.run, None

    def train(self, planned, directory):
        if run.status(directory) == "finished":
            return
        directory.mkdir(exist_ok=True)
        if (rate := planned.settings.mistakes.rate) in self.failing:
            raise self.error
        self.trained.append(rate)
        files.write_json(directory / run.CONFIG_FILE, planned.config)
        run.finish(directory, planned.settings.train.steps, 1.0)

    def judge(self, planned, one, directory):
        path = evaluation.result_of(directory, one.config)
        if path.exists():
            return
        rate, step = planned.settings.mistakes.rate, planned.settings.train.steps
        self.judged.append((rate, one.settings.problems))
        shares = {"accuracy": rate, "answer_accuracy": rate, "ci_low": 0.0, "ci_high": 1.0}
        cell = {"cell": "4", "op": 4, "n": 9, **shares, "retries": 0, "unnecessary": 0}
        result = {
            "run": planned.name,
            "evaluation": path.parent.name,
            "seed": planned.settings.seed,
            "step": step,
            "tokens": planned.tokens,
            "cells": [cell],
        }
        path.parent.mkdir(parents=True)
        files.write_json(path.parent / run.CONFIG_FILE, {"step": step, **one.config})
        files.write_json(path, result)


def main(workdir, *arguments, execute=None):
    command = ["--scale", "smoke", "--workdir", str(workdir), *arguments]
    return sweep.main(command, execute or FakeRuns())


def rows_in(workdir, study=VIEW):
    return results.read(workdir / study / results.FILE)


def times(directory):
    return {path: path.stat().st_mtime_ns for path in [directory, *directory.rglob("*")]}


# Running.


def test_finished_runs_are_skipped_and_results_are_complete(tmp_path, capsys):
    fake = FakeRuns(failing=(0.0,))
    assert main(tmp_path, execute=fake) == 1
    assert fake.trained == [0.5]
    assert [row["accuracy"] for row in rows_in(tmp_path)] == [0.5]
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"1 of 2 runs failed \(error-free,gpt2.*error.txt", error)
    (planned, _) = plan.plan(QUICKSTART, "smoke", ())
    recorded = (tmp_path / "models" / planned.run.name / run.ERROR_FILE).read_text()
    assert "in the fourth layer" in recorded
    assert "Traceback" in recorded

    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert fake.trained == [0.0]
    assert not (tmp_path / "models" / planned.run.name / run.ERROR_FILE).exists()
    assert [row["accuracy"] for row in rows_in(tmp_path)] == [0.0, 0.5]
    assert (tmp_path / VIEW / "accuracy.png").exists()

    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert fake.trained == fake.judged == []


def test_devices_are_as_many_as_can_share_every_batch(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sweep.devices, "prepare", lambda *arguments: told.append(arguments[1]))
    assert main(tmp_path / "a", "--set", "train.batch=12", "train.accumulate=2") == 0
    study = types.SimpleNamespace(**vars(QUICKSTART))
    study.sweep = lambda: [{"train.batch": 8}, {"train.batch": 12}]
    monkeypatch.setattr(sweep.registry, "load", lambda name: study)
    monkeypatch.setattr(sweep, "describe", lambda entries, store: "")
    assert main(tmp_path / "b", "--dry-run") == 0
    assert told == [6, 4]


def test_results_are_refreshed_after_each_run(tmp_path):
    seen = []

    class Watching(FakeRuns):
        def train(self, planned, directory):
            seen.append(len(rows_in(tmp_path)))
            super().train(planned, directory)

    assert main(tmp_path, execute=Watching()) == 0
    assert seen == [0, 1]


def test_further_seeds_add_to_the_same_directory(tmp_path):
    assert main(tmp_path) == 0
    assert main(tmp_path, "--set", "seed=1") == 0
    rows = rows_in(tmp_path)
    assert [(row["condition"]["retry_rate"], row["seed"]) for row in rows] == [
        (0.0, 0),
        (0.0, 1),
        (0.5, 0),
        (0.5, 1),
    ]


def test_interrupt_says_how_to_go_on(tmp_path, capsys):
    assert main(tmp_path, execute=FakeRuns((0.5,), KeyboardInterrupt())) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main(tmp_path) == 0


def test_all_runs_failing_is_not_a_crash(tmp_path, capsys):
    assert main(tmp_path, execute=FakeRuns((0.0, 0.5))) == 1
    assert "2 of 2 runs failed" in capsys.readouterr().err
    assert rows_in(tmp_path) == []


def test_dry_run_tells_all_and_writes_nothing(tmp_path, capsys):
    workdir = tmp_path / "work"
    assert main(workdir, "--dry-run") == 0
    assert not workdir.exists()
    text = capsys.readouterr().out
    for entry in plan.plan(QUICKSTART, "smoke", ()):
        name, tokens = re.escape(entry.run.name), entry.run.tokens
        assert re.search(rf"{name} +[\d,]+ +{tokens:,}  to do +to do", text)

    main(workdir, execute=FakeRuns(failing=(0.5,)))
    before = times(workdir)
    capsys.readouterr()
    assert main(workdir, "--dry-run", "--set", "evaluate.problems=17") == 0
    text = capsys.readouterr().out
    assert f"2 runs in {workdir}/models: 1 finished, 1 failed; 2 evaluations: 2 to do." in text
    assert main(workdir, "--dry-run") == 0
    assert "2 evaluations: 1 finished, 1 to do." in capsys.readouterr().out
    assert times(workdir) == before


# What is trained once.


@pytest.fixture
def other_study(tmp_path, monkeypatch):
    """A study of the user's own, that has the runs of the quickstart and one more."""
    package = tmp_path / "package" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "masking.py").write_text(
        '''"""What does masking change?"""
from physlm.experiments import config

get_config = config.base

def sweep():
    yield {"mistakes.rate": 0.0}
    yield {"mistakes.rate": 0.5, "mistakes.mask": "none"}
    yield {"mistakes.rate": 0.5, "mistakes.mask": "name"}
'''
    )
    monkeypatch.syspath_prepend(str(package.parent))
    return "mine.masking"


def test_another_study_and_other_judging_train_nothing_again(tmp_path, other_study):
    assert main(tmp_path) == 0
    models = tmp_path / "models"
    before = times(models)
    fake = FakeRuns()
    assert main(tmp_path, other_study, execute=fake) == 0
    assert (fake.trained, fake.judged) == ([0.5], [(0.5, 16)])
    (new,) = set(models.iterdir()) - set(before)
    assert {
        p: t for p, t in times(models).items() if p != models and new not in (p, *p.parents)
    } == {path: time for path, time in before.items() if path != models}
    rows = rows_in(tmp_path, "mine.masking-smoke")
    assert [(row["condition"], row["study"]) for row in rows] == [
        ({"retry_rate": 0.5, "mask": "name"}, "mine.masking"),
        ({"retry_rate": 0.5, "mask": "none"}, "mine.masking"),
        ({"retry_rate": 0.0}, "mine.masking"),
    ]
    assert len(rows_in(tmp_path)) == 2

    # Another number of problems is another evaluation; nothing else in the models is touched.
    before = times(models)
    fake = FakeRuns()
    assert main(tmp_path, "--set", "evaluate.problems=17", execute=fake) == 0
    assert (fake.trained, fake.judged) == ([], [(0.0, 17), (0.5, 17)])
    touched = {path for path, time in times(models).items() if before.get(path) != time}
    assert touched and all("evaluations" in path.parts for path in touched)
    rows = rows_in(tmp_path)
    assert [row["condition"].get("problems") for row in rows] == [17, 17, None, None]
    assert len({(row["run"], row["evaluation"]) for row in rows}) == 4
    # What the other study shows is its own.
    assert main(tmp_path, other_study) == 0
    assert len(rows_in(tmp_path, "mine.masking-smoke")) == 3


def test_what_is_trained_and_not_judged_is_judged(tmp_path, capsys):
    assert main(tmp_path) == 0
    (planned, _) = plan.plan(QUICKSTART, "smoke", ())
    directory = tmp_path / "models" / planned.run.name
    shutil.rmtree(directory / "evaluations")
    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert (fake.trained, fake.judged) == ([], [(0.0, 16)])
    assert f"run 1/2 {planned.run.name}: trained before, is judged" in capsys.readouterr().err


# Populations.


def grouped(tmp_path, monkeypatch, runs, devices=1, saved=None):
    monkeypatch.setattr(
        plan.sharding, "make_mesh", lambda mesh: types.SimpleNamespace(size=devices)
    )
    steps = {} if saved is None else dict(zip((run.name for run in runs), saved, strict=True))
    monkeypatch.setattr(run, "saved_steps", lambda directory: steps.get(directory.name, set()))
    found = plan.groups([execution.Task(one, ()) for one in runs], Store(tmp_path))
    names = [[task.run.name for task in group] for group in found]
    assert sorted(name for group in names for name in group) == sorted(one.name for one in runs)
    place = {one.name: number for number, one in enumerate(runs)}
    return [[place[name] for name in group] for group in names]


def runs_of(*changes, **shared):
    config = registry.configure(QUICKSTART, "smoke")
    return [run.make_run(override(config, {**shared, **change})) for change in changes]


def test_runs_of_one_shape_are_one_program(tmp_path, monkeypatch):
    runs = runs_of(
        {"mistakes.rate": 0.0},
        {"mistakes.rate": 0.5, "mistakes.mask": "name", "seed": 1},
        {"optimizer.learning_rate": 1e-3},
        {"model.layers": 1},
        {"train.steps": 10},
        {"mistakes.kind": "value:0.5,skip:0.5", "mistakes.rate": 0.1, "mistakes.mend": "restart"},
        {"model.layers": 1, "seed": 3, "evaluate.problems": 5},
    )
    assert grouped(tmp_path, monkeypatch, runs) == [[0, 1, 2, 5], [3, 6], [4]]


def test_populations_fill_the_devices_and_leave_what_is_over_alone(tmp_path, monkeypatch):
    runs = runs_of(*({"seed": n} for n in range(7)), **{"mesh.population": 5})
    assert grouped(tmp_path, monkeypatch, runs) == [[0, 1, 2, 3, 4], [5, 6]]
    assert grouped(tmp_path, monkeypatch, runs, 2) == [[0, 1, 2, 3], [4, 5], [6]]
    assert grouped(tmp_path, monkeypatch, runs, 8) == [[n] for n in range(7)]
    alone = runs_of(*({"seed": n} for n in range(3)), **{"mesh.population": 1})
    assert grouped(tmp_path, monkeypatch, alone) == [[0], [1], [2]]


def test_small_models_fill_an_accelerator_together(tmp_path, monkeypatch):
    seeds = [{"seed": n} for n in range(9)]
    small = runs_of(*seeds, **{"mesh.population": 0})
    assert grouped(tmp_path, monkeypatch, small) == [[n] for n in range(9)]
    monkeypatch.setattr(plan.jax, "default_backend", lambda: "gpu")
    assert grouped(tmp_path, monkeypatch, small) == [list(range(8)), [8]]
    # 12-12 at a batch of the paper's fills it alone.
    paper = {"model.size": "12-12", "train.batch": 512, "mesh.population": 0}
    large = runs_of(*seeds[:2], **paper)
    assert grouped(tmp_path, monkeypatch, large) == [[0], [1]]


def test_runs_that_take_other_steps_are_alone(tmp_path, monkeypatch):
    rates = ({"mistakes.rate": 0.2, "seed": n} for n in range(2))
    runs = runs_of({}, *rates, {"seed": 1}, **{"train.budget": "problems"})
    assert grouped(tmp_path, monkeypatch, runs) == [[0, 3], [1], [2]]


def test_what_was_begun_is_not_put_with_what_was_not(tmp_path, monkeypatch):
    runs = runs_of(*({"seed": n} for n in range(5)))
    saved = [{5, 10}, set(), {10, 15}, {15, 20}, set()]
    assert grouped(tmp_path, monkeypatch, runs, saved=saved) == [[0, 2], [1, 4], [3]]
    # What is finished is no longer trained with others.
    saved = [set(), set(), {20}, {20}, set()]
    for one in runs[2:4]:
        (tmp_path / "models" / one.name).mkdir(parents=True)
        run.finish(tmp_path / "models" / one.name, 20, 1.0)
    assert grouped(tmp_path, monkeypatch, runs, saved=saved) == [[0, 1, 4], [2], [3]]


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nothing"], "unknown study 'nothing': there are .*quickstart"),
        (["--scale", "huge"], "unknown scale 'huge': there are smoke, quick, mini, paper"),
        (["--set", "train.step=5"], "unknown setting 'train.step'"),
        (
            ["--set", "train.steps=many"],
            "^train.steps is 'many'; it must be a whole number, at least 1",
        ),
        (["--set", "train.steps=0"], "train.steps is 0"),
        (["--set", "train.steps=3"], "optimizer.warmup_steps is 4"),
        (["--set", "data.modulus=1"], "^data.modulus is 1; "),
        (["--set", "data.max_edges=1"], "^data.max_edges is 1; "),
        (["--set", "data.max_op=50", "data.letters=52"], "^data.max_op is 50; it must be at most "),
        (["--set", "mistakes.rate=1.5"], "rate"),
        (
            ["--set", "evaluate.beyond=2"],
            r"^evaluate.beyond is \(2,\); it must be whole numbers above data.max_op, 3",
        ),
        (["--set", "evaluate.beyond=50"], "evaluate.beyond has 50: "),
        (["--set", "seed=-1"], "seed is -1"),
        (["--set", "train.window=8"], "^train.window is 8; it must be at least .*: the shortest"),
        (["--set", "mesh.data=1000"], "it must be at most the number of devices"),
        (["--colour"], "unrecognized arguments"),
        (["nopackage.nothing"], "the module nopackage.nothing cannot be imported: No module named"),
        (["physlm.metrics"], "the study 'physlm.metrics' lacks the function get_config"),
        (["../quickstart"], "the study is '../quickstart'; it must be one of quickstart, or the"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, capsys, arguments, complaint):
    workdir = tmp_path / "work"
    try:
        code = main(workdir, *arguments)
    except SystemExit as leaving:
        code = leaving.code
    assert code == 2
    sentence = capsys.readouterr().err
    assert re.search(complaint, sentence)
    assert sentence.count("\n") == 1
    assert not workdir.exists()


def test_workdir_that_is_or_lies_in_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(workdir) == 2
        assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_workdir_without_permission_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(store.os, "access", lambda path, mode: False)
    assert main(tmp_path / "work") == 2
    assert "is not writable" in capsys.readouterr().err


def test_workdir_that_cannot_be_made_is_refused(tmp_path, capsys, monkeypatch):
    def refuse(self, *arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    assert main(tmp_path / "work") == 2
    assert "is not writable: Read-only file system" in capsys.readouterr().err


def test_results_of_another_study_are_refused_untouched(tmp_path, capsys):
    main(tmp_path)
    path = tmp_path / VIEW / results.FILE
    path.write_text(path.read_text().replace('"quickstart"', '"masking"'))
    before = path.read_text()
    capsys.readouterr()
    assert main(tmp_path) == 2
    assert "results of the study 'masking', not of 'quickstart'" in capsys.readouterr().err
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("left", "complaint"),
    [
        (
            f"{VIEW}/retry_rate=0.0,seed=0-0123abcd/config.json",
            f"{VIEW} holds a run itself, retry_",
        ),
        (f"{VIEW}/retry_rate=0.0,seed=0-0123abcd/checkpoints/5/x", "choose another --workdir."),
        ("retry_rate=0.0,seed=0-0123abcd/config.json", "holds a run itself, retry_rate=0.0,seed=0"),
        ("results.jsonl", "is what a study shows and not a store"),
    ],
)
def test_what_an_older_version_left_is_refused_untouched(tmp_path, capsys, left, complaint):
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("")
    before = times(tmp_path)
    assert main(tmp_path) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert times(tmp_path) == before


@pytest.mark.parametrize("name", ["shown.json", "finished.json", "result.json"])
@pytest.mark.parametrize("text", ["{", "[3]", "{}"])
def test_damaged_files_are_refused_untouched(tmp_path, capsys, name, text):
    main(tmp_path)
    path = min(tmp_path.rglob(name))
    path.write_text(text)
    before = times(tmp_path)
    capsys.readouterr()
    assert main(tmp_path) == 2
    error = capsys.readouterr().err
    assert str(path) in error and error.count("\n") == 1
    assert times(tmp_path) == before


def test_checkpoints_of_other_settings_are_refused_untouched(tmp_path, capsys):
    (planned, _) = plan.plan(QUICKSTART, "smoke", ())
    checkpoints = tmp_path / "models" / planned.run.name / "checkpoints"
    (checkpoints / "10" / "state").mkdir(parents=True)
    said = checkpoints / "made_by.json"
    said.write_text(json.dumps({"model.layers": 3, "data.max_op": 7, "model.heads": 2}))
    before = sorted(tmp_path.rglob("*"))
    assert main(tmp_path) == 2
    error = capsys.readouterr().err
    assert "differs in model.layers (there 3, here 2), data.max_op (there 7, here 3)." in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    # Without checkpoints there is nothing to go on from.
    shutil.rmtree(checkpoints / "10")
    assert main(tmp_path) == 0


# Two at once.


def test_second_sweep_of_a_study_at_once_is_refused(tmp_path, capsys):
    with files.locked(tmp_path / VIEW):
        assert main(tmp_path) == 2
    error = capsys.readouterr().err
    assert error == f"another process is at work in {tmp_path}/{VIEW}: wait for it.\n"
    assert main(tmp_path) == 0


def test_a_run_that_another_process_trains_is_waited_for(tmp_path, capsys, monkeypatch):
    (_, second) = plan.plan(QUICKSTART, "smoke", ())
    other, waits, say = FakeRuns(), threading.Event(), sweep.say

    def hear(text):
        say(text)
        if "waits for it" in text:
            waits.set()

    monkeypatch.setattr(sweep, "say", hear)
    (tmp_path / "models").mkdir()
    with ExitStack() as stack:
        stack.enter_context(files.locked(tmp_path / "models" / second.run.name))

        def finish():
            waits.wait(60)
            directory = tmp_path / "models" / second.run.name
            other.train(second.run, directory)
            other.judge(second.run, second.evaluation, directory)
            stack.close()

        thread = threading.Thread(target=finish)
        thread.start()
        fake = FakeRuns()
        assert main(tmp_path, "--set", "mesh.population=1", execute=fake) == 0
        thread.join()
    assert (fake.trained, other.trained) == ([0.0], [0.5])
    said = capsys.readouterr().err
    assert f"run 2/2 {second.run.name}: another process trains it: waits for it\n" in said
    assert f"run 2/2 {second.run.name}: finished before, skipped" in said
    assert len(rows_in(tmp_path)) == 2
    assert not list(tmp_path.rglob("*.lock"))


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    """Also where the file of the lock is removed by whoever held it before."""
    inside, most = [0], []

    def work():
        for _ in range(50):
            with files.locked(tmp_path / "x", lambda: None):
                inside[0] += 1
                most.append(inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200


# The real thing.


FEWER_CELLS = ("evaluate.beyond=4",)


def start_sweep(workdir):
    command = [sys.executable, "-m", "physlm.experiments.sweep", "--scale", "smoke"]
    command += ["--workdir", str(workdir), "--set", *FEWER_CELLS]
    # All sweeps of the test share their compiled programs, which take most of its time.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = cache | os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(path, process, seconds=120.0):
    limit = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.slow
def test_killed_sweep_ends_where_the_undisturbed_one_ends(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    process = start_sweep(undisturbed)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Strict accuracy" in out
    rows = rows_in(undisturbed)
    assert {row["step"] for row in rows} == {20}

    (_, second) = plan.plan(QUICKSTART, "smoke", FEWER_CELLS)
    directory = killed / "models" / second.run.name
    process = start_sweep(killed)
    # Both runs are one program, and some way past their first checkpoint.
    wait_for(directory / "checkpoints" / "10", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start_sweep(killed)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "goes on" in err
    file = pathlib.Path(VIEW) / results.FILE
    assert (killed / file).read_bytes() == (undisturbed / file).read_bytes()
    recorded = json.loads((directory / versions.FILE).read_text())
    assert recorded["physlm"] is None or re.match(r"\d", recorded["physlm"])
