"""The device on which data is made.

Problems are made in loops of small steps, and before each turn of a loop a GPU waits for its host:
windows came 34 times as fast from the 16 cores of a host as from its H200.
"""

import jax


def of_data(where: str = "auto") -> jax.Device | None:
    """The device to make data on; None is JAX's default. What is made is the same on all.

    Args:
      where: cpu for the host's cores, devices for JAX's default, or auto for the former where the
        default is a GPU and for the latter elsewhere.

    Raises:
      RuntimeError: the cores are asked for and JAX is told to leave them alone (JAX_PLATFORMS).
    """
    if where == "cpu":
        return _cores()
    if where == "auto" and jax.default_backend() == "gpu":
        try:
            return _cores()
        except RuntimeError:
            return None
    return None


def _cores() -> jax.Device:
    return jax.local_devices(backend="cpu")[0]
