"""Checkpoints of training states, written in the background, each complete or not at all."""

import contextlib
import functools
import json
import logging
import re
import sys
import time
import types
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from physlm import paths

# What a run's checkpoints were made by, in their directory.
MADE_BY = "made_by.json"

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


# Of what Orbax logs, with tracebacks: that something failed on its own threads.
_RAISED = (
    "_SignalingThread.run() raised",
    "in background save thread",
    "Save Finalize thread (save_finalize) failed",
    "Failed to update metadata=",
)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record of Orbax is shown: not those that our own messages replace."""
    text = record.getMessage()
    _, error, trace = record.exc_info or (None, None, None)
    # What fails on a thread of Orbax's is raised by whoever waits for it.
    told = any(mark in text for mark in _RAISED) or paths.says_full(text) or paths.is_full(error)
    # Of many arrays that cannot be written the first is raised, and asyncio tells of the others.
    told |= "exception was never retrieved" in text and _is_of_orbax(trace)
    return not (told or text.startswith("Given directory is read only"))


def _is_of_orbax(trace: types.TracebackType | None) -> bool:
    while trace is not None and "orbax" not in trace.tb_frame.f_code.co_filename:
        trace = trace.tb_next
    return trace is not None


for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(_is_news)


@functools.cache
def _quieted() -> None:
    """Silences the hooks by which Orbax's closed event loops report what we raise ourselves."""
    unraisable, uncaught = sys.unraisablehook, sys.excepthook

    def is_late(error: BaseException | None) -> bool:
        # So the array store says that nobody waits any more for what it wrote.
        return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"

    def tell(found: "sys.UnraisableHookArgs") -> None:
        code = getattr(found.object, "cr_code", None)
        of_orbax = code is not None and "orbax" in code.co_filename
        if not of_orbax and not is_late(found.exc_value):
            unraisable(found)

    def catch(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not is_late(error):
            uncaught(kind, error, trace)

    sys.unraisablehook, sys.excepthook = tell, catch


# Bytes that a checkpoint takes beside its arrays, generously.
_BESIDE = 1 << 17

# How often, and after what pauses in seconds, to try to remove what may still be written.
_TRIES, _PAUSE = 50, 0.1


class DamagedError(ValueError):
    """A checkpoint cannot be read; says which and why."""


class Checkpoints:
    """The last few states of one run and the best one, in a directory of their own."""

    def __init__(
        self,
        directory: epath.Path,
        keep: int,
        made_by: Mapping[str, Any] | None = None,
        *,
        read_only: bool = False,
    ):
        """Opens, or makes, a directory that holds the newest `keep` states, and the best.

        Args:
          directory: of these checkpoints alone.
          keep: how many of the newest.
          made_by: settings, as JSON knows them, without which the states make no sense.
          read_only: touch nothing; a training may be at work here.

        Raises:
          ValueError: the directory was made by other settings; names those that differ.
          DamagedError: one would have to be set aside, which `read_only` forbids.
        """
        self._directory, self._read_only = paths.absolute(directory), read_only
        check_made_by(directory, made_by or {})
        policies = ocp.checkpoint_managers
        best = policies.BestN(
            get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        kept = policies.AnyPreservationPolicy([policies.LatestN(keep), best])
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else kept,
            best_fn=_loss,
            best_mode="min",
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            # What Orbax would set, with a warning.
            create=not read_only,
            save_interval_steps=0 if read_only else 1,
            # In the background a directory that cannot be made is waited for.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        self._manager, self._bytes = self._opened(), 0
        if not read_only:
            _quieted()
            _open.add(self)
        if made_by is not None and jax.process_index() == 0:
            told = json.dumps(made_by, indent=2)
            paths.write_atomically(self._directory / MADE_BY, told)

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the checkpoint with the lowest loss, if there is one."""
        return self._manager.best_step()

    def save(self, step: int, state: Any, loss: float) -> None:
        """Copies a state of 32-bit leaves, and writes it in the background.

        Args:
          step: after which this is the state.
          state: what `restore_latest` returns.
          loss: by which the best is known; the lowest is kept.

        Raises:
          paths.FullError: there is no room for it, or was none for the one before.
        """
        self._check_room(state)
        tree = {"state": state, "fingerprint": _fingerprint(state)}
        # What fails in the background is raised by the next call.
        with paths.room_for(f"a checkpoint in {self._directory}", self._directory):
            self._manager.save(step, args=ocp.args.StandardSave(tree), metrics={"loss": loss})

    def _check_room(self, state: Any) -> None:
        """Raises `FullError` before a state that would not fit the disk is written in part."""
        self.wait()
        self._bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _BESIDE
        # What others are writing takes room that still looks free.
        others = [other for other in _open if other is not self and other._bytes]
        left = paths.free(self._directory)
        if left is not None and left < self._bytes + sum(other._bytes for other in others):
            for other in others:
                other.wait()
            if (paths.free(self._directory) or 0) < self._bytes:
                self._bytes = 0
                raise paths.FullError(f"a checkpoint in {self._directory}", self._directory)

    def restore_latest(self, abstract_state: Any, upto_step: int | None = None) -> Any | None:
        """The newest readable state, or None without one.

        A damaged checkpoint is moved aside with a warning and the one before is read.

        Args:
          abstract_state: shapes, dtypes and shardings of the state to return.
          upto_step: newer ones are left alone.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            if upto_step is not None and step > upto_step:
                continue
            try:
                return self.restore(step, abstract_state)
            except DamagedError as error:
                self._manager.close()
                self._set_aside(step, error)
                self._manager = self._opened()
        return None

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of one step.

        Raises:
          DamagedError: it cannot be read, or its arrays are not those that were saved.
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
        try:
            tree = self._manager.restore(step, args=ocp.args.StandardRestore(target))
            if not jnp.array_equal(_fingerprint(tree["state"]), tree["fingerprint"]):
                raise ValueError("its arrays are not those that were saved")
        except Exception as error:
            # Orbax reports missing and torn array files as a bare Exception.
            if type(error) is not Exception and not isinstance(error, _DAMAGE):
                raise
            raise self._damaged(step, error) from error
        return tree["state"]

    def _opened(self) -> ocp.CheckpointManager:
        # Orbax reads the metrics of all checkpoints at once, and fails if one file is torn.
        for step in steps(self._directory):
            said = self._directory / str(step) / "metrics" / "metrics"
            try:
                if said.exists():
                    _loss(json.loads(said.read_text()))
            except _DAMAGE as error:
                damaged = self._damaged(step, error)
                if self._read_only:
                    raise damaged from error
                self._set_aside(step, damaged)
        return ocp.CheckpointManager(self._directory, options=self._options)

    def _damaged(self, step: int, error: Exception) -> DamagedError:
        # Where libraries say objects by their addresses, nothing is told by them.
        said = re.sub(r"\s*<[^<>]*( object at |bound method )[^\n]*", "", str(error)).strip()
        cause = said.splitlines() or [type(error).__name__]
        return DamagedError(f"Checkpoint {step} in {self._directory} is damaged ({cause[0][:200]})")

    def _set_aside(self, step: int, error: DamagedError) -> None:
        if jax.process_index() == 0:
            print(f"warning: {error}, so the one before is used.", file=sys.stderr, flush=True)
            (self._directory / str(step)).rename(self._directory / f"damaged_{step}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {step}")

    def wait(self) -> None:
        """Blocks until all saved states are on disk."""
        with paths.room_for(f"a checkpoint in {self._directory}", self._directory):
            self._manager.wait_until_finished()
        self._bytes = 0

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        _open.discard(self)
        try:
            with paths.room_for(f"a checkpoint in {self._directory}", self._directory):
                self._manager.close()
        except paths.FullError:
            self._remove_halves()
            if error is None:
                raise
        else:
            if paths.is_full(error):
                self._remove_halves()

    def _remove_halves(self) -> None:
        """Removes incomplete checkpoints, for which there was no room."""
        if jax.process_count() > 1 or self._read_only:
            return
        # The array store's threads may still be writing there, also after it is removed. What is
        # left after that goes when the directory is opened again.
        for _ in range(_TRIES):
            halves = list(self._directory.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"))
            if not halves:
                return
            for half in halves:
                with contextlib.suppress(OSError):
                    half.rmtree()
            time.sleep(_PAUSE)


# Those of this process that may write.
_open: weakref.WeakSet[Checkpoints] = weakref.WeakSet()


def _loss(metrics: Mapping[str, float]) -> float:
    return metrics["loss"]


def check_made_by(directory: epath.Path, made_by: Mapping[str, Any]) -> None:
    """Raises where a directory has checkpoints that were made with other settings.

    Raises:
      ValueError: names the settings that differ.
    """
    path = directory / MADE_BY
    if not path.exists():
        return
    try:
        before, now = json.loads(path.read_text()), json.loads(json.dumps(made_by))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    names = [name for name in now if name in before and now[name] != before[name]]
    if names and steps(directory):
        differ = ", ".join(f"{name} (there {before[name]!r}, here {now[name]!r})" for name in names)
        raise ValueError(
            f"{directory} holds checkpoints of another run, which differs in {differ}."
        )


def steps(directory: epath.Path) -> set[int]:
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
