"""Executes runs: trains them, and judges their models."""

import contextlib
import dataclasses
import functools
import io
import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.text.corrections import table
from data_gen.text.judge import Verdict
from data_gen.windows.questions import QuestionStream
from data_gen.windows.stream import Stream, problems_a_window
from physlm import cells as cells_lib
from physlm import checkpoint, clock, devices, evaluate, paths, probing, sharding, train
from physlm.adaptation import PROBE
from physlm.experiments import config as config_lib
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import files, leases, logs, records, results, versions, weights
from physlm.experiments import run as run_lib
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.progress import Progress
from physlm.step import TrainState

SOLUTIONS_FILE = "solutions.jsonl"
MISTAKES_FILE = "mistakes.txt"

# In a result: how many bytes of solutions are beside it.
_SIZE = "solutions_bytes"


@dataclasses.dataclass(frozen=True)
class Task:
    """A run to train, unless it is finished, and the evaluations of its model.

    Attributes:
        run: which run.
        evaluations: how it is judged.
        needs: runs that judging asks, beside the run's parents.
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
    # From here on the files that this was decided by change.
    devices.wait_for_all(f"decided on {runs[0].name}")
    trained = _train_all(todo, store, profile, log)
    for task in tasks:
        directory, state = store.of_run(task.run.name), trained.get(task.run.name)
        if isinstance(state, Exception):
            if not isinstance(state, leases.LostError):
                record_failure(directory, state)
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
            judge(task.run, evaluation, directory, state if which == "final" else None, which)
        except leases.LostError as error:
            return error
        # One evaluation, or run, must not take the others with it, whatever went wrong in it.
        except Exception as raised:
            if lost := _lost([directory]):
                return lost
            why = paths.explained(raised, f"what belongs to {task.run.name}", directory)
            if path := evaluation_lib.result_of(directory, evaluation.config):
                record_failure(path.parent, why)
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
        _check_leases([store.of_run(run.name) for run in runs])
        seconds = clock.seconds() - started
        for run, outcome in zip(runs, outcomes, strict=True):
            if devices.is_first() and not isinstance(outcome, Exception):
                run_lib.finish(store.of_run(run.name), int(outcome.step), seconds)
    # What ends a training ends that of all its runs.
    except Exception as error:
        names = ", ".join(run.name for run in runs)
        why = paths.explained(error, f"what belongs to {names}", store.models)
        outcomes = [_lost([store.of_run(run.name) for run in runs]) or why] * len(runs)
    return {run.name: outcome for run, outcome in zip(runs, outcomes, strict=True)}


def judge(
    run: Run,
    evaluation: Evaluation,
    directory: epath.Path,
    state: TrainState | None = None,
    which: str = "final",
) -> epath.Path:
    """Decodes and judges the test problems and writes the result, unless it exists.

    Beside the result, a directory of the evaluation inside that of the run holds what the model
    wrote for every test problem, and a table of its mistakes; nothing else in the run's directory
    changes. Two processes that want the same evaluation wait for each other.

    Args:
        run: whose model is judged.
        evaluation: the protocol.
        directory: of the run.
        state: of the checkpoint `which`; without it, it is restored.
        which: the checkpoint, as for `weights.step_of`.

    Returns:
        the file with the result.

    Raises:
        ValueError: there is no such checkpoint, it is damaged, or the protocol asks for problems
            that there are not.
        leases.LostError: another process has taken the evaluation over.
    """
    step = int(state.step) if state is not None else weights.step_of(run, directory, which)
    where = evaluation_lib.directory_of(directory, evaluation.config, step)
    path = where / evaluation_lib.RESULT_FILE
    with contextlib.ExitStack() as stack:
        if devices.is_first() and not path.exists():
            paths.make_directory(where.parent)
            busy = functools.partial(say, f"{run.name}: another process judges it: waits for it")
            stack.enter_context(leases.held(where, busy))
        devices.wait_for_all(f"locked {where.name} of {run.name}")
        done = path.exists()
        devices.wait_for_all(f"decided on {where.name} of {run.name}")
        if not done:
            state = state or weights.restored(run, directory, str(step))
            _judge(run, evaluation, directory, where, state)
    return path


def _judge(
    run: Run,
    evaluation: Evaluation,
    directory: epath.Path,
    where: epath.Path,
    state: TrainState,
) -> None:
    """Decodes and judges the test problems, and writes the result to the directory `where`.

    The result is written last: whoever sees it sees a finished evaluation.
    """
    settings, started = run.settings, clock.seconds()
    solutions: list[dict[str, Any]] = []
    verdicts: list[Verdict] = []

    def keep(answered: list[dict[str, Any]], judged: list[Verdict]) -> None:
        solutions.extend(answered)
        verdicts.extend(judged)

    params, frozen = weights.joined(run, directory, state)
    if settings.adaptation.kind == PROBE:
        cells = probing.evaluate(
            params,
            # What a model writes that is only drawn says nothing of a probe.
            frozen if settings.parent.run else None,
            model=settings.model,
            spec=settings.data,
            mistakes=settings.mistakes,
            asked=settings.probe,
            config=evaluation.settings,
            progress=progress,
        )
    else:
        probe = evaluation.settings.probe
        cells = evaluate.evaluate(
            params,
            model=settings.model,
            spec=settings.data,
            config=evaluation.settings,
            progress=progress,
            probed=weights.probed(run, directory, probe) if probe else None,
            keep=keep,
        )
    _check_leases([where])
    if not devices.is_first():
        return
    asked = [cell.name for cell in cells_lib.of(settings.data, evaluation.settings)]
    if missing := set(asked) - {cell["cell"] for cell in cells}:
        names = ", ".join(sorted(missing, key=asked.index))
        say(f"{run.name}: the class has no test problem of op {names}; it gets no cell")
    step = int(state.step)
    header = {
        "run": run.name,
        "evaluation": where.name,
        "seed": settings.seed,
        "step": step,
        "tokens": run.tokens_after(step),
    }
    for number, cell in enumerate(cells, start=1):
        results.row("", {}, {**header, **cell}, f"cell {number} of the run {run.name}")
    paths.make_directory(where)
    files.write_json(where / run_lib.CONFIG_FILE, {"step": step, **evaluation.config})
    beside: dict[str, Any] = {}
    if settings.adaptation.kind != PROBE:
        written = "".join(f"{json.dumps(solution)}\n" for solution in solutions).encode()
        paths.write_atomically(where / SOLUTIONS_FILE, written)
        paths.write_atomically(where / MISTAKES_FILE, table(verdicts) + "\n")
        beside[_SIZE] = len(written)
    beside["evaluate_seconds"] = round(clock.seconds() - started, 3)
    files.write_json(where / evaluation_lib.RESULT_FILE, {**header, **beside, "cells": cells})
    (where / run_lib.ERROR_FILE).unlink(missing_ok=True)


def check_solutions(result: epath.Path) -> None:
    """Checks that the solutions beside a result have the size that they were written with.

    Solutions that were removed are not missed, nor is the size in results of earlier versions.

    Raises:
        ValueError: some of them are lost.
    """
    path, wanted = result.parent / SOLUTIONS_FILE, files.read_object(result).get(_SIZE)
    if wanted is not None and path.exists() and path.stat().length != wanted:
        raise ValueError(
            f"{path} has {path.stat().length} bytes of {wanted}, so that {result.name} beside it "
            "is of solutions that are lost."
        )


def _check_leases(directories: Sequence[epath.Path]) -> None:
    """Raises, on all hosts alike, where this process has lost a lease of what it works on.

    Raises:
        leases.LostError: another process has taken it over.
    """
    lost = _lost(directories)
    if devices.agreed(int(lost is not None)):
        raise lost or leases.LostError("another worker has taken it over.")


def _lost(directories: Sequence[epath.Path]) -> leases.LostError | None:
    """That this process has lost a lease of what it works on, as the first host knows.

    Whatever fails after that may do so because the other process has changed the files.
    """
    try:
        for directory in directories if devices.is_first() else ():
            leases.check(directory)
    except leases.LostError as error:
        return error
    return None


def progress(title: str, total: int, unit: str = "step") -> Progress:
    """A progress display on the first host; none on others."""
    stream = None if devices.is_first() else io.StringIO()
    return Progress(title, total, unit, stream=stream)


def budgeted(settings: config_lib.Settings) -> config_lib.Settings:
    """The settings with the number of steps that follows from their budget of problems."""
    if not run_lib.takes_longer(settings):
        return settings
    count = functools.partial(
        problems_a_window, settings.data, windows=settings.windows, seed=settings.seed
    )
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
        shown = stack.enter_context(progress("train", settings.train.steps))
        return train.train_together(
            members,
            model=settings.model,
            optimizer=settings.optimizer,
            train=settings.train,
            mesh=mesh,
            progress=shown,
            profile=profile,
            learning=settings.learning,
            allowed=lambda: _check_leases([member.run_dir for member in members]),
            told=lambda words: say(f"{runs[0].name}: trains {words}"),
        )


def stream_of(run: Run, directory: epath.Path, rows: np.ndarray) -> Stream | QuestionStream:
    """The training stream of a run, with this host's rows of each batch."""
    settings = run.settings
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
        )
    return Stream(
        settings.data,
        settings.mistakes,
        settings.windows,
        seed=settings.seed,
        batch=settings.train.batch,
        rows=rows,
        records=records.of_run(run, directory, progress, say),
    )


def say(text: str) -> None:
    """Prints a message on the first host."""
    if devices.is_first():
        print(text, file=sys.stderr, flush=True)


def record_failure(directory: epath.Path, error: Exception) -> None:
    """Writes an error with its traceback to the directory of what failed, if the disk has room."""
    if not devices.is_first():
        return
    text = "".join(traceback.format_exception(error))
    # What cannot be written may be why it failed, and is said where the failure is.
    with contextlib.suppress(*paths.failures(directory)):
        paths.make_directory(directory)
        paths.write_atomically(directory / run_lib.ERROR_FILE, text)
