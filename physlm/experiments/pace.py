"""How fast runs are trained and judged on the devices here.

That is read from a store; the speed of training can be measured, too.
"""

import contextlib
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from physlm import clock, sharding, train
from physlm.adaptation import PROBE
from physlm.experiments import config as config_lib
from physlm.experiments import execution, files, versions
from physlm.experiments import run as run_lib
from physlm.experiments.evaluation import EVALUATIONS_DIR, RESULT_FILE
from physlm.experiments.execution import Task
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.journal import METRICS_FILE
from physlm.metrics import read_lines
from physlm.practice import PracticeConfig

# Settings that decide how long a step takes, beside the devices; sections end with a dot.
_PACE = (
    "adaptation.", "data.", "mesh.", "model.", "optimizer.name", "train.accumulate",
    "train.attention", "train.batch", "train.pack", "train.window",
)  # fmt: skip

# Settings of the run that decide how long judging takes, beside the devices and the protocol.
_JUDGED = ("data.", "mesh.", "model.")

# Seconds for which steps are timed, after the first one, which is compiled.
_TIMED = 10.0

# Tokens that runs of one pace are trained on in a second, by what decides it.
Paces = Mapping[str, float]

# Seconds that judging takes, by what decides it.
Judging = Mapping[str, float]


def pace_of(config: Mapping[str, Any]) -> str:
    """The key of runs whose steps take equally long on equal devices."""
    probe = config_lib.flatten(config).get("adaptation.kind") == PROBE
    return json.dumps(_settings(config, (*_PACE, "probe.") if probe else _PACE), sort_keys=True)


def judging_of(config: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """The key of evaluations that take equally long on equal devices.

    Args:
        config: of the run that is judged.
        protocol: `Evaluation.config`.
    """
    # Every probe takes equally long.
    evaluate = {key: value for key, value in protocol["evaluate"].items() if key != "probe"}
    return json.dumps(
        [_settings(config, _JUDGED), {**protocol, "evaluate": evaluate}], sort_keys=True
    )


def _settings(config: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    flat, declared = config_lib.flatten(config), config_lib.declared()
    # A run of an earlier version lacks settings that were added later.
    return {key: flat.get(key, declared[key].default) for key in declared if _is(key, wanted)}


def _fresh(run: Run) -> Run:
    """The run without records, since those of its parent may not have been made yet."""
    settings = dataclasses.replace(run.settings, practice=PracticeConfig())
    return dataclasses.replace(run, settings=settings)


def _is(key: str, wanted: Sequence[str]) -> bool:
    return any(key == one or (one.endswith(".") and key.startswith(one)) for one in wanted)


def measured(store: Store, wanted: set[str]) -> dict[str, float]:
    """Training speeds of the runs of a store that were trained on devices as those here.

    Args:
        store: where runs are looked for.
        wanted: the paces (`pace_of`) that are of interest.

    Returns:
        tokens a second, by pace: the median over the metrics. A run that was trained together with
        others counts with its share of all their tokens.
    """
    found: dict[str, list[float]] = {}
    for path in sorted(store.models.glob(f"*/{METRICS_FILE}")):
        # A run that cannot be read is as good as none.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            pace = pace_of(files.read_object(path.parent / run_lib.CONFIG_FILE))
            if pace in wanted and _was_here(path.parent):
                # The first steps are compiled.
                lines = read_lines(path)
                found.setdefault(pace, []).extend(
                    line["tokens_per_s"] for line in lines[1:] or lines
                )
    return {pace: statistics.median(speeds) for pace, speeds in found.items() if speeds}


def judged(store: Store) -> dict[str, float]:
    """Seconds that evaluations of a store took on devices as those here.

    Returns:
        the median by `judging_of`, so that the first one of a sweep, which compiles, hardly counts.
    """
    found: dict[str, list[float]] = {}
    for path in sorted(store.models.glob(f"*/{EVALUATIONS_DIR}/*/{RESULT_FILE}")):
        # An evaluation that cannot be read is as good as none.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            run = path.parent.parent.parent
            protocol = files.read_object(path.parent / run_lib.CONFIG_FILE)
            del protocol["step"]
            name = judging_of(files.read_object(run / run_lib.CONFIG_FILE), protocol)
            if _was_here(run):
                found.setdefault(name, []).append(files.read_object(path)["evaluate_seconds"])
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _was_here(directory: epath.Path) -> bool:
    here = versions.devices()
    # Runs of before 29 November 2026 do not tell the processor.
    recorded = {"cpu": here.get("cpu"), **files.read_object(directory / versions.FILE)}
    return all(recorded.get(name) == value for name, value in here.items())


class _EnoughError(Exception):
    """Ends a measurement: enough steps were timed."""


class _Watch:
    """Records the times at which steps end; a `physlm.progress.Reporter`."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def update(self, done: int, **fields: float) -> None:
        """Records one; raises `_EnoughError` when there are enough."""
        del done, fields
        self.times.append(clock.seconds())
        if len(self.times) > 2 and self.times[-1] - self.times[0] > _TIMED:
            raise _EnoughError


def measure(tasks: Sequence[Task]) -> float | None:
    """Compiles and times some training steps of runs that are trained together.

    Nothing is kept. All begin with newly drawn weights, since the weights do not change the time.

    Returns:
        tokens a second, of all of them together; None where they take a single step.
    """
    settings = tasks[0].run.settings
    config = dataclasses.replace(settings.train, save_every=settings.train.steps)
    mesh, watch = sharding.make_mesh(settings.mesh), _Watch()
    rows = sharding.rows_here(config.batch, mesh)
    with contextlib.ExitStack() as stack:
        directory = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        members = [
            train.Member(
                seed=task.run.settings.seed,
                stream=stack.enter_context(
                    contextlib.closing(execution.stream_of(_fresh(task.run), directory, rows))
                ),
                learning_rate=task.run.settings.optimizer.learning_rate,
                run_dir=directory / str(number),
            )
            for number, task in enumerate(tasks)
        ]
        with contextlib.suppress(_EnoughError):
            train.train_together(
                members,
                model=settings.model,
                optimizer=settings.optimizer,
                train=config,
                mesh=mesh,
                progress=watch,
                learning=settings.learning,
            )
    if len(watch.times) < 2:
        return None
    seconds = max(watch.times[-1] - watch.times[0], 1e-9)
    tokens = len(members) * config.batch * settings.windows.window
    return (len(watch.times) - 1) * tokens / seconds
