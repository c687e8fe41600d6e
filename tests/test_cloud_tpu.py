"""The Cloud TPU script, against a gcloud that runs every host of a slice as a local process."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest

from physlm.experiments import results

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "cloud_tpu.sh"
SWEEP = ("quickstart", "--scale", "smoke", "--set", "train.steps=40", "train.save_every=4",
         "evaluate.problems=8", "evaluate.beyond=4", "mesh.cpu_devices=1")  # fmt: skip

# Slices are directories with one home a host; buckets are directories.
GCLOUD = """
import json, os, pathlib, re, shutil, signal, subprocess, sys, time

cloud, arguments = pathlib.Path(os.environ["CLOUD"]), sys.argv[1:]
with (cloud / "calls").open("a") as file:
    print(json.dumps(arguments), file=file)
flags = dict(re.match("--([a-z-]+)(?:=(.*))?$", a, re.S).groups()
             for a in arguments if a.startswith("--"))
words = [a for a in arguments if not a.startswith("--")]

def place(path):
    return path.replace("gs://", f"{cloud}/buckets/") if path.startswith("gs://") else path

if words[:2] == ["storage", "rsync"]:
    source, target = map(place, words[2:])
    if not os.path.isdir(source):
        sys.exit("no such bucket")
    gone = "delete-unmatched-destination-objects" in flags
    if gone and os.path.isdir(target):
        shutil.rmtree(target)
    pattern = re.compile(flags.get("exclude", "(?!)"))
    def left_out(directory, names):
        inside = os.path.relpath(directory, source)
        return [n for n in names if pattern.match(os.path.join(inside, n))]
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=left_out)
    if not gone:
        restored = len(list(pathlib.Path(source).glob("models/*/checkpoints/[0-9]*")))
        (cloud / f"restored-{time.time()}").write_text(str(restored))
    sys.exit()
assert words[:3] == ["compute", "tpus", "tpu-vm"], words
assert "zone" in flags
what, slice_ = words[3], cloud / "slices" / words[4].rstrip(":") if words[3] != "scp" else None
if what == "create":
    assert flags["accelerator-type"] and flags["version"]
    for host in range(int(os.environ["HOSTS"])):
        (slice_ / str(host)).mkdir(parents=True)
elif what == "describe":
    if not slice_.exists():
        sys.exit("NOT_FOUND")
    print("PREEMPTED" if (slice_ / "preempted").exists() else "READY")
elif what == "delete":
    shutil.rmtree(slice_)
elif what == "scp":
    for host in (cloud / "slices" / words[5].rstrip(":")).iterdir():
        shutil.copy(words[4], host)
elif what == "ssh":
    assert flags["worker"] == "all"
    hosts = sorted(path for path in slice_.iterdir() if path.is_dir())
    running = []
    for number, home in enumerate(hosts):
        known = f"localhost:{os.environ['PORT']},{len(hosts)},{number}"
        environment = {**os.environ, "HOME": str(home), "PHYSLM_HOSTS": known}
        running.append(subprocess.Popen(["bash", "-c", flags["command"]], env=environment,
                                        start_new_session=True, cwd=home))
    first = cloud / "preempt-once"
    if " host " in flags["command"] and first.exists():
        # As soon as there is something to lose.
        while not list(hosts[0].glob("store/models/*/checkpoints/[0-9]*/*")):
            assert running[0].poll() is None, "the sweep has ended before it could be preempted"
            time.sleep(0.05)
        first.unlink()
        (slice_ / "preempted").touch()
        for process in running:
            process.send_signal(signal.SIGTERM)
    sys.exit(max(process.wait() for process in running))
else:
    sys.exit(f"what is {what}?")
"""

# In place of pip and uv: an environment that is there already.
PYTHON = '''
import os, pathlib, sys
home = pathlib.Path(os.environ["HOME"])
if sys.argv[1:3] == ["-m", "pip"]:
    assert sys.argv[-1] == "uv"
    uv = home / ".local/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(f"""#!/bin/bash
if [ "$1" = venv ]; then mkdir -p ~/env/bin; else
    printf '#!/bin/bash\\\\nexec {sys.executable} "$@"\\\\n' > ~/env/bin/python
    chmod +x ~/env/bin/python
fi
""")
    uv.chmod(0o755)
'''


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name, source in (("gcloud", GCLOUD), ("python3", PYTHON)):
        path = tmp_path / "bin" / name
        path.write_text(f"#!{sys.executable}\n{textwrap.dedent(source)}")
        path.chmod(0o755)
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
    return tmp_path


def script(*arguments):
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def calls(cloud):
    return [json.loads(line) for line in (cloud / "calls").read_text().splitlines()]


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
    # What gcsfuse or a Filestore share is: one directory, in the place of each host's own.
    shared = cloud / "shared"
    shared.mkdir()
    mount = f"[ -L $HOME/store ] || {{ rmdir $HOME/store && ln -s {shared} $HOME/store; }}"
    monkeypatch.setenv("MOUNT", mount)
    monkeypatch.setenv("HOSTS", "2")
    (cloud / "preempt-once").touch()
    done = script("run", *SWEEP)
    assert done.returncode == 0, done.stderr
    assert "the slice was preempted; the study goes on with another." in done.stderr
    assert len([call for call in calls(cloud) if "create" in call]) == 2
    assert not list(cloud.glob("restored-*")) and not list((cloud / "buckets" / "mine").iterdir())
    assert rows(shared) == undisturbed


def test_bad_input(cloud, monkeypatch):
    assert script("fly").returncode == 2
    assert "run needs the name of a study" in script("run").stderr
    done = script("run", "no_such_study", "--scale", "smoke")
    assert done.returncode == 2 and "unknown study 'no_such_study'" in done.stderr
    monkeypatch.delenv("BUCKET")
    done = script("run", *SWEEP)
    assert done.returncode == 2 and "BUCKET is not set" in done.stderr
    assert shutil.which("gcloud") == str(cloud / "bin" / "gcloud")
