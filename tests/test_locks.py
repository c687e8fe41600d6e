import threading
import time
from contextlib import ExitStack

import pytest
from fake_runs import STUDY, FakeRuns, main, rows_in

from physlm.experiments import files, plan, sweep

pytestmark = pytest.mark.usefixtures("devices_stay")


def test_a_run_that_another_process_trains_is_waited_for(tmp_path, capsys, monkeypatch):
    (_, second) = plan.plan(STUDY, "smoke", ())
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
