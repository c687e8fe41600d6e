"""The work queue of a study, for one of several workers that share a store."""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from physlm import devices
from physlm.experiments import leases
from physlm.experiments import run as run_lib
from physlm.experiments.arguments import one_line
from physlm.experiments.execution import Task
from physlm.experiments.run import Run
from physlm.experiments.store import Store

SKIPPED = "finished before, skipped"

Execute = Callable[[Sequence[Task], Store], Iterator[tuple[Run, Exception | None]]]


@dataclasses.dataclass(frozen=True)
class Begun:
    """An event: some runs were begun together.

    Attributes:
        words: what is about to happen to each, by its name.
    """

    words: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Ended:
    """An event: a run has ended or failed, or another worker has taken it over.

    Attributes:
        name: of the run.
        error: why it failed, in one line; empty where it did not.
        lost: another worker has taken it over, and it is still to be waited for.
    """

    name: str
    error: str = ""
    lost: bool = False


Event = Begun | Ended


class Queue:
    """Groups of tasks; each is done by one worker at a time.

    A worker takes the first group that no other worker has and whose parents are finished or have
    failed. Only if there is none does it wait. Of several hosts the first one chooses, and all
    follow it.
    """

    def __init__(
        self, groups: Sequence[list[Task]], store: Store, busy: Callable[[Run], None]
    ) -> None:
        """Makes a queue; no group is taken yet.

        Args:
            groups: of tasks that are done together, parents before children.
            store: where their runs are.
            busy: told, once, of each run that is waited for, as another worker has it.
        """
        self._groups, self._store, self._busy = list(groups), store, busy
        self._watch, self._told = leases.Watch(), set[str]()

    def __bool__(self) -> bool:
        return bool(self._groups)

    @contextmanager
    def taken(self) -> Iterator[list[Task]]:
        """Takes the next group under leases; waits while other workers have all."""
        with ExitStack() as stack:
            while True:
                # Other hosts know only whether there is something to do.
                chosen = self._free(stack) if devices.is_first() else None
                number = devices.agreed(-1 if chosen is None else chosen)
                if number >= 0:
                    break
                time.sleep(leases.LOOK)
            yield self._groups.pop(number)

    def work(self, execute: Execute) -> Generator[Event, None, None]:
        """Executes all groups.

        Args:
            execute: does one group, of which nothing is done elsewhere meanwhile.

        Yields:
            what happens, as it happens.
        """
        while self:
            with self.taken() as group:
                yield Begun({task.run.name: _intended(task, self._store) for task in group})
                for task, (run, error) in zip(group, execute(group, self._store), strict=True):
                    if isinstance(error, leases.LostError):
                        # Before what may need it.
                        self._groups.insert(0, [task])
                        yield Ended(run.name, str(error), lost=True)
                    else:
                        yield Ended(run.name, one_line(error) if error else "")
                    devices.wait_for_all(f"done with {run.name}")

    def _free(self, stack: ExitStack) -> int | None:
        """The index of a group whose leases were taken into `stack`; None where all are busy."""
        waits = []
        for number in free(self._groups):
            if (busy := self._lease(self._groups[number], stack)) is None:
                return number
            waits.append(busy)
        for run in waits:
            if run.name not in self._told:
                self._told.add(run.name)
                self._busy(run)
        return None

    def _lease(self, group: Sequence[Task], stack: ExitStack) -> Run | None:
        """Leases all unfinished runs of a group, or none; returns a run that is busy, if any."""
        with ExitStack() as taken:
            # In one order everywhere, so that of two workers one takes all of a group.
            for task in sorted(group, key=lambda task: task.run.name):
                directory = self._store.of_run(task.run.name)
                if not task.is_done(directory):
                    lease = self._watch.take(directory)
                    if lease is None:
                        return task.run
                    taken.enter_context(lease)
            stack.enter_context(taken.pop_all())
        return None


def free(groups: Sequence[Sequence[Task]]) -> Iterator[int]:
    """The indices of groups that depend on no group before them."""
    before: set[str] = set()
    for number, group in enumerate(groups):
        if not before & _needed(group):
            yield number
        before |= {task.run.name for task in group}


def _intended(task: Task, store: Store) -> str:
    """What is about to happen to a run, in words."""
    directory = store.of_run(task.run.name)
    if task.is_done(directory):
        return SKIPPED
    if run_lib.status(directory) == "finished":
        return "trained before, is judged"
    return "goes on" if run_lib.saved_steps(directory) else "starts"


def _needed(group: Sequence[Task]) -> set[str]:
    """The names of the runs of a group and of all runs that they depend on."""
    found: set[str] = set()
    left = [run for task in group for run in (task.run, *task.needs)]
    while left:
        run = left.pop()
        found.add(run.name)
        left += [run.parent] if run.parent else []
    return found
