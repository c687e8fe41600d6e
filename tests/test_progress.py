import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physlm.progress import Progress, format_seconds


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines_of(total, updates, stream=None):
    """The output of updates given as (seconds since the one before, done)."""
    stream, clock = stream or io.StringIO(), Clock()
    with Progress("train", total, stream=stream, clock=clock) as progress:
        for seconds, done in updates:
            clock.now += seconds
            progress.update(done, loss=1.23456)
    return stream.getvalue()


def test_log_has_first_last_and_one_line_in_ten_seconds():
    text = lines_of(100, [(1.0, done) for done in range(1, 101)])
    shown = [int(line.split("/")[0].split()[-1]) for line in text.splitlines()]
    assert shown == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]


def test_log_line_tells_share_time_left_and_fields():
    line = lines_of(100, [(30.0, 20), (10.0, 25)]).splitlines()[-1]
    # 5 steps took 10 s, so the 75 to go take 150 s; the 30 s before the first do not count.
    assert line == "train: 25%, 25/100 steps, 2 min 30 s left, loss 1.235"


def test_log_shows_where_an_interrupted_piece_stopped():
    stream = io.StringIO()
    with (
        pytest.raises(RuntimeError),
        Progress("train", 9, stream=stream, clock=Clock()) as progress,
    ):
        progress.update(1)
        progress.update(3)
        raise RuntimeError
    assert [line.split(",")[1] for line in stream.getvalue().splitlines()] == [
        " 1/9 steps",
        " 3/9 steps",
    ]


def test_log_without_updates_is_empty():
    assert lines_of(5, []) == ""


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 3)), min_size=1, max_size=50))
def test_log_ends_with_the_last_count(steps):
    done, updates = 0, []
    for seconds, more in steps:
        done += more
        updates.append((seconds, done))
    lines = lines_of(1000, updates).splitlines()
    assert f" {done}/1000 steps" in lines[-1]
    assert len(lines) <= 2 + sum(seconds for seconds, _ in updates) / 10.0


def test_terminal_gets_a_bar_with_fields():
    text = lines_of(4, [(1.0, done) for done in range(2, 5)], Terminal())
    assert "\r" in text
    assert "4/4" in text
    assert "loss 1.235" in text


def test_negative_total_is_refused():
    with pytest.raises(ValueError, match=r"'train' is -1"):
        Progress("train", -1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.6, "9 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text
