"""A clock that stops while the process is suspended.

A process may be stopped and go on: by Ctrl-Z, by a batch system that gives its cores to others, in
a frozen container. The time between says nothing about how fast it works.
"""

import threading
import time
from collections.abc import Callable

# Seconds between looks at the clock, and the gap between two looks that can only be a pause: a busy
# machine, or a library that lets no other thread run, delays a look by less.
_TICK, _PAUSE = 1.0, 10.0


class Clock:
    """Counts seconds during which the process ran, provided that it is read often enough.

    Looks that are further apart than ten seconds tell of a pause, which is not counted.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Starts the clock at 0.

        Args:
          now: returns seconds, pauses included.
        """
        self._now, self._lock = now, threading.Lock()
        self._seen, self._seconds = now(), 0.0

    def look(self) -> float:
        """Seconds that the process has run since the start."""
        with self._lock:
            now = self._now()
            gap, self._seen = now - self._seen, now
            self._seconds += gap if gap < _PAUSE else _TICK
            return self._seconds


_clock = Clock()
_ticking: threading.Thread | None = None


def _tick() -> None:
    while True:
        time.sleep(_TICK)
        _clock.look()


def seconds() -> float:
    """Seconds that this process has run since an arbitrary moment, without suspensions."""
    global _ticking
    # A forked process has no threads but the one that forked it.
    if _ticking is None or not _ticking.is_alive():
        _ticking = threading.Thread(target=_tick, name="clock", daemon=True)
        _ticking.start()
    return _clock.look()
