"""Checkpoints: which are kept, which are read, and what damage does to them."""

import errno
import logging
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from test_train import same, truncate_data

from physlm import checkpoint, paths
from physlm.checkpoint import Checkpoints


def _truncate(checkpoint: pathlib.Path) -> None:
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flip_a_bit(checkpoint: pathlib.Path) -> None:
    largest = max((f for f in checkpoint.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 4
    largest.write_bytes(data)


def _delete_data(checkpoint: pathlib.Path) -> None:
    for file in list(checkpoint.rglob("*")):
        if file.is_file() and file.stat().st_size > 2000:
            file.unlink()


def _delete_metadata(checkpoint: pathlib.Path) -> None:
    for file in list(checkpoint.rglob("*")):
        if file.is_file() and ("METADATA" in file.name or "manifest" in file.name):
            file.unlink()


def _empty(checkpoint: pathlib.Path) -> None:
    for file in list(checkpoint.rglob("*")):
        if file.is_file():
            file.unlink()


# The array store complains once more when a failed read is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [_truncate, truncate_data, _flip_a_bit, _delete_data, _delete_metadata, _empty],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: object, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "n": jnp.int32(3)}
    later = jax.tree.map(lambda x: x + 1, state)
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(10, state, 2.0)
        checkpoints.save(20, later, 1.0)
    damage(tmp_path / "20")
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
    capsys.readouterr()
    with Checkpoints(tmp_path, 2) as checkpoints:
        restored = checkpoints.restore_latest(target)
        assert same(restored, state)
        # The step can be saved again.
        checkpoints.save(20, later, 1.0)
        checkpoints.wait()
        assert same(checkpoints.restore_latest(target), later)
    (warning,) = [s for s in capsys.readouterr().err.splitlines() if "so the one before" in s]
    assert warning.startswith(f"warning: Checkpoint 20 in {tmp_path} is damaged (")
    assert "<" not in warning and not warning.endswith("()")


def test_what_is_damaged_is_said(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """With the first line of what reading it ended in."""
    (tmp_path / "20" / "metrics").mkdir(parents=True)
    (tmp_path / "20" / "metrics" / "metrics").write_text("torn")
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert checkpoints.latest is None
    assert "is damaged (Expecting value: line 1" in capsys.readouterr().err


_OTHER_DEVICES = """
import pathlib, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from physlm.checkpoint import Checkpoints
from physlm.sharding import MeshConfig, make_mesh

place = NamedSharding(make_mesh(MeshConfig()), P())
with Checkpoints(pathlib.Path(sys.argv[2]), 2) as checkpoints:
    if sys.argv[1] == "2":
        checkpoints.save(7, jax.device_put({"x": jnp.arange(4.0)}, place), 1.0)
    else:
        state = checkpoints.restore_latest(
            {"x": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=place)}
        )
        print(state["x"].tolist())
"""


def test_checkpoint_is_read_on_other_devices(tmp_path):
    """One from two devices is no damage to a machine that has one."""
    for devices in ("2", "1"):
        out = subprocess.run(
            [sys.executable, "-c", _OTHER_DEVICES, devices, str(tmp_path / "checkpoints")],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert out.stdout.split("\n")[0] == "[0.0, 1.0, 2.0, 3.0]"
    assert "damaged" not in out.stderr


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: pathlib.Path) -> None:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {"w": jax.ShapeDtypeStruct((), jnp.float32, sharding=place)}
    with Checkpoints(tmp_path, 2) as checkpoints:
        for step, loss in enumerate([3.0, 1.0, 2.0, 1.5, 1.25], start=1):
            checkpoints.save(step, {"w": jnp.float32(10 * step)}, loss)
        checkpoints.wait()
    assert checkpoint.steps(tmp_path) == {2, 4, 5}
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert (checkpoints.latest, checkpoints.best) == (5, 2)
        assert checkpoints.restore(checkpoints.best, target) == {"w": 20}
        # A new best frees the old one.
        checkpoints.save(6, {"w": jnp.float32(0)}, 0.5)
        checkpoints.wait()
        assert checkpoints.best == 6
    assert checkpoint.steps(tmp_path) == {5, 6}


def test_a_checkpoint_that_finds_no_room_is_not_begun(tmp_path, monkeypatch):
    state = {"w": jnp.zeros((64, 64))}
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(10, state, 2.0)
        checkpoints.wait()
        monkeypatch.setattr(paths, "free", lambda _: state["w"].nbytes)
        with pytest.raises(paths.FullError) as full:
            checkpoints.save(20, state, 1.0)
        assert str(full.value) == (
            f"a checkpoint in {tmp_path} cannot be written: only 16 KiB are free there. Once there "
            "is more, the same command goes on."
        )
        assert {int(path.name) for path in tmp_path.iterdir() if path.is_dir()} == {10}
        monkeypatch.undo()
        checkpoints.save(20, state, 1.0)
    assert checkpoint.steps(tmp_path) == {10, 20}


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("call", ["mkdir", "rename"])
def test_what_runs_out_of_room_leaves_nothing_behind(call, waits, tmp_path, monkeypatch):
    """There was room at the start, and is none for a directory, or for a name at the very end."""
    state, at_work, refused = {"w": jnp.zeros((64, 64))}, getattr(os, call), []

    def full(path, *rest, **more):
        if str(tmp_path / "20.") in str(path) and (call != "mkdir" or "array" in str(path)):
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return at_work(path, *rest, **more)

    with pytest.raises(paths.FullError), Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(10, state, 2.0)
        checkpoints.wait()
        monkeypatch.setattr(os, call, full)
        checkpoints.save(20, state, 1.0)
        if waits:
            checkpoints.wait()
    assert refused
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["10"]


def test_runs_that_save_together_do_not_count_on_one_room_twice(tmp_path, monkeypatch):
    """What another one is still writing is waited for before there is said to be no room."""
    state = {"w": jnp.zeros((64, 64))}
    waited = []
    with Checkpoints(tmp_path / "a", 2) as one, Checkpoints(tmp_path / "b", 2) as other:
        monkeypatch.setattr(paths, "free", lambda _: 200_000)
        one.save(10, state, 2.0)
        monkeypatch.setattr(one, "wait", lambda: waited.append("a"))
        other.save(10, state, 2.0)
        assert waited == ["a"]
        # Who has written everything is not waited for, even if there is just enough room.
        monkeypatch.undo()
        one.wait()
        monkeypatch.setattr(paths, "free", lambda _: state["w"].nbytes + checkpoint._BESIDE)
        monkeypatch.setattr(one, "wait", lambda: waited.append("a"))
        other.save(20, state, 1.0)
        assert waited == ["a"]
        monkeypatch.undo()
    assert checkpoint.steps(tmp_path / "a") == {10}
    assert checkpoint.steps(tmp_path / "b") == {10, 20}


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        ValueError('RESOURCE_EXHAUSTED: Failed to write 9 bytes: No space left on device [os_e"]'),
    ],
)
def test_a_full_disk_is_told_whoever_says_it(error, tmp_path):
    def raised():
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("saving failed") from cause

    told = pytest.raises(paths.FullError, match=r"^it cannot be written: only .* are free in ")
    with told, paths.room_for("it", tmp_path):
        raised()
    with pytest.raises(OSError, match="Read-only"), paths.room_for("it", tmp_path):
        raise OSError(30, "Read-only file system")


@pytest.mark.parametrize(
    ("text", "file", "news"),
    [
        ("Failed to update metadata={} path=x", "elsewhere.py", False),
        ("[wait_until_finished] Save Finalize thread (save_finalize) failed.", "x.py", False),
        ("_GatheringFuture exception was never retrieved", "orbax/serialization.py", False),
        ("_GatheringFuture exception was never retrieved", "mine.py", True),
        ("something else failed", "orbax/serialization.py", True),
    ],
)
def test_what_is_raised_anyway_is_not_logged_too(text, file, news):
    try:
        exec(compile("raise ValueError('refused')", file, "exec"))
    except ValueError:
        found = sys.exc_info()
    record = logging.LogRecord("absl", logging.ERROR, file, 1, text, None, found)
    assert checkpoint._is_news(record) == news


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("orbax/futures.py", "refused", False),
        ("mine.py", "refused", True),
        ("mine.py", "Event loop is closed", False),
    ],
)
def test_what_orbax_no_longer_waits_for_is_not_told(file, text, told, monkeypatch):
    """Of coroutines that are thrown away, by whose code they are and what they raised."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    monkeypatch.setattr(sys, "excepthook", lambda *found: heard.append(found))
    checkpoint._quieted.__wrapped__()
    coroutine = types.SimpleNamespace(cr_code=compile("", file, "exec"))
    error = RuntimeError(text)
    sys.unraisablehook(types.SimpleNamespace(object=coroutine, exc_value=error))
    assert bool(heard) == told
    sys.excepthook(RuntimeError, error, None)
    assert bool(heard) == (text == "refused")


# Its directory can be written, and nothing in it.
_NOTHING_IS_MADE = """
import errno, os, sys
import jax.numpy as jnp
from etils import epath
from physlm import paths
from physlm.checkpoint import Checkpoints

directory = sys.argv[1]

def refuse(event, args):
    made = event == "os.mkdir" or (event == "open" and isinstance(args[2], int) and args[2] & 3)
    if made and str(args[0]).startswith(directory + "/"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

with Checkpoints(epath.Path(directory), 2) as checkpoints:
    sys.addaudithook(refuse)
    try:
        checkpoints.save(10, {"w": jnp.zeros(4)}, 1.0)
        checkpoints.wait()
    except paths.FullError as error:
        print(error)
"""


def test_a_directory_that_cannot_be_made_is_not_waited_for(tmp_path):
    """Orbax's threads would wait for it for five minutes, and the process for them."""
    command = [sys.executable, "-c", _NOTHING_IS_MADE, str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert made.stdout.startswith(f"a checkpoint in {tmp_path} cannot be written"), made.stderr
    assert made.returncode == 0 and not made.stderr
