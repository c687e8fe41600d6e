"""What takes long because the process was stopped does not count as work."""

import io

from recorded import Time, recorded
from test_progress import Terminal

from physlm import progress
from physlm.clock import Clock
from physlm.progress import Progress


def test_the_clock_stands_still_while_nobody_looks():
    time = Time()
    clock = Clock(time)
    for _ in range(30):
        time.now += 1.0
        seen = clock.look()
    assert seen == 30.0
    # An hour, of which one look's distance may have been work.
    time.now += 3600.0
    assert clock.look() == 31.0
    time.now += 2.0
    assert clock.look() == 33.0


def test_the_time_left_is_that_of_the_work():
    time, stream = Time(), io.StringIO()
    clock = Clock(time)
    with Progress("train", 100, stream=stream, clock=clock.look) as shown:
        for done in range(1, 31):
            time.now += 2.0
            shown.update(done)
        time.now += 3600.0
        shown.update(31)
        for done in range(32, 52):
            time.now += 2.0
            shown.update(done)
    # 30 steps took 99 s of work, and not an hour more.
    assert "51/100 steps, 1 min 37 s left" in stream.getvalue().splitlines()[-1]


def test_the_bar_forgets_a_pause(monkeypatch):
    forgotten = []
    time, wall = Time(), Time()
    monkeypatch.setattr(progress.time, "time", wall)
    with Progress("train", 9, stream=Terminal(), clock=time) as shown:
        monkeypatch.setattr(shown._bar, "unpause", lambda: forgotten.append(wall.now))
        shown.update(1)
        forgotten.clear()
        for seconds, lost in [(2.0, 0.0), (1.0, 600.0), (1.0, 0.0)]:
            time.now += seconds
            wall.now += seconds + lost
            shown.update(2)
    assert forgotten == [1603.0]


def test_seconds_go_on_where_a_run_was_stopped(tmp_path, monkeypatch):
    def seconds(*arguments):
        lines = recorded(tmp_path, monkeypatch, *arguments)
        return [(line["step"], line["seconds"]) for line in lines]

    assert seconds(0, 6, 1.0) == [(2, 2.0), (4, 4.0), (6, 6.0)]
    # What was done after the checkpoint is done again, in the time that it takes now.
    assert seconds(4, 8, 3.0) == [(2, 2.0), (4, 4.0), (6, 10.0), (8, 16.0)]
