"""TensorBoard and Weights & Biases show what metrics.jsonl says, and no step twice."""

import contextlib
import importlib
import json
import pathlib
import struct
import sys
import types

import numpy as np
import pytest
from fake_runs import STUDY, FakeRuns, main
from recorded import recorded

from physlm.experiments import execution, logs, plan
from physlm.experiments.store import Store

pytestmark = pytest.mark.usefixtures("devices_stay")


def a_run():
    return plan.plan(STUDY, "smoke")[0].run


# TensorBoard, as it reads the files.


def points(directory):
    """The scalars by name: step and value of each point that TensorBoard shows."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(directory), {"scalars": 0})
    found.Reload()
    return {
        name: [(event.step, event.value) for event in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def as_points(lines):
    names = {name for line in lines for name in line} - {"step"}
    return {
        name: [(line["step"], np.float32(line[name])) for line in lines if name in line]
        for name in names
    }


def test_tensorboard_shows_the_metrics_of_a_run_that_was_stopped(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    made = logs.of_run(a_run(), tmp_path, ["tensorboard"])
    with pytest.raises(RuntimeError, match="killed"):
        recorded(tmp_path, monkeypatch, 0, 8, logs=made, fails=True)
    assert [step for step, _ in points(tmp_path / "tensorboard")["loss"]] == [2, 4, 6, 8]
    # The checkpoint is that of step 4.
    lines = recorded(tmp_path, monkeypatch, 4, 10, logs=made)
    shown = points(tmp_path / "tensorboard")
    assert shown == as_points(lines)
    assert [step for step, _ in shown["loss"]] == [2, 4, 6, 8, 10]


def test_tensorboard_is_told_what_was_done_before_it_was_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    recorded(tmp_path, monkeypatch, 0, 6)
    lines = recorded(
        tmp_path, monkeypatch, 6, 8, logs=logs.of_run(a_run(), tmp_path, ["tensorboard"])
    )
    assert points(tmp_path / "tensorboard") == as_points(lines)


@pytest.mark.slow
def test_runs_of_one_program_have_each_their_own(tmp_path):
    pytest.importorskip("tensorboardX")
    entries = plan.plan(STUDY, "smoke", ["train.steps=10"])
    tasks = [execution.Task(entry.run, ()) for entry in entries]
    outcomes = list(execution.execute(tasks, Store(tmp_path), log=["tensorboard"]))
    assert [error for _, error in outcomes] == [None, None]
    shown = []
    for task in tasks:
        directory = Store(tmp_path).of_run(task.run.name)
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").open()]
        shown.append(points(directory / "tensorboard"))
        assert shown[-1] == as_points(lines)
    assert {"loss", "tokens_per_s", "seconds"} <= set(shown[0])
    assert shown[0]["loss"] != shown[1]["loss"]


def test_a_sweep_says_where_metrics_go(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    monkeypatch.setitem(sys.modules, "tensorboardX", types.ModuleType("tensorboardX"))
    told, fake = [], FakeRuns()

    def execute(group, store, log=()):
        told.append(log)
        return fake(group, store)

    assert main(tmp_path, "--log", "wandb", "tensorboard", execute=execute) == 0
    assert told == [["wandb", "tensorboard"]]


# W&B, as far as nobody has to be asked.


class FakeWandb(types.ModuleType):
    """Keeps runs by their ids, as a server does; or writes here, where it is offline."""

    class errors:
        class UsageError(Exception):
            pass

    def __init__(self, mode="online", known=True):
        super().__init__("wandb")
        self.mode, self.known, self.runs, self.asked = mode, known, {}, []

    def setup(self):
        return types.SimpleNamespace(settings=types.SimpleNamespace(mode=self.mode))

    def login(self):
        if not self.known:
            raise self.errors.UsageError("No API key configured.")

    @contextlib.contextmanager
    def init(self, **asked):
        self.asked.append(asked)
        if self.mode == "offline":
            kept = pathlib.Path(asked["dir"]) / "wandb" / f"offline-run-{len(self.asked)}"
            kept = kept.with_name(f"{kept.name}-{asked['id']}")
            kept.mkdir(parents=True)
            points = self.runs[kept] = []
        else:
            points = self.runs.setdefault(asked["id"], [])
        first = points[-1]["step"] + 1 if points else 0

        def log(values, step):
            points.append({"step": step, **values})

        yield types.SimpleNamespace(starting_step=first, log=log)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_wandb_is_told_no_step_twice(tmp_path, monkeypatch, mode):
    fake, run = FakeWandb(mode), a_run()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    logs.check(["wandb"])
    made = logs.of_run(run, tmp_path, ["wandb"])
    with pytest.raises(RuntimeError, match="killed"):
        recorded(tmp_path, monkeypatch, 0, 8, logs=made, fails=True)
    lines = recorded(tmp_path, monkeypatch, 4, 10, logs=made)
    found = [points for kept, points in fake.runs.items() if not isinstance(kept, pathlib.Path)]
    found += [
        points
        for kept, points in fake.runs.items()
        if isinstance(kept, pathlib.Path) and kept.exists()
    ]
    assert len(found) == 1 and [point["step"] for point in found[0]] == [2, 4, 6, 8, 10]
    same = [[line["step"], line["loss"]] for line in lines]
    assert [[point["step"], point["loss"]] for point in found[0]] == same
    assert {asked["id"] for asked in fake.asked} == {run.name[-8:]}
    assert fake.asked[0]["config"] == run.config and fake.asked[0]["project"] == "physlm"


def test_wandb_shows_a_run_in_the_user_s_project(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", fake := FakeWandb())
    monkeypatch.setenv("WANDB_PROJECT", "mistakes")
    recorded(tmp_path, monkeypatch, 0, 2, logs=logs.of_run(a_run(), tmp_path, ["wandb"]))
    assert fake.asked[0]["project"] == "mistakes"


def kept_by_wandb(path):
    """The history in a file of W&B: blocks of 32 KiB with records of checksum, size and kind."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data, place, found, part = path.read_bytes(), 7, [], b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        part += data[place + 7 : place + 7 + size]
        place += 7 + size
        # A whole record, or the last part of one.
        if kind in (1, 4):
            record = messages.Record()
            record.ParseFromString(part)
            part = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                found.append({(i.key or i.nested_key[0]): json.loads(i.value_json) for i in items})
    return found


def test_wandb_itself_keeps_a_run_that_was_stopped_whole(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    logs.check(["wandb"])
    made = logs.of_run(a_run(), tmp_path, ["wandb"])
    with pytest.raises(RuntimeError, match="killed"):
        recorded(tmp_path, monkeypatch, 0, 8, logs=made, fails=True)
    lines = recorded(tmp_path, monkeypatch, 4, 10, logs=made)
    (path,) = tmp_path.rglob("*.wandb")
    found = kept_by_wandb(path)
    assert [point["_step"] for point in found] == [2, 4, 6, 8, 10]
    for point, line in zip(found, lines, strict=True):
        del line["step"]
        assert line.items() <= point.items()


# What is missing.


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_one_sentence_before_anything_starts(
    tmp_path, capsys, monkeypatch, name, package
):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(tmp_path / "work", "--log", name) == 2
    error = capsys.readouterr().err
    assert error == (
        f"--log {name} needs {package}, which is not installed: pip install 'physlm[{name}]'.\n"
    )
    assert not (tmp_path / "work").exists()


def test_nobody_to_write_as_is_one_sentence_before_anything_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(known=False))
    assert main(tmp_path / "work", "--log", "wandb") == 2
    error = capsys.readouterr().err
    assert error.startswith("--log wandb: No API key configured. Or keep ")
    assert error.count("\n") == 1 and not (tmp_path / "work").exists()


def test_another_place_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(tmp_path, "--log", "elsewhere")
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert "elsewhere" in error and "tensorboard" in error and error.count("\n") == 1
