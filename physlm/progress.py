"""A progress display: a bar on a terminal, a few plain lines elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from tqdm import tqdm

from physlm import clock as clock_lib

_SECONDS_BETWEEN_LINES = 10.0

# Clocks that differ by more than this disagree about a pause.
_PAUSE_SECONDS = 5.0


class Reporter(Protocol):
    """The interface of progress displays."""

    def update(self, done: int, **fields: float) -> None:
        """Reports that `done` units are done in all, with figures to show."""


class Progress:
    """Shows `done` of `total` units with the time left; used as a context manager.

    On a terminal this is a bar. Elsewhere (a log file, a pipe) it is plain lines: the first
    update, the last, and at most one every ten seconds between them. The first update sets the
    origin of the time left, so that neither compilation nor the part done before a restart
    distorts it; nor does the time in which the process is stopped.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str = "step",
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = clock_lib.seconds,
    ) -> None:
        """Begins a display that shows nothing before the first update.

        Args:
          title: what is being done.
          total: the number of units of the whole task.
          unit: the name of a unit.
          stream: where to write; None is standard error.
          clock: returns seconds, pauses of the process not counted.

        Raises:
          ValueError: `total` is negative.
        """
        if total < 0:
            raise ValueError(
                f"total of the progress {title!r} is {total}, but must not be negative."
            )
        self._title, self._total, self._unit = title, total, unit
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._bar: tqdm | None = None
        self._origin: tuple[int, float] | None = None
        self._last: tuple[int, dict[str, float]] = (0, {})
        self._printed_done: int | None = None
        self._printed_at = 0.0
        # Seconds that the bar's own clock, which does not stop, is ahead.
        self._ahead = 0.0

    def __enter__(self) -> Self:
        if self._stream.isatty():
            # Some terminals report 0 columns, which tqdm would believe; `shutil` has a default.
            size = shutil.get_terminal_size()
            self._bar = tqdm(
                total=self._total,
                desc=self._title,
                unit=self._unit,
                ncols=size.columns,
                nrows=size.lines,
                file=self._stream,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._origin is not None and self._printed_done != self._last[0]:
            self._print_line()

    def update(self, done: int, **fields: float) -> None:
        """Sets the count to `done` (absolute, not an increment) and shows `fields` beside it."""
        now = self._clock()
        first = self._origin is None
        if self._origin is None:
            self._origin = (done, now)
        self._last = (done, fields)
        if self._bar is not None:
            self._move_bar(done, fields, first, now)
        elif first or done >= self._total or now - self._printed_at >= _SECONDS_BETWEEN_LINES:
            self._print_line()

    def _move_bar(self, done: int, fields: dict[str, float], first: bool, now: float) -> None:
        assert self._bar is not None
        before, self._ahead = self._ahead, time.time() - now
        if not first and self._ahead - before > _PAUSE_SECONDS:
            self._bar.unpause()
        if fields:
            self._bar.set_postfix_str(_show(fields), refresh=False)
        if first:
            self._bar.initial = self._bar.n = self._bar.last_print_n = done
            self._bar.unpause()
            self._bar.start_t = self._bar.last_print_t
            self._bar.refresh()
        else:
            self._bar.update(done - self._bar.n)

    def _print_line(self) -> None:
        now = self._clock()
        done, fields = self._last
        percent = 100.0 * done / self._total if self._total else 100.0
        parts = [f"{percent:.0f}%", f"{done}/{self._total} {self._unit}s"]
        if (left := self._seconds_left(now)) is not None:
            parts.append(f"{format_seconds(left)} left")
        if fields:
            parts.append(_show(fields))
        print(f"{self._title}: {', '.join(parts)}", file=self._stream, flush=True)
        self._printed_done, self._printed_at = done, now

    def _seconds_left(self, now: float) -> float | None:
        assert self._origin is not None
        first_done, first_at = self._origin
        done = self._last[0]
        if done <= first_done or done >= self._total:
            return None
        return (now - first_at) / (done - first_done) * (self._total - done)


def format_seconds(seconds: float) -> str:
    """A duration as text: `9 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _show(fields: dict[str, float]) -> str:
    texts = (f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}" for value in fields.values())
    return ", ".join(f"{name} {text}" for name, text in zip(fields, texts, strict=True))
