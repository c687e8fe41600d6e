"""What is left to do of a study, for one of several workers that share a store."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from physlm import devices
from physlm.experiments import leases
from physlm.experiments.execution import Task
from physlm.experiments.run import Run
from physlm.experiments.store import Store


class Queue:
    """Groups of tasks, each of which one worker does at a time.

    A worker takes the first group that no other is at and whose parents are done with, and waits
    only where there is none. Of several hosts the first one chooses, and all do the same.
    """

    def __init__(
        self, groups: Sequence[list[Task]], store: Store, busy: Callable[[Run], None]
    ) -> None:
        """Nothing is taken yet.

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
        """The next group, which nobody else does meanwhile; waits where others have all."""
        with ExitStack() as stack:
            while True:
                # The others know no more than that there is something.
                chosen = self._free(stack) if devices.is_first() else None
                number = devices.agreed(-1 if chosen is None else chosen)
                if number >= 0:
                    break
                time.sleep(leases.LOOK)
            yield self._groups.pop(number)

    def again(self, task: Task) -> None:
        """Puts a task back that another worker has taken over, before what may need it."""
        self._groups.insert(0, [task])

    def _free(self, stack: ExitStack) -> int | None:
        """The number of a group whose leases `stack` then holds."""
        before: set[str] = set()
        waits = []
        for number, group in enumerate(self._groups):
            if not before & _needed(group):
                if (busy := self._lease(group, stack)) is None:
                    return number
                waits.append(busy)
            before |= {task.run.name for task in group}
        for run in waits:
            if run.name not in self._told:
                self._told.add(run.name)
                self._busy(run)
        return None

    def _lease(self, group: Sequence[Task], stack: ExitStack) -> Run | None:
        """Takes the leases of what is not done of a group, all or none; returns who is busy."""
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


def _needed(group: Sequence[Task]) -> set[str]:
    """The names of the runs of a group and of all that they need."""
    found: set[str] = set()
    left = [run for task in group for run in (task.run, *task.needs)]
    while left:
        run = left.pop()
        found.add(run.name)
        left += [run.parent] if run.parent else []
    return found
