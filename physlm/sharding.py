"""Sharding: the device mesh, and one table from parameter path to mesh axes.

The mesh has four axes. A batch is divided over `data` and `fsdp`, the positions of its sequences
over `sequence`, heads and hidden units over `tensor`. Kernels and embeddings, and the optimizer's
moments of them, are divided over `fsdp` too; those of a block are gathered when the block is
computed. Along the first three axes `physlm.step` states every collective operation itself, under
`jax.shard_map`. Along `tensor` the compiler adds what is needed.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_gen import settings
from data_gen.settings import RefusedError
from physlm.matrices import axes_of

AXES = ("data", "fsdp", "sequence", "tensor")

# Axes over which the rows of a batch are divided; and those over which rows or positions are, so
# that each device has its own tokens and gradients are summed along them.
BATCH_AXES = ("data", "fsdp")
SHARED_OUT = ("data", "fsdp", "sequence")

# In a constraint: this axis of an array is divided as the compiler chooses.
FREE = P.UNCONSTRAINED


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The sizes of the mesh axes; they never change a run's weights.

    (A mesh of another shape adds the same numbers in another order.)

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    data: int = settings.whole(
        -1,
        "Devices over which a batch is divided; -1 takes all that the others leave.",
        low=1,
        besides=(-1,),
        decides=False,
    )
    fsdp: int = settings.whole(
        1,
        "Devices over which a batch, the parameters and the optimizer's memory are divided.",
        low=1,
        decides=False,
    )
    sequence: int = settings.whole(
        1, "Devices over which the positions of a sequence are divided.", low=1, decides=False
    )
    tensor: int = settings.whole(
        1, "Devices over which heads and hidden units are divided.", low=1, decides=False
    )
    population: int = settings.whole(
        0,
        "Runs of a study that are trained as one program, at most, where they share all shapes; 1 "
        "where one run alone is to have the whole machine. 0 is 1 where a step is large enough to "
        "fill it, and otherwise 8 on accelerators and one for each core of a CPU.",
        decides=False,
    )
    cpu_devices: int = settings.whole(
        0,
        "Devices that a CPU is presented as; 0 means as many cores as can share a batch.",
        high=1024,
        decides=False,
    )

    input: str = settings.choice(
        "auto",
        "Where training data is made: on the devices, beside the step, or on the cores of their "
        "host (cpu). auto is the cores where the devices are GPUs, which are slow at it, and the "
        "devices elsewhere.",
        ("auto", "devices", "cpu"),
        decides=False,
        added=True,
    )

    def __post_init__(self) -> None:
        settings.check(self)

    @property
    def beside_data(self) -> int:
        """Devices along all axes but `data`."""
        return self.fsdp * self.sequence * self.tensor


# The path of every leaf of a training state, the optimizer's included, must end in a match of
# exactly one of these. The first axis of what is in `blocks` is that of the layers.
RULES: tuple[tuple[str, P], ...] = (
    (r"embed/embedding", P(None, "fsdp")),
    (r"head/kernel", P("fsdp", None)),
    (r"norm/(scale|bias)", P()),
    (r"blocks/norm_(attention|mlp)/(scale|bias)", P()),
    (r"blocks/attention/norm_(query|key)/scale", P()),
    (r"blocks/attention/(query|key|value)/kernel", P(None, "fsdp", "tensor", None)),
    (r"blocks/attention/(query|key|value)/bias", P(None, "tensor", None)),
    (r"blocks/canon_(attention|mlp)/kernel", P()),
    (r"blocks/attention/canon_(query|key|value)/kernel", P(None, None, "tensor", None)),
    (r"blocks/mlp/canon_(up|gate)/kernel", P(None, None, "tensor")),
    (r"blocks/attention/out/kernel", P(None, "tensor", None, "fsdp")),
    (r"blocks/mlp/(up|gate)/kernel", P(None, "fsdp", "tensor")),
    (r"blocks/mlp/(up|gate)/bias", P(None, "tensor")),
    (r"blocks/mlp/down/kernel", P(None, "tensor", "fsdp")),
    (r"blocks/(attention/out|mlp/down)/bias", P()),
    (r"blocks/mixture/router/kernel", P()),
    (r"blocks/mixture/(up|gate)/kernel", P(None, None, "fsdp", "tensor")),
    (r"blocks/mixture/down/kernel", P(None, None, "tensor", "fsdp")),
    (r"probe/(kernel|bias)", P()),
    (r"step|count|ns_coeffs|trend/(mean|variance)", P()),
)

# The factors of an adapter (`physlm.adaptation`) lie as the matrix that they change does.
_FACTOR = re.compile(r"(^|/)lora/(?P<matrix>.+)/(?P<factor>[ab])$")


def make_mesh(config: MeshConfig) -> Mesh:
    """Makes a mesh with the axes `AXES` over as many devices as the configuration asks for.

    Raises:
      RefusedError: there are too few devices, or their number is not a multiple of the axes'.
    """
    devices = jax.devices()
    others = config.beside_data
    if config.data == -1 and len(devices) % others:
        raise RefusedError(
            "mesh.fsdp times mesh.sequence times mesh.tensor",
            others,
            f"a divisor of the number of devices, {len(devices)}",
        )
    data = len(devices) // others if config.data == -1 else config.data
    if data * others > len(devices):
        raise RefusedError(
            "mesh.data times mesh.fsdp times mesh.sequence times mesh.tensor",
            data * others,
            f"at most the number of devices, {len(devices)}",
        )
    shape = (data, config.fsdp, config.sequence, config.tensor)
    return jax.make_mesh(
        shape, AXES, axis_types=(AxisType.Auto,) * 4, devices=devices[: data * others]
    )


def path_of(key_path: tuple[Any, ...]) -> str:
    """A leaf's path as text, such as `blocks/attention/query/kernel`."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def spec_of(path: str) -> P:
    """The mesh axes along which a leaf lies, by the one rule of `RULES` that its path matches.

    Raises:
      ValueError: no rule matches, or more than one.
    """
    if factor := _FACTOR.search(path):
        return _of_factor(**factor.groupdict())
    matches = [spec for rule, spec in RULES if re.search(rf"(^|/)({rule})$", path)]
    if len(matches) != 1:
        raise ValueError(f"{path} matches {len(matches)} sharding rules; it must match one.")
    return matches[0]


def _of_factor(matrix: str, factor: str) -> P:
    axes = axes_of(matrix)
    if axes is None:
        raise ValueError(f"{matrix} is no matrix.")
    spec = tuple(spec_of(matrix))
    spec += (None,) * (max(axes.outputs) + 1 - len(spec))
    batch = spec[: min(axes.inputs)]
    if factor == "a":
        return P(*batch, *(spec[axis] for axis in axes.inputs), None)
    return P(*batch, None, *(spec[axis] for axis in axes.outputs))


def specs(tree: Any) -> Any:
    """The mesh axes of every leaf of a training state, by `RULES`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: spec_of(path_of(path)), tree)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a training state on a mesh, by `RULES`."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(tree))


def along(spec: P, axes: tuple[str, ...]) -> P:
    """A partition spec restricted to some mesh axes."""
    return P(*(name if name in axes else None for name in spec))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its rows are divided over `data` and `fsdp`."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """The number of parts into which the rows of a batch are divided."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def rows_here(batch: int, mesh: Mesh) -> np.ndarray:
    """The numbers of the rows of a batch that are on devices of this process, in order."""
    if jax.process_count() == 1:
        return np.arange(batch)
    places = batch_sharding(mesh).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[index] for index in places if index]))


def _context() -> Any:
    return jax.sharding.get_abstract_mesh()


def manual_size(axis: str) -> int:
    """The number of devices along a mesh axis that `jax.shard_map` has made manual.

    Inside of `jax.shard_map` code works on one device's part of an array, and has to communicate
    along such an axis itself. Elsewhere, and along axes that are left to the compiler, this is 1.
    """
    mesh = _context()
    if mesh.empty or axis not in mesh.manual_axes:
        return 1
    return mesh.shape[axis]


def constrain(x: jax.Array, spec: P) -> jax.Array:
    """Constrains how an activation lies along `tensor`, where the compiler divides along it."""
    mesh = _context()
    if mesh.empty or "tensor" not in mesh.auto_axes or mesh.shape["tensor"] == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def over_tensor(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """The function as a program of each device along `tensor`.

    This is for functions that call kernels such as cuDNN's or Pallas', which the compiler cannot
    divide, and for collectives whose operands are to stay divided along `tensor`.

    Args:
      function: of arrays.
      in_specs: how its arguments lie along `tensor`.
      out_specs: how its results lie along `tensor`.
    """
    mesh = _context()
    if mesh.empty or "tensor" not in mesh.auto_axes:
        return function
    return jax.shard_map(
        function, in_specs=in_specs, out_specs=out_specs, axis_names={"tensor"}, check_vma=False
    )


def gathered(tree: Any, prefix: str, dtype: Any, *, layer: bool = False) -> Any:
    """All-gathers parameters along `fsdp`; the backward pass reduce-scatters their gradients.

    Kernels are communicated in the dtype in which they are used, their gradients in float32.

    Args:
      tree: some of the parameters, each this device's part.
      prefix: the path of `tree` among all parameters.
      dtype: the dtype of the computation.
      layer: whether `tree` is one layer of `blocks`, whose leaves lack the axis of the layers.
    """
    if manual_size("fsdp") == 1:
        return tree

    def one(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        spec = P(*spec_of(f"{prefix}/{path_of(path)}")[int(layer) :])
        return _gather(leaf, spec, dtype) if "fsdp" in spec else leaf

    return jax.tree_util.tree_map_with_path(one, tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, spec: P, dtype: Any) -> jax.Array:
    return gathered_along("fsdp", x.astype(dtype), tuple(spec).index("fsdp"), spec)


def _gather_forward(x: jax.Array, spec: P, dtype: Any) -> tuple[jax.Array, None]:
    return _gather(x, spec, dtype), None


def _gather_backward(spec: P, dtype: Any, _: None, grad: jax.Array) -> tuple[jax.Array]:
    del dtype

    def scatter(grad: jax.Array) -> jax.Array:
        axis = tuple(spec).index("fsdp")
        return jax.lax.psum_scatter(grad, "fsdp", scatter_dimension=axis, tiled=True)

    place = along(spec, ("tensor",))
    return (over_tensor(scatter, (place,), place)(grad.astype(jnp.float32)),)


_gather.defvjp(_gather_forward, _gather_backward)


def gathered_along(name: str, x: jax.Array, axis: int, spec: P) -> jax.Array:
    """All-gathers an array along a mesh axis.

    Args:
      name: the mesh axis.
      x: this device's part of the array.
      axis: the axis of the array that is divided along `name`.
      spec: the partition of the array; along `tensor` the result lies in the same way.
    """
    place = along(spec, ("tensor",))
    gather = functools.partial(jax.lax.all_gather, axis_name=name, axis=axis, tiled=True)
    # Left to the compiler, the parts along `tensor` would be gathered, too, and divided again.
    return over_tensor(gather, (place,), place)(x)


def total(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """The sum (all-reduce) of an array over the devices along some mesh axes."""
    # XLA fails on a sum along no axis where it divides other axes itself.
    axes = tuple(axis for axis in axes if manual_size(axis) > 1)
    return jax.lax.psum(x, axes) if axes else x


def summed_grads(grads: Any) -> Any:
    """Sums the gradients of the devices' parts of a batch, over all axes that divide it."""

    def one(path: tuple[Any, ...], grad: jax.Array) -> jax.Array:
        # Parameters divided along `fsdp` had theirs summed along it by the reduce-scatter.
        divided = "fsdp" in spec_of(path_of(path))
        return total(grad, ("data", "sequence") if divided else SHARED_OUT)

    return jax.tree_util.tree_map_with_path(one, grads)


def check(config: Any, batch: int, accumulate: int, mesh: Mesh | AbstractMesh) -> None:
    """Refuses a model or a batch that cannot be divided over a mesh.

    Args:
      config: the `ModelConfig`.
      batch: sequences a step.
      accumulate: parts of its share of a batch that a device works on one after the other.
      mesh: a mesh with the axes `AXES`.

    Raises:
      RefusedError: names the field, its value and what is allowed.
    """
    shards = batch_shards(mesh)
    if batch % (shards * accumulate):
        allowed = (
            f"a multiple of {shards * accumulate}, the {shards} devices along mesh.data and "
            f"mesh.fsdp times train.accumulate, {accumulate}"
        )
        raise RefusedError("train.batch", batch, allowed)
    for name, value, axis in (
        ("model.heads", config.heads, "tensor"),
        ("model.kv_heads", config.shared_heads, "tensor"),
        ("the hidden width (model.mlp_width)", config.hidden, "tensor"),
        ("the width (model.heads times model.head_dim)", config.width, "fsdp"),
        ("train.window", config.window, "sequence"),
    ):
        if value % mesh.shape[axis]:
            allowed = f"a multiple of the {mesh.shape[axis]} devices along mesh.{axis}"
            raise RefusedError(name, value, allowed)
    if mesh.shape["sequence"] > 1 and config.kernel in ("cudnn", "splash"):
        allowed = "'blocks' or 'auto' where mesh.sequence divides positions"
        raise RefusedError("model.kernel", config.kernel, allowed)
