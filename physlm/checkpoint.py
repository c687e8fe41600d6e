"""Checkpoints of a training state: written beside the training, whole or not at all."""

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

# What reading a torn file raises: of the file system, of JSON, and of array metadata.
_DAMAGE = (OSError, ValueError, KeyError, TypeError)


@jax.jit
def _fingerprint(state: Any) -> jax.Array:
    # A sum of bits does not depend on how the leaves are divided over devices.
    leaves = [
        jnp.sum(jax.lax.bitcast_convert_type(leaf, jnp.uint32), dtype=jnp.uint32)
        for leaf in jax.tree.leaves(state)
    ]
    return jnp.stack(leaves)


class Checkpoints:
    """The last few states of one run, in a directory of their own."""

    def __init__(self, directory: pathlib.Path, keep: int):
        """Opens, or makes, a directory that holds the newest `keep` states."""
        self._directory = directory.absolute()
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Copies a state of 32-bit leaves and goes on writing it in the background."""
        tree = {"state": state, "fingerprint": _fingerprint(state)}
        self._manager.save(step, args=ocp.args.StandardSave(tree))

    def restore_latest(self, abstract_state: Any, upto_step: int | None = None) -> Any | None:
        """The newest readable state, or None without one.

        A damaged checkpoint is moved aside with a warning and the one before is read.

        Args:
          abstract_state: shapes, dtypes and shardings of the state to return.
          upto_step: newer ones are left alone.
        """
        leaves = jax.tree.leaves(abstract_state)
        place = leaves[0].sharding
        if isinstance(place, NamedSharding):
            place = NamedSharding(place.mesh, P())
        # Every leaf says where it goes: a checkpoint may come from a machine with other devices.
        target = {
            "state": abstract_state,
            "fingerprint": jax.ShapeDtypeStruct((len(leaves),), jnp.uint32, sharding=place),
        }
        for step in sorted(self._manager.all_steps(), reverse=True):
            if upto_step is not None and step > upto_step:
                continue
            try:
                tree = self._manager.restore(step, args=ocp.args.StandardRestore(target))
                if not jnp.array_equal(_fingerprint(tree["state"]), tree["fingerprint"]):
                    raise ValueError("its arrays are not those that were saved")
            except Exception as error:
                # Orbax reports missing and torn array files as a bare Exception.
                if type(error) is not Exception and not isinstance(error, _DAMAGE):
                    raise
                self._set_aside(step, error)
            else:
                return tree["state"]
        return None

    def _set_aside(self, step: int, error: Exception) -> None:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        logging.warning(
            "Checkpoint %d in %s is damaged (%s), so the one before is used.",
            step,
            self._directory,
            cause[0][:200],
        )
        self._manager.close()
        (self._directory / str(step)).rename(self._directory / f"damaged_{step}")
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()


def steps(directory: pathlib.Path) -> set[int]:
    """The steps that a directory has checkpoints of; none where there is no directory."""
    return set(ocp.utils.checkpoint_steps(directory)) if directory.exists() else set()


def restore_all(runs: Sequence[Checkpoints], abstract_state: Any) -> list[Any]:
    """The states of several runs at the newest step that all of them have; empty without one.

    Args:
      runs: their checkpoints.
      abstract_state: shapes, dtypes and shardings of each run's state, with its `step`.
    """
    upto_step = None
    while True:
        found = (run.restore_latest(abstract_state, upto_step) for run in runs)
        states = [state for state in found if state is not None]
        if len(states) < len(runs):
            return []
        steps = {int(state.step) for state in states}
        if len(steps) == 1:
            return states
        upto_step = min(steps)
