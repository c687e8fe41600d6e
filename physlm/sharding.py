"""Where arrays lie: the device mesh and one table from parameter path to mesh axes."""

import dataclasses
import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices serve which axis of the mesh.

    Attributes:
      data: devices over which a batch is divided; -1 takes all that `model` leaves.
      model: devices over which heads and hidden units are divided.
      population: runs of a study that are trained as one program, at most, where they share all
        shapes; 1 where one run alone is to have the whole machine.
      cpu_devices: devices that a CPU is presented as; 0 means as many as it has cores.

    Raises:
      ValueError: a field is out of its range.
    """

    data: int = -1
    model: int = 1
    population: int = 1
    cpu_devices: int = 0

    def __post_init__(self) -> None:
        if self.data < 1 and self.data != -1:
            raise ValueError(f"mesh.data is {self.data}; it must be -1 (all devices) or above 0.")
        if self.model < 1:
            raise ValueError(f"mesh.model is {self.model}; it must be at least 1.")
        if self.population < 1:
            raise ValueError(f"mesh.population is {self.population}; it must be at least 1.")
        if self.cpu_devices < 0:
            raise ValueError(f"mesh.cpu_devices is {self.cpu_devices}; it must not be negative.")


# Every leaf of a training state, the optimizer's copies included, must end in exactly one of
# these. Heads and hidden units lie along `model`; what is left is small and lies everywhere.
RULES: tuple[tuple[str, P], ...] = (
    (r"embed/embedding", P()),
    (r"head/kernel", P()),
    (r"(norm|norm_attention|norm_mlp)/(scale|bias)", P()),
    (r"attention/qkv/kernel", P(None, None, "model", None)),
    (r"attention/qkv/bias", P(None, "model", None)),
    (r"attention/out/kernel", P("model", None, None)),
    (r"attention/out/bias", P()),
    (r"up/kernel", P(None, "model")),
    (r"up/bias", P("model")),
    (r"down/kernel", P("model", None)),
    (r"down/bias", P()),
    (r"step|count|ns_coeffs", P()),
)


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh with the axes `data` and `model` over the first devices.

    Raises:
      ValueError: there are not enough devices, or they do not divide.
    """
    devices = jax.devices()
    if config.data == -1 and len(devices) % config.model:
        raise ValueError(
            f"mesh.model is {config.model}; it must divide the number of devices, {len(devices)}."
        )
    data = len(devices) // config.model if config.data == -1 else config.data
    if data * config.model > len(devices):
        raise ValueError(
            f"mesh.data times mesh.model is {data * config.model}; "
            f"it must not exceed the number of devices, {len(devices)}."
        )
    return jax.make_mesh(
        (data, config.model),
        ("data", "model"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices[: data * config.model],
    )


def check_batch(batch: int, mesh: Mesh, field: str) -> None:
    """Raises ValueError, naming the field, if a batch cannot be divided over the mesh."""
    if batch % mesh.shape["data"]:
        raise ValueError(
            f"{field} is {batch}; it must be a multiple of the {mesh.shape['data']} devices "
            "along mesh.data."
        )


def check_heads(heads: int, mesh: Mesh) -> None:
    """Raises ValueError if attention heads cannot be divided over the mesh."""
    if heads % mesh.shape["model"]:
        raise ValueError(
            f"model.heads is {heads}; it must be a multiple of the {mesh.shape['model']} devices "
            "along mesh.model."
        )


def path_of(key_path: tuple[Any, ...]) -> str:
    """A leaf's path, as `blocks/0/attention/qkv/kernel`."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def spec_of(path: str) -> P:
    """The axes of the one rule that a path matches.

    Raises:
      ValueError: no rule matches, or more than one.
    """
    matches = [spec for rule, spec in RULES if re.search(rf"(^|/)({rule})$", path)]
    if len(matches) != 1:
        raise ValueError(f"{path} matches {len(matches)} sharding rules; it must match one.")
    return matches[0]


def shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a training state, by the table."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: NamedSharding(mesh, spec_of(path_of(path))), tree
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over `data`."""
    return NamedSharding(mesh, P("data"))


def constrain(x: jax.Array, spec: P) -> jax.Array:
    """Pins an activation to mesh axes, where a mesh is set and leaves them to the compiler."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AxisType.Manual in mesh.axis_types:
        return x
    return jax.lax.with_sharding_constraint(x, spec)
