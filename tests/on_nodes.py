"""A study on a Ray cluster whose leases expire soon: workers import this module as its driver does.

What it says of leases holds in every process that imports it, so that tests do not.
"""

import sys

from fake_runs import FakeRuns, main

from physlm.experiments import execution, leases

leases.BEAT, leases.EXPIRY, leases.LOOK = 0.25, 8.0, 0.1


def in_earnest(tasks, store):
    yield from execution.execute(tasks, store)


def fails_without_mistakes(tasks, store):
    yield from FakeRuns(failing=(0.0,))(tasks, store)


if __name__ == "__main__":
    import on_nodes

    name, workdir, *arguments = sys.argv[1:]
    sys.exit(main(workdir, *arguments, execute=getattr(on_nodes, name)))
