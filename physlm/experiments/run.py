"""One run of a study: its directory, its identity, training, judging, and the result."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
from ml_collections import ConfigDict

import physlm
from data_gen.corrections import table
from data_gen.judge import Verdict
from data_gen.mistakes import ERROR_FREE
from data_gen.stream import Stream, problems_a_window
from physlm import checkpoint, evaluate, sharding, train
from physlm.experiments import config as config_lib
from physlm.experiments import results
from physlm.progress import Progress
from physlm.step import TrainState

VERSIONS_FILE = "versions.json"
ERROR_FILE = "error.txt"
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

Status = Literal["finished", "unfinished", "failed", "to do"]

# Settings that decide how fast a run goes, how often it speaks and what it keeps, but not what it
# computes. They stay out of the identity, so that a run begun on one machine is found, and resumed
# or skipped, on another. (A mesh of another shape adds the same numbers in another order.)
_NOT_IDENTITY = ("mesh", "train.log_every", "train.save_every", "train.keep", "evaluate.batch")

# Settings in which runs of one population may differ, beside all of their mistakes.
_OF_A_MEMBER = ("seed", "optimizer.learning_rate")

_SHORT_NAMES = {
    "mistakes.rate": "retry_rate",
    "mistakes.kind": "kind",
    "mistakes.mask": "mask",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One resolved configuration of a study, ready to be executed.

    Attributes:
        name: name of its directory: the condition and seed in words, and the hash.
        config: the resolved configuration as plain JSON data.
        condition: what sets the run apart from the others, the seed excluded.
        settings: the same configuration as the checked dataclasses of each room.
    """

    name: str
    config: Mapping[str, Any]
    condition: Mapping[str, Any]
    settings: config_lib.Settings

    @property
    def tokens(self) -> int:
        """Number of tokens that the whole training sees."""
        return self.tokens_after(self.settings.train.steps)

    def tokens_after(self, steps: int) -> int:
        """Number of tokens that the first `steps` training steps see."""
        return steps * self.settings.train.batch * self.settings.train.window


def make_run(config: ConfigDict, varied: Iterable[str]) -> Run:
    """The run of a resolved configuration.

    Args:
        config: study, scale, seed and all sections.
        varied: dotted keys that set this run apart; their values make up its condition, as far as
            they can change the result. The rate of mistakes always belongs to it.

    Raises:
        ValueError: a section of the configuration is refused by its room.
    """
    settings = config_lib.resolve(config)
    flat = config_lib.flatten(config)
    apart = {key for key in varied if _decides(key)} - {"mistakes.rate", "seed"}
    keys = ["mistakes.rate", *sorted(apart)]
    condition = {short_name(key, flat): flat[key] for key in keys}
    # Through JSON, so that a run read back and a run planned are equal (tuples become lists).
    plain = json.loads(json.dumps(config.to_dict()))
    condition = json.loads(json.dumps(condition))
    words = [f"{name}={_in_a_path(value)}" for name, value in condition.items()]
    name = ",".join([*words, f"seed={config.seed}"])
    # A hundred varied settings would not fit into a file name; the hash keeps them apart.
    return Run(f"{name[:150]}-{identity(plain)}", plain, condition, settings)


def short_name(key: str, flat: Mapping[str, Any]) -> str:
    """How a condition calls the setting `key`: its last part, where no other section has it."""
    if key in _SHORT_NAMES:
        return _SHORT_NAMES[key]
    last = key.rpartition(".")[2]
    taken = [*_SHORT_NAMES.values(), *(other.rpartition(".")[2] for other in flat if other != key)]
    return key.replace(".", "_") if last in taken else last


def identity(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that two runs share only if they compute the same.

    They are the beginning of the SHA-256 of the configuration as canonical JSON, without what
    cannot change the result.
    """
    kept = {key: value for key, value in config_lib.flatten(config).items() if _decides(key)}
    canonical = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def _decides(key: str) -> bool:
    """Whether a setting can change the result of a run."""
    return key not in _NOT_IDENTITY and key.partition(".")[0] not in _NOT_IDENTITY


def status(run: Run, workdir: pathlib.Path) -> Status:
    """How far the run has come in `workdir`, by the files in its directory."""
    directory = workdir / run.name
    if (directory / results.RUN_FILE).exists():
        return "finished"
    if (directory / ERROR_FILE).exists():
        return "failed"
    return "unfinished" if directory.exists() else "to do"


def saved_steps(run: Run, workdir: pathlib.Path) -> set[int]:
    """The steps that the run has checkpoints of."""
    return checkpoint.steps(workdir / run.name / train.CHECKPOINTS_DIR)


def execute(
    runs: Sequence[Run], workdir: pathlib.Path, profile: int = 0
) -> Iterator[tuple[Run, Exception | None]]:
    """Trains runs together, from their last checkpoints, and judges one after the other.

    Writes, below `workdir / run.name`, the configuration and the versions first, metrics and
    checkpoints while it trains, then what the model wrote for every test problem and a table of
    its mistakes, and `result.json` last: whoever sees that file sees a finished run.

    Args:
      runs: one, or several of one `shape`.
      workdir: where their directories are.
      profile: training steps to write a trace of, into the first run's directory.

    Yields:
      each run as soon as it is judged or has failed, and why it failed.
    """
    for run in runs:
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
        progress=Progress,
        keep=keep,
    )
    lines = "".join(f"{json.dumps(solution)}\n" for solution in solutions)
    results.write_atomically(directory / SOLUTIONS_FILE, lines)
    results.write_atomically(directory / MISTAKES_FILE, table(verdicts) + "\n")
    step = int(state.step)
    header = {
        "study": run.config["study"],
        "run": run.name,
        "condition": run.condition,
        "seed": settings.seed,
        "step": step,
        "tokens": run.tokens_after(step),
    }
    for number, cell in enumerate(cells, start=1):
        results.validate({**header, **cell}, f"cell {number} of the run {run.name}")
    seconds = {
        "train_seconds": round(train_seconds, 3),
        "evaluate_seconds": round(time.monotonic() - started, 3),
    }
    _write_json(directory / results.RUN_FILE, {**header, **seconds, "cells": cells})
    (directory / ERROR_FILE).unlink(missing_ok=True)


def shape(run: Run) -> str:
    """What runs have in common that can be trained as one program."""
    return json.dumps(
        {
            key: value
            for key, value in config_lib.flatten(run.config).items()
            if key not in _OF_A_MEMBER and not key.startswith("mistakes.")
        },
        sort_keys=True,
    )


def takes_longer(settings: config_lib.Settings) -> bool:
    """The run takes more steps than `train.steps` to see as many problems."""
    return settings.train.budget == "problems" and settings.mistakes.rate > 0


def budgeted(settings: config_lib.Settings) -> config_lib.Settings:
    """The settings with as many steps as the budget allows; a function of them alone."""
    if not takes_longer(settings):
        return settings
    count = functools.partial(
        problems_a_window,
        settings.data,
        seed=settings.seed,
        window=settings.train.window,
        loss_on=settings.train.loss_on,
        pack=settings.train.pack,
    )
    more = count(ERROR_FREE) / count(settings.mistakes)
    steps = round(settings.train.steps * more)
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=steps))


def _train(
    runs: Sequence[Run], workdir: pathlib.Path, profile: int
) -> list[TrainState | FloatingPointError]:
    settings = budgeted(runs[0].settings)
    with contextlib.ExitStack() as stack:
        members = [
            train.Member(
                seed=run.settings.seed,
                stream=stack.enter_context(contextlib.closing(_stream(run.settings))),
                learning_rate=run.settings.optimizer.learning_rate,
                run_dir=workdir / run.name,
            )
            for run in runs
        ]
        progress = stack.enter_context(Progress("train", settings.train.steps))
        return train.train_together(
            members,
            model=settings.model,
            optimizer=settings.optimizer,
            train=settings.train,
            mesh=sharding.make_mesh(settings.mesh),
            progress=progress,
            profile=profile,
        )


def _stream(settings: config_lib.Settings) -> Stream:
    return Stream(
        settings.data,
        settings.mistakes,
        seed=settings.seed,
        batch=settings.train.batch,
        window=settings.train.window,
        loss_on=settings.train.loss_on,
        attention=settings.train.attention,
        pack=settings.train.pack,
    )


def record_failure(run: Run, workdir: pathlib.Path, error: Exception) -> None:
    """Leaves the error with its traceback in the run's directory."""
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


def _in_a_path(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-")
