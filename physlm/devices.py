"""The accelerator, or a CPU in its place, made ready before JAX first looks at it."""

import os
import pathlib

import jax

from physlm.sharding import MeshConfig


def prepare(config: MeshConfig, cache_dir: pathlib.Path | None = None) -> None:
    """Presents the CPU as several devices and keeps compiled programs between processes.

    Call it before anything asks JAX for a device; accelerators are not affected by the former.

    Args:
      config: its `cpu_devices` says how many; 0 means as many as there are cores.
      cache_dir: where compiled programs are kept; None leaves JAX's own setting.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", config.cpu_devices or cores or 1)
    if cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        # The default of one second would leave most of a small model's programs out.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
