"""The devices of this host, configured before JAX initialises them; and several hosts together.

Where several hosts work on one program, each runs the same command and takes the same decisions
from the same files, in a directory that all of them see. All of them write checkpoints; only the
first writes other files.
"""

import os

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from physlm.sharding import MeshConfig


def prepare(
    config: MeshConfig, batch: int, cache_dir: epath.Path | None = None, cores: int = 0
) -> None:
    """Presents the CPU as several devices, and keeps compiled programs between processes.

    It has to be called before anything asks JAX for a device. The number of CPU devices does not
    matter where there is an accelerator.

    Args:
      config: the mesh. `cpu_devices` is the number of devices; 0 is as many cores as can share a
        batch.
      batch: the number of sequences of a step.
      cache_dir: the directory for compiled programs; None leaves JAX's own setting.
      cores: how many cores are this process's; 0 is all of the machine that it may use.
    """
    count = config.cpu_devices or _cores_for(config, batch, cores or _cores())
    jax.config.update("jax_num_cpu_devices", count)
    if cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        # The default of one second would leave most of a small model's programs out.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def leave() -> None:
    """Leaves accelerators to other processes; before anything asks JAX for a device."""
    jax.config.update("jax_platforms", "cpu")


def _cores() -> int:
    affinity = hasattr(os, "sched_getaffinity")
    return (len(os.sched_getaffinity(0)) if affinity else os.cpu_count()) or 1


def _cores_for(config: MeshConfig, batch: int, cores: int) -> int:
    if config.data != -1:
        return cores
    others = config.beside_data
    fitting = [
        data * others for data in range(1, cores // others + 1) if batch % (data * config.fsdp) == 0
    ]
    # Where no number fits, `physlm.sharding` refuses the mesh and says why.
    return max(fitting, default=cores)


def join(where: str) -> None:
    """Makes this process one of several that work on one program (`jax.distributed`).

    Args:
      where: `auto` on clusters that JAX knows (Cloud TPU, SLURM, Kubernetes, Open MPI). Elsewhere
        the address of the first process, the number of processes and the number of this one, such
        as `10.0.0.1:1234,2,0`.

    Raises:
      ValueError: it is neither, or JAX does not know the cluster.
    """
    if (place := parse(where)) is not None:
        jax.distributed.initialize(*place)
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise ValueError(
            "--distributed auto does not know this cluster; write ADDRESS:PORT,PROCESSES,NUMBER."
        ) from error


def parse(where: str) -> tuple[str, int, int] | None:
    """Address, number of processes and number of this one; None for `auto`. As for `join`.

    Raises:
      ValueError: it is not written so.
    """
    if where == "auto":
        return None
    address, *numbers = where.split(",")
    if ":" not in address or len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
        raise ValueError(
            f"--distributed is {where!r}; it must be auto or ADDRESS:PORT,PROCESSES,NUMBER."
        )
    processes, number = map(int, numbers)
    if number >= processes:
        raise ValueError(
            f"--distributed is {where!r}; the number of a process must be in 0..{processes - 1}."
        )
    return address, processes, number


def room(device: jax.Device) -> int:
    """Bytes of memory that a device has for arrays, free or not.

    Of a CPU that is the machine's memory, which all of its devices share.
    """
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def is_first() -> bool:
    """Whether this process is the one that writes files other than checkpoints."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """A barrier: returns when all processes have called it with the same `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agreed(number: int) -> int:
    """Broadcasts a number from the first process to all others."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))
