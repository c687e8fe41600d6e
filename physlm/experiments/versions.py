"""Records versions, commit and devices, on which results depend beside the configuration."""

import functools
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax
from etils import epath

import physlm
from physlm.experiments import files

FILE = "versions.json"

_PACKAGES = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "numpy": "numpy",
}

# Where Linux describes the processor, and its vector instructions, the widest first.
_PROCESSOR = pathlib.Path("/proc/cpuinfo")
_VECTORS = ("avx512f", "avx2", "avx", "sse4_2", "sve", "asimd")


def versions() -> dict[str, Any]:
    """Versions of packages, the commit, and the devices."""
    commit, modified = _git_state()
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(package) for name, package in _PACKAGES.items()},
        "physlm": physlm.__version__,
        "git_commit": commit,
        "git_modified": modified,
        **devices(),
    }


def devices() -> dict[str, Any]:
    """Of what kind the devices are, and how many.

    Of CPUs also which processor it is: XLA compiles for its vector instructions, and one seed has
    been another model on another processor.
    """
    found = jax.devices()
    return {
        "device_kind": found[0].device_kind,
        **({"cpu": _processor(_PROCESSOR)} if found[0].platform == "cpu" else {}),
        "device_count": len(found),
    }


@functools.cache
def _processor(described: pathlib.Path) -> str:
    """The processor and its widest vector instructions, as far as the system tells them."""
    try:
        lines = described.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name") or platform.processor() or platform.machine()
    # ARM calls them features.
    there = f"{told.get('flags', '')} {told.get('Features', '')}".split()
    return ", ".join([name, *[vector for vector in _VECTORS if vector in there][:1]])


def _git_state() -> tuple[str | None, bool | None]:
    """The commit of the sources and whether they differ from it; None outside a clone."""
    source = pathlib.Path(physlm.__file__)

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(source.parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside some other repository, whose commit would say nothing.
    if git("ls-files", "--error-unmatch", source.name) is None:
        return None, None
    changes = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), bool(changes)


def write(path: epath.Path) -> None:
    """Writes the versions; those of an interrupted earlier part are kept under `before`."""
    current = versions()
    if path.exists():
        earlier = files.read_object(path)
        before = earlier.pop("before", [])
        current["before"] = before if earlier == current else [*before, earlier]
    files.write_json(path, current)
