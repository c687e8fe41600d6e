import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest

from physlm.experiments import execution, registry, results, run, sweep
from physlm.experiments.config import override

QUICKSTART = registry.load("quickstart")


@pytest.fixture(autouse=True)
def leave_jax_alone(monkeypatch):
    # The devices of this process were chosen when the first test touched JAX.
    monkeypatch.setattr(sweep.devices, "prepare", lambda mesh, batch, cache_dir: None)


class FakeRuns:
    """Stands in for training: counts its calls, and fails where it is told to."""

    def __init__(self, failing=(), error=None):
        self.done, self.failing = [], failing
        self.error = error or RuntimeError("out of memory\nin the fourth layer")

    def __call__(self, group, workdir):
        for planned in group:
            try:
                self.run(planned, workdir)
            except Exception as error:
                yield planned, error
            else:
                yield planned, None

    def run(self, planned, workdir):
        directory = workdir / planned.name
        directory.mkdir(exist_ok=True)
        rate = planned.condition["retry_rate"]
        if rate in self.failing:
            raise self.error
        self.done.append(rate)
        shares = {"accuracy": rate, "answer_accuracy": rate, "ci_low": 0.0, "ci_high": 1.0}
        result = {
            "study": planned.config["study"],
            "run": planned.name,
            "condition": planned.condition,
            "seed": planned.settings.seed,
            "step": 20,
            "tokens": planned.tokens,
            "cells": [{"cell": "4", "op": 4, "n": 9, **shares, "retries": 0, "unnecessary": 0}],
        }
        (directory / results.RUN_FILE).write_text(json.dumps(result))


def main(workdir, *arguments, execute=None):
    command = ["--scale", "smoke", "--workdir", str(workdir), *arguments]
    return sweep.main(command, execute or FakeRuns())


# Running.


def test_finished_runs_are_skipped_and_results_are_complete(tmp_path, capsys):
    fake = FakeRuns(failing=(0.0,))
    assert main(tmp_path, execute=fake) == 1
    assert fake.done == [0.5]
    assert [row["accuracy"] for row in results.read(tmp_path / results.FILE)] == [0.5]
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"1 of 2 runs failed \(retry_rate=0.0.*error.txt", error)
    (planned, _) = sweep.plan(QUICKSTART, "smoke", ())
    recorded = (tmp_path / planned.name / run.ERROR_FILE).read_text()
    assert "in the fourth layer" in recorded
    assert "Traceback" in recorded

    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert fake.done == [0.0]
    assert [row["accuracy"] for row in results.read(tmp_path / results.FILE)] == [0.0, 0.5]
    assert (tmp_path / "accuracy.png").exists()

    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert fake.done == []


def test_devices_are_as_many_as_can_share_every_batch(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sweep.devices, "prepare", lambda *arguments: told.append(arguments[1]))
    assert main(tmp_path / "a", "--set", "train.batch=12", "train.accumulate=2") == 0
    study = types.SimpleNamespace(**vars(QUICKSTART))
    study.sweep = lambda: [{"train.batch": 8}, {"train.batch": 12}]
    monkeypatch.setattr(sweep.registry, "load", lambda name: study)
    monkeypatch.setattr(sweep, "describe", lambda runs, workdir: "")
    assert main(tmp_path / "b", "--dry-run") == 0
    assert told == [6, 4]


def test_results_are_refreshed_after_each_run(tmp_path):
    seen = []

    class Watching(FakeRuns):
        def run(self, planned, workdir):
            seen.append(len(results.read(workdir / results.FILE)))
            super().run(planned, workdir)

    assert main(tmp_path, execute=Watching()) == 0
    assert seen == [0, 1]


def test_further_seeds_add_to_the_same_directory(tmp_path):
    assert main(tmp_path) == 0
    assert main(tmp_path, "--set", "seed=1") == 0
    rows = results.read(tmp_path / results.FILE)
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
    assert results.read(tmp_path / results.FILE) == []


def test_dry_run_tells_all_and_writes_nothing(tmp_path, capsys):
    workdir = tmp_path / "work"
    assert main(workdir, "--dry-run") == 0
    assert not workdir.exists()
    text = capsys.readouterr().out
    for planned in sweep.plan(QUICKSTART, "smoke", ()):
        assert re.search(rf"{re.escape(planned.name)} +[\d,]+ +{planned.tokens:,}  to do", text)

    main(workdir, execute=FakeRuns(failing=(0.5,)))
    before = sorted(workdir.rglob("*"))
    capsys.readouterr()
    assert main(workdir, "--dry-run") == 0
    assert "2 runs in" in (text := capsys.readouterr().out)
    assert "1 finished, 1 failed" in text
    assert sorted(workdir.rglob("*")) == before


# Populations.


def grouped(tmp_path, monkeypatch, runs, devices=1, saved=None):
    monkeypatch.setattr(
        sweep.sharding, "make_mesh", lambda mesh: types.SimpleNamespace(size=devices)
    )
    steps = {} if saved is None else dict(zip((run.name for run in runs), saved, strict=True))
    monkeypatch.setattr(run, "saved_steps", lambda one, workdir: steps.get(one.name, set()))
    found = sweep.groups(runs, tmp_path)
    assert sorted(one.name for group in found for one in group) == sorted(one.name for one in runs)
    place = {one.name: number for number, one in enumerate(runs)}
    return [[place[one.name] for one in group] for group in found]


def runs_of(*changes, **shared):
    config = registry.configure(QUICKSTART, "smoke")
    return [
        run.make_run(override(config, {**shared, **change}), varied=change) for change in changes
    ]


def test_runs_of_one_shape_are_one_program(tmp_path, monkeypatch):
    runs = runs_of(
        {"mistakes.rate": 0.0},
        {"mistakes.rate": 0.5, "mistakes.mask": "name", "seed": 1},
        {"optimizer.learning_rate": 1e-3},
        {"model.layers": 1},
        {"train.steps": 10},
        {"mistakes.kind": "value:0.5,skip:0.5", "mistakes.rate": 0.1, "mistakes.mend": "restart"},
        {"model.layers": 1, "seed": 3},
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
    monkeypatch.setattr(sweep.jax, "default_backend", lambda: "gpu")
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
    monkeypatch.setattr(sweep.os, "access", lambda path, mode: False)
    assert main(tmp_path / "work") == 2
    assert "is not writable" in capsys.readouterr().err


def test_workdir_that_cannot_be_made_is_refused(tmp_path, capsys, monkeypatch):
    def refuse(self, *arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    assert main(tmp_path / "work") == 2
    assert "is not writable: Read-only file system" in capsys.readouterr().err


def test_workdir_of_another_study_is_refused_untouched(tmp_path, capsys):
    main(tmp_path)
    path = tmp_path / results.FILE
    path.write_text(path.read_text().replace('"quickstart"', '"masking"'))
    before = path.read_text()
    capsys.readouterr()
    assert main(tmp_path) == 2
    assert "results of the study 'masking', not of 'quickstart'" in capsys.readouterr().err
    assert path.read_text() == before


def test_checkpoints_of_other_settings_are_refused_untouched(tmp_path, capsys):
    (planned, _) = sweep.plan(QUICKSTART, "smoke", ())
    checkpoints = tmp_path / planned.name / "checkpoints"
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


def test_second_sweep_at_once_is_refused(tmp_path, capsys):
    with sweep._locked(tmp_path):
        assert main(tmp_path) == 2
    assert "another sweep is at work" in capsys.readouterr().err
    assert main(tmp_path) == 0


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
    rows = results.read(undisturbed / results.FILE)
    assert {row["step"] for row in rows} == {20}

    (_, second) = sweep.plan(QUICKSTART, "smoke", FEWER_CELLS)
    process = start_sweep(killed)
    # Both runs are one program, and some way past their first checkpoint.
    wait_for(killed / second.name / "checkpoints" / "10", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start_sweep(killed)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "goes on" in err
    assert (killed / results.FILE).read_bytes() == (undisturbed / results.FILE).read_bytes()
    versions = json.loads((killed / second.name / execution.VERSIONS_FILE).read_text())
    assert versions["physlm"] is None or re.match(r"\d", versions["physlm"])
