"""The Cloud TPU script, against a gcloud that runs every host of a slice as a local process."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from fake_gcloud import GCLOUD, GCSFUSE, PYTHON, SWEEPER

from physlm.experiments import results

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "cloud_tpu.sh"
PAGE = ROOT / "experiments" / "cloud_tpu.md"
SWEEP = ("quickstart", "--scale", "smoke", "--set", "train.steps=40", "train.save_every=4",
         "evaluate.problems=8", "evaluate.beyond=4", "mesh.cpu_devices=1")  # fmt: skip


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name, source in (("gcloud", GCLOUD), ("python3", PYTHON), ("gcsfuse", GCSFUSE)):
        program(tmp_path / "bin" / name, source)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    settings = {
        "CLOUD": tmp_path, "PORT": port, "ZONE": "here", "BUCKET": "mine", "WAIT": 1,
        "SYNC_EVERY": 2, "HOSTS": 1, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "buckets" / "mine").mkdir(parents=True)
    (tmp_path / "failing").mkdir()
    return tmp_path


def program(path, source):
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(source)}")
    path.chmod(0o755)


@pytest.fixture
def sweeper(cloud, monkeypatch):
    """Has hosts run a program of a few lines in place of a sweep."""
    path = cloud / "bin" / "sweeper"
    monkeypatch.setenv("SWEEPER", str(path))

    def stand_in(source=""):
        program(path, SWEEPER + textwrap.dedent(source))

    stand_in()
    return stand_in


def fail(cloud, command, *messages):
    (cloud / "failing" / command).write_text("".join(f"{message}\n" for message in messages))


def told(cloud):
    path = cloud / "told"
    return path.read_text().split() if path.exists() else []


def until(true):
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("that has not come true in a minute")


def script(*arguments):
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def calls(cloud):
    return [json.loads(line) for line in (cloud / "calls").read_text().splitlines()]


def count(cloud, *words):
    return sum(all(word in call for word in words) for call in calls(cloud))


def rows(directory):
    found = results.read(directory / "quickstart-smoke" / results.FILE)
    return sorted(json.dumps(row, sort_keys=True) for row in found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("here")
    command = [sys.executable, "-m", "physlm.experiments.sweep", *SWEEP, "--workdir", str(workdir)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return rows(workdir)


def test_a_preempted_slice_is_replaced_and_the_study_goes_on(cloud, undisturbed):
    (cloud / "preempt-once").touch()
    done = script("run", *SWEEP)
    assert done.returncode == 0, done.stderr
    assert "the slice was preempted; the study goes on with another." in done.stderr
    assert "terminated" in done.stderr and "the same command goes on from there" in done.stderr
    made = [call for call in calls(cloud) if "create" in call]
    assert len(made) == 2 and all("--spot" in call for call in made)
    assert "--accelerator-type=v4-8" in made[0] and "--zone=here" in made[0]
    assert script("collect", str(cloud / "collected")).returncode == 0
    assert rows(cloud / "collected") == undisturbed
    assert not list((cloud / "collected").rglob("checkpoints/*"))
    # The second slice began with checkpoints of the first one.
    counts = [int(path.read_text()) for path in sorted(cloud.glob("restored-*"))]
    assert counts[0] > 0
    assert script("delete").returncode == 0 and not list((cloud / "slices").iterdir())


def test_hosts_with_a_shared_directory_are_one_program(cloud, undisturbed, monkeypatch):
    # As the page says it.
    (mount,) = re.findall("`MOUNT='(gcsfuse [^']*)'`", PAGE.read_text())
    monkeypatch.setenv("MOUNT", mount.replace("my-bucket", "mine"))
    monkeypatch.setenv("HOSTS", "2")
    (cloud / "preempt-once").touch()
    done = script("run", *SWEEP)
    assert done.returncode == 0, done.stderr
    assert "the slice was preempted; the study goes on with another." in done.stderr
    assert count(cloud, "create") == 2
    assert count(cloud, "storage") == 0
    assert script("collect", str(cloud / "collected")).returncode == 0
    assert rows(cloud / "collected") == undisturbed


@pytest.mark.parametrize("command", ["ls", "rsync"])
def test_nothing_begins_where_the_bucket_cannot_be_read(cloud, sweeper, command):
    earlier = cloud / "buckets/mine/runs/models/a/result.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    fail(cloud, command, *["HTTPError 403: no access"] * 3)
    done = script("run", "quickstart")
    assert done.returncode == 1 and "3 tries have failed" in done.stderr
    assert "HTTPError 403: no access" in done.stderr
    assert "gs://mine/runs cannot be read, so that nothing is begun here." in done.stderr
    assert earlier.read_text() == "earlier" and told(cloud) == []
    # The next run finds no half of a store.
    assert script("run", "quickstart").returncode == 0
    assert (cloud / "slices/physlm/0/store/models/a/result.json").read_text() == "earlier"


def test_a_bucket_that_is_not_there_is_an_error(cloud, sweeper):
    (cloud / "buckets" / "mine").rmdir()
    done = script("run", "quickstart")
    assert done.returncode == 1 and "cannot be read" in done.stderr and told(cloud) == []


def test_what_other_slices_wrote_stays(cloud, sweeper):
    runs = cloud / "buckets" / "mine" / "runs"
    for name in ("theirs/result.json", "mine/result.json", "mine/checkpoints/4/state"):
        (runs / name).parent.mkdir(parents=True, exist_ok=True)
        (runs / name).write_text("old")
    sweeper("""
        import shutil
        time.sleep(0.1)
        runs = cloud / "buckets" / "mine" / "runs"
        write(runs / "theirs/result.json", "of another slice")
        write(runs / "others/result.json", "of another slice")
        write(store / "mine/result.json", "new")
        shutil.rmtree(store / "mine/checkpoints/4")
        write(store / "mine/checkpoints/8/state", "new")
        write(store / "mine/checkpoints/damaged_6/state", "damaged")
        write(store / "mine/.result.json.7.tmp", "half")
    """)
    assert script("run", "quickstart").returncode == 0
    found = {str(path.relative_to(runs)): path.read_text() for path in runs.rglob("*")
             if path.is_file()}  # fmt: skip
    assert found == {
        "theirs/result.json": "of another slice",
        "others/result.json": "of another slice",
        "mine/result.json": "new",
        "mine/checkpoints/4/state": "old",
        "mine/checkpoints/8/state": "new",
    }


def test_a_copy_that_fails_ends_no_sweep(cloud, sweeper, monkeypatch):
    monkeypatch.setenv("SYNC_EVERY", "0.2")
    sweeper("""
        write(store / "result.json", "new")
        while (cloud / "failing/rsync").read_text():
            time.sleep(0.1)
    """)
    fail(cloud, "rsync", "HTTPError 503")
    done = script("run", "quickstart")
    assert done.returncode == 0 and "the copy to the bucket failed" in done.stderr
    assert (cloud / "buckets/mine/runs/result.json").read_text() == "new"
    # The last one is tried again, by a sweep that finds all done.
    sweeper()
    fail(cloud, "rsync", "HTTPError 503")
    monkeypatch.setenv("SYNC_EVERY", "300")
    done = script("run", "quickstart")
    assert done.returncode == 0 and "the last copy to the bucket failed" in done.stderr


def test_a_slice_is_left_alone_while_gcloud_cannot_be_asked(cloud, sweeper, monkeypatch):
    assert script("create").returncode == 0
    fail(cloud, "describe", "HTTPSConnectionPool: timed out", "invalid_grant")
    # Once there was an answer, others are waited for longer.
    monkeypatch.setenv("WAIT", "0.1")
    sweeper("""
        if not (cloud / "failing/second").exists():
            write(cloud / "failing/second", "")
            write(cloud / "failing/describe", "timed out\\n" * 5)
            sys.exit(1)
    """)
    done = script("run", "quickstart")
    assert done.returncode == 0, done.stderr
    # The first look after the sweep is followed by another one at once.
    assert done.stderr.count("gcloud does not say how the slice is, which is left alone") == 6
    assert "invalid_grant" in done.stderr and "preempted" not in done.stderr
    assert count(cloud, "delete") == 0 and count(cloud, "create") == 1


def test_a_gcloud_that_never_answers_ends_the_run(cloud):
    fail(cloud, "describe", *["You do not currently have an active account selected."] * 3)
    done = script("run", "quickstart")
    assert done.returncode == 1 and "active account" in done.stderr
    assert "gcloud could not be asked for the slice in 3 tries." in done.stderr
    assert count(cloud, "delete") == count(cloud, "create") == 0


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_a_dead_slice_is_deleted(cloud, sweeper, state):
    assert script("create").returncode == 0
    (cloud / "slices/physlm/state").write_text(state)
    assert script("run", "quickstart").returncode == 0
    assert count(cloud, "delete") == 1 and count(cloud, "create") == 2


def test_a_stopped_slice_is_not_deleted(cloud, sweeper):
    assert script("create").returncode == 0
    (cloud / "slices/physlm/state").write_text("STOPPED")
    done = script("run", "quickstart")
    assert done.returncode == 1 and "the slice is STOPPED: start it, or delete it" in done.stderr
    assert count(cloud, "delete") == 0


def test_run_installs_where_that_was_not_done(cloud, sweeper):
    assert script("create").returncode == 0
    fail(cloud, "scp", "the connection was lost")
    assert script("install").returncode == 1
    fail(cloud, "scp", "the connection was lost")
    done = script("run", "quickstart")
    assert done.returncode == 0, done.stderr
    assert "No such file" not in done.stderr and told(cloud) == ["begun"]
    # And not again where it was.
    assert count(cloud, "scp") == 3
    assert script("run", "quickstart").returncode == 0 and count(cloud, "scp") == 3


WAITS = """
    def end(*_):
        time.sleep(1)
        write(store / "result.json", "newer")
        tell("ended")
        sys.exit(143)
    if "--first" in sys.argv:
        signal.signal(signal.SIGTERM, end)
        tell("waits")
        time.sleep(100)
    tell((store / "result.json").read_text())
"""


@pytest.mark.parametrize("alive", [True, False])
def test_a_new_run_takes_over(cloud, sweeper, alive, monkeypatch):
    monkeypatch.setenv("SYNC_EVERY", "300")
    result = cloud / "buckets/mine/runs/result.json"
    result.parent.mkdir()
    result.write_text("older")
    sweeper(WAITS)
    command = ["bash", str(SCRIPT), "run", "quickstart", "--first"]
    with (cloud / "output").open("w") as output:
        first = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        until(lambda: "waits" in told(cloud))
        if not alive:
            # As Ctrl-C, or the lid of a laptop: the host does not hear of it.
            os.killpg(first.pid, signal.SIGKILL)
        done = script("run", "quickstart")
        status = first.wait(60)
    assert done.returncode == 0, done.stderr
    assert "an earlier sweep is told to end; this one goes on from there." in done.stderr
    # One after the other, and on the store that was there.
    assert told(cloud) == ["begun", "waits", "ended", "begun", "newer"]
    assert len(list(cloud.glob("restored-*"))) == 1 and result.read_text() == "newer"
    if alive:
        assert status == 3
        assert "another run has taken over the slice." in (cloud / "output").read_text()


def test_a_sweep_that_does_not_end_is_killed(cloud, sweeper, monkeypatch):
    monkeypatch.setenv("PATIENCE", "1")
    sweeper("""
        if "--first" in sys.argv:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            tell("waits")
            time.sleep(100)
    """)
    command = ["bash", str(SCRIPT), "run", "quickstart", "--first"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        until(lambda: "waits" in told(cloud))
        assert script("run", "quickstart").returncode == 0
        assert first.wait(60) == 3
    assert told(cloud) == ["begun", "waits", "begun"]


NO_CAPACITY = '"code": 8, "message": "There is no more capacity in the zone"'


@pytest.mark.parametrize("message", [NO_CAPACITY, "RESOURCE_EXHAUSTED: try again later"])
def test_machines_that_are_all_taken_are_waited_for(cloud, sweeper, message):
    fail(cloud, "create", message)
    done = script("run", "quickstart")
    assert done.returncode == 0 and "there is no v4-8 in here now" in done.stderr
    assert count(cloud, "create") == 2


@pytest.mark.parametrize(
    "message",
    [
        "PERMISSION_DENIED: Permission denied on 'locations/nowhere' (or it may not exist).",
        "INVALID_ARGUMENT: runtime version 'v0' is not known.",
        "RESOURCE_EXHAUSTED: Quota limit 'TPUV4s' has been exceeded. Limit: 0 in zone here.",
    ],
)
def test_what_waiting_does_not_change_ends_the_run(cloud, message):
    fail(cloud, "create", message, message)
    done = script("run", "quickstart")
    assert done.returncode == 1 and message in done.stderr
    assert "the slice cannot be created; gcloud says why." in done.stderr
    assert count(cloud, "create") == 1


def test_bad_input(cloud, monkeypatch):
    assert script("fly").returncode == 2
    assert "run needs the name of a study" in script("run").stderr
    for word in ("--workdir=gs://mine/runs", "--distributed"):
        done = script("run", *SWEEP, word)
        assert done.returncode == 2 and f"{word} is given" in done.stderr
    # Nobody was asked for a slice.
    assert not (cloud / "calls").exists()
    done = script("run", "no_such_study", "--scale", "smoke")
    assert done.returncode == 2 and "unknown study 'no_such_study'" in done.stderr
    monkeypatch.delenv("BUCKET")
    done = script("run", *SWEEP)
    assert done.returncode == 2 and "BUCKET is not set" in done.stderr
    # A share needs none.
    monkeypatch.setenv("MOUNT", "true")
    done = script("run", "no_such_study", "--scale", "smoke")
    assert done.returncode == 2 and "unknown study 'no_such_study'" in done.stderr
    monkeypatch.setenv("MOUNT", "false")
    done = script("run", *SWEEP)
    assert done.returncode == 1 and "MOUNT failed: false" in done.stderr
    assert shutil.which("gcloud") == str(cloud / "bin" / "gcloud")
