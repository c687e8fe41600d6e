"""The doctor: each check passes here, and fails where what it is about is broken."""

import dataclasses
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import time
import types

import jax
import pytest
from etils import epath

from physlm import cache
from physlm.doctor import __main__ as doctor
from physlm.doctor import machine, trials
from physlm.doctor.finding import Asked, Finding

pytestmark = pytest.mark.usefixtures("devices_stay")

GIB = 2**30


@pytest.fixture
def asked(tmp_path):
    return Asked(epath.Path(tmp_path / "results"))


def printed(capsys):
    """Status and rest of each line, by the name of its check."""
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[1]: (line.split()[0], line) for line in lines}


def replaced(monkeypatch, check, finding=None, error=None):
    def instead(_):
        if error is not None:
            raise error
        return finding

    monkeypatch.setattr(check[0], check[1], instead)


@pytest.mark.slow
def test_all_is_well_here_and_nothing_stays(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(machine, "_ACCELERATORS", ())
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["jax>=0.10", "numpy>=2"])
    assert doctor.main(["--path", str(tmp_path / "not" / "there")]) == 0
    found = printed(capsys)
    assert list(found) == list(doctor.CHECKS)
    if shutil.disk_usage(tmp_path).free > 10 * GIB:
        assert {status for status, _ in found.values()} == {"ok"}
    assert list(tmp_path.iterdir()) == []
    assert doctor.main(["--path", str(tmp_path)]) == 0
    assert list(tmp_path.iterdir()) == []


def test_one_failed_check_stops_no_other(tmp_path, capsys, monkeypatch):
    good = Finding("ok", "fine")
    for name, (module, _) in doctor.CHECKS.items():
        replaced(monkeypatch, ({"machine": machine, "trials": trials}[module], name), good)
    assert doctor.main(["--path", str(tmp_path)]) == 0
    replaced(monkeypatch, (machine, "disk"), Finding("warning", "little", "make room"))
    assert doctor.main(["--path", str(tmp_path)]) == 0
    capsys.readouterr()
    replaced(monkeypatch, (machine, "devices"), error=RuntimeError("the device\nis busy"))
    assert doctor.main(["--path", str(tmp_path)]) == 1
    found = printed(capsys)
    assert found["devices"] == (
        "failed",
        "failed   devices     RuntimeError: the device is busy → see which other process has "
        "them, and what JAX_PLATFORMS says",
    )
    assert found["disk"][1] == "warning  disk        little → make room"
    assert [status for status, _ in found.values()].count("ok") == len(doctor.CHECKS) - 2


def test_marks_are_coloured_on_a_terminal_alone():
    assert doctor.line("disk", Finding("ok", "fine"), colour=False) == "ok       disk        fine"
    red = doctor.line("disk", Finding("failed", "full", "make room"), colour=True)
    assert red == "\033[31mfailed \033[0m  disk        full → make room"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--path", "FILE"], "it must be a directory, and FILE is a file."),
        (["--path", "FILE/below"], "it must be a directory, and FILE is a file."),
        (["--path", "s3://bucket/runs"], "is not allowed; a local path is, and gs://BUCKET/DIR"),
        (["--set", "mesh.data=0"], "mesh.data is 0; it must be a whole number, at least 1, or -1."),
        (["--set", "mesh.pipeline=2"], "--set 'mesh.pipeline=2' is not allowed: mesh.data, mesh."),
        (["--set", "model.layers=2"], "--set 'model.layers=2' is not allowed: mesh.data, mesh.fs"),
        (["--set", "mesh.sequence=x"], "mesh.sequence is 'x'; it must be a whole number"),
        (["--distributed", "here"], "--distributed is 'here'; it must be auto or ADDRESS:PORT,"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_tried(tmp_path, capsys, arguments, complaint):
    file = tmp_path / "mine"
    file.write_text("kept")
    try:
        code = doctor.main([argument.replace("FILE", str(file)) for argument in arguments])
    except SystemExit as leaving:
        code = leaving.code
    assert code == 2
    out, err = capsys.readouterr()
    assert complaint.replace("FILE", str(file)) in err and err.count("\n") == 1 and not out
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_jax_it_says_so(tmp_path):
    code = "import sys; sys.modules['jax'] = None; from physlm.doctor.__main__ import main; "
    code += f"sys.exit(main(['--path', {str(tmp_path)!r}, '--set', 'mesh.data=2']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert list(lines) == list(doctor.CHECKS)
    assert "No module named 'jax'" in lines["devices"] or "import of jax halted" in lines["devices"]


# Versions.


@pytest.mark.parametrize(
    ("lines", "status", "advice"),
    [
        (["numpy>=2", "no-such-thing>1; extra == 'gpu'"], "ok", ""),
        (["numpy<2,>=1.2", "jax>0.1"], "warning", "tested with other versions: pip install 'numpy"),
        (["no-such-thing<3", "numpy<1"], "failed", "pip install 'no-such-thing<3' 'numpy<1'"),
    ],
)
def test_versions_are_those_of_the_package(asked, monkeypatch, lines, status, advice):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    found = machine.versions(asked)
    assert found.status == status
    assert advice in found.advice if advice else not found.advice
    assert f"numpy {importlib.metadata.version('numpy')}" in found.seen
    assert ("no no-such-thing" in found.seen) == (status == "failed")


def test_a_python_that_is_too_old_and_what_is_not_installed(asked, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [])
    monkeypatch.setattr(machine, "sys", types.SimpleNamespace(version_info=(3, 10, 4)))
    assert machine.versions(asked)[::2] == ("failed", "install Python >=3.11")

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    found = machine.versions(asked)
    assert found.status == "warning" and found.advice.startswith("pip install -e /")


# Devices.


@pytest.mark.parametrize(
    ("platforms", "installed", "advice"),
    [
        ("", None, "pip install 'physlm[tpu]'"),
        ("", object(), "libtpu is installed; JAX_LOGGING_LEVEL=DEBUG says why it is not used"),
        ("cpu", None, "unset JAX_PLATFORMS, which says cpu, to have it used"),
    ],
)
def test_an_accelerator_that_is_not_used_is_seen(asked, monkeypatch, platforms, installed, advice):
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: installed)
    monkeypatch.setattr(machine, "_ACCELERATORS", machine._ACCELERATORS[1:])
    found = machine.devices(asked)
    assert (found.status, found.advice) == ("warning", advice)
    assert "; there is a TPU, and JAX does not use it" in found.seen


def test_a_gpu_is_known_by_its_tool(asked, monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert machine.devices(asked).advice == "pip install 'physlm[gpu]'"


# The mesh.


def test_a_mesh_that_the_devices_do_not_make_is_refused(tmp_path):
    asked = Asked(epath.Path(tmp_path), ("mesh.data=1000",))
    with pytest.raises(ValueError, match="it must be at most the number of devices"):
        trials.mesh(asked)
    # Positions are divided, too.
    asked = Asked(epath.Path(tmp_path))
    narrow = dataclasses.replace(asked.settings.model, window=127)
    asked.__dict__["settings"] = dataclasses.replace(asked.settings, model=narrow)
    asked.__dict__["made"] = jax.sharding.AbstractMesh(
        (1, 1, 2, 1), ("data", "fsdp", "sequence", "tensor")
    )
    with pytest.raises(ValueError, match=r"train\.window is 127"):
        trials.mesh(asked)


def test_what_a_mesh_is_refused_for_has_the_advice_of_the_mesh(tmp_path):
    """Training, decoding and checkpoints need it: neither jax nor a path is at fault."""
    asked = Asked(epath.Path(tmp_path), ("mesh.data=1000",))
    found = dict(doctor.examine(asked))
    for name in ("mesh", "training", "decoding", "checkpoint"):
        assert found[name].status == "failed"
        assert found[name].advice == doctor.CHECKS["mesh"][1]


def test_the_model_is_as_wide_as_the_mesh_needs(tmp_path):
    wide = Asked(epath.Path(tmp_path), ("mesh.tensor=3", "mesh.fsdp=16")).settings.model
    assert wide.heads % 3 == 0 and wide.width % 16 == 0
    assert Asked(epath.Path(tmp_path)).settings.model.heads == 2


def test_devices_that_do_not_add_up_are_seen(asked, monkeypatch):
    assert trials.mesh(asked).status == "ok"
    monkeypatch.setattr(trials.jnp, "sum", lambda numbers: numbers[0] - 1)
    found = trials.mesh(asked)
    assert found.status == "failed" and "add up 0 to" in found.seen


# What is tried.


@pytest.fixture
def stepping(monkeypatch):
    """Losses in place of those of training, whose steps are not made."""

    def losses(*values):
        left = iter(values)

        def step(self, state, batch):
            return state, {"loss": next(left)}

        monkeypatch.setattr(trials.Single, "step", step)

    return losses


@pytest.mark.slow
def test_training_has_to_lower_a_finite_loss(asked, stepping):
    assert trials.training(asked).status == "ok"
    for values in ((2.0, 2.0, 2.0, 2.0), (2.0, 1.0, float("nan"), 1.0), (2.0, 1.0, 1.5, 2.1)):
        stepping(*values)
        assert trials.training(asked).status == "failed"
    stepping(2.0, 1.9, 1.8, 1.7)
    assert trials.training(asked).status == "ok"


@pytest.mark.slow
def test_decoding_that_is_not_what_the_model_says_is_seen(asked, monkeypatch):
    assert trials.decoding(asked).status == "ok"
    decode = trials.engine.decode

    def other_scores(*arguments, **settings):
        written = decode(*arguments, **settings)
        return written._replace(score_NxS=written.score_NxS - 1)

    with monkeypatch.context() as patch:
        patch.setattr(trials.engine, "decode", other_scores)
        assert trials.decoding(asked).status == "failed"
    # Keys and values a slot too late, in programs that are compiled anew.
    written = cache._written
    jax.clear_caches()
    monkeypatch.setattr(
        cache, "_written", lambda held, new, start, axis: written(held, new, start + 1, axis)
    )
    found = trials.decoding(asked)
    jax.clear_caches()
    assert found.status == "failed" and "the likeliest are missed" in found.seen


def test_a_checkpoint_that_is_read_otherwise_is_seen(asked, monkeypatch):
    assert trials.checkpoint(asked).status == "ok"
    restore = trials.Checkpoints.restore

    def spoilt(self, step, abstract):
        return jax.tree.map(lambda leaf: leaf + 1, restore(self, step, abstract))

    monkeypatch.setattr(trials.Checkpoints, "restore", spoilt)
    found = trials.checkpoint(asked)
    assert found.status == "failed" and found.seen.endswith("but not what was written")
    assert not asked.path.exists()


def test_a_disk_that_is_full_fails_and_nothing_stays(asked, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trials.paths, "write_atomically", full)
        with pytest.raises(ValueError, match="results: No space left"):
            trials.checkpoint(asked)
    assert not asked.path.exists()


def test_two_doctors_at_one_place_do_not_disturb_each_other(asked, monkeypatch):
    asked.path.mkdir()
    lease = trials.leases.Watch().take(asked.path / ".doctor")

    def other_ends(seconds):
        assert list(asked.path.iterdir()) == [asked.path / "..doctor.lease"]
        lease.release()

    # Of this module alone: other threads sleep too.
    waits = types.SimpleNamespace(**{**vars(time), "sleep": other_ends})
    monkeypatch.setattr(trials.leases, "time", waits)
    assert trials.checkpoint(asked).status == "ok"
    assert list(asked.path.iterdir()) == []


def test_what_other_hosts_do_not_see_is_no_place_for_results(asked, monkeypatch):
    def gathered(here):
        return jax.numpy.stack([here, ~here])

    monkeypatch.setattr(trials.multihost_utils, "process_allgather", gathered)
    found = trials.checkpoint(asked)
    assert found.status == "failed" and found.advice == "give a --path that all of them see"
    assert not asked.path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("correct", [True, False])
def test_a_judge_that_says_the_same_of_all_is_seen(asked, monkeypatch, correct):
    monkeypatch.setattr(trials, "judge", lambda *_: types.SimpleNamespace(correct=correct))
    found = trials.generator(asked)
    assert found.status == "failed" and ("64 are solved right" in found.seen) == correct


@pytest.mark.slow
def test_problems_that_depend_on_their_place_are_seen(asked, monkeypatch):
    assert trials.generator(asked).status == "ok"
    problems = trials.stream.problems

    def by_place(keys_N, *, spec):
        found = problems(keys_N, spec=spec)
        return found._replace(op=found.op.at[0].add(1))

    monkeypatch.setattr(trials.stream, "problems", by_place)
    found = trials.generator(asked)
    assert found.status == "failed" and found.seen.endswith("drawn backwards, are others")


@pytest.mark.parametrize(
    ("free", "status", "advice"),
    [
        (0.5, "failed", "make 1 GiB of room, or give another --path"),
        (2, "warning", "enough for smaller scales; else give another --path"),
        (100, "ok", ""),
    ],
)
def test_free_disk(asked, monkeypatch, free, status, advice):
    usage = types.SimpleNamespace(free=int(free * GIB))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    found = machine.disk(asked)
    assert (found.status, found.advice) == (status, advice)
    assert found.seen.startswith(f"{free:.1f} GiB free for ")


# Several hosts.


def two_hosts(commands):
    """Exit codes and output of two processes that are two hosts."""
    # Both would write the same entries of a cache.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    outs = [process.communicate(timeout=400)[0] for process in processes]
    return [process.returncode for process in processes], outs


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_hosts_are_examined_together(tmp_path):
    command = [sys.executable, "-m", "physlm.doctor", "--path", str(tmp_path / "runs")]
    command += ["--set", "mesh.cpu_devices=1", "--distributed"]
    port = free_port()
    codes, outs = two_hosts([[*command, f"localhost:{port},2,{n}"] for n in range(2)])
    assert [line for out in outs for line in out.splitlines() if line.startswith("failed")] == []
    assert codes == [0, 0]
    for number, out in enumerate(outs):
        lines = {line.split()[1]: line for line in out.splitlines() if line[0] != "["}
        assert f"number {number} of 2 processes" in lines["devices"]
        assert lines["mesh"].startswith("ok") and "data 2" in lines["mesh"]
        # What a host decodes is the other's, too.
        assert lines["decoding"].startswith("ok       decoding    128 tokens")
    assert list(tmp_path.iterdir()) == []


_CHECKPOINT = """
import sys
from etils import epath
from physlm.doctor import machine, trials
from physlm.doctor.finding import Asked
asked = Asked(epath.Path(sys.argv[1]), ("mesh.cpu_devices=1",), sys.argv[2])
machine.devices(asked)
print(trials.checkpoint(asked).advice)
"""


@pytest.mark.slow
def test_hosts_that_see_different_directories_are_told_so(tmp_path):
    port = free_port()
    command = [sys.executable, "-c", _CHECKPOINT]
    codes, outs = two_hosts(
        [[*command, str(tmp_path / str(n)), f"localhost:{port},2,{n}"] for n in range(2)]
    )
    assert codes == [0, 0]
    assert all("give a --path that all of them see" in out for out in outs)
    assert list(tmp_path.iterdir()) == []
