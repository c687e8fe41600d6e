"""Programs that several tests, workers or runs need are compiled once."""

import os


def pytest_configure(config):
    # Read by this process before it imports JAX, and by the sweeps that tests start.
    directory = config.cache.mkdir("jax") if hasattr(config, "cache") else None
    if directory is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
