"""A Ray cluster that does a study: `sweep --executor ray`.

Each group of runs that is trained as one program is a task of Ray, which finds a node for it and
tries it again on another one where that node is lost. The process that was called (the driver)
says what happens and writes the results; it leaves accelerators to the workers. A worker holds
the leases of its runs as any worker does (`physlm.experiments.leases`), so that a task that is
tried again begins when the lease of the lost worker has expired, and goes on from its checkpoints.

All nodes have to see the store, and need this project as the driver has it. A run has to fit on
one node.
"""

import importlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from types import FrameType, ModuleType, TracebackType
from typing import Any, Self

from physlm import devices, paths, sharding
from physlm.experiments import hosts, leases
from physlm.experiments.arguments import one_line
from physlm.experiments.execution import Task
from physlm.experiments.hosts import say
from physlm.experiments.plan import check_mesh, groups, shared_batch
from physlm.experiments.queue import Ended, Event, Execute, Queue, free
from physlm.experiments.store import Store
from physlm.train import TerminatedError

# How often a task is tried again whose worker or node was lost.
RETRIES = 10

# Seconds in which an address has to answer, in which stopped workers write their checkpoints, and
# between two looks at them.
_ANSWER, _CHECKPOINTS, _LOOK = 10.0, 60.0, 0.2

# What a cluster of this machine keeps in shared memory: tasks and what they tell are small.
_SHARED_BYTES = 128 * 2**20


def parse_resources(texts: Sequence[str]) -> dict[str, float]:
    """The resources of a task, by Ray's names.

    Args:
        texts: such as `CPU=8` and `GPU=1`.

    Raises:
        ValueError: one is not written so, or Ray has no such part of a resource.
    """
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not (name and re.fullmatch(r"\d+(\.\d+)?", number)):
            raise ValueError(f"--resources is {text!r}; it must be NAME=NUMBER, such as GPU=1.")
        found[name] = float(number)
        if found[name] <= 0 or (found[name] > 1 and found[name] % 1):
            raise ValueError(f"--resources is {text!r}; it must be a whole number or below 1.")
    return found


class Cluster:
    """A Ray cluster; a context manager that connects to it, or starts one of this machine.

    Whatever ends it early has the tasks that are under way write checkpoints and end.
    """

    def __init__(self, address: str, resources: Mapping[str, float]) -> None:
        """Nothing is started yet.

        Args:
            address: `HOST:PORT`, or `auto` for the cluster that this machine is part of; empty
                for one that is started and ends with this process.
            resources: what each task takes; where it says nothing, one core and, where there are
                any, one GPU or TPU chip.

        Raises:
            ValueError: Ray is not installed, or the address is written otherwise.
        """
        try:
            self._ray: ModuleType = importlib.import_module("ray")
        except ImportError as error:
            raise ValueError(
                "--executor ray needs ray, which is not installed: pip install 'physlm[ray]'."
            ) from error
        if address not in ("", "auto") and not re.fullmatch(r"[^:/\s]+:\d+", address):
            raise ValueError(f"--address is {address!r}; it must be auto or HOST:PORT.")
        self._address, self._asked = address, dict(resources)
        self._takes: dict[str, float] = {}
        self._flying: dict[Any, list[Task]] = {}
        self._store: Store | None = None
        self._before: dict[int, Any] = {}
        self._waits = False
        self._ends: BaseException | None = None

    def __enter__(self) -> Self:
        """Connects.

        Raises:
            ValueError: the address does not answer, or the cluster cannot serve a task.
        """
        self._connect()
        try:
            self._choose()
        except BaseException:
            self._ray.shutdown()
            raise
        # Ray's own would leave at once, and Python can catch signals in the main thread only.
        if threading.current_thread() is threading.main_thread():
            signals = (signal.SIGINT, signal.SIGTERM)
            self._before = {one: signal.signal(one, self._end) for one in signals}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._cancel()
        finally:
            self._ray.shutdown()
            for one, before in self._before.items():
                signal.signal(one, before)

    def groups(self, todo: Sequence[Task], store: Store) -> list[list[Task]]:
        """Groups of tasks that are trained as one program, given a worker's devices.

        Raises:
            ValueError: a worker's devices cannot serve a run, or no worker can be started.
        """
        divide = self._ray.remote(**self._options())(_divide)
        try:
            told = divide.remote(todo, store, self._setting(todo))
            while not self._ready([told]):
                pass
            numbers = self._ray.get(told)
        except self._ray.exceptions.RayError as error:
            cause = _cause(error)
            if isinstance(cause, ValueError):
                raise cause from None
            raise ValueError(f"a worker of the cluster failed: {one_line(cause)}") from error
        return [[todo[number] for number in group] for group in numbers]

    def work(
        self, grouped: Sequence[Sequence[Task]], store: Store, execute: Execute
    ) -> Generator[Event, None, None]:
        """Runs groups of tasks, as many at once as the cluster has resources for.

        A group whose worker cannot be had has failed.

        Args:
            grouped: tasks that are done together, parents before children.
            store: where their runs are.
            execute: does one group, in a worker.

        Yields:
            what happens, as it is told.
        """
        left = [list(group) for group in grouped]
        self._store = store
        setting = self._setting([task for group in grouped for task in group])
        remote = self._ray.remote(num_returns="streaming", max_retries=RETRIES, **self._options())(
            _work
        )
        while left:
            under_way = {id(group) for group in self._flying.values()}
            for group in [left[number] for number in free(left)]:
                if id(group) not in under_way:
                    # What comes back is taken out of the list, and the worker has its own.
                    self._flying[remote.remote(list(group), store, execute, setting)] = group
            for told in self._ready([*self._flying]):
                group = self._flying[told]
                try:
                    event = self._ray.get(next(told))
                except StopIteration:
                    # What is left of it was stopped with its node, and is tried again.
                    del self._flying[told]
                    left = [other for other in left if other is not group]
                    left = [list(group), *left] if group else left
                except self._ray.exceptions.RayError as error:
                    del self._flying[told]
                    left = [other for other in left if other is not group]
                    for task in group:
                        cause = _cause(error)
                        hosts.record_failure(store.of_run(task.run.name), cause)
                        yield Ended(task.run.name, one_line(cause))
                else:
                    if isinstance(event, Ended) and not event.lost:
                        group[:] = [task for task in group if task.run.name != event.name]
                    yield event

    def _ready(self, told: Sequence[Any]) -> Sequence[Any]:
        """The messages of tasks that have arrived, waiting a second at most."""
        # Ray makes another error of one that comes up while it waits.
        self._waits = True
        ready, _ = self._ray.wait([*told], timeout=1.0)
        self._waits = False
        if self._ends:
            raise self._ends
        return ready

    def _end(self, number: int, frame: FrameType | None) -> None:
        first, self._ends = self._ends is None, _ending(number)
        if not (self._waits and first):
            raise self._ends

    def _connect(self) -> None:
        # Nothing is to be reported to anybody outside, unless the user wants it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings: dict[str, Any] = {"address": self._address or "local"}
        if not self._address:
            settings |= {"include_dashboard": False, "object_store_memory": _SHARED_BYTES}
        elif self._address != "auto":
            # Ray itself waits for minutes, and then ends the process.
            host, port = self._address.split(":")
            try:
                socket.create_connection((host, int(port)), _ANSWER).close()
            except (OSError, OverflowError) as error:
                raise ValueError(f"--address {self._address} does not answer: {error}.") from error
        try:
            # Workers write to Ray's logs; what is worth telling they tell.
            self._ray.init(**settings, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"--executor ray finds no cluster at {settings['address']}: {one_line(error)}"
            ) from error

    def _choose(self) -> None:
        """Decides the resources of a task, and checks that some node has them."""
        there = self._ray.cluster_resources()
        usual = {name: 1.0 for name in ("GPU", "TPU") if there.get(name)}
        self._takes = {"CPU": 1.0, **(self._asked or usual)}
        takes = " ".join(f"{name}={number:g}" for name, number in self._takes.items())
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fits = any(
            all(node.get(name, 0) >= number for name, number in self._takes.items())
            for node in nodes
        )
        if not (fits or self._address):
            raise ValueError(f"--resources: a task takes {takes}, which this machine has not.")
        count = "one node" if len(nodes) == 1 else f"{len(nodes)} nodes"
        waits = "" if fits else "; no node has that, and it is waited for one"
        say(f"a cluster of {count}; a task takes {takes}{waits}")

    def _options(self) -> dict[str, Any]:
        """The options of a Ray task."""
        others = {name: n for name, n in self._takes.items() if name not in ("CPU", "GPU")}
        return {
            "num_cpus": self._takes["CPU"],
            "num_gpus": self._takes.get("GPU", 0),
            "resources": others,
            # JAX is set up once in a process, and keeps the memory of an accelerator.
            "max_calls": 1,
        }

    def _setting(self, todo: Sequence[Task]) -> dict[str, Any]:
        """The environment that all workers share, so that they set JAX up alike."""
        runs = [task.run for task in todo]
        return {
            "mesh": runs[0].settings.mesh,
            "batch": shared_batch(runs),
            "cores": max(1, int(self._takes["CPU"])),
            "directory": os.getcwd(),
        }

    def _cancel(self) -> None:
        """Asks running tasks to write checkpoints and end, and waits for them."""
        for told in self._flying:
            self._ray.cancel(told)
        if self._flying:
            say("cancels what is under way, and waits for its checkpoints")
        until, store = time.monotonic() + _CHECKPOINTS, self._store
        going = [task.run.name for group in self._flying.values() for task in group]
        while store and any(leases.is_held(store.of_run(name)) for name in going):
            if time.monotonic() > until:
                return
            time.sleep(_LOOK)


def _divide(todo: Sequence[Task], store: Store, setting: Mapping[str, Any]) -> list[list[int]]:
    """On a worker: divides tasks into groups that are trained as one program."""
    _prepare(todo, store, **setting)
    number = {id(task): n for n, task in enumerate(todo)}
    return [[number[id(task)] for task in group] for group in groups(todo, store)]


def _work(
    group: list[Task], store: Store, execute: Execute, setting: Mapping[str, Any]
) -> Generator[Event, None, None]:
    """On a worker: runs a group of tasks, or ends early, with checkpoints, when asked to."""
    signal.signal(signal.SIGTERM, _terminated)
    # So Ray cancels a task.
    signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        _prepare(group, store, **setting)
        if paths.is_local(store.root) and not store.models.exists():
            raise ValueError(
                f"--workdir {store.root} is not there on the node {socket.gethostname()}; it must "
                "be a directory that all nodes share, or gs://…."
            )
        yield from Queue([group], store, busy=lambda run: None).work(execute)
    except TerminatedError:
        return


def _prepare(
    todo: Sequence[Task],
    store: Store,
    mesh: sharding.MeshConfig,
    batch: int,
    cores: int,
    directory: str,
) -> None:
    """On a worker: sets JAX up, in the driver's working directory."""
    if os.path.isdir(directory):
        os.chdir(directory)
    devices.prepare(mesh, batch, store.cache, cores)
    try:
        check_mesh([task.run for task in todo])
    except ValueError as error:
        # Not every kind of error can be sent.
        raise ValueError(one_line(error)) from None


def _terminated(number: int, frame: FrameType | None) -> None:
    raise _ending(number)


def _ending(number: int) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return TerminatedError("with what was under way on the cluster")


def _cause(error: Exception) -> Exception:
    """The error of a task, or of the worker that ran it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
