"""How a study stands, as whoever watches it is told."""

import io
import json
import os
import pathlib
import sys
import time
from contextlib import ExitStack

import pytest
from etils import epath
from fake_runs import STUDY, VIEW, FakeRuns, main, times

from physlm.experiments import (
    evaluation,
    files,
    hosts,
    leases,
    plan,
    registry,
    run,
    standing,
    status,
)
from physlm.experiments.store import Store
from physlm.experiments.view import RUNS_FILE, View

FAMILIES = registry.load("studies.families")

pytestmark = pytest.mark.usefixtures("devices_stay")


@pytest.fixture
def view(tmp_path):
    """A study of which nothing is done, and its runs with one judging each."""
    found = View(Store(epath.Path(tmp_path)), STUDY.name, "smoke")
    found.store.make(found.directory)
    found.remember(plan.plan(STUDY, "smoke"))
    return found


def entry(number):
    return plan.plan(STUDY, "smoke")[number]


def begin(view, number, *steps):
    """Leaves what a run of so many steps has left; each takes half a second."""
    directory = view.store.of_run(entry(number).run.name)
    directory.mkdir(exist_ok=True)
    lines = [
        {"step": step, "recent_loss": 2.0 - step / 20, "step_seconds": 0.5, "tokens_per_s": 2048.0}
        for step in steps
    ]
    (directory / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return directory


def held(place):
    return leases.held(epath.Path(place), lambda: None)


def states(view):
    return [one.state for one in standing.of_view(view)]


def test_states_are_told_by_files_and_locks(view):
    first, second = (view.store.of_run(entry(number).run.name) for number in (0, 1))
    assert states(view) == ["waiting", "waiting"]
    begin(view, 0, 5, 10)
    assert states(view) == ["stopped", "waiting"]
    with held(first):
        assert states(view) == ["going", "waiting"]
        (going, _) = standing.of_view(view)
    assert (going.step, going.steps, going.loss) == (10, 20, 1.5)
    assert (going.tokens_per_s, going.seconds_left) == (2048.0, 5.0)
    hosts.record_failure(first, FloatingPointError("the loss is nan"))
    (failed, _) = standing.of_view(view)
    assert (failed.state, failed.error) == ("failed", "FloatingPointError: the loss is nan")
    assert failed.tokens_per_s is failed.seconds_left is None
    # It is tried again.
    with held(first):
        assert states(view) == ["going", "waiting"]

    run.finish(first, 20, 1.0)
    assert states(view) == ["waiting", "waiting"]
    with held(first):
        assert states(view) == ["judging", "waiting"]
    place = evaluation.result_of(first, entry(0).evaluation.config).parent
    place.mkdir(parents=True)
    with held(place):
        assert states(view) == ["judging", "waiting"]
    hosts.record_failure(place, ValueError("no such token"))
    assert states(view) == ["failed", "waiting"]
    FakeRuns().train(entry(1).run, second)
    FakeRuns().judge(entry(1).run, entry(1).evaluation, second)
    assert states(view) == ["failed", "done"]


def test_a_lease_is_seen_and_left_as_it_is(tmp_path):
    place = epath.Path(tmp_path) / "x"
    assert not leases.is_held(place)
    with held(place):
        assert leases.is_held(place) and leases.is_held(place)
    assert not leases.is_held(place)
    # What a dead process left long ago is no sign of life.
    left = tmp_path / ".x.lease"
    left.touch()
    assert leases.is_held(place)
    os.utime(left, (time.time() - 2 * leases.EXPIRY,) * 2)
    assert not leases.is_held(place)
    assert left.exists()


def test_parents_and_probes_are_watched_too(tmp_path):
    view = View(Store(epath.Path(tmp_path)), FAMILIES.name, "smoke")
    view.store.make(view.directory)
    entries = plan.plan(FAMILIES, "smoke")
    view.remember(entries[3:4])
    names = [one.run for one in standing.of_view(view)]
    assert names == [entries[0].run.name, entries[3].needs[0].name]
    view.remember(entries)
    assert [one.run for one in standing.of_view(view)][:2] == names
    assert {one.run: one.steps for one in standing.of_view(view)} == {
        task.run.name: task.run.settings.train.steps for task in plan.tasks(entries)
    }
    # An older version did not say.
    (view.directory / RUNS_FILE).unlink()
    found = standing.of_view(view)
    assert [one.run for one in found] == list(dict.fromkeys(one.run.name for one in entries))
    assert {one.steps for one in found} == {None}


def test_a_table_is_printed_and_nothing_touched(view, capsys):
    begin(view, 0, 5, 10)
    with held(view.store.of_run(entry(0).run.name)):
        before = times(view.store.root)
        assert status.main([str(view.directory)]) == 0
        assert times(view.store.root) == before
    title, head, first, second = capsys.readouterr().out.splitlines()
    assert title == f"{VIEW}: 1 going, 1 waiting"
    assert head.split() == ["run", "state", "step", "loss", "solved", "tokens/s", "left"]
    assert first.split() == [entry(0).run.name, "going", "10/20", "1.500", "–", "2,048", "5", "s"]
    assert second.split() == [entry(1).run.name, "waiting", "0/20", "–", "–", "–", "–"]


def test_all_studies_of_a_store_are_shown(tmp_path, capsys):
    assert main(tmp_path) == 0
    assert main(tmp_path, study=FAMILIES.name, execute=FakeRuns(failing=(0.5,))) == 1
    capsys.readouterr()
    assert status.main([str(tmp_path)]) == 0
    families, rates = (text + "\n" for text in capsys.readouterr().out.split("\n\n"))
    assert families.startswith("studies.families-smoke: 3 failed, 2 done\n")
    assert families.count(" failed: RuntimeError: out of memory\n") == 3
    assert rates.startswith(f"{VIEW}: 2 done\n") and "failed" not in rates


def test_what_is_solved_is_that_of_all_up_to_the_most_operations(view, capsys):
    directory = view.store.of_run(entry(1).run.name)
    FakeRuns().train(entry(1).run, directory)
    FakeRuns().judge(entry(1).run, entry(1).evaluation, directory)
    path = evaluation.result_of(directory, entry(1).evaluation.config)
    result = files.read_json(path)
    (cell,) = result["cells"]
    files.write_json(path, {**result, "cells": [cell, {**cell, "cell": "<=3", "accuracy": 0.25}]})
    assert standing.of_view(view)[1].accuracy == 0.25
    assert status.main([str(view.directory)]) == 0
    assert "20/20     –   25.0%" in capsys.readouterr().out


class Later:
    """Stands in for waiting: each time something happens, then somebody interrupts."""

    def __init__(self, *events):
        self.events = list(events)

    def __call__(self, seconds):
        if not self.events:
            raise KeyboardInterrupt
        self.events.pop(0)()


def done(view, number):
    directory = view.store.of_run(entry(number).run.name)
    FakeRuns().train(entry(number).run, directory)
    FakeRuns().judge(entry(number).run, entry(number).evaluation, directory)


def test_changes_are_followed_line_by_line_until_all_is_done(view, capsys):
    directory = view.store.of_run(entry(0).run.name)
    with ExitStack() as stack:
        events = [
            lambda: (begin(view, 0, 5), stack.enter_context(held(directory))),
            lambda: None,
            lambda: begin(view, 0, 5, 10),
            lambda: (stack.close(), done(view, 0), done(view, 1)),
        ]
        assert status.main([str(view.directory), "--follow"], Later(*events)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{VIEW}: 2 waiting" and len(lines) == 4 + 4
    name = entry(0).run.name
    told = [line.partition(" ")[2] for line in lines[4:]]
    assert told[:3] == [
        f"{name}: going, step 5/20, loss 1.750, tokens/s 2,048, left 8 s",
        f"{name}: going, step 10/20, loss 1.500, tokens/s 2,048, left 5 s",
        f"{name}: done, step 20/20, loss 1.500",
    ]


def test_following_ends_where_somebody_has_seen_enough(view, capsys, monkeypatch):
    assert status.main([str(view.directory), "--follow"], Later()) == 130

    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return opened.fileno()

    with (view.directory / "elsewhere").open("w") as opened:
        monkeypatch.setattr(sys, "stdout", Closed())
        assert status.main([str(view.directory), "--follow"], Later()) == 0


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(text, height):
    """The lines that a terminal shows after it is sent a text."""
    lines = [""]
    for part in text.replace("\x1b[J", "\x1b[").split("\x1b["):
        count, up, rest = part.partition("F")
        if up and count.isdecimal():
            assert int(count) < height
            lines = [*lines[: len(lines) - 1 - int(count)], ""]
            part = rest
        new = part.split("\n")
        lines = [*lines[:-1], lines[-1] + new[0], *new[1:]]
    return lines


@pytest.mark.parametrize(("height", "width"), [(24, 200), (24, 60), (5, 60)])
def test_a_terminal_is_drawn_in_place(view, monkeypatch, height, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    view.remember(plan.plan(STUDY, "smoke", ["seed=1"]))
    begin(view, 1, 5)
    with held(view.store.of_run(entry(1).run.name)):
        events = [lambda: begin(view, 1, 5, 10), lambda: begin(view, 1, 5, 10, 15)]
        assert status.main([str(view.directory), "--follow"], Later(*events)) == 130
    text = terminal.getvalue()
    lines = drawn(text, height)
    assert text.count(f"{VIEW}: 1 going") == 3 and "\n".join(lines).count(VIEW) == 1
    assert max(map(len, lines)) <= width and len(lines) <= height
    (line,) = (line for line in lines if "going" in line and "15/20" in line)
    # Its hash tells it from others.
    assert entry(1).run.name[-8:] in line
    if height == 5:
        assert lines[2] == line and lines[3:] == ["… 3 lines more", ""]
    else:
        assert lines[3] == line and len(lines) == 2 + 4 + 1


def test_what_is_no_study_is_one_sentence(tmp_path, capsys):
    for place in (tmp_path, tmp_path / "nowhere"):
        assert status.main([str(place)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith(f"{pathlib.Path(place)} is neither a store with a study nor ")
