"""What is installed, and on what machine."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator

import jax
from benchmarks.steps.figure import Figure, Setting

from physlm.experiments.versions import versions
from physlm.throughput import peak_flops

# What some steps need and an accelerator's image may lack, with what for.
OPTIONAL = {
    "torch": "training beside PyTorch",
    "transformers": "decoding beside Hugging Face",
    "ml_collections": "the sweep",
    "tqdm": "the sweep",
    "matplotlib": "the sweep's plot",
}

# What other steps are told by (`accelerator.Machine`).
PLATFORM, DEVICES, MEMORY, KIND = "platform", "devices", "memory of a device", "device"


def figures(setting: Setting) -> Iterator[Figure]:
    """Looks at the machine; nothing is measured."""
    found = versions()
    device = jax.devices()[0]
    yield Figure(KIND, found["device_kind"])
    yield Figure(PLATFORM, jax.default_backend())
    yield Figure(DEVICES, found["device_count"])
    memory = (device.memory_stats() or {}).get("bytes_limit")
    # JAX takes three quarters of a GPU's memory unless it is told otherwise.
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", 0.75))
    if memory and device.platform == "gpu":
        memory /= share
    note = "" if memory else "the device does not say"
    yield Figure(MEMORY, memory and round(memory / 2**30, 1), "GiB", note)
    peak = peak_flops(device)
    note = "" if peak else "not in physlm.throughput.PEAK_FLOPS: there will be no MFU"
    yield Figure("peak of a device", peak and peak / 1e12, "TFLOP/s", note)
    yield Figure("cores", len(os.sched_getaffinity(0)))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield Figure("memory of the host", round(pages / 2**30, 1), "GiB")
    for name in ("python", "jax", "jaxlib", "flax", "optax", "orbax", "numpy"):
        wrong = "" if found[name] else f"{name} is not installed."
        yield Figure(name, found[name], wrong=wrong)
    changed = "with changes" if found["git_modified"] else ""
    yield Figure("commit", found["git_commit"], note=changed if found["git_commit"] else "no clone")
    for name, purpose in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            yield Figure(name, None, note=f"not installed: without {purpose}")
        else:
            yield Figure(name, importlib.metadata.version(name))
