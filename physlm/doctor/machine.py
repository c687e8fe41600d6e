"""Checks of what is installed and of the machine: versions, devices, disk."""

import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import sys

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import physlm
from physlm import paths
from physlm.doctor.finding import Asked, Finding

_GIB = 2**30
# Room for results, compiled programs and small models.
_LEAST_FREE = _GIB


def versions(asked: Asked) -> Finding:
    """Python and the packages that are needed, against the versions that this is tested with."""
    del asked
    python = ".".join(map(str, sys.version_info[:3]))
    seen = [f"physlm {physlm.__version__}", f"Python {python}"]
    try:
        described = importlib.metadata.metadata("physlm")
        lines = importlib.metadata.requires("physlm") or []
    except importlib.metadata.PackageNotFoundError:
        where = pathlib.Path(physlm.__file__).parent.parent
        said = f"{', '.join(seen)}; physlm is not installed"
        return Finding("warning", said, f"pip install -e {where}")
    missing, others = [], []
    for needed in map(Requirement, lines):
        # What an extra installs is named under the condition that the extra is asked for.
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            seen.append(f"no {needed.name}")
            missing.append(needed)
            continue
        seen.append(f"{needed.name} {version}")
        if not needed.specifier.contains(version, prereleases=True):
            others.append(needed)
    said = ", ".join(seen)
    pythons = SpecifierSet(described["Requires-Python"] or "")
    if not pythons.contains(python, prereleases=True):
        return Finding("failed", said, f"install Python {pythons}")
    install = "pip install " + " ".join(
        f"'{needed.name}{needed.specifier}'" for needed in missing + others
    )
    if missing:
        return Finding("failed", said, install)
    if others:
        return Finding("warning", said, f"tested with other versions: {install}")
    return Finding("ok", said)


def devices(asked: Asked) -> Finding:
    """What JAX computes on, and whether it leaves an accelerator unused."""
    import jax

    from physlm import devices as devices_lib

    devices_lib.prepare(asked.settings.mesh, asked.settings.train.batch)
    if asked.distributed:
        devices_lib.join(asked.distributed)
    found, here = jax.devices(), jax.local_devices()
    room = devices_lib.room(here[0]) / _GIB
    # A CPU that is shown as several devices has one memory.
    memory = f"{room:.1f} GiB" + (" each" if found[0].platform != "cpu" and len(found) > 1 else "")
    seen = f"{len(found)} × {found[0].device_kind}, {memory}"
    if jax.process_count() > 1:
        number = f"number {jax.process_index()} of {jax.process_count()} processes"
        seen += f", {len(here)} of them here, in {number}"
    if found[0].platform != "cpu":
        return Finding("ok", seen)
    for name, is_here, plugin, extra in _ACCELERATORS:
        if not is_here():
            continue
        seen += f"; there is {name}, and JAX does not use it"
        if os.environ.get("JAX_PLATFORMS") == "cpu":
            return Finding("warning", seen, "unset JAX_PLATFORMS, which says cpu, to have it used")
        if importlib.util.find_spec(plugin) is None:
            return Finding("warning", seen, f"pip install 'physlm[{extra}]'")
        advice = f"{plugin} is installed; JAX_LOGGING_LEVEL=DEBUG says why it is not used"
        return Finding("warning", seen, advice)
    return Finding("ok", seen)


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or pathlib.Path("/dev/nvidia0").exists()


def _has_tpu() -> bool:
    # Which of these a virtual machine has depends on the generation of its TPU.
    told = any(map(os.environ.get, ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID")))
    return told or any(pathlib.Path(file).exists() for file in ("/dev/accel0", "/dev/vfio/0"))


# What it is called, whether it is here, what JAX uses it by, and the extra that installs that.
_ACCELERATORS = (
    ("an NVIDIA GPU", _has_gpu, "jax_cuda12_plugin", "gpu"),
    ("a TPU", _has_tpu, "libtpu", "tpu"),
)


def disk(asked: Asked) -> Finding:
    """Free disk where results are to be, beside what checkpoints of the paper's models take."""
    needed = _bytes_of_a_run("paper")
    keeps = f"where a run of the scale paper keeps {needed / _GIB:.1f} GiB"
    if not paths.is_local(asked.path):
        return Finding("ok", f"{asked.path} is in a bucket, {keeps}")
    path = paths.absolute(asked.path)
    nearest = next(place for place in (path, *path.parents) if place.exists())
    free = shutil.disk_usage(nearest).free
    seen = f"{free / _GIB:.1f} GiB free for {asked.path}, {keeps}"
    if free < _LEAST_FREE:
        least = f"{_LEAST_FREE / _GIB:.0f} GiB"
        return Finding("failed", seen, f"make {least} of room, or give another --path")
    if free < _LEAST_FREE + needed:
        return Finding("warning", seen, "enough for smaller scales; else give another --path")
    return Finding("ok", seen)


@functools.cache
def _bytes_of_a_run(scale: str) -> int:
    """What the checkpoints take that a run of a scale has at most, one being written included."""
    import jax

    from data_gen import keys
    from physlm import optimizer, step
    from physlm.experiments import config as config_lib

    settings = config_lib.resolve(config_lib.base(scale))
    transform = optimizer.make(settings.optimizer, settings.train.steps)
    init = functools.partial(step.init_state, settings.model, transform)
    state = jax.eval_shape(init, keys.root(0, keys.Purpose.PARAMETERS))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    # Beside the newest ones, that of the lowest loss, and the one that is being written.
    return size * (settings.train.keep + 2)
