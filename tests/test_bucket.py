"""A store in a bucket, on a server that speaks as Google's does."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import fake_gcs
import numpy as np
import pytest
from fake_runs import STUDY, VIEW, FakeRuns, main, rows_in

import physlm
from physlm import export, metrics, paths
from physlm.doctor import __main__ as doctor
from physlm.experiments import evaluate, leases, plan, report, results, run

pytestmark = pytest.mark.usefixtures("devices_stay")
needs_gcsfs = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="needs physlm[gcs]"
)


@pytest.fixture(scope="module")
def cloud():
    """Buckets of a server that all programs are led to, those of this process too."""
    with fake_gcs.served() as (buckets, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield buckets


@pytest.fixture
def bucket(cloud, request):
    """The name of an empty bucket."""
    name = f"b{abs(hash(request.node.name))}"
    cloud.objects[name] = {}
    return name


NEITHER = "is not allowed; a local path is, and gs://BUCKET/DIR"
IN_MEMORY = (
    "is not allowed, as Orbax cannot write checkpoints there; a directory in memory is, "
    "as /dev/shm/runs, and gs://BUCKET/DIR"
)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://bucket/runs", NEITHER),
        ("memory://runs", IN_MEMORY),
        ("memory://", IN_MEMORY),
        ("gs://", NEITHER),
        ("gs:///", NEITHER),
    ],
)
def test_other_places_are_refused(url, why, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(url)
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert error == (f"argument --workdir: {url!r} {why} (--help lists what there is).\n")


def test_the_package_for_buckets_is_named_where_it_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as leaving:
        main("gs://bucket/runs")
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert "gs://bucket/runs needs the package gcsfs: pip install 'physlm[gcs]'" in error
    assert error.count("\n") == 1


@needs_gcsfs
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("name", "why"), [("nobodys", "there is no such bucket"), ("secret", "Forbidden: b/secret/o")]
)
def test_a_bucket_without_permission_is_refused_before_anything_is_done(
    cloud, capsys, name, why, more
):
    cloud.forbidden.add("secret")
    fake = FakeRuns()
    assert main(f"gs://{name}/runs", *more, execute=fake) == 2
    said = capsys.readouterr()
    assert said.err == f"--workdir gs://{name}/runs is not writable: {why}.\n"
    assert (fake.trained, said.out) == ([], "")


@needs_gcsfs
def test_a_bucket_that_can_only_be_read_is_refused(cloud, bucket, capsys, monkeypatch):
    def put(*_):
        raise fake_gcs.Refused(403)

    monkeypatch.setattr(cloud, "put", put)
    fake = FakeRuns()
    assert main(f"gs://{bucket}/runs", execute=fake) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--workdir gs://{bucket}/runs is not writable: Forbidden: ")
    assert error.count("\n") == 1 and fake.trained == []


@needs_gcsfs
def test_a_bucket_that_nobody_answers_for_cannot_be_reached(bucket, capsys, monkeypatch):
    import aiohttp

    def make(_):
        raise aiohttp.ServerDisconnectedError("Server disconnected")

    monkeypatch.setattr(paths, "make_directory", make)
    assert main(f"gs://{bucket}/runs", execute=FakeRuns()) == 2
    error = capsys.readouterr().err
    assert error == f"--workdir gs://{bucket}/runs cannot be reached: Server disconnected.\n"


@needs_gcsfs
def test_what_a_bucket_answers_is_told_in_a_sentence_and_not_logged_beside_it(
    cloud, bucket, capsys, caplog, monkeypatch
):
    """A program that is no test shows on the terminal what libraries log."""

    def put(*_):
        raise fake_gcs.Refused(400)

    monkeypatch.setattr(cloud, "put", put)
    assert main(f"gs://{bucket}/runs", execute=FakeRuns()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--workdir gs://{bucket}/runs is not writable: ")
    assert error.count("\n") == 1
    assert [record.getMessage() for record in caplog.records if record.name == "gcsfs"] == []


@needs_gcsfs
def test_of_many_who_create_an_object_one_succeeds(bucket):
    place, made = paths.path(f"gs://{bucket}/x"), []

    def work(number):
        if paths.create(place, b"%d" % number):
            made.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (number,) = made
    assert paths.read_bytes(place) == b"%d" % number
    paths.write_atomically(place, "anew")
    assert paths.read_bytes(place) == b"anew"


@needs_gcsfs
def test_leases_are_held_by_one_at_a_time_there_too(cloud, bucket, monkeypatch):
    monkeypatch.setattr(leases, "LOOK", 0.001)
    place, inside, most = paths.path(f"gs://{bucket}/runs/x"), [0], []

    def work():
        for _ in range(4):
            with leases.held(place, lambda: None):
                inside[0] += 1
                most.append(inside[0])
                time.sleep(0.01)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 12
    assert cloud.files(bucket) == {}


@needs_gcsfs
def test_a_lease_in_a_bucket_expires_and_its_holder_sees_that(cloud, bucket, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 1e6)
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    place, watch = paths.path(f"gs://{bucket}/x"), leases.Watch()
    dead = leases.Watch().take(place)
    assert watch.take(place) is None
    dead._beat()
    now[0] += leases.EXPIRY + 1
    assert watch.take(place) is None
    dead.check()
    now[0] += leases.EXPIRY + 1
    assert watch.take(place) is None
    with watch.take(place):
        with pytest.raises(leases.LostError):
            dead.check()
        dead.release()
        assert list(cloud.files(bucket)) == [".x.lease"]
    assert cloud.files(bucket) == {}


@needs_gcsfs
def test_a_bucket_that_is_out_of_reach_for_a_while_ends_no_lease(cloud, bucket, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    refused = threading.Event()
    put = cloud.put

    def busy(*arguments):
        refused.set()
        raise fake_gcs.Refused(418)

    with leases.held(paths.path(f"gs://{bucket}/x"), lambda: None) as lease:
        monkeypatch.setattr(cloud, "put", busy)
        assert refused.wait(60)
        monkeypatch.setattr(cloud, "put", put)
        before = lease._beats
        while lease._beats < before + 2:
            time.sleep(0.01)
        lease.check()
    assert cloud.files(bucket) == {}


@needs_gcsfs
def test_lines_are_there_when_they_are_flushed_and_are_gone_on_with(cloud, bucket):
    place = paths.path(f"gs://{bucket}/metrics.jsonl")

    def steps():
        return [json.loads(line)["step"] for line in cloud.files(bucket)[place.name].splitlines()]

    with metrics.JsonLines(place, upto_step=0) as lines:
        lines.write(step=1)
        lines.write(step=2)
        assert steps() == []
        lines.flush()
        lines.write(step=3)
        assert steps() == [1, 2]
    assert steps() == [1, 2, 3]
    with pytest.raises(KeyboardInterrupt), metrics.JsonLines(place, upto_step=2) as lines:
        assert steps() == [1, 2]
        lines.write(step=3)
        raise KeyboardInterrupt
    assert steps() == [1, 2]


@needs_gcsfs
@pytest.mark.slow
def test_a_study_in_a_bucket_is_the_same_as_in_a_directory(cloud, bucket, tmp_path, capsys):
    store, more = f"gs://{bucket}/deep/runs", ("--set", "mesh.population=1")
    assert main(tmp_path, *more) == 0
    fake = FakeRuns(failing=(0.0,))
    assert main(store, *more, execute=fake) == 1
    assert fake.trained == [0.5]
    (planned, _) = plan.plan(STUDY, "smoke", ())
    assert b"out of memory" in cloud.files(bucket)[f"deep/runs/models/{planned.run.name}/error.txt"]
    fake = FakeRuns()
    assert main(store, *more, execute=fake) == 0
    assert fake.trained == [0.0]
    fake = FakeRuns()
    assert main(store, *more, execute=fake) == 0
    assert fake.trained == fake.judged == []
    # A damaged file is set aside there, too.
    named = f"deep/runs/{VIEW}/shown.json"
    cloud.objects[bucket][named] = (b"[", cloud.objects[bucket][named][1])
    capsys.readouterr()
    assert main(store, *more, execute=fake) == 0
    assert "shown.json.damaged, and made again" in capsys.readouterr().err
    assert cloud.files(bucket).pop(f"{named}.damaged") == b"["
    del cloud.objects[bucket][f"{named}.damaged"]
    local = {
        f"deep/runs/{path.relative_to(tmp_path)}": path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    there = cloud.files(bucket)
    # Pages say where they are.
    assert there.keys() == local.keys()
    name = f"deep/runs/{VIEW}/{results.FILE}"
    assert there[name] == local[name]
    assert rows_in(paths.path(store)) == rows_in(tmp_path)
    capsys.readouterr()
    assert report.main([f"{store}/{VIEW}"]) == 0
    assert f"Written: {store}/{VIEW}/accuracy.png" in capsys.readouterr().out
    assert main(store, "--dry-run") == 0
    assert f"2 runs in {store}/models: 2 finished; 2 eval" in capsys.readouterr().out


@needs_gcsfs
@pytest.mark.slow
def test_the_doctor_examines_a_bucket(cloud, bucket, capsys, monkeypatch):
    """A checkpoint is written and read there, and nothing is left; or it is said why not."""
    wanted = {name: doctor.CHECKS[name] for name in ("checkpoint", "disk")}
    monkeypatch.setattr(doctor, "CHECKS", wanted)
    assert doctor.main(["--path", f"gs://{bucket}/deep/runs"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ok ") and f"MiB in gs://{bucket}/deep/runs, written in " in first
    assert second.startswith("ok ") and f"gs://{bucket}/deep/runs is in a bucket, " in second
    assert any("checkpoints" in str(call) for call in cloud.calls)
    assert not cloud.files(bucket)
    cloud.forbidden.add("secret")
    for name, why in (("nobodys", "there is no such bucket"), ("secret", "Forbidden: b/secret/o")):
        assert doctor.main(["--path", f"gs://{name}/runs"]) == 1
        first, _ = capsys.readouterr().out.splitlines()
        assert first.startswith("failed ") and f"gs://{name}/runs: {why}" in first


@needs_gcsfs
def test_a_trace_in_a_bucket_is_refused(bucket, capsys):
    assert main(f"gs://{bucket}/runs", "--profile") == 2
    assert "traces are written to local directories alone.\n" in capsys.readouterr().err


# The real thing.


def start_sweep(workdir, compiled, *more):
    command = [sys.executable, "-m", "physlm.experiments.sweep", "--scale", "smoke", *more]
    command += ["--workdir", str(workdir), "--set", "evaluate.beyond=4", "evaluate.problems=8"]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = cache | os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@needs_gcsfs
@pytest.mark.slow
def test_a_sweep_in_a_bucket_that_is_killed_ends_as_one_on_a_disk(cloud, bucket, tmp_path, capsys):
    compiled, local, store = tmp_path / "compiled", tmp_path / "runs", f"gs://{bucket}/runs"
    view = pathlib.Path("quickstart-smoke") / results.FILE
    process = start_sweep(local, compiled)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    process = start_sweep(store, compiled)
    while process.poll() is None and not any(
        "/checkpoints/10/commit_success" in name for name in cloud.files(bucket)
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    # Nobody has to wait for the leases that it leaves.
    for name in [name for name in cloud.files(bucket) if name.endswith(".lease")]:
        del cloud.objects[bucket][name]
    process = start_sweep(store, compiled)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "goes on" in err
    there = cloud.files(bucket)
    assert there[f"runs/{view}"] == (local / view).read_bytes()
    assert not [name for name in there if "lease" in name]
    names = [path.name for path in (local / "models").iterdir()]
    for name in names:
        said = [
            [json.loads(line) for line in text.splitlines()]
            for text in (
                (local / "models" / name / "metrics.jsonl").read_bytes(),
                there[f"runs/models/{name}/metrics.jsonl"],
            )
        ]
        one, other = ([(line["step"], line["loss"]) for line in lines] for lines in said)
        assert one == other
    # What reads runs reads them there.
    where = f"{store}/models/{names[0]}"
    read, expected = physlm.load(where), physlm.load(local / "models" / names[0])
    texts = expected.texts(2)
    np.testing.assert_array_equal(
        read.read(texts.tokens_NxT).logits_NxTxV, expected.read(texts.tokens_NxT).logits_NxTxV
    )
    capsys.readouterr()
    assert evaluate.main([where, "--set", "evaluate.problems=4"]) == 0
    assert evaluate.main([str(local / "models" / names[0]), "--set", "evaluate.problems=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    assert export.main([where, "--out", str(tmp_path / "plain"), "--plain", "npz"]) == 0
    assert run.status(paths.path(where)) == "finished"
