"""Runs a study: `python -m physlm.experiments.sweep [STUDY] [--scale quick] …`.

Every run of the study is checked before the first one starts. Each is trained once in a store, for
all studies that ask for it, and judged once by each protocol. Finished runs are not trained again
and unfinished ones go on from their last checkpoint, so that the same command, given again after a
crash or a kill, completes the study. Given on several machines that share the store it is done by
all of them: none begins a run that another has a lease of (`physlm.experiments.leases`).
"""

import argparse
import collections
import functools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
from etils import epath

from physlm import devices, model, paths, sharding
from physlm.experiments import ancestry, execution, leases, registry, report, results, scales
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
from physlm.experiments.view import Entry, View
from physlm.progress import format_seconds
from physlm.train import TerminatedError

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


def run_all(entries: Sequence[Entry], view: View, execute: Execute) -> dict[str, str]:
    """Trains and judges what is not, and refreshes `results.jsonl` after each run.

    A run that fails leaves its error in its directory, and the others go on. One that another
    process trains comes last, and is then waited for.

    Returns:
        the name of each failed run, with its error in one line.
    """
    failed: dict[str, str] = {}
    _refresh(view)
    store, todo = view.store, tasks(entries)
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
            started = time.monotonic()
            for task, (run, error) in zip(group, execute(group, store), strict=True):
                _refresh(view)
                if isinstance(error, leases.LostError):
                    say(f"{head[run.name]}: stopped: {error}")
                    queue.again(task)
                elif error is not None:
                    failed[run.name] = one_line(error)
                    say(f"{head[run.name]}: failed: {failed[run.name]}")
                elif run.name not in skipped:
                    took = format_seconds(time.monotonic() - started)
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


def describe(entries: Sequence[Entry], store: Store) -> str:
    """What a sweep would do, as text: each run with its size and how far it has come."""
    width = max(len(entry.run.name) for entry in entries)
    columns = f"{'parameters':>12}  {'tokens':>15}  {'training':<10}  evaluation"
    lines = [f"{'run':<{width}}  {columns}"]
    trained: dict[str, str] = {}
    judged = []
    for entry in entries:
        run, directory = entry.run, store.of_run(entry.run.name)
        trained[run.name] = run_lib.status(directory)
        judged.append(evaluation_lib.status(directory, entry.evaluation.config))
        parameters = _count_parameters(run.settings.model)
        # How much longer than this a budget of problems takes is known when the run begins.
        more = "+" if run_lib.takes_longer(run.settings) else ""
        tokens = f"{run.tokens:,}{more}"
        sizes = f"{parameters:>12,}  {tokens:>15}  {trained[run.name]:<10}"
        decode = entry.evaluation.config["decode"]
        way = "" if decode == "greedy" else f" ({decode})"
        lines.append(f"{run.name:<{width}}  {sizes}  {judged[-1]}{way}")
    runs = f"{len(trained)} runs in {store.models}: {_counted(trained.values())}"
    return "\n".join([*lines, f"{runs}; {len(judged)} evaluations: {_counted(judged)}."])


def _counted(statuses: Iterable[str]) -> str:
    counts = collections.Counter(statuses)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


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
        if options.profile and not paths.is_local(options.workdir):
            raise ValueError(
                f"--profile is given with --workdir {options.workdir}; traces are written to local "
                "directories alone."
            )
        entries = plan(registry.load(options.study), options.scale, options.set)
        view.check()
        runs = [task.run for task in tasks(entries)]
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
            put(describe(entries, store))
            return 0
        if options.profile:
            execute = functools.partial(execute, profile=options.profile)
        store.make(view.directory)
        if devices.is_first():
            view.remember(entries)
        failed = run_all(entries, view, execute)
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


def _report(view: View) -> None:
    if not results.read(view.directory / results.FILE):
        return
    with view.held():
        text = report.make(view.directory)
    put(text)


def _refresh(view: View) -> None:
    if devices.is_first():
        view.refresh()


def _count_parameters(config: model.ModelConfig) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model.shapes(config)))


if __name__ == "__main__":
    sys.exit(main())
