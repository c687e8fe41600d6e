"""Judges a trained model on test problems, and writes the result."""

import contextlib
import functools
import json
from typing import Any

from etils import epath

from data_gen.text.corrections import table
from data_gen.text.judge import Verdict
from physlm import cells as cells_lib
from physlm import clock, devices, evaluate, paths, probing
from physlm.adaptation import PROBE
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import files, hosts, leases, results, weights
from physlm.experiments import run as run_lib
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.run import Run
from physlm.step import TrainState

SOLUTIONS_FILE = "solutions.jsonl"
MISTAKES_FILE = "mistakes.txt"

# The field of a result that has the size in bytes of the file of solutions beside it.
_SIZE = "solutions_bytes"


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
            busy = functools.partial(
                hosts.say, f"{run.name}: another process judges it: waits for it"
            )
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
            # What a model that was only initialised writes tells nothing of its probe.
            frozen if settings.parent.run else None,
            model=settings.model,
            spec=settings.data,
            mistakes=settings.mistakes,
            asked=settings.probe,
            config=evaluation.settings,
            progress=hosts.progress,
        )
    else:
        probe = evaluation.settings.probe
        cells = evaluate.evaluate(
            params,
            model=settings.model,
            spec=settings.data,
            config=evaluation.settings,
            progress=hosts.progress,
            probed=weights.probed(run, directory, probe) if probe else None,
            keep=keep,
        )
    hosts.check_leases([where])
    if not devices.is_first():
        return
    asked = [cell.name for cell in cells_lib.of(settings.data, evaluation.settings)]
    if missing := set(asked) - {cell["cell"] for cell in cells}:
        names = ", ".join(sorted(missing, key=asked.index))
        hosts.say(f"{run.name}: the class has no test problem of op {names}; it gets no cell")
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

    Solutions may be deleted, and results of earlier versions do not have the size; neither is an
    error.

    Raises:
        ValueError: some of them are lost.
    """
    path, wanted = result.parent / SOLUTIONS_FILE, files.read_object(result).get(_SIZE)
    if wanted is not None and path.exists() and path.stat().length != wanted:
        raise ValueError(
            f"{path} has {path.stat().length} bytes of {wanted}, so that {result.name} beside it "
            "is of solutions that are lost."
        )
