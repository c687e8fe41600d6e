"""A file system without room: one sentence, other runs go on, and the same command ends it."""

import errno
import os

import pytest
from fake_runs import VIEW, FakeRuns, main

from physlm import model, paths
from physlm.experiments import estimate, hosts, plan, registry, results
from physlm.experiments import run as run_lib

pytestmark = pytest.mark.usefixtures("devices_stay")


@pytest.fixture
def disk(monkeypatch):
    """Whether there is room; without it nothing that is written gets to the disk."""

    class Disk:
        full = False

    def sync(number):
        if Disk.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    return Disk


def halves(directory):
    return [path for path in directory.rglob("*") if path.name.endswith((".tmp", ".lease"))]


def test_a_finished_store_without_room_says_so_and_stays_as_it_is(tmp_path, capsys, disk):
    assert main(tmp_path) == 0
    path = tmp_path / VIEW / results.FILE
    before = path.read_bytes()
    capsys.readouterr()
    disk.full = True
    assert main(tmp_path) == 1
    (sentence,) = [one for one in capsys.readouterr().err.splitlines() if "run " not in one]
    assert sentence.startswith(f"{path} cannot be written: only ")
    assert sentence.endswith(" are free there. Once there is more, the same command goes on.")
    assert path.read_bytes() == before and not halves(tmp_path)
    disk.full = False
    assert main(tmp_path) == 0
    assert path.read_bytes() == before


def test_a_run_without_room_fails_alone(tmp_path, capsys, disk):
    """Its error cannot even be noted; the other is trained, judged and shown."""

    class Full(FakeRuns):
        def train(self, planned, directory):
            disk.full = planned.settings.mistakes.rate == 0
            super().train(planned, directory)

        def __call__(self, group, store):
            for run, error in super().__call__(group, store):
                disk.full = False
                error = error and paths.explained(error, "what belongs to it", store.models)
                yield run, error

    assert main(tmp_path, "--set", "mesh.population=1", execute=Full()) == 1
    told = capsys.readouterr().err
    assert "1 of 2 runs failed" in told and "Traceback" not in told
    assert "config.json cannot be written: only " in told
    rows = results.read(tmp_path / VIEW / results.FILE)
    assert {row["condition"]["retry_rate"] for row in rows} == {0.5}
    assert main(tmp_path) == 0
    rows = results.read(tmp_path / VIEW / results.FILE)
    assert {row["condition"]["retry_rate"] for row in rows} == {0.0, 0.5}
    assert not halves(tmp_path)


def test_what_fails_is_told_where_nothing_can_be_noted(tmp_path, disk):
    disk.full = True
    hosts.record_failure(tmp_path / "run", ValueError("it"))
    assert not halves(tmp_path) and not (tmp_path / "run" / run_lib.ERROR_FILE).exists()
    disk.full = False
    hosts.record_failure(tmp_path / "run", ValueError("it"))
    assert "ValueError: it" in (tmp_path / "run" / run_lib.ERROR_FILE).read_text()


def test_a_lease_that_cannot_be_written_is_not_left_behind(tmp_path):
    class Refusing:
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    place = paths.path(tmp_path / "lease")
    place.write_bytes(b"")
    with pytest.raises(paths.FullError, match="lease cannot be written: only "):
        paths._fill(Refusing(), place, b"token")
    assert not place.exists()


def test_any_other_trouble_of_a_store_is_one_sentence(tmp_path, capsys, monkeypatch):
    assert main(tmp_path) == 0
    capsys.readouterr()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "x"))

    monkeypatch.setattr(results, "write", refuse)
    assert main(tmp_path) == 1
    told = capsys.readouterr().err
    sentence = f"{tmp_path / 'x'} cannot be read or written: Read-only file system. Once it can, "
    assert f"{sentence}the same command goes on.\n" in told and "Traceback" not in told


def test_too_little_room_for_checkpoints_is_told_at_the_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paths, "free", lambda _: 100 * 1024)
    assert main(tmp_path) == 0
    told = capsys.readouterr().err
    assert "warning: checkpoints of 2 runs take about " in told
    assert f"and in {tmp_path} only 100 KiB are free." in told
    # What is trained takes no more.
    assert main(tmp_path) == 0
    assert "warning" not in capsys.readouterr().err


def test_the_room_of_checkpoints_is_that_of_their_arrays(tmp_path):
    (one, _) = plan.plan(registry.load("quickstart"), "smoke")
    settings, place = one.run.settings, paths.path(tmp_path)
    assert (settings.train.steps, settings.train.save_every, settings.train.keep) == (20, 5, 2)
    # Four checkpoints: parameters, one mean of their gradients or two, and a few numbers.
    each = 4 * 4 * model.count(settings.model)
    assert 2 * each < estimate.checkpoint_bytes(one.run, place) < 3 * each
