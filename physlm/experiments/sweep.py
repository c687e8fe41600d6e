"""Runs a study: `python -m physlm.experiments.sweep [STUDY] [--scale quick] …`.

Every run of the study is checked before the first one starts. Each is trained once in a store, for
all studies that ask for it, and judged once by each protocol. Finished runs are not trained again
and unfinished ones go on from their last checkpoint, so that the same command, given again after a
crash or a kill, completes the study. Given on several machines that share the store it is done by
all of them: none begins a run that another has a lease of (`physlm.experiments.leases`).
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from physlm import clock, devices, paths, sharding
from physlm.experiments import (
    ancestry,
    estimate,
    execution,
    leases,
    logs,
    pace,
    registry,
    report,
    results,
    scales,
    selection,
)
from physlm.experiments import config as config_lib
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import run as run_lib
from physlm.experiments.arguments import Parser, called, one_line, place, put
from physlm.experiments.execution import Task, say
from physlm.experiments.manual import manual
from physlm.experiments.plan import groups, plan, tasks
from physlm.experiments.queue import Queue
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.experiments.tree import Tree
from physlm.experiments.view import Entry, View
from physlm.progress import format_seconds
from physlm.train import TerminatedError

# The chips for which a dry run estimates times, where it is not told which.
_SLICE = "v5e-8"

Execute = Callable[..., Iterator[tuple[Run, Exception | None]]]


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


def run_all(todo: Sequence[Task], view: View, execute: Execute) -> dict[str, str]:
    """Trains and judges what is not, and refreshes `results.jsonl` after each run.

    A run that fails leaves its error in its directory, and the others go on. One that another
    process trains comes last, and is then waited for.

    Args:
        todo: what there is to do, parents before children.
        view: what shows the results.
        execute: does it.

    Returns:
        the name of each failed run, with its error in one line.
    """
    failed: dict[str, str] = {}
    _refresh(view)
    store = view.store
    head = {task.run.name: f"run {n}/{len(todo)} {task.run.name}" for n, task in enumerate(todo, 1)}

    def busy(run: Run) -> None:
        say(f"{head[run.name]}: another process trains it: waits for it")

    queue = Queue(groups(todo, store), store, busy)
    while queue:
        with queue.taken() as group:
            together = f", together with {len(group) - 1} more" if len(group) > 1 else ""
            skipped = set()
            for task in group:
                if task.is_done(store.of_run(task.run.name)):
                    skipped.add(task.run.name)
                    say(f"{head[task.run.name]}: finished before, skipped")
                else:
                    say(f"{head[task.run.name]}: {_intended(task.run, store)}{together}")
            started = clock.seconds()
            for task, (run, error) in zip(group, execute(group, store), strict=True):
                _refresh(view)
                if isinstance(error, leases.LostError):
                    say(f"{head[run.name]}: stopped: {error}")
                    queue.again(task)
                elif error is not None:
                    failed[run.name] = one_line(error)
                    say(f"{head[run.name]}: failed: {failed[run.name]}")
                elif run.name not in skipped:
                    took = format_seconds(clock.seconds() - started)
                    say(f"{head[run.name]}: finished in {took}")
                devices.wait_for_all(f"done with {run.name}")
    if devices.is_first():
        leases.clear(_places(todo, store))
    return failed


def _places(todo: Sequence[Task], store: Store) -> Iterator[epath.Path]:
    """What a worker may have died at."""
    for task in todo:
        directory = store.of_run(task.run.name)
        yield directory
        for evaluation in task.evaluations:
            if result := evaluation_lib.result_of(directory, evaluation.config):
                yield result.parent


def _intended(run: Run, store: Store) -> str:
    """What is about to happen to a run, in words."""
    directory = store.of_run(run.name)
    if run_lib.status(directory) == "finished":
        return "trained before, is judged"
    return "goes on" if run_lib.saved_steps(directory) else "starts"


def main(arguments: Sequence[str] | None = None, execute: Execute = execution.execute) -> int:
    """The command line.

    Returns:
        0: all runs are finished; 1: a run failed; 2: bad input, and nothing was done;
        130: interrupted; 143: terminated.
    """
    options = _parser().parse_args(arguments)
    store = Store(options.workdir)
    view = View(store, options.study, options.scale)
    try:
        if options.settings:
            shared = registry.configure(registry.load(options.study), options.scale)
            chosen = dict(config_lib.parse_assignment(text) for text in options.set)
            put(manual(config_lib.override(shared, chosen)))
            return 0
        chips = _place(options)
        logs.check(options.log)
        if options.profile and not paths.is_local(options.workdir):
            raise ValueError(
                f"--profile is given with --workdir {options.workdir}; traces are written to local "
                "directories alone."
            )
        if options.log and not paths.is_local(options.workdir):
            raise ValueError(
                f"--log is given with --workdir {options.workdir}; what it keeps is written to "
                "local directories alone."
            )
        entries = _asked(options)
        view.check()
        todo = every = tasks(entries)
        if options.only:
            share = selection.parse_share(options.only)
            own = selection.deal(every, share.of)[share.number - 1]
            todo = selection.of_share(own, every)
            if not own:
                count = len({task.run.name for task in every})
                say(f"share {options.only} has none of the {count} runs: nothing is to do.")
                return 0
        else:
            own = {task.run.name for task in every}
        runs = [task.run for task in todo]
        for run in runs:
            if run.parent is None:
                ancestry.lineage(run, store.models)
            execution.check_resumable(run, store.of_run(run.name))
        cache = None if options.dry_run else store.cache
        devices.prepare(runs[0].settings.mesh, _shared_batch(runs), cache)
        if options.distributed:
            devices.join(options.distributed)
        check_mesh(runs)
        if options.dry_run:
            paces = _paces(todo, store, options.measure)
            put(Tree(todo, store, paces, chips, entries, own).text())
            return 0
        if options.profile:
            execute = functools.partial(execute, profile=options.profile)
        if options.log:
            execute = functools.partial(execute, log=options.log)
        store.make(view.directory)
        if devices.is_first():
            view.remember(entries)
        failed = run_all(todo, view, execute)
        if devices.is_first():
            _report(view)
    except ValueError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        say(
            "\ninterrupted: nothing finished is lost, and the same command "
            "goes on from the last checkpoint."
        )
        return 130
    except TerminatedError as end:
        say(f"terminated {end}: the same command goes on from there.")
        return 143
    if failed:
        names = ", ".join(failed)
        print(
            f"{len(failed)} of {len(runs)} runs failed ({names}): their {run_lib.ERROR_FILE} "
            f"in {store.models} says why, and the same command tries them again.",
            file=sys.stderr,
        )
        return 1
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog=called("physlm.experiments.sweep"),
        description="Runs a study, or what is left of it, and reports the results.",
    )
    known = ", ".join(registry.names())
    parser.add_argument(
        "study", nargs="?", default="quickstart", help=f"{known}, or a module, as mine.masking"
    )
    parser.add_argument("--scale", default="quick", help=", ".join(scales.NAMES))
    parser.add_argument(
        "--workdir",
        type=place,
        default="runs",
        metavar="DIR",
        help="the store of trained models and of what studies show: a directory, or gs://… (runs)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only print what there is to do, and what it takes"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="time some training steps for that, of each shape that was not trained here before",
    )
    parser.add_argument(
        "--slice",
        metavar="CHIP-COUNT",
        help=f"estimate times for that on these chips ({_SLICE})",
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="I/N",
        help="one of N shares of the runs, from 1/N to N/N, as $SLURM_ARRAY_TASK_ID/8; what runs "
        "of it need of other shares is waited for, or done",
    )
    parser.add_argument(
        "--filter",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="only runs with these conditions or settings, and what they need: retry_rate=0.2,0.5 "
        "(one of these), mask!=none, seed=1, model.layers=4",
    )
    parser.add_argument(
        "--seeds", default="", metavar="SEEDS", help="each run for each of them: 0,1,2 or 0:3"
    )
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
        "--log",
        nargs="+",
        action="extend",
        choices=logs.NAMES,
        default=[],
        help="where the metrics of what is trained go, beside metrics.jsonl",
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


def _report(view: View) -> None:
    if not results.read(view.directory / results.FILE):
        return
    with view.held():
        text = report.make(view.directory)
    put(text)


def _refresh(view: View) -> None:
    if devices.is_first():
        view.refresh()


def _asked(options: argparse.Namespace) -> list[Entry]:
    """What the command line asks for of a study, all shares of it."""
    study = registry.load(options.study)
    seeds: list[list[str]] = [[]]
    if options.seeds:
        if any(text.split("=")[0].strip() == "seed" for text in options.set):
            raise ValueError("--seeds and --set seed=… both say which seeds: give one of them.")
        seeds = [[f"seed={seed}"] for seed in selection.parse_seeds(options.seeds)]
    entries: list[Entry] = []
    for seed in seeds:
        known = [entry.shown for entry in entries]
        planned = plan(study, options.scale, [*options.set, *seed])
        entries += [entry for entry in planned if entry.shown not in known]
    return selection.filtered(entries, options.filter) if options.filter else entries


def _place(options: argparse.Namespace) -> estimate.Slice:
    """The chips for which a dry run estimates times."""
    for name in ("measure", "slice"):
        if getattr(options, name) and not options.dry_run:
            raise ValueError(f"--{name} is for --dry-run.")
    return estimate.parse_slice(options.slice or _SLICE)


def _paces(todo: Sequence[Task], store: Store, measure: bool) -> dict[str, float]:
    """How fast runs are trained here, as far as it was measured, or is to be."""
    wanted = {pace.pace_of(task.run.config) for task in todo}
    found = pace.measured(store, wanted)
    for group in groups(todo, store) if measure else ():
        name = pace.pace_of(group[0].run.config)
        if name not in found:
            say(f"times some steps of {group[0].run.name}")
            if (speed := pace.measure(group)) is not None:
                found[name] = speed
    return found


if __name__ == "__main__":
    sys.exit(main())
