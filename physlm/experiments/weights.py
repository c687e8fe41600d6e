"""The weights of a run: its checkpoints, joined with its parent's where some are frozen."""

import dataclasses
from typing import Any

import jax
from etils import epath

from physlm import checkpoint, optimizer, sharding, train
from physlm.adaptation import PROBE
from physlm.experiments import ancestry
from physlm.experiments import run as run_lib
from physlm.experiments.run import Run
from physlm.model import Params
from physlm.start import CARRIED, Parent
from physlm.step import TrainState, abstract_state, first_params


def step_of(run: Run, directory: epath.Path, which: str, option: str = "--checkpoint") -> int:
    """The step of a checkpoint.

    Args:
        run: whose it is.
        directory: of the run.
        which: `final` (the newest one, where the run is not finished), `best` (the lowest recent
            loss), or a step. There need not be a checkpoint of a step: its model may have been
            judged before.
        option: the option that asks for it, for the sentence of an error.

    Raises:
        ValueError: `which` is none of these, or there is no such checkpoint.
    """
    if which.isdecimal():
        return int(which)
    last = run_lib.last_step(directory)
    if which == "final" and last is not None:
        return last
    if not run_lib.saved_steps(directory):
        raise ValueError(f"{directory} has no checkpoints.")
    with _checkpoints(run, directory) as checkpoints:
        step = {"final": checkpoints.latest, "best": checkpoints.best}.get(which)
    if step is None:
        raise _no_checkpoint(directory, which, option)
    return step


def restored(
    run: Run, directory: epath.Path, which: str, option: str = "--checkpoint"
) -> TrainState:
    """The state of a run's checkpoint, over the devices of its mesh.

    Args:
        run: whose it is.
        directory: of the run.
        which: as for `step_of`.
        option: as for `step_of`.

    Raises:
        ValueError: there is no such checkpoint, and names those that there are; it is damaged; or
            the model cannot be divided over the mesh.
    """
    settings = run.settings
    mesh = sharding.make_mesh(settings.mesh)
    sharding.check(settings.model, sharding.batch_shards(mesh), 1, mesh)
    step = step_of(run, directory, which, option)
    if step not in run_lib.saved_steps(directory):
        raise _no_checkpoint(directory, which, option)
    transform = optimizer.make(settings.optimizer, settings.train.steps)
    abstract = abstract_state(settings.model, transform, mesh, settings.learning.adaptation)
    try:
        with _checkpoints(run, directory) as checkpoints:
            return checkpoints.restore(step, abstract)
    except checkpoint.DamagedError as error:
        if run_lib.last_step(directory) is None:
            raise
        remedy = f"remove {run_lib.FINISHED_FILE} to have the run go on from a sound one"
        raise checkpoint.DamagedError(f"{error}; {remedy}.") from error


def _checkpoints(run: Run, directory: epath.Path) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(
        directory / train.CHECKPOINTS_DIR, keep=run.settings.train.keep, read_only=True
    )


def _no_checkpoint(directory: epath.Path, which: str, option: str) -> ValueError:
    there = run_lib.saved_steps(directory)
    if not there:
        return ValueError(f"{directory} has no checkpoints.")
    if which == str(run_lib.last_step(directory)):
        return ValueError(
            f"{directory} lacks the checkpoint of its last step, {which}; remove "
            f"{run_lib.FINISHED_FILE} to have the run go on from the one before."
        )
    found = ", ".join(map(str, sorted(there)))
    return ValueError(f"{option} is {which!r}; it must be final, best, or one of {found}.")


def joined(run: Run, directory: epath.Path, state: TrainState) -> tuple[Params, Params]:
    """The whole model of a run's state, and its frozen part, which comes from the parent.

    Args:
        run: whose state it is.
        directory: of the run.
        state: over the devices of its mesh.

    Raises:
        ValueError: its parent's checkpoint cannot be read.
    """
    adaptation = run.settings.learning.adaptation
    if adaptation.full:
        return state.params, {}
    rest = _frozen(run, directory)
    abstract = jax.eval_shape(adaptation.join, state.params, rest)
    layout = sharding.shardings(abstract, sharding.make_mesh(run.settings.mesh))
    return jax.jit(adaptation.join, out_shardings=layout)(state.params, rest), rest


def _frozen(run: Run, directory: epath.Path) -> Params:
    if read := parent(run, directory):
        return read()[0]
    mesh = sharding.make_mesh(run.settings.mesh)
    return first_params(run.settings.model, mesh, run.settings.seed)


def probed(run: Run, directory: epath.Path, name: str) -> Params:
    """A run's model joined with a probe of it, for use as a detector.

    Args:
        run: whose model was probed.
        directory: of the run; the probe's run lies beside it, where `name` is no path.
        name: of the probe's run, or the path of its directory.

    Raises:
        ValueError: there is no such run, it is no probe of the task can_next or of another model,
            or it is not trained to its end.
    """
    where = ancestry.directory_of(name, directory.parent)
    other = run_lib.load(where)
    adaptation, task = other.settings.adaptation, other.settings.probe.task
    if adaptation.kind != PROBE or task != "can_next":
        raise ValueError(f"evaluate.probe is {name!r}, which is no probe of the task can_next.")
    if other.settings.parent.run != run.name:
        raise ValueError(
            f"evaluate.probe is {name!r}, a probe of {other.settings.parent.run or 'no model'}; it "
            f"must be one of {run.name}."
        )
    if run_lib.last_step(where) is None:
        raise ValueError(f"evaluate.probe is {name!r}, which is not trained to its end.")
    settings = dataclasses.replace(other.settings, mesh=run.settings.mesh)
    other = dataclasses.replace(other, settings=settings)
    return joined(other, where, restored(other, where, "final"))[0]


def parent(run: Run, directory: epath.Path) -> Parent | None:
    """Loads lazily the model that a run starts from; None where it has no parent.

    Args:
        run: the child.
        directory: of the child; parents lie beside it, where they are not somewhere else.

    Raises:
        ValueError: there is no such run, it does not fit, or it is not trained to its end.
    """
    asked = run.settings.parent
    if not asked.run:
        return None
    other, where = ancestry.lineage(run, directory.parent)[0]
    # The mesh is the child's, which suits the devices here; it does not change weights.
    other = dataclasses.replace(
        other, settings=dataclasses.replace(other.settings, mesh=run.settings.mesh)
    )

    def read() -> tuple[Params, Any]:
        state = restored(other, where, asked.checkpoint)
        carried = state.opt_state if asked.optimizer == CARRIED else None
        return joined(other, where, state)[0], carried

    return read
