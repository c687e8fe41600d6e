import json
import multiprocessing
import os
import random
import signal
import threading
import time
import types

import pytest
import shared_store
from fake_runs import STUDY, VIEW, FakeRuns, main, rows_in

from physlm.experiments import (
    execution,
    files,
    judging,
    leases,
    plan,
    queue,
    registry,
    results,
    run,
    sweep,
)
from physlm.experiments.store import Store
from physlm.experiments.view import View
from physlm.train import TerminatedError

pytestmark = pytest.mark.usefixtures("devices_stay")


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to, and holders that show no sign of life meanwhile."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    monkeypatch.setattr(queue, "time", clock)
    monkeypatch.setattr(leases, "BEAT", 1e6)
    return clock


def left_over(directory):
    return [path for path in directory.rglob(".*") if "lease" in path.name]


def test_a_lease_is_held_by_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LOOK", 0.001)
    inside, most = [0], []

    def work():
        for _ in range(20):
            with leases.held(tmp_path / "x", lambda: None):
                inside[0] += 1
                most.append(inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert list(tmp_path.iterdir()) == []


def test_the_lease_of_a_dead_process_is_broken_when_it_expires_and_no_earlier(tmp_path, clock):
    path, watch = tmp_path / "x", leases.Watch()
    dead = leases.Watch().take(path)
    assert watch.take(path) is None
    clock.now += leases.EXPIRY
    assert watch.take(path) is None
    dead.check()
    # A sign of life: all of the time begins anew.
    dead._beat()
    clock.now += 1
    assert watch.take(path) is None
    clock.now += leases.EXPIRY
    assert watch.take(path) is None
    dead.check()
    clock.now += 1
    assert watch.take(path) is None
    with watch.take(path):
        # It wakes up: it sees that it has lost, and takes nothing away.
        with pytest.raises(leases.LostError, match="another worker has taken over x, since"):
            dead.check()
        assert not dead._beat()
        dead.release()
        assert leases.Watch().take(path) is None
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("torn", [b"", b'{"tok'])
def test_a_lease_that_was_torn_in_writing_expires_too(tmp_path, clock, torn):
    (tmp_path / ".x.lease").write_bytes(torn)
    with leases.held(tmp_path / "x", lambda: None):
        pass
    assert left_over(tmp_path) == []


def test_whoever_dies_while_it_breaks_a_lease_blocks_nobody(tmp_path, clock):
    dead = leases.Watch().take(tmp_path / "x")
    breaker = leases.Watch()
    breaker.take(tmp_path / "x")
    clock.now += leases.EXPIRY + 1
    ground = tmp_path / f".x.lease.{dead._token}"
    # This one has taken the right to remove it, and does not.
    assert breaker._take(ground, ground) is not None
    (tmp_path / "..x.lease.1.tmp").write_text("half of a sign of life")
    with leases.held(tmp_path / "x", lambda: None), pytest.raises(leases.LostError):
        dead.check()
    assert left_over(tmp_path) == []


def test_a_holder_that_ends_while_it_is_taken_for_dead_leaves_the_lease_to_the_other(
    tmp_path, clock
):
    """Neither removes a lease that somebody has taken since."""
    slow, watch = leases.Watch().take(tmp_path / "x"), leases.Watch()
    watch.take(tmp_path / "x")
    clock.now += leases.EXPIRY + 1
    read, seen = leases._read, []

    def wakes_up(file):
        # Between the right to remove the lease and the last look at it.
        if not seen and file.name == ".x.lease" and list(tmp_path.glob(".x.lease.*")):
            seen.append(True)
            slow.release()
        return read(file)

    leases._read = wakes_up
    try:
        assert watch.take(tmp_path / "x") is None
    finally:
        leases._read = read
    # It showed a sign of life, and so the other did not touch its lease; which is taken later.
    assert seen
    with leases.held(tmp_path / "x", lambda: None):
        pass
    assert left_over(tmp_path) == []


def test_an_answer_that_is_lost_is_no_other_holder(tmp_path, monkeypatch):
    """Requests to buckets are repeated where no answer comes, and then find their own file."""
    create = leases.paths.create

    def twice(place, content):
        create(place, content)
        return create(place, content)

    monkeypatch.setattr(leases.paths, "create", twice)
    assert leases.Watch().take(tmp_path / "x") is not None


# A study whose runs others are at, too.


def test_a_run_that_another_process_trains_comes_last(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(leases, "LOOK", 0.01)
    (first, second) = plan.plan(STUDY, "smoke", ())
    other, waits, say = FakeRuns(), threading.Event(), sweep.say

    def hear(text):
        say(text)
        if "waits for it" in text:
            waits.set()

    monkeypatch.setattr(sweep, "say", hear)
    (tmp_path / "models").mkdir()
    lease = leases.Watch().take(tmp_path / "models" / first.run.name)

    def finish():
        waits.wait(60)
        directory = tmp_path / "models" / first.run.name
        other.train(first.run, directory)
        other.judge(first.run, first.evaluation, directory)
        lease.release()

    thread = threading.Thread(target=finish)
    thread.start()
    fake = FakeRuns()
    assert main(tmp_path, "--set", "mesh.population=1", execute=fake) == 0
    thread.join()
    assert (fake.trained, other.trained) == ([0.5], [0.0])
    said = capsys.readouterr().err.splitlines()
    at = [said.index(f"run {n}/2 {text}") for n, text in (
        (2, f"{second.run.name}: starts"),
        (1, f"{first.run.name}: another process trains it: waits for it"),
        (1, f"{first.run.name}: finished before, skipped"),
    )]  # fmt: skip
    assert at == sorted(at)
    assert len(rows_in(tmp_path)) == 2
    assert left_over(tmp_path) == []


def test_a_sweep_that_is_to_end_leaves_no_lease(tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)

    def judge(tasks, store, **_):
        assert left_over(tmp_path)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it went on")
        yield

    assert main(tmp_path, "--set", "mesh.population=1", execute=judge) == 143
    assert "terminated with all kept that was finished" in capsys.readouterr().err
    assert left_over(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_child_is_not_begun_before_its_parent_is_done_elsewhere(tmp_path, clock):
    parent, other = (entry.run for entry in plan.plan(STUDY, "smoke", ()))
    child = run.dataclasses.replace(other, name="child", parent=parent)
    store = sweep.Store(tmp_path)
    store.models.mkdir()
    tasks = [[execution.Task(one, ())] for one in (parent, child, other)]
    told = []
    left = sweep.Queue(tasks, store, lambda run: told.append(run.name))
    lease = leases.Watch().take(store.of_run(parent.name))
    with left.taken() as group:
        assert [task.run.name for task in group] == [other.name]
    assert told == []
    sleep = clock.sleep

    def ends(seconds):
        sleep(seconds)
        lease.release()

    clock.sleep = ends
    names = []
    while left:
        with left.taken() as group:
            names += [task.run.name for task in group]
    assert (names, told) == ([parent.name, child.name], [parent.name])


def steal(path):
    """What is left when another process has found a lease expired and has taken it."""
    file = path.with_name(f".{path.name}.lease")
    assert json.loads(file.read_bytes())["token"]
    file.write_text(json.dumps({"token": "another", "beats": 1}))
    return file


@pytest.mark.parametrize("fails", ["", "training", "judging"])
def test_what_was_taken_over_is_stopped_and_nothing_of_it_is_written(
    tmp_path, capsys, monkeypatch, fails
):
    """Whether or not something fails meanwhile, as what it needs is gone."""
    monkeypatch.setattr(leases, "LOOK", 0.01)
    stolen, judged = [], []

    def take_over(planned, directory):
        stolen.append(steal(directory))
        FakeRuns().train(planned, directory)
        (directory / run.FINISHED_FILE).rename(directory / "kept")

    def trained(runs, store, profile, log):
        if not stolen and fails != "judging":
            (planned,) = runs
            take_over(planned, store.of_run(planned.name))
            if fails:
                raise FileNotFoundError("the checkpoint is gone")
        return [types.SimpleNamespace(step=7) for _ in runs]

    def judge(planned, evaluation, directory, state, which):
        if not stolen:
            take_over(planned, directory)
            raise FileNotFoundError("the checkpoint is gone")
        judged.append(planned.name)
        FakeRuns().judge(planned, evaluation, directory)

    monkeypatch.setattr(execution, "_train", trained)
    monkeypatch.setattr(judging, "judge", judge)
    say = sweep.say

    def hear(text):
        say(text)
        if ": stopped: " in text:
            # The other one has ended.
            directory = tmp_path / "models" / text.split()[2].rstrip(":")
            assert not (directory / run.FINISHED_FILE).exists()
            assert not (directory / run.ERROR_FILE).exists()
            (directory / "kept").rename(directory / run.FINISHED_FILE)
            stolen[0].unlink()

    monkeypatch.setattr(sweep, "say", hear)
    more = ("--set", "mesh.population=1")
    assert main(tmp_path, *more, execute=execution.execute) == 0
    (first, second) = plan.plan(STUDY, "smoke", ())
    said = capsys.readouterr().err
    assert f"run 1/2 {first.run.name}: stopped: another worker has taken over {first.run.name}, " \
        "since this one had shown no sign of life for" in said  # fmt: skip
    assert judged == [first.run.name, second.run.name]
    # In training what this one has computed is not written.
    assert (run.last_step(tmp_path / "models" / first.run.name) == 7) == (fails == "judging")
    assert left_over(tmp_path) == []


def test_what_dead_processes_left_of_finished_runs_is_removed(tmp_path, clock):
    assert main(tmp_path) == 0
    (first, second) = plan.plan(STUDY, "smoke", ())
    models = tmp_path / "models"
    evaluation = next((models / first.run.name / "evaluations").iterdir())
    for path in (models / first.run.name, evaluation):
        leases.Watch().take(path)
    living = leases.Watch().take(models / second.run.name)
    sleep = clock.sleep

    def alive(seconds):
        sleep(seconds)
        living._beat()

    clock.sleep = alive
    assert main(tmp_path) == 0
    assert left_over(tmp_path) == [models / f".{second.run.name}.lease"]
    living.release()


def test_what_two_workers_add_to_a_study_is_all_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LOOK", 0.01)
    seeds = range(4)
    threads = [
        threading.Thread(target=main, args=(tmp_path, "--set", f"seed={seed}")) for seed in seeds
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted({row["seed"] for row in rows_in(tmp_path)}) == list(seeds)
    assert len(rows_in(tmp_path)) == 8
    assert len(files.read_json(tmp_path / VIEW / "shown.json")) == 8


@pytest.mark.parametrize(
    ("end", "code"), [(KeyboardInterrupt(), 130), (TerminatedError("after step 3"), 143)]
)
def test_whoever_is_interrupted_or_terminated_leaves_no_lease(tmp_path, end, code):
    assert main(tmp_path, execute=FakeRuns((0.5,), end)) == code
    assert left_over(tmp_path) == []


# Workers that are killed.


# LEASE_ROUNDS=10 has ten of them, which take five minutes.
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("LEASE_ROUNDS", "3"))))
def test_of_four_workers_two_are_killed_and_the_others_do_all_of_it(tmp_path, seed):
    print(f"seed {seed}")
    draw = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shared_store"])
    store, logs = tmp_path / "store", [tmp_path / f"log-{number}" for number in range(4)]
    workers = [context.Process(target=shared_store.work, args=(store, log)) for log in logs]
    for worker in workers:
        worker.start()
    while not list(store.glob("models/*/trained")):
        assert any(worker.is_alive() for worker in workers), logs[0].read_text()
        time.sleep(0.01)
    killed = draw.sample(workers, 2)
    for worker in killed:
        time.sleep(draw.uniform(0, 0.8))
        worker.kill()
    for worker in workers:
        worker.join(300)
    said = "\n".join(log.read_text() for log in logs)
    assert [worker.exitcode for worker in workers if worker not in killed] == [0, 0], said
    assert [worker.exitcode for worker in killed] == [-signal.SIGKILL] * 2
    entries = plan.plan(registry.load("studies.many"), "smoke", ())
    view = View(Store(store), "studies.many", "smoke")
    assert len(entries) == shared_store.RUNS
    for entry in entries:
        # By one process, which may have been killed before it said so.
        said_so = view.store.of_run(entry.run.name) / "trained"
        assert not said_so.exists() or len(said_so.read_text().splitlines()) == 1
        assert run.status(view.store.of_run(entry.run.name)) == "finished"
    assert results.read(view.directory / results.FILE) == view.rows()
    assert [row["condition"]["retry_rate"] for row in view.rows()] == [n / 20 for n in range(12)]
    assert left_over(tmp_path) == []
    assert not list(tmp_path.rglob("error.txt"))
