"""A worker among several on one store: a sweep whose runs take a moment and train nothing."""

import fcntl
import os
import random
import sys
import time

from fake_runs import FakeRuns, main

from physlm import devices
from physlm.experiments import leases, run

# So that what is dead is found soon, and what lives on a busy machine is not taken for dead.
BEAT, EXPIRY, LOOK = 0.25, 8.0, 0.1
RUNS, STEPS = 12, 15


class BriefRuns(FakeRuns):
    """Runs of a few steps, whose directories no two living processes may be at."""

    def __call__(self, group, store):
        (task,) = group
        directory = store.of_run(task.run.name)
        try:
            self.train(task.run, directory)
            leases.check(directory)
            for one in task.evaluations:
                self.judge(task.run, one, directory)
            yield task.run, None
        except leases.LostError as error:
            yield task.run, error

    def train(self, planned, directory):
        if run.status(directory) == "finished":
            return
        # The system lifts such a lock where its holder is killed.
        with (directory.parent.parent / f"{planned.name}.alone").open("a") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for _ in range(STEPS):
                time.sleep(random.uniform(0.01, 0.1))
                leases.check(directory)
            assert run.status(directory) != "finished"
            super().train(planned, directory)
            with (directory / "trained").open("a") as file:
                print(os.getpid(), file=file)


def work(workdir, log):
    """Does a study together with others."""
    devices.prepare = lambda *rest, **settings: None
    leases.BEAT, leases.EXPIRY, leases.LOOK = BEAT, EXPIRY, LOOK
    more = ["--set", "mesh.population=1"]
    with open(log, "w", buffering=1) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.exit(main(workdir, *more, study="studies.many", execute=BriefRuns()))
