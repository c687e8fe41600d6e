"""A sweep that comes to a halt at a chosen moment, for whoever disturbs it there.

`python disturbed.py PLAN ARGUMENT …` is `python -m physlm.experiments.sweep ARGUMENT …`, but for
what `Plan` says. Moments are counted: the calls that fetch a batch, and what Python's audit events
tell of files that change. The problems of training and tests are pure functions whose compilation
takes most of a sweep's time; they are computed once for all sweeps of a session, and kept.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import pickle
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

# What happens, each with moments of its own; any change of a file is one of writing as well.
PHASES = ("training", "checkpointing", "evaluating", "reporting", "writing")

# What changes a file system: flags of opening, and other events; and those that take no room.
_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
_FREEING = ("os.rename", "os.remove", "os.rmdir")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What becomes of a sweep.

    Attributes:
        kept: directory of what is computed once for all sweeps.
        store: that of the sweep.
        phase: of `PHASES`; empty for a sweep that nothing disturbs.
        moment: of the phase, from 1 on.
        delay: seconds from then on.
        inject: what it is then: `stop`, as by SIGSTOP; the name of an error, as ENOSPC, which all
            changes of the store's files raise from then on; or `clock`.
        jump: seconds by which the clock jumps.
        expiry: seconds until a lease without signs of life is broken.
        counts: the file for the number of moments of each phase; empty for none.
    """

    kept: str
    store: str
    phase: str = ""
    moment: int = 0
    delay: float = 0.0
    inject: str = "stop"
    jump: float = 0.0
    expiry: float = 2.0
    counts: str = ""


class Disturbance:
    """Counts moments, and does what is planned at one of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.counts, self.begun = plan, Counter[str](), False
        self._lock, self._at_work = threading.Lock(), threading.local()
        self._waits: list[threading.Thread] = []
        self._done, self._code = False, 0
        self._clock, self._jump = time.time, 0.0
        # Before anything takes the function by its name.
        time.time = lambda: self._clock() + self._jump
        sys.addaudithook(self._audit)

    def moment(self, phase: str) -> None:
        """One of a phase has come."""
        with self._lock:
            self.counts[phase] += 1
            due = (phase, self.counts[phase]) == (self.plan.phase, self.plan.moment)
        if not due:
            return
        if self.plan.delay:
            self._waits.append(threading.Thread(target=self._disturb, daemon=True))
            self._waits[-1].start()
        else:
            self._disturb()

    def end(self) -> None:
        """What is still to come comes before the process ends."""
        for thread in self._waits:
            thread.join()
        if self.plan.phase and not self._done:
            self._disturb()
        if self.plan.counts:
            pathlib.Path(self.plan.counts).write_text(json.dumps(self.counts))

    def _disturb(self) -> None:
        self._done = True
        time.sleep(self.plan.delay)
        if self.plan.inject == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.plan.inject == "clock":
            self._jump = self.plan.jump
        else:
            self._code = getattr(errno, self.plan.inject)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.begun or not (event == "open" or event.startswith("os.")):
            return
        if event == "open":
            _, _, flags = arguments
            changes = isinstance(flags, int) and flags & _CHANGING
        else:
            changes = event in _CHANGES
        if not changes or getattr(self._at_work, "inside", False):
            return
        with contextlib.suppress(TypeError):
            path = os.path.abspath(os.fsdecode(arguments[1 if event == "os.rename" else 0]))
            if not path.startswith(self.plan.store):
                return
            self._at_work.inside = True
            try:
                self._changed(path)
            finally:
                self._at_work.inside = False
            # A full place lets go of what it has.
            if self._code and not (self._code == errno.ENOSPC and event in _FREEING):
                raise OSError(self._code, os.strerror(self._code), path)

    def _changed(self, path: str) -> None:
        # Signs of life are as many as a sweep takes long.
        if ".lease" in path:
            return
        self.moment("writing")
        if "/checkpoints/" in path:
            self.moment("checkpointing")
        elif "/evaluations/" in path:
            self.moment("evaluating")
        elif self.counts["reporting"]:
            self.moment("reporting")


class Kept:
    """Values of pure functions, computed once and kept in files."""

    def __init__(self, directory: str) -> None:
        self._directory = pathlib.Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, under a name that says all that it depends on."""
        path = self._directory / hashlib.sha256(name.encode()).hexdigest()[:24]
        if not path.exists():
            temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
            temporary.write_bytes(pickle.dumps(make()))
            temporary.replace(path)
        return pickle.loads(path.read_bytes())


def main() -> int:
    plan = Plan(**json.loads(sys.argv[1]))
    disturbance, kept = Disturbance(plan), Kept(plan.kept)
    from physlm import cells, paths
    from physlm.experiments import execution, leases, report, sweep

    # Signs of life are many in that time.
    leases.BEAT, leases.EXPIRY, leases.LOOK = plan.expiry / 8, plan.expiry, plan.expiry / 20
    paths.STALE = plan.expiry
    stream_of, test_sets, make = execution.stream_of, cells.test_sets, report.make

    class Windows:
        """A stream that is made only for what is not kept."""

        def __init__(self, run: Any, directory: Any, rows: Any) -> None:
            self._name, self._made = f"{run.facts} {list(rows)}", contextlib.ExitStack()
            self._open = lambda: stream_of(run, directory, rows)
            self._stream: Any = None

        def batch(self, step: int) -> Any:
            disturbance.moment("training")
            return kept.value(f"{self._name} {step}", lambda: self._make(step))

        def _make(self, step: int) -> Any:
            if self._stream is None:
                self._stream = self._made.enter_context(contextlib.closing(self._open()))
            return dict(self._stream.batch(step))

        def close(self) -> None:
            self._made.close()

    def tests(spec: Any, config: Any, window: int, progress: Any) -> Any:
        disturbance.moment("evaluating")
        name = f"{spec} {config} {window}"
        return kept.value(name, lambda: test_sets(spec, config, window, progress))

    def reported(directory: Any) -> str:
        disturbance.moment("reporting")
        return make(directory)

    execution.stream_of, cells.test_sets, report.make = Windows, tests, reported
    disturbance.begun = True
    try:
        return sweep.main(sys.argv[2:])
    finally:
        disturbance.end()


if __name__ == "__main__":
    sys.exit(main())
