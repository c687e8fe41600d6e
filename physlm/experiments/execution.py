"""Executes runs: trains them, and has their models judged."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from etils import epath

from data_gen.device import of_data
from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.windows.questions import QuestionStream
from data_gen.windows.stream import Stream, problems_a_window
from physlm import checkpoint, clock, devices, paths, sharding, train
from physlm.adaptation import PROBE
from physlm.experiments import config as config_lib
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import files, hosts, judging, leases, logs, records, versions, weights
from physlm.experiments import run as run_lib
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.step import TrainState


@dataclasses.dataclass(frozen=True)
class Task:
    """A run to train, unless it is finished, and the evaluations of its model.

    Attributes:
        run: which run.
        evaluations: how it is judged.
        needs: other runs, beside its parents, that judging uses, such as a probe's.
    """

    run: Run
    evaluations: tuple[Evaluation, ...]
    needs: tuple[Run, ...] = ()

    @property
    def depth(self) -> int:
        """The length of the longest chain of runs that have to be trained before it."""
        return max(self.run.depth, *(1 + run.depth for run in self.needs), 0)

    def is_done(self, directory: epath.Path) -> bool:
        """Whether the run is trained and all its evaluations are done."""
        found = [evaluation_lib.status(directory, one.config) for one in self.evaluations]
        return all(status == "finished" for status in (run_lib.status(directory), *found))


def check_resumable(run: Run, directory: epath.Path) -> None:
    """Raises where a directory has checkpoints that are not of this run.

    Raises:
        ValueError: they are of other settings; names those that differ.
    """
    settings = run.settings
    checkpoint.check_made_by(
        directory / train.CHECKPOINTS_DIR,
        train.made_by(settings.seed, settings.model, settings.optimizer, run.facts),
    )


def execute(
    tasks: Sequence[Task], store: Store, profile: int = 0, log: Sequence[str] = ()
) -> Iterator[tuple[Run, Exception | None]]:
    """Trains runs together, from their last checkpoints, and judges one after the other.

    What is trained or judged already is left as it is. Of several hosts, all of which call this,
    the first alone writes, but for the checkpoints. An error is left in the directory of the run
    or, where it came up in judging, of the evaluation.

    Args:
        tasks: one, or several whose runs are of one `shape`; nobody else trains these runs.
        store: where they are kept.
        profile: training steps to write a trace of, into the first run's directory.
        log: where metrics go as well, of `physlm.experiments.logs.NAMES`.

    Yields:
        each run, in their order, as soon as it is judged or has failed, and why it failed. Of a run
        that another process has taken over (`leases.LostError`) nothing more is written.
    """
    runs = [task.run for task in tasks]
    todo = [run for run in runs if run_lib.status(store.of_run(run.name)) != "finished"]
    # Training, below, changes the files that this was decided by.
    devices.wait_for_all(f"decided on {runs[0].name}")
    trained = _train_all(todo, store, profile, log)
    for task in tasks:
        directory, state = store.of_run(task.run.name), trained.get(task.run.name)
        if isinstance(state, Exception):
            if not isinstance(state, leases.LostError):
                hosts.record_failure(directory, state)
            yield task.run, state
        else:
            yield task.run, _judge_all(task, directory, state)


def _judge_all(task: Task, directory: epath.Path, state: TrainState | None) -> Exception | None:
    """Runs all evaluations of a task; returns the first error."""
    failed = None
    for evaluation in task.evaluations:
        try:
            which = evaluation.settings.checkpoint
            if which == "best" and devices.is_first():
                run_lib.note_best(directory, weights.step_of(task.run, directory, which))
            known = state if which == "final" else None
            judging.judge(task.run, evaluation, directory, known, which)
        except leases.LostError as error:
            return error
        # Whatever goes wrong in one evaluation or run, the others go on.
        except Exception as raised:
            if lost := hosts.lost([directory]):
                return lost
            why = paths.explained(raised, f"what belongs to {task.run.name}", directory)
            if path := evaluation_lib.result_of(directory, evaluation.config):
                hosts.record_failure(path.parent, why)
            failed = failed or why
    return failed


def _train_all(
    runs: Sequence[Run], store: Store, profile: int, log: Sequence[str]
) -> Mapping[str, TrainState | Exception]:
    """Trains runs to their last step, and marks them as finished; by name the state or the error.

    Writes the configuration and the versions first, metrics and checkpoints while it trains, and
    last the mark: whoever sees that file sees a finished run.
    """
    if not runs:
        return {}
    started = clock.seconds()
    try:
        for run in runs if devices.is_first() else ():
            directory = store.of_run(run.name)
            paths.make_directory(directory)
            files.write_json(directory / run_lib.CONFIG_FILE, run.config)
            versions.write(directory / versions.FILE)
        outcomes: Sequence[TrainState | Exception] = _train(runs, store, profile, log)
        hosts.check_leases([store.of_run(run.name) for run in runs])
        seconds = clock.seconds() - started
        for run, outcome in zip(runs, outcomes, strict=True):
            if devices.is_first() and not isinstance(outcome, Exception):
                run_lib.finish(store.of_run(run.name), int(outcome.step), seconds)
    # Runs that are trained together fail together.
    except Exception as error:
        names = ", ".join(run.name for run in runs)
        why = paths.explained(error, f"what belongs to {names}", store.models)
        outcomes = [hosts.lost([store.of_run(run.name) for run in runs]) or why] * len(runs)
    return {run.name: outcome for run, outcome in zip(runs, outcomes, strict=True)}


def budgeted(settings: config_lib.Settings) -> config_lib.Settings:
    """The settings with the number of steps that follows from their budget of problems."""
    if not run_lib.takes_longer(settings):
        return settings
    count = functools.partial(
        problems_a_window, settings.data, windows=settings.windows, seed=settings.seed
    )
    with jax.default_device(of_data(settings.mesh.input)):
        more = count(ERROR_FREE) / count(settings.mistakes)
    steps = round(settings.train.steps * more)
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=steps))


def _train(
    runs: Sequence[Run], store: Store, profile: int, log: Sequence[str]
) -> list[TrainState | FloatingPointError]:
    settings = budgeted(runs[0].settings)
    mesh = sharding.make_mesh(settings.mesh)
    rows = sharding.rows_here(settings.train.batch, mesh)
    with contextlib.ExitStack() as stack:
        members = [
            train.Member(
                seed=run.settings.seed,
                stream=stack.enter_context(
                    contextlib.closing(stream_of(run, store.of_run(run.name), rows))
                ),
                learning_rate=run.settings.optimizer.learning_rate,
                run_dir=store.of_run(run.name),
                made_by=run.facts,
                parent=weights.parent(run, store.of_run(run.name)),
                logs=logs.of_run(run, store.of_run(run.name), log),
            )
            for run in runs
        ]
        shown = stack.enter_context(hosts.progress("train", settings.train.steps))
        return train.train_together(
            members,
            model=settings.model,
            optimizer=settings.optimizer,
            train=settings.train,
            mesh=mesh,
            progress=shown,
            profile=profile,
            learning=settings.learning,
            allowed=lambda: hosts.check_leases([member.run_dir for member in members]),
            told=lambda words: hosts.say(f"{runs[0].name}: trains {words}"),
        )


def stream_of(run: Run, directory: epath.Path, rows: np.ndarray) -> Stream | QuestionStream:
    """The training stream of a run, with this host's rows of each batch."""
    settings = run.settings
    device = of_data(settings.mesh.input)
    if settings.adaptation.kind == PROBE:
        return QuestionStream(
            settings.data,
            settings.mistakes,
            window=settings.windows.window,
            task=settings.probe.task,
            count=settings.probe.questions,
            seed=settings.seed,
            batch=settings.train.batch,
            rows=rows,
            device=device,
        )
    return Stream(
        settings.data,
        settings.mistakes,
        settings.windows,
        seed=settings.seed,
        batch=settings.train.batch,
        rows=rows,
        records=records.of_run(run, directory, hosts.progress, hosts.say),
        device=device,
    )
