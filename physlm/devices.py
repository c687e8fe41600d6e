"""The accelerator, or a CPU in its place, made ready before JAX first looks at it; and other hosts.

Where several hosts work on one program, each runs the same command and comes to the same decisions
from the same files, in a directory that all of them see. The first alone writes what is not a
checkpoint.
"""

import os
import pathlib

import jax
from jax.experimental import multihost_utils

from physlm.sharding import MeshConfig


def prepare(config: MeshConfig, batch: int, cache_dir: pathlib.Path | None = None) -> None:
    """Presents the CPU as several devices and keeps compiled programs between processes.

    Call it before anything asks JAX for a device; accelerators are not affected by the former.

    Args:
      config: its `cpu_devices` says how many; 0 means as many cores as can share a batch.
      batch: sequences that a step divides over them.
      cache_dir: where compiled programs are kept; None leaves JAX's own setting.
    """
    count = config.cpu_devices or _cores_for(config, batch)
    jax.config.update("jax_num_cpu_devices", count)
    if cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        # The default of one second would leave most of a small model's programs out.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _cores_for(config: MeshConfig, batch: int) -> int:
    affinity = hasattr(os, "sched_getaffinity")
    cores = (len(os.sched_getaffinity(0)) if affinity else os.cpu_count()) or 1
    if config.data != -1:
        return cores
    others = config.beside_data
    fitting = [
        data * others for data in range(1, cores // others + 1) if batch % (data * config.fsdp) == 0
    ]
    # Where none fits, the mesh will be refused for what is wrong with it.
    return max(fitting, default=cores)


def join(where: str) -> None:
    """Makes this process one of several that work on one program (`jax.distributed`).

    Args:
      where: `auto` where JAX finds out by itself (Cloud TPU, SLURM, Kubernetes, Open MPI); or the
        first process's address, how many processes there are and which this is, as
        `10.0.0.1:1234,2,0`.

    Raises:
      ValueError: it is neither, or JAX cannot find out.
    """
    if where == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                "--distributed auto does not know this cluster; "
                "write ADDRESS:PORT,PROCESSES,NUMBER."
            ) from error
        return
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
    jax.distributed.initialize(address, processes, number)


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when all processes are at the same place, which `name` tells from others."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
