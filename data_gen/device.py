"""The device on which data is made.

Problems are made in loops of small steps, and before each turn of a loop a GPU waits for its host:
windows came 34 times as fast from the 16 cores of a host as from its H200.
"""

import jax

from data_gen.settings import RefusedError


def of_data(where: str = "auto") -> jax.Device | None:
    """The device to make data on; None is JAX's default. What is made is the same on all.

    Args:
      where: cpu for the host's cores, devices for JAX's default, or auto for the former where the
        default is a GPU and for the latter elsewhere.

    Raises:
      RefusedError: the cores are asked for and JAX is told to leave them alone.
    """
    if where == "devices" or (where == "auto" and jax.default_backend() != "gpu"):
        return None
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        if where == "auto":
            return None
        allowed = "auto or devices where JAX_PLATFORMS does not name cpu"
        raise RefusedError("mesh.input", where, allowed) from error
