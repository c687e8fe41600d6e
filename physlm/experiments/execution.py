"""What happens to a run: training, judging, the result, and the record of what it was made with."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import io
import json
import pathlib
import platform
import subprocess
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

import physlm
from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.text.corrections import table
from data_gen.text.judge import Verdict
from data_gen.windows.stream import Stream, problems_a_window
from physlm import checkpoint, devices, evaluate, optimizer, sharding, train
from physlm.experiments import config as config_lib
from physlm.experiments import results
from physlm.experiments.run import ERROR_FILE, Run, takes_longer
from physlm.progress import Progress
from physlm.step import TrainState, abstract_state

VERSIONS_FILE = "versions.json"
SOLUTIONS_FILE = "solutions.jsonl"
MISTAKES_FILE = "mistakes.txt"

_PACKAGES = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "numpy": "numpy",
    "physlm": "physlm",
}


def check_resumable(run: Run, workdir: pathlib.Path) -> None:
    """Sees to it that the checkpoints in a run's directory, if there are any, are its own.

    Raises:
        ValueError: they are of other settings; names those that differ.
    """
    settings = run.settings
    checkpoint.check_made_by(
        workdir / run.name / train.CHECKPOINTS_DIR,
        train.made_by(settings.seed, settings.model, settings.optimizer, _data_settings(run)),
    )


def execute(
    runs: Sequence[Run], workdir: pathlib.Path, profile: int = 0
) -> Iterator[tuple[Run, Exception | None]]:
    """Trains runs together, from their last checkpoints, and judges one after the other.

    Writes, below `workdir / run.name`, the configuration and the versions first, metrics and
    checkpoints while it trains, then what the model wrote for every test problem and a table of
    its mistakes, and `result.json` last: whoever sees that file sees a finished run. Of several
    hosts, all of which call this, the first alone writes, but for the checkpoints.

    Args:
      runs: one, or several of one `shape`.
      workdir: where their directories are.
      profile: training steps to write a trace of, into the first run's directory.

    Yields:
      each run as soon as it is judged or has failed, and why it failed.
    """
    for run in runs if devices.is_first() else ():
        directory = workdir / run.name
        directory.mkdir(parents=True, exist_ok=True)
        _write_json(directory / results.CONFIG_FILE, run.config)
        _write_versions(directory / VERSIONS_FILE)
    started = time.monotonic()
    try:
        outcomes: Sequence[TrainState | Exception] = _train(runs, workdir, profile)
    # What ends a training ends that of all its runs.
    except Exception as error:
        outcomes = [error] * len(runs)
    seconds = time.monotonic() - started
    for run, outcome in zip(runs, outcomes, strict=True):
        try:
            if isinstance(outcome, Exception):
                raise outcome
            _judge(run, workdir / run.name, outcome, seconds)
        except Exception as error:
            yield run, error
        else:
            yield run, None


def _judge(run: Run, directory: pathlib.Path, state: TrainState, train_seconds: float) -> None:
    """Decodes and judges the test problems, and writes what comes of it."""
    settings, started = run.settings, time.monotonic()
    solutions: list[dict[str, Any]] = []
    verdicts: list[Verdict] = []

    def keep(answered: list[dict[str, Any]], judged: list[Verdict]) -> None:
        solutions.extend(answered)
        verdicts.extend(judged)

    cells = evaluate.evaluate(
        state.params,
        model=settings.model,
        spec=settings.data,
        config=settings.evaluate,
        progress=progress,
        keep=keep,
    )
    if not devices.is_first():
        return
    lines = "".join(f"{json.dumps(solution)}\n" for solution in solutions)
    results.write_atomically(directory / SOLUTIONS_FILE, lines)
    results.write_atomically(directory / MISTAKES_FILE, table(verdicts) + "\n")
    header = result_header(run, int(state.step))
    for number, cell in enumerate(cells, start=1):
        results.validate({**header, **cell}, f"cell {number} of the run {run.name}")
    seconds = {
        "train_seconds": round(train_seconds, 3),
        "evaluate_seconds": round(time.monotonic() - started, 3),
    }
    _write_json(directory / results.RUN_FILE, {**header, **seconds, "cells": cells})
    (directory / ERROR_FILE).unlink(missing_ok=True)


def result_header(run: Run, step: int) -> dict[str, Any]:
    """What all results of a run say, of the model after so many steps."""
    return {
        "study": run.config["study"],
        "run": run.name,
        "condition": run.condition,
        "seed": run.settings.seed,
        "step": step,
        "tokens": run.tokens_after(step),
    }


def progress(title: str, total: int, unit: str = "step") -> Progress:
    """A display of how far a piece of work has come, on the first host."""
    stream = None if devices.is_first() else io.StringIO()
    return Progress(title, total, unit, stream=stream)


def restored(run: Run, directory: pathlib.Path, which: str) -> TrainState:
    """The state of a run's checkpoint, over the devices of its mesh.

    Args:
        run: whose it is.
        directory: of the run.
        which: `final`, `best` (the lowest recent loss), or a step.

    Raises:
        ValueError: there is no such checkpoint, and names those that there are; or the model cannot
            be divided over the mesh.
    """
    settings = budgeted(run.settings)
    mesh = sharding.make_mesh(settings.mesh)
    sharding.check(settings.model, sharding.batch_shards(mesh), 1, mesh)
    there = checkpoint.steps(directory / train.CHECKPOINTS_DIR)
    if not there:
        raise ValueError(f"{directory} has no checkpoints.")
    transform = optimizer.make(settings.optimizer, settings.train.steps)
    abstract = abstract_state(settings.model, transform, mesh)
    with checkpoint.Checkpoints(
        directory / train.CHECKPOINTS_DIR, keep=settings.train.keep, read_only=True
    ) as checkpoints:
        named = {"final": checkpoints.latest, "best": checkpoints.best}
        step = named.get(which, int(which) if which.isdecimal() else None)
        if step not in there:
            found = ", ".join(map(str, sorted(there)))
            raise ValueError(
                f"--checkpoint is {which!r}; it must be final, best, or one of {found}."
            )
        return checkpoints.restore(step, abstract)


def budgeted(settings: config_lib.Settings) -> config_lib.Settings:
    """The settings with as many steps as the budget allows; a function of them alone."""
    if not takes_longer(settings):
        return settings
    count = functools.partial(
        problems_a_window, settings.data, windows=settings.windows, seed=settings.seed
    )
    more = count(ERROR_FREE) / count(settings.mistakes)
    steps = round(settings.train.steps * more)
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=steps))


def _train(
    runs: Sequence[Run], workdir: pathlib.Path, profile: int
) -> list[TrainState | FloatingPointError]:
    settings = budgeted(runs[0].settings)
    mesh = sharding.make_mesh(settings.mesh)
    rows = sharding.rows_here(settings.train.batch, mesh)
    with contextlib.ExitStack() as stack:
        members = [
            train.Member(
                seed=run.settings.seed,
                stream=stack.enter_context(contextlib.closing(_stream(run.settings, rows))),
                learning_rate=run.settings.optimizer.learning_rate,
                run_dir=workdir / run.name,
                made_by=_data_settings(run),
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
        )


def _data_settings(run: Run) -> dict[str, Any]:
    """The settings that say what a run is trained on."""
    flat = config_lib.flatten(run.config)
    return {key: value for key, value in flat.items() if key.startswith(("data.", "mistakes."))}


def _stream(settings: config_lib.Settings, rows: np.ndarray) -> Stream:
    return Stream(
        settings.data,
        settings.mistakes,
        settings.windows,
        seed=settings.seed,
        batch=settings.train.batch,
        rows=rows,
    )


def record_failure(run: Run, workdir: pathlib.Path, error: Exception) -> None:
    """Leaves the error with its traceback in the run's directory."""
    if not devices.is_first():
        return
    directory = workdir / run.name
    directory.mkdir(parents=True, exist_ok=True)
    text = "".join(traceback.format_exception(error))
    results.write_atomically(directory / ERROR_FILE, text)


def versions() -> dict[str, Any]:
    """What this run's numbers depend on beside its configuration."""
    devices = jax.devices()
    commit, modified = _git_state()
    return {
        "python": platform.python_version(),
        **{name: _version_of(package) for name, package in _PACKAGES.items()},
        "git_commit": commit,
        "git_modified": modified,
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
    }


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # Run from a clone that is not installed.


def _git_state() -> tuple[str | None, bool | None]:
    """The commit of the sources and whether they differ from it; None outside a clone."""
    source = pathlib.Path(physlm.__file__)

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(source.parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside some other repository, whose commit would say nothing.
    if git("ls-files", "--error-unmatch", source.name) is None:
        return None, None
    changes = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), bool(changes)


def _write_versions(path: pathlib.Path) -> None:
    """Records the versions; those of an interrupted earlier part stay under `before`."""
    current = versions()
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        before = earlier.pop("before", [])
        current["before"] = before if earlier == current else [*before, earlier]
    _write_json(path, current)


def _write_json(path: pathlib.Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    results.write_atomically(path, text + "\n")
