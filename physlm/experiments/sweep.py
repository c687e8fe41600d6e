"""Runs a study: `python -m physlm.experiments.sweep [STUDY] [--scale quick] …`.

Every run of the study is checked before the first one starts. In a store each run is trained once,
for all studies that ask for it, and judged once by each protocol. Finished runs are not trained
again and unfinished ones go on from their last checkpoint, so that the same command, given again
after a crash or a kill, completes the study. If it is given on several machines that share the
store, they divide the work: none begins a run that another has a lease of
(`physlm.experiments.leases`). With `--executor ray` a Ray cluster does it
(`physlm.experiments.cluster`).
"""

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence

import jax
from etils import epath

from data_gen import interrupts
from physlm import clock, devices, paths
from physlm.experiments import (
    ancestry,
    estimate,
    execution,
    leases,
    logs,
    memory,
    pace,
    registry,
    repair,
    report,
    results,
    selection,
)
from physlm.experiments import config as config_lib
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import options as options_lib
from physlm.experiments import run as run_lib
from physlm.experiments.arguments import one_line, put
from physlm.experiments.execution import Task
from physlm.experiments.hosts import say
from physlm.experiments.manual import manual
from physlm.experiments.plan import check_mesh, groups, shared_batch, tasks
from physlm.experiments.queue import SKIPPED, Begun, Event, Queue
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.experiments.tree import Tree
from physlm.experiments.view import View
from physlm.progress import format_seconds
from physlm.train import TerminatedError

Execute = Callable[..., Iterator[tuple[Run, Exception | None]]]

# Does all the work; its argument is called for each run that another process has.
Work = Callable[[Callable[[Run], None]], Generator[Event, None, None]]


def run_all(todo: Sequence[Task], view: View, work: Work, failed: dict[str, str]) -> None:
    """Trains and judges all unfinished runs, refreshing `results.jsonl` after each.

    A run that fails leaves its error in its directory, and the others go on. Runs that another
    process trains come last, and are then waited for.

    Args:
        todo: what there is to do, parents before children.
        view: what shows the results.
        work: does it, and yields what happens.
        failed: takes the name of each failed run, with its error in one line.

    Raises:
        one of `paths.failures`: the store can no longer be read or written.
    """
    head = {task.run.name: f"run {n}/{len(todo)} {task.run.name}" for n, task in enumerate(todo, 1)}
    started: dict[str, float] = {}

    def busy(run: Run) -> None:
        say(f"{head[run.name]}: another process trains it: waits for it")

    _refresh(view)
    # Closes the generator at once where this function ends early, not at garbage collection.
    with contextlib.closing(work(busy)) as events:
        for event in events:
            if isinstance(event, Begun):
                more = len(event.words) - 1
                for name, words in event.words.items():
                    together = f", together with {more} more" if more and words != SKIPPED else ""
                    say(f"{head[name]}: {words}{together}")
                    if words != SKIPPED:
                        started[name] = clock.seconds()
                continue
            _refresh(view)
            name, began = event.name, started.pop(event.name, None)
            if event.lost:
                say(f"{head[name]}: stopped: {event.error}")
            elif event.error:
                failed[name] = event.error
                say(f"{head[name]}: failed: {event.error}")
            elif began is not None:
                say(f"{head[name]}: finished in {format_seconds(clock.seconds() - began)}")
    if devices.is_first():
        leases.clear(_places(todo, view.store))


def _places(todo: Sequence[Task], store: Store) -> Iterator[epath.Path]:
    """Files and directories that a dead worker may have left leases of."""
    for task in todo:
        directory = store.of_run(task.run.name)
        yield directory
        for evaluation in task.evaluations:
            if result := evaluation_lib.result_of(directory, evaluation.config):
                yield result.parent


def main(arguments: Sequence[str] | None = None, execute: Execute = execution.execute) -> int:
    """The command line.

    Returns:
        0: all runs are finished; 1: a run failed; 2: bad input, and nothing was done;
        130: interrupted; 143: terminated.
    """
    options = options_lib.parse(arguments)
    # Workers on other nodes may have other working directories.
    store = Store(paths.absolute(options.workdir) if options.executor else options.workdir)
    view = View(store, options.study, options.scale)
    failed: dict[str, str] = {}
    unwritten = ""
    try:
        if options.settings:
            options_lib.check_settings(options)
            shared = registry.configure(registry.load(options.study), options.scale)
            given, begun = options_lib.assignments(options)
            chosen = {**begun, **config_lib.parse_assignments(given)}
            put(manual(config_lib.override(shared, chosen)))
            return 0
        chips, ray = options_lib.chips(options), options_lib.executor(options)
        if ray:
            # Before anything uses a device, since those of this machine may be for a worker.
            devices.leave()
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
        entries = options_lib.entries(options)
        damage = view.check()
        todo = every = tasks(entries)
        mended = [] if options.dry_run else repair.repair(every, entries, view)
        # Raises for what is damaged still.
        view.needed()
        view.rows()
        if options.only is not None:
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
        with contextlib.ExitStack() as stack:
            if ray:
                grouped = stack.enter_context(ray).groups(todo, store)
            else:
                cache = None if options.dry_run else store.cache
                devices.prepare(runs[0].settings.mesh, shared_batch(runs), cache)
                if options.distributed:
                    devices.join(options.distributed)
                check_mesh(runs)
            if options.dry_run:
                paces = _paces(todo, store, options.measure)
                judging = pace.judged(store)
                put(Tree(todo, store, paces, judging, chips, entries, own).text())
                return 0
            for run in () if ray else runs:
                # Only here, since a dry run may be for another machine.
                memory.check(run)
            if options.profile:
                execute = functools.partial(execute, profile=options.profile)
            if options.log:
                execute = functools.partial(execute, log=options.log)
            store.make(view.directory)
            if little := estimate.little_room(runs, store):
                say(little)
            if damage:
                mended.append(f"{damage}: the file is made again from the results of the runs.")
            for sentence in mended:
                say(sentence)
            if devices.is_first():
                view.remember(entries, options_lib.command(options))

            def work(busy: Callable[[Run], None]) -> Generator[Event, None, None]:
                if ray:
                    return ray.work(grouped, store, execute)
                return Queue(groups(todo, store), store, busy).work(execute)

            if not ray:
                stack.enter_context(_ends_in_order())
            run_all(todo, view, work, failed)
        if devices.is_first():
            _report(view)
    except ValueError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    except paths.failures(options.workdir) as error:
        unwritten = paths.unreachable(error, options.workdir)
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
    if unwritten:
        print(unwritten, file=sys.stderr)
    return 1 if failed or unwritten else 0


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    """Makes SIGTERM end the sweep as Ctrl-C does, so that no lease is left for others to wait for.

    During training `physlm.train` handles it, since several hosts have to agree on when to end.
    """
    main = threading.current_thread() is threading.main_thread()
    if jax.process_count() > 1 or not main:
        yield
        return

    def end(*_: object) -> None:
        raise TerminatedError("with all kept that was finished")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(view: View) -> None:
    view.refresh()
    if not results.read(view.directory / results.FILE):
        return
    with view.held():
        text = report.make(view.directory)
    put(text)


def _refresh(view: View) -> None:
    if devices.is_first():
        # It is written again after the next run, and at the end.
        with contextlib.suppress(*paths.failures(view.directory)):
            view.refresh()


def _paces(todo: Sequence[Task], store: Store, measure: bool) -> dict[str, float]:
    """Measured speeds of training here; with `--measure`, those of other runs too."""
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
    interrupts.run(main)
