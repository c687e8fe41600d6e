"""Sweeps that are disturbed: how they are started, what is drawn, and what has to come of it.

A fault is drawn from a seed, and said: which moment of which phase, and what happens there. Then
the same command is given again, in peace. The promise is that it ends where a sweep ends that
nothing disturbs, and that no process ends in a traceback.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from disturbed import Plan

import physlm
from physlm.experiments import results, versions
from physlm.metrics import read_lines

VIEW = "quickstart-smoke"
SETTINGS = (
    "train.steps=8",
    "train.save_every=2",
    "train.log_every=2",
    "model.layers=1",
    "optimizer.name=adamw",
    "evaluate.problems=8",
    "evaluate.batch=8",
    "evaluate.beyond=4",
    "mesh.cpu_devices=1",
)

# FAULTS=20 has twenty of each kind of kill, and of the others a share of that; else one of each.
FAULTS = int(os.environ.get("FAULTS", "1"))
# Seconds that a process is paused.
PAUSE = float(os.environ.get("PAUSE", "60" if FAULTS > 1 else "4"))

_HERE = pathlib.Path(__file__).parent
_PATIENCE = 600.0

# Exit codes that are promised: finished, runs failed, bad input or a place that cannot be written,
# interrupted, terminated.
PROMISED = (0, 1, 2, 130, 143)

# What a process prints that ends in no order, Python's and the compiled libraries' alike.
_CRASH = re.compile(
    r"^Traceback \(most recent call last\)|^Fatal Python error|^Exception in thread|"
    r"^Exception ignored in|^terminate called|^F\d{4} |\*\*\* Check failure",
    re.MULTILINE,
)


def seeds(share: int = 1) -> range:
    """The seeds of a kind of fault: one of `share` of `FAULTS`, and at least one."""
    return range(max(1, FAULTS // share))


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """What a sweep does that nothing disturbs.

    Attributes:
        store: what it leaves.
        kept: what is computed once for all sweeps.
        moments: how many there are of each phase.
    """

    store: pathlib.Path
    kept: pathlib.Path
    moments: Mapping[str, int]


class Sweep:
    """A sweep in a process of its own."""

    def __init__(self, plan: Plan, arguments: Sequence[str] = (), **environment: str) -> None:
        """Starts it.

        Args:
            plan: what becomes of it.
            arguments: further ones of its command line.
            environment: variables, beside those of this process.
        """
        command = [sys.executable, str(_HERE / "disturbed.py"), json.dumps(vars(plan))]
        command += ["quickstart", "--scale", "smoke", "--workdir", plan.store, *arguments]
        told = {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._log = pathlib.Path(f"{plan.kept}.logs") / f"{time.time_ns()}"
        self._log.parent.mkdir(exist_ok=True)
        with self._log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, "--set", *SETTINGS],
                env={**os.environ, **told, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        # A test that fails leaves none behind.
        self._limit = time.monotonic() + _PATIENCE

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def halted(self) -> bool:
        """Waits until the process has stopped itself, or has ended; whether it has stopped."""
        while (found := self._changed()) is None:
            self._wait()
        return found

    def _changed(self) -> bool | None:
        flags = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
        found = os.waitid(os.P_PID, self.process.pid, flags)
        return None if found is None else found.si_code == os.CLD_STOPPED

    def _wait(self) -> None:
        if time.monotonic() > self._limit:
            self.process.kill()
            raise AssertionError(f"neither ends nor stops:\n{self.said}")
        time.sleep(0.01)

    def go_on(self) -> None:
        """Ends a halt."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kills it, as `kill -9` does; its log is seen through nevertheless."""
        self.process.kill()
        self.process.wait()
        assert not (crash := _CRASH.search(self.said)), f"{crash[0]}:\n{self.said}"

    def end(self, *codes: int) -> str:
        """Waits for its end, in order; returns what it has said.

        Args:
            codes: that it may end with; without them any that is promised.
        """
        while self.process.poll() is None:
            self._wait()
        said, code = self.said, self.process.returncode
        assert code in (codes or PROMISED), f"exit code {code}:\n{said}"
        assert not (crash := _CRASH.search(said)), f"{crash[0]}:\n{said}"
        return said


@dataclasses.dataclass
class Fault:
    """One fault: what is drawn for it, and that the sweep recovers from it.

    Attributes:
        undisturbed: what has to come of it.
        store: of the sweep.
        seed: of what is drawn.
        record: takes what is told in the summary.
        told: what the fault is.
        rounds: whether losses may be rounded otherwise than those of the undisturbed sweep.
    """

    undisturbed: Undisturbed
    store: pathlib.Path
    seed: int
    record: Any
    told: str = ""
    rounds: bool = False

    def __post_init__(self) -> None:
        self.draw = random.Random(f"{self.store.name} {self.seed}")

    def say(self, words: str) -> None:
        """Tells what the fault is, in the summary and where a test fails."""
        self.told = f"{self.told}; {words}" if self.told else f"seed {self.seed}: {words}"
        print(self.told)
        self.record("fault", self.told)

    def plan(self, phase: str = "", *, delay: float = 0.0, **changes: Any) -> Plan:
        """A plan of a sweep of this store.

        Args:
            phase: in which something happens, at a moment that is drawn.
            delay: the longest time from that moment until then, of which a part is drawn, half of
                the time none.
            changes: of the plan.
        """
        plan = Plan(str(self.undisturbed.kept), str(self.store), **changes)
        if not phase:
            return plan
        moments = self.undisturbed.moments[phase]
        moment = self.draw.randint(1, moments)
        later = self.draw.choice([0.0, self.draw.uniform(0.0, delay)])
        after = f" and {later:.3f} s" if later else ""
        self.say(f"{plan.inject} at moment {moment} of {moments} of {phase}{after}")
        return dataclasses.replace(plan, phase=phase, moment=moment, delay=later)

    @contextlib.contextmanager
    def meanwhile(self, seconds: float) -> Iterator[None]:
        """Takes so long at least."""
        began = time.monotonic()
        yield
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    def recover(self, *arguments: str, losses: bool = True, **environment: str) -> str:
        """Gives the command once more; it has to end where the undisturbed one ends.

        Args:
            arguments: further ones of its command line.
            losses: whether those of all steps have to be there.
            environment: variables, beside those of this process.
        """
        said = Sweep(self.plan(), arguments, **environment).end(0)
        self.compare(losses=losses)
        return said

    def compare(self, *, losses: bool = True) -> None:
        """Sees to it that the store is that of an undisturbed sweep."""
        for file in (f"{VIEW}/{results.FILE}", "models/*/evaluations/*/solutions.jsonl"):
            assert _contents(self.store, file) == _contents(self.undisturbed.store, file), file
        found, expected = _losses(self.store), _losses(self.undisturbed.store)
        assert set(found) == set(expected)
        for name, wanted in expected.items() if losses else ():
            # On other devices, two hosts', sums are rounded in another order.
            exact = found[name] == wanted
            assert exact or (self.rounds and found[name] == pytest.approx(wanted, abs=1e-5))
        assert not [path for path in self.store.rglob(".*") if path.name != ".compiled"]
        assert not list(self.store.rglob("error.txt"))
        self.record("recovered", True)


def _contents(store: pathlib.Path, pattern: str) -> dict[str, bytes]:
    found = {str(path.relative_to(store)): path.read_bytes() for path in store.glob(pattern)}
    assert found, pattern
    return found


def _losses(store: pathlib.Path) -> dict[str, dict[int, float]]:
    """By run and step."""
    return {
        path.parent.name: {line["step"]: line["loss"] for line in read_lines(path)}
        for path in store.glob("models/*/metrics.jsonl")
    }


@contextlib.contextmanager
def alone(lock: pathlib.Path) -> Iterator[None]:
    """One at a time of the processes of a test session."""
    import fcntl

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def undisturbed(directory: pathlib.Path) -> Undisturbed:
    """What nothing disturbs, in a directory that test processes share; made once."""
    store, kept, counts = (directory / name for name in ("undisturbed", "kept", "counts.json"))
    with alone(directory / "undisturbed.lock"):
        if not counts.exists():
            plan = Plan(str(kept), str(store), counts=str(counts))
            said = Sweep(plan).end(0)
            assert "Strict accuracy" in said
            for path in store.glob(f"models/*/{versions.FILE}"):
                assert json.loads(path.read_text())["physlm"] == physlm.__version__
    return Undisturbed(store, kept, json.loads(counts.read_text()))
