"""Runs a study: `python -m physlm.experiments.sweep [STUDY] [--scale quick] …`.

Every run of the study is checked before the first one starts. Finished runs are skipped and
unfinished ones go on from their last checkpoint, so that the same command, given again after a
crash or a kill, completes the study.
"""

import argparse
import collections
import fcntl
import functools
import math
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import jax

from data_gen import keys
from data_gen.keys import Purpose
from physlm import devices, model, population, sharding
from physlm.experiments import config as config_lib
from physlm.experiments import execution, registry, report, results
from physlm.experiments import run as run_lib
from physlm.experiments.arguments import Parser
from physlm.experiments.manual import manual
from physlm.experiments.run import Run
from physlm.progress import format_seconds
from physlm.train import TerminatedError

LOCK_FILE = ".lock"
CACHE_DIR = ".compiled"

Execute = Callable[..., Iterator[tuple[Run, Exception | None]]]


def plan(study: registry.Study, scale: str, assignments: Sequence[str] = ()) -> list[Run]:
    """All runs of a study, every one checked; equal ones are merged.

    Args:
        study: which study.
        scale: which of `config.SCALES`.
        assignments: `key=value` texts that hold for every run, over what the study itself varies.

    Raises:
        ValueError: an unknown scale or key, a value of the wrong type, or one that a room refuses.
    """
    shared = registry.configure(study, scale)
    chosen = dict(config_lib.parse_assignment(text) for text in assignments)
    chosen = config_lib.expanded(chosen)
    defaults = config_lib.flatten(shared)
    set_apart = {key for key, value in chosen.items() if value != defaults[key]}
    runs: dict[str, Run] = {}
    for overrides in study.sweep():
        overrides = config_lib.expanded(overrides)
        config = config_lib.override(shared, {**overrides, **chosen})
        run = run_lib.make_run(config, varied={*overrides, *set_apart})
        runs.setdefault(run.name, run)
    if not runs:
        raise ValueError(f"the study {study.name!r} has no runs: its sweep() yields nothing.")
    return list(runs.values())


def check_mesh(runs: Sequence[Run]) -> None:
    """Sees to it that the devices here can serve every run.

    Raises:
        ValueError: there are too few devices, or a model or batch cannot be divided over them.
    """
    if len({run.settings.mesh.cpu_devices for run in runs}) > 1:
        raise ValueError("mesh.cpu_devices differs between runs; one sweep has one value of it.")
    for run in runs:
        mesh, train = sharding.make_mesh(run.settings.mesh), run.settings.train
        sharding.check(run.settings.model, train.batch, train.accumulate, mesh)


def _shared_batch(runs: Sequence[Run]) -> int:
    """Sequences that every run can divide over devices at once."""
    trains = (run.settings.train for run in runs)
    return math.gcd(*(train.batch // train.accumulate for train in trains))


def check_workdir(workdir: pathlib.Path, study: str) -> None:
    """Sees to it that `workdir` can hold the study, without touching it.

    Raises:
        ValueError: it is a file, cannot be written, or holds results of another study.
    """
    nearest = workdir
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"--workdir {workdir} cannot be a directory: {nearest} is a file.")
    if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError(f"--workdir {workdir} is not writable: no permission in {nearest}.")
    if workdir.exists():
        results.refuse_other_study(workdir, study)


def groups(runs: Sequence[Run], workdir: pathlib.Path) -> list[list[Run]]:
    """Runs that are trained as one program, in the order of their first ones.

    They are of one shape and can go on from one step, at most `mesh.population`, and a multiple of
    the devices: a program of fewer would leave some idle, where a run alone is divided over them.
    """
    alike: list[tuple[str, set[int], list[Run]]] = []
    for run in runs:
        # How many steps a budget of problems takes differs from run to run.
        alone = run_lib.takes_longer(run.settings) or _spread(run.settings.mesh)
        shape, saved = run.name if alone else run_lib.shape(run), run_lib.saved_steps(run, workdir)
        for other, steps, members in alike:
            if other == shape and (steps & saved or not (steps or saved)):
                steps &= saved
                members.append(run)
                break
        else:
            alike.append((shape, saved, [run]))
    found = []
    for _, _, members in alike:
        settings = members[0].settings
        count = sharding.make_mesh(settings.mesh).size
        tokens = settings.train.batch * settings.windows.window
        most = settings.mesh.population or population.usual(
            settings.model, tokens, jax.default_backend()
        )
        while members:
            size = min(most, len(members)) // count * count
            found.append(members[: max(size, 1)])
            members = members[max(size, 1) :]
    place = {run.name: number for number, run in enumerate(runs)}
    return sorted(found, key=lambda group: place[group[0].name])


def _spread(mesh: sharding.MeshConfig) -> bool:
    """Whether a run needs several devices or hosts to itself."""
    return mesh.beside_data > 1 or jax.process_count() > 1


def run_all(runs: Sequence[Run], workdir: pathlib.Path, execute: Execute) -> dict[str, str]:
    """Executes what is not finished, and refreshes `results.jsonl` after each run.

    A run that fails leaves its error in its directory, and the others go on.

    Returns:
        the name of each failed run, with its error in one line.
    """
    failed: dict[str, str] = {}
    _refresh(workdir)
    head = {run.name: f"run {n}/{len(runs)} {run.name}" for n, run in enumerate(runs, start=1)}
    todo = []
    for run in runs:
        if run_lib.status(run, workdir) == "finished":
            _say(f"{head[run.name]}: finished before, skipped")
        else:
            todo.append(run)
    planned = groups(todo, workdir)
    # From here on the files of those that are trained first change.
    devices.wait_for_all("planned")
    for group in planned:
        for run in group:
            starts = run_lib.status(run, workdir) == "to do"
            together = f", together with {len(group) - 1} more" if len(group) > 1 else ""
            _say(f"{head[run.name]}: {'starts' if starts else 'goes on'}{together}")
        started = time.monotonic()
        for run, error in execute(group, workdir):
            if error is None:
                _refresh(workdir)
                took = format_seconds(time.monotonic() - started)
                _say(f"{head[run.name]}: finished in {took}")
            else:
                # One run must not take the others with it, whatever went wrong in it.
                execution.record_failure(run, workdir, error)
                failed[run.name] = _in_one_line(error)
                _say(f"{head[run.name]}: failed: {failed[run.name]}")
            devices.wait_for_all(f"done with {run.name}")
    return failed


def describe(runs: Sequence[Run], workdir: pathlib.Path) -> str:
    """What a sweep would do, as text: each run with its size and how far it has come."""
    statuses = [run_lib.status(run, workdir) for run in runs]
    width = max(len(run.name) for run in runs)
    lines = [f"{'run':<{width}}  {'parameters':>12}  {'tokens':>15}  status"]
    for run, status in zip(runs, statuses, strict=True):
        parameters = _count_parameters(run.settings.model)
        # How much longer than this a budget of problems takes is known when the run begins.
        more = "+" if run_lib.takes_longer(run.settings) else ""
        tokens = f"{run.tokens:,}{more}"
        lines.append(f"{run.name:<{width}}  {parameters:>12,}  {tokens:>15}  {status}")
    counts = collections.Counter(statuses)
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    return "\n".join([*lines, f"{len(runs)} runs in {workdir}: {summary}."])


def main(arguments: Sequence[str] | None = None, execute: Execute = execution.execute) -> int:
    """The command line.

    Returns:
        0: all runs are finished; 1: a run failed; 2: bad input, and nothing was done;
        130: interrupted; 143: terminated.
    """
    options = _parser().parse_args(arguments)
    workdir = options.workdir or pathlib.Path("runs") / f"{options.study}-{options.scale}"
    try:
        if options.settings:
            shared = registry.configure(registry.load(options.study), options.scale)
            chosen = dict(config_lib.parse_assignment(text) for text in options.set)
            print(manual(config_lib.override(shared, chosen)))
            return 0
        runs = plan(registry.load(options.study), options.scale, options.set)
        check_workdir(workdir, options.study)
        for run in runs:
            execution.check_resumable(run, workdir)
        cache = None if options.dry_run else _cache(workdir)
        devices.prepare(runs[0].settings.mesh, _shared_batch(runs), cache)
        if options.distributed:
            devices.join(options.distributed)
        check_mesh(runs)
        if options.dry_run:
            print(describe(runs, workdir))
            return 0
        if options.profile:
            execute = functools.partial(execute, profile=options.profile)
        _make_directory(workdir)
        with _locked(workdir) if devices.is_first() else nullcontext():
            failed = run_all(runs, workdir, execute)
            if devices.is_first():
                _report(workdir)
    except ValueError as error:
        print(_in_one_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        _say(
            "\ninterrupted: nothing finished is lost, and the same command "
            "goes on from the last checkpoint."
        )
        return 130
    except TerminatedError as end:
        _say(f"terminated {end}: the same command goes on from there.")
        return 143
    if failed:
        names = ", ".join(failed)
        print(
            f"{len(failed)} of {len(runs)} runs failed ({names}): their {run_lib.ERROR_FILE} "
            f"in {workdir} says why, and the same command tries them again.",
            file=sys.stderr,
        )
        return 1
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m physlm.experiments.sweep",
        description="Runs a study, or what is left of it, and reports the results.",
    )
    parser.add_argument("study", nargs="?", default="quickstart", help=", ".join(registry.names()))
    parser.add_argument("--scale", default="quick", help=", ".join(config_lib.SCALES))
    parser.add_argument("--workdir", type=pathlib.Path, help="default: runs/STUDY-SCALE")
    parser.add_argument("--dry-run", action="store_true", help="only print what there is to do")
    parser.add_argument(
        "--settings", action="store_true", help="only print all settings and what they mean"
    )
    parser.add_argument(
        "--profile",
        type=_steps,
        nargs="?",
        const=10,
        default=0,
        metavar="STEPS",
        help="write a trace of so many training steps (10) into the directory of each run",
    )
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="auto",
        metavar="ADDRESS:PORT,PROCESSES,NUMBER",
        help="be one of several processes that share the work; as JAX finds out, or as said",
    )
    parser.add_settings("change settings of all runs, e.g. train.steps=500 seed=1")
    return parser


def _steps(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a number of steps is")
    return int(text)


def _report(workdir: pathlib.Path) -> None:
    if not results.read(workdir / results.FILE):
        return
    print(report.make(workdir))


def _refresh(workdir: pathlib.Path) -> None:
    if not devices.is_first():
        return
    results.write(workdir / results.FILE, results.collect(workdir))


def _cache(workdir: pathlib.Path) -> pathlib.Path | None:
    """Where compiled programs go, unless JAX has been told already by its own variable."""
    return None if "JAX_COMPILATION_CACHE_DIR" in os.environ else workdir / CACHE_DIR


def _make_directory(workdir: pathlib.Path) -> None:
    """Creates `workdir` and tries it: permission bits do not tell everything (quotas, mounts)."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise ValueError(f"--workdir {workdir} is not writable: {error.strerror}.") from error


@contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps a second sweep out of `workdir`; the system lifts the lock when a process dies."""
    with (workdir / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another sweep is at work in {workdir}: wait for it.") from error
        yield


def _count_parameters(config: model.ModelConfig) -> int:
    params = jax.eval_shape(lambda: model.init(config, keys.root(0, Purpose.PARAMETERS)))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _say(text: str) -> None:
    if not devices.is_first():
        return
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
