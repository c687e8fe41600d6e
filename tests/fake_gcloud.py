"""Programs that stand in for gcloud, pip, uv and gcsfuse, with slices of local processes."""

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

# A file in failing/ has a line for each time that the command of its name fails.
failing = cloud / "failing" / words[1 if words[0] == "storage" else 3]
if failing.exists() and (lines := failing.read_text().splitlines()):
    failing.write_text("".join(f"{line}\\n" for line in lines[1:]))
    sys.exit(f"ERROR: (gcloud) {lines[0]}")

def copy(source, target):
    newer = os.path.exists(target) and os.stat(target).st_mtime > os.stat(source).st_mtime
    if not (newer and "skip-if-dest-has-newer-mtime" in flags):
        shutil.copy2(source, target)

if words[:2] == ["storage", "ls"]:
    if not (cloud / "buckets" / words[2].split("/")[2]).exists():
        sys.exit("ERROR: (gcloud.storage.ls) the bucket was not found: 404.")
    if not os.path.isdir(place(words[2])):
        sys.exit("ERROR: (gcloud.storage.ls) One or more URLs matched no objects.")
    sys.exit()
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
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=left_out, copy_function=copy)
    if words[2].startswith("gs://"):
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
        sys.exit("ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: it was not found.")
    said = slice_ / "state"
    print(said.read_text() if said.exists() else "READY")
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
        (slice_ / "state").write_text("PREEMPTED")
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
    uv.parent.mkdir(parents=True, exist_ok=True)
    uv.write_text(f"""#!/bin/bash
if [ "$1" = venv ]; then mkdir -p ~/env/bin; else
    printf '#!/bin/bash\\\\nexec ${{SWEEPER:-{sys.executable}}} "$@"\\\\n' > ~/env/bin/python
    chmod +x ~/env/bin/python
fi
""")
    uv.chmod(0o755)
'''

# What mounts a bucket: here, a link to the directory that the bucket is.
GCSFUSE = """
import os, pathlib, sys
only = sys.argv[sys.argv.index("--only-dir") + 1]
bucket, mounted = sys.argv[-2:]
if not os.path.islink(mounted):
    os.rmdir(mounted)
    there = pathlib.Path(os.environ["CLOUD"], "buckets", bucket, only)
    there.mkdir(exist_ok=True)
    os.symlink(there, mounted)
"""

# Begins what stands in for a sweep.
SWEEPER = """
import os, pathlib, signal, sys, time
cloud, store = pathlib.Path(os.environ["CLOUD"]), pathlib.Path.home() / "store"
def tell(what):
    with (cloud / "told").open("a") as file:
        print(what, file=file)
def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
tell("begun")
"""
