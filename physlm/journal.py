"""Records of training: metrics, loss spikes and progress."""

import itertools
import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Self

import jax
import numpy as np
from etils import epath

from physlm import clock
from physlm.metrics import JsonLines, read_lines
from physlm.progress import Reporter
from physlm.step import Metrics
from physlm.throughput import Meter

METRICS_FILE = "metrics.jsonl"
SPIKES_FILE = "spikes.jsonl"

# A step is a spike if its loss is this many standard deviations above the recent mean.
_SPIKE = 6.0

# Figures of `Meter` that the progress display shows, by their names there.
_SHOWN = {"tokens/s": "tokens_per_s", "input": "input_share", "MFU": "mfu"}


Line = Mapping[str, float]

# Another place for what the metrics of a run say: told the lines that there are so far, it gives,
# for as long as it is open, what takes each further line.
Log = Callable[[Sequence[Line]], AbstractContextManager[Callable[[Line], None]]]


class Journal:
    """The records of one run, or of several that are trained together, as a context manager."""

    def __init__(
        self,
        directories: Sequence[epath.Path],
        schedules: Sequence[Callable[[int], Any]],
        meter: Meter,
        progress: Reporter,
        *,
        first: int,
        last: int,
        every: int,
        tokens: int,
        logs: Sequence[Sequence[Log]] = (),
    ) -> None:
        """Opens the files of each run and drops their lines about steps after `first`.

        Args:
          directories: the directory of each run. With several hosts only the first one writes.
          schedules: the learning-rate schedule of each run.
          meter: measures the speed of all runs together.
          progress: is told of every step, with the mean of the losses.
          first: the number of steps done before.
          last: the number of steps of the runs.
          every: the number of steps between lines of metrics.
          tokens: the number of tokens of a step of one run.
          logs: where else metrics go, of each run; empty for nowhere.
        """
        self._directories, self._schedules = directories, schedules
        self._meter, self._progress = meter, progress
        self._first, self._last, self._every, self._tokens = first, last, every, tokens
        self._started = clock.seconds()
        # What each run was trained for before, by its last line that is kept.
        self._before = [0.0] * len(directories)
        self._speed: dict[str, float] = {}
        self._logs = logs or [()] * len(directories)
        self._told: list[list[Callable[[Line], None]]] = [[] for _ in directories]
        self._stack = ExitStack()
        # The recent loss of each run; the best checkpoint is the one where it is lowest.
        self.recent_loss = [math.nan] * len(directories)

    def __enter__(self) -> Self:
        names = (METRICS_FILE, SPIKES_FILE) if jax.process_index() == 0 else ()
        self._files = {
            name: [
                self._stack.enter_context(JsonLines(directory / name, upto_step=self._first))
                for directory in self._directories
            ]
            for name in names
        }
        for number, directory in enumerate(self._directories if names else ()):
            lines = read_lines(directory / METRICS_FILE)
            if lines:
                self._before[number] = lines[-1].get("seconds", 0.0)
            for log in self._logs[number]:
                self._told[number].append(self._stack.enter_context(log(lines)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def flush(self) -> None:
        """Flushes all records to the files."""
        for file in itertools.chain.from_iterable(self._files.values()):
            file.flush()

    def note(self, step: int, metrics: Metrics, ignored: Mapping[int, object]) -> list[int]:
        """Records the metrics of a step.

        Args:
          step: the number of the step.
          metrics: as `physlm.step.updated` returns them, with an axis of runs if there are several.
          ignored: the numbers of runs that were given up before.

        Returns:
          The numbers of the other runs whose loss or gradient is not finite.
        """
        values = {name: np.atleast_1d(metric).tolist() for name, metric in metrics.items()}
        logs = step % self._every == 0 or step == self._last
        if logs:
            self._speed.update(self._meter.mark(step))
        losses, bad = [], []
        for number, schedule in enumerate(self._schedules):
            of_run = {name: value[number] for name, value in values.items()}
            if number in ignored:
                continue
            if not (math.isfinite(of_run["loss"]) and math.isfinite(of_run["grad_norm"])):
                bad.append(number)
                continue
            losses.append(of_run["loss"])
            self.recent_loss[number] = of_run["recent_loss"]
            rise = of_run.pop("rise")
            if rise > _SPIKE:
                self._write(SPIKES_FILE, number, {"step": step, **of_run, "rise": round(rise, 2)})
            if logs:
                # The schedule counts from 0, so this is the rate that was used in this step.
                rate = {"learning_rate": float(schedule(step - 1)), "tokens": step * self._tokens}
                seconds = self._before[number] + clock.seconds() - self._started
                took = {"seconds": round(seconds, 3)}
                line = {"step": step, **of_run, **rate, **took, **self._speed}
                self._write(METRICS_FILE, number, line)
                for tell in self._told[number]:
                    tell(line)
        if losses:
            speed = {name: self._speed[key] for name, key in _SHOWN.items() if key in self._speed}
            self._progress.update(step, loss=math.fsum(losses) / len(losses), **speed)
        return bad

    def _write(self, name: str, number: int, line: Mapping[str, float]) -> None:
        if self._files:
            self._files[name][number].write(**line)
