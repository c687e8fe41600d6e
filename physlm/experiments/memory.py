"""A lower bound of the device memory that a run takes, known before anything is compiled."""

import functools
import math
from typing import Any

import jax
from jax.sharding import Mesh

from data_gen import keys
from data_gen.keys import Purpose
from data_gen.settings import RefusedError
from physlm import devices, optimizer, paths, sharding, step
from physlm.experiments import run as run_lib
from physlm.experiments.run import Run

_known: dict[str, int] = {}


def state_bytes(run: Run) -> int:
    """Bytes of a run's training state, which is what a checkpoint holds."""
    # Runs of one shape have equally many.
    shape = run_lib.shape(run)
    if shape not in _known:
        _known[shape] = _bytes(_state(run))
    return _known[shape]


def check(run: Run) -> None:
    """Raises where a training step cannot fit the device's memory.

    What is counted: the training state, the gradients, and the input of each block for the
    sequences that a device computes at once. A step takes more, but only compiling tells how much.

    Args:
        run: what is trained, on the devices that are here.

    Raises:
        ValueError: it does not; says what would.
    """
    settings, mesh = run.settings, sharding.make_mesh(run.settings.mesh)
    device = mesh.local_devices[0]
    room = devices.room(device)
    # Several devices that XLA makes of one CPU share its memory.
    sharing = len(mesh.local_devices) if device.platform == "cpu" else 1
    working = _batch_bytes(run, _sequences(run, mesh), mesh)
    # Nearly all runs end here: gradients take at most as much again as the state.
    if (2 * state_bytes(run) + working) * sharing <= room:
        return
    state = _state(run)
    layout = sharding.shardings(state, mesh)
    held = sum(jax.tree.leaves(jax.tree.map(_share, state, layout)))
    held += sum(jax.tree.leaves(jax.tree.map(_share, state.params, layout.params)))
    left = room / sharing - held
    if left <= 0:
        raise ValueError(
            f"{run.name} takes {paths.in_bytes(held)} of each device for parameters, their "
            f"gradients and what the optimizer knows of them, and there are "
            f"{paths.in_bytes(room / sharing)}: a smaller model does, or a larger mesh.fsdp on "
            "more devices."
        )
    most = math.floor(left / _batch_bytes(run, 1, mesh))
    if most < _sequences(run, mesh):
        config = settings.train
        fits = most * sharding.batch_shards(mesh) * config.accumulate
        allowed = (
            f"at most {fits}, for which {paths.in_bytes(room / sharing)} of memory may be enough; "
            "or train.accumulate larger"
        )
        raise RefusedError("train.batch", config.batch, allowed)


def _state(run: Run) -> Any:
    """The shapes of a training state."""
    settings = run.settings
    init = functools.partial(
        step.init_state,
        settings.model,
        optimizer.make(settings.optimizer, settings.train.steps),
        adaptation=settings.learning.adaptation,
    )
    # With the key as a shape, too, nothing is computed, and no compiled program is looked for in a
    # store that may not exist yet.
    return jax.eval_shape(lambda: init(keys.root(0, Purpose.PARAMETERS)))


def _sequences(run: Run, mesh: Mesh) -> int:
    """The sequences that a device computes at once."""
    config = run.settings.train
    return config.batch // (sharding.batch_shards(mesh) * config.accumulate)


def _batch_bytes(run: Run, sequences: int, mesh: Mesh) -> int:
    """Bytes of the blocks' inputs kept for the backward pass, in the smallest dtype."""
    model = run.settings.model
    positions = model.window // mesh.shape["sequence"]
    return 2 * sequences * positions * model.width * model.layers


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _share(leaf: Any, place: Any) -> int:
    return math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
