import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import types

import pytest
from etils import epath
from fake_runs import VIEW, main, rows_in

from physlm.experiments import cluster, execution, plan, queue, registry, results, run, store, sweep
from physlm.journal import METRICS_FILE
from physlm.metrics import read_lines

TESTS = pathlib.Path(__file__).parent
# Long enough to be in the middle of when something happens.
LONG = ["--set", "mesh.population=1", "mesh.cpu_devices=1", "train.steps=200"]
SECONDS = 600


@pytest.fixture(autouse=True)
def devices_are_left(devices_stay, monkeypatch):
    """Devices of this process are not for a cluster to decide."""
    monkeypatch.setattr(sweep.devices, "leave", lambda: None)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--executor", "slurm"], r"--executor: invalid choice: 'slurm' \(choose from '?ray'?\)"),
        (["--address", "auto"], "^--address is for --executor ray."),
        (["--resources", "GPU=1"], "^--resources is for --executor ray."),
        (["--executor", "ray", "--distributed"], "^--executor ray is given with --distributed, "),
        (["--executor", "ray", "--profile"], "^--executor ray is given with --profile, "),
        (["--executor", "ray", "--dry-run"], "^--executor ray is given with --dry-run, "),
        (["--executor", "ray", "--resources", "GPU"], "^--resources is 'GPU'; it must be NAME="),
        (["--executor", "ray", "--resources", "CPU=0"], "^--resources is 'CPU=0'; it must be a"),
        (["--executor", "ray", "--resources", "TPU=1.5"], "^--resources is 'TPU=1.5'; it must be"),
        (["--executor", "ray", "--address", "here"], "^--address is 'here'; it must be auto or"),
        (["--executor", "ray", "--address", "h:1", "--set", "train.steps=0"], "train.steps is 0"),
    ],
)
def test_what_goes_with_no_cluster_is_one_sentence(tmp_path, capsys, arguments, complaint):
    pytest.importorskip("ray")
    refused(tmp_path, capsys, complaint, *arguments)


def test_an_address_that_does_not_answer_is_one_sentence(tmp_path, capsys):
    pytest.importorskip("ray")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        complaint = f"^--address {address} does not answer: "
        refused(tmp_path, capsys, complaint, "--executor", "ray", "--address", address)


def test_without_ray_its_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(tmp_path, capsys, r"pip install 'physlm\[ray\]'", "--executor", "ray")


def refused(tmp_path, capsys, complaint, *arguments):
    try:
        code = main(tmp_path / "work", *arguments)
    except SystemExit as leaving:
        code = leaving.code
    sentence = capsys.readouterr().err
    assert code == 2 and re.search(complaint, sentence) and sentence.count("\n") == 1
    assert not (tmp_path / "work").exists()


class OnPaper:
    """Stands in for Ray: each task tells what `events` says of its runs, the last task first."""

    exceptions = types.SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, events):
        self.events, self.log, self.ended = events, [], False

    def init(self, **settings):
        self.log.append(settings["address"])

    def cluster_resources(self):
        return {"CPU": 8.0, "TPU": 4.0}

    def nodes(self):
        return [{"Alive": True, "Resources": self.cluster_resources()}]

    def remote(self, **options):
        self.options = options
        return lambda work: types.SimpleNamespace(remote=self.begin)

    def begin(self, group, *rest):
        names = [task.run.name for task in group]
        self.log.append(names)
        return iter(self.events(names))

    def wait(self, told, timeout):
        return told[-1:], told[:-1]

    def get(self, event):
        if isinstance(event, Exception):
            raise event
        return event

    def cancel(self, told):
        self.log.append("cancelled")

    def shutdown(self):
        self.ended = True


@pytest.fixture
def family(tmp_path):
    """A store, and tasks of a run, of its child and of another run."""
    parent, other = (entry.run for entry in plan.plan(registry.load("studies.rates"), "smoke"))
    parent, other = (
        run.dataclasses.replace(one, name=name)
        for one, name in ((parent, "parent"), (other, "other"))
    )
    child = run.dataclasses.replace(other, name="child", parent=parent)
    (tmp_path / "models").mkdir()
    tasks = [execution.Task(one, ()) for one in (parent, child, other)]
    return store.Store(epath.Path(tmp_path)), tasks


def told(monkeypatch, family, events, groups=((0,), (1,), (2,))):
    """What is begun and what ends, in order, and the stand-in."""
    ray = OnPaper(events)
    monkeypatch.setitem(sys.modules, "ray", ray)
    store, tasks = family
    with cluster.Cluster("", {}) as there:
        for event in there.work([[tasks[n] for n in group] for group in groups], store, None):
            ray.log.append(event)
    assert ray.ended
    return ray.log[1:], ray


def test_a_child_is_a_task_once_its_parent_has_ended(monkeypatch, family):
    log, ray = told(monkeypatch, family, lambda names: [queue.Ended(name) for name in names])
    assert log == [
        ["parent"],
        ["other"],
        queue.Ended("other"),
        queue.Ended("parent"),
        ["child"],
        queue.Ended("child"),
    ]
    takes = {name: ray.options[name] for name in ("num_cpus", "num_gpus", "resources")}
    assert takes == {"num_cpus": 1.0, "num_gpus": 0, "resources": {"TPU": 1.0}}
    assert ray.options["max_retries"] == cluster.RETRIES


def test_what_a_stopped_or_overtaken_worker_leaves_is_a_task_again(monkeypatch, family):
    lost = queue.Ended("other", "another worker has taken over", lost=True)
    parts = iter([[queue.Ended("parent"), lost], [queue.Ended("other")]])
    log, _ = told(monkeypatch, family, lambda names: next(parts), groups=((0, 2),))
    assert log == [
        ["parent", "other"],
        queue.Ended("parent"),
        lost,
        ["other"],
        queue.Ended("other"),
    ]


def test_a_task_that_cannot_be_had_fails_and_leaves_the_others(monkeypatch, family):
    gone = OnPaper.exceptions.RayError("the node is gone")

    def events(names):
        return [gone] if names == ["parent"] else [queue.Ended(name) for name in names]

    log, _ = told(monkeypatch, family, events)
    assert queue.Ended("parent", "RayError: the node is gone") in log
    assert log[-2:] == [["child"], queue.Ended("child")]
    (store, _) = family
    assert "the node is gone" in (store.of_run("parent") / run.ERROR_FILE).read_text()


def test_what_fails_here_cancels_what_is_under_way(monkeypatch, family):
    ray = OnPaper(lambda names: [queue.Ended(name) for name in names])
    monkeypatch.setitem(sys.modules, "ray", ray)
    store, tasks = family
    with pytest.raises(OSError), cluster.Cluster("auto", {}) as there:
        for _ in there.work([[task] for task in tasks], store, None):
            raise OSError("the disk is full")
    assert ray.log == ["auto", ["parent"], ["other"], "cancelled", "cancelled"] and ray.ended


@pytest.fixture
def on_path(monkeypatch):
    """Workers find what tests consist of, as does the process that is called."""
    pytest.importorskip("ray")
    found = [str(TESTS.parent), str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(found))


@pytest.fixture
def nodes(on_path):
    """Two nodes of one core each: the cluster, and the second node."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=small)
    try:
        yield cluster, cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    finally:
        cluster.shutdown()


def begin(workdir, *arguments, execute="in_earnest"):
    command = [sys.executable, TESTS / "on_nodes.py", execute, workdir, *arguments]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)


def ended(process):
    said = process.communicate(timeout=SECONDS)[1]
    return process.returncode, said


def runs():
    entries = plan.plan(registry.load("studies.rates"), "smoke", LONG[1:])
    return [entry.run.name for entry in entries]


def wait_until_all_are_going(process, workdir):
    until = time.monotonic() + SECONDS
    while not all((workdir / "models" / name / METRICS_FILE).exists() for name in runs()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)


def left_over(workdir):
    return [
        path for path in workdir.rglob("*") if path.name == "error.txt" or ".lease" in path.name
    ]


@pytest.mark.slow
def test_what_a_lost_node_was_at_is_done_by_another(tmp_path, nodes):
    cluster, second = nodes
    process = begin(tmp_path / "a", "--executor", "ray", "--address", cluster.address, *LONG)
    wait_until_all_are_going(process, tmp_path / "a")
    cluster.remove_node(second, allow_graceful=False)
    directories = [tmp_path / "a" / "models" / name for name in runs()]
    assert [run.status(directory) for directory in directories] == ["unfinished"] * 2
    code, said = ended(process)
    assert code == 0, said
    assert "a cluster of 2 nodes; a task takes CPU=1" in said
    for number, name in enumerate(runs(), 1):
        assert said.count(f"run {number}/2 {name}: starts") == 1
        assert said.count(f"run {number}/2 {name}: finished in ") == 1
    assert left_over(tmp_path) == []

    code, said = ended(begin(tmp_path / "b", *LONG))
    assert code == 0, said
    assert read(tmp_path / "a", results.FILE) == read(tmp_path / "b", results.FILE)
    for name in runs():
        ours, theirs = (
            read_lines(tmp_path / workdir / "models" / name / METRICS_FILE) for workdir in "ab"
        )
        assert [(line["step"], line["loss"]) for line in ours] == [
            (line["step"], line["loss"]) for line in theirs
        ]


def read(workdir, name):
    return (workdir / VIEW / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_end_leaves_checkpoints_from_which_it_goes_on(tmp_path, on_path, sent, code):
    command = [tmp_path, "--executor", "ray", "--resources", "CPU=0.5", *LONG]
    process = begin(*command)
    wait_until_all_are_going(process, tmp_path)
    process.send_signal(sent)
    ending, said = ended(process)
    assert ending == code, said
    assert "cancels what is under way" in said and "Traceback" not in said
    assert left_over(tmp_path) == []
    assert all(run.saved_steps(tmp_path / "models" / name) for name in runs())
    ending, said = ended(begin(*command))
    assert ending == 0 and said.count(": goes on") == said.count(": finished in") == 2, said


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others(tmp_path, on_path):
    command = [tmp_path, "--executor", "ray", "--set", "mesh.population=1"]
    code, said = ended(begin(*command, execute="fails_without_mistakes"))
    assert code == 1
    assert [row["accuracy"] for row in rows_in(tmp_path)] == [0.5]
    assert re.match(r"1 of 2 runs failed \(error-free,gpt2.*error.txt", said.splitlines()[-1])
    (error,) = left_over(tmp_path)
    assert "in the fourth layer" in error.read_text()


@pytest.mark.slow
def test_what_no_worker_can_do_is_one_sentence_and_leaves_nothing(tmp_path, on_path):
    for arguments, complaint in [
        (["--set", "mesh.data=1000"], "^mesh.data"),
        (["--resources", "CPU=1000"], "^--resources: a task takes CPU=1000, which this machine"),
    ]:
        code, said = ended(begin(tmp_path / "work", "--executor", "ray", *arguments))
        assert code == 2 and re.search(complaint, said.splitlines()[-1]), said
        assert "Traceback" not in said
        assert not (tmp_path / "work").exists()
