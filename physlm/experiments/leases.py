"""Leases: which of several processes, on any machines, is at work on a run, or on anything else.

A lease is a small file beside what it stands for. Its holder rewrites it every `BEAT` seconds, from
a thread, so that compiling does not look like death. Whoever wants the lease meanwhile watches the
file. If it has not changed for `EXPIRY` seconds by the watcher's own clock, its holder is taken for
dead and the lease is broken; clocks of two machines are never compared. A process that ends in
order leaves no lease, and one that is killed blocks others for at most `EXPIRY` seconds after they
begin to watch.

What is assumed of the place, a directory or a bucket: if several processes create the same file
exclusively (`O_EXCL`; `ifGenerationMatch=0` in Google's buckets), exactly one succeeds; whoever
reads a file while it is rewritten sees it before or after that, never half; and a read returns what
was written last.

Such a place cannot remove a file on condition that it is unchanged. So whoever removes a dead lease
holds a second lease for that, named after the dead one, and two processes that find it dead do not
remove each other's new leases. A holder that wakes up and ends writes a sign of life before it
removes its lease, and then checks that nobody is about to remove it; who is about to remove a lease
checks for that sign. What remains is a process that stands still for `EXPIRY` seconds between two
such operations, one right after the other. Even then no result is wrong, since a run has the same
results whoever computes it.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from etils import epath

from data_gen.text import lines
from physlm import paths

# Seconds between signs of life; until a lease without them is broken; between two looks at it.
# A bucket allows one write of a file a second.
BEAT, EXPIRY, LOOK = 10.0, 90.0, 2.0

# What this process holds, by path.
_held: dict[str, "Lease"] = {}


class LostError(Exception):
    """A lease was taken over by another process, after its holder's heartbeat had stopped."""


class Lease:
    """A lease that this process holds; a context manager that releases it."""

    def __init__(self, path: epath.Path, file: epath.Path, token: str) -> None:
        """Starts the heartbeat.

        Args:
            path: what the lease stands for.
            file: the lease, which has been created.
            token: what tells it from all others.
        """
        self._path, self._file, self._token, self._beats = path, file, token, 0
        self._seen = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"lease of {path}", daemon=True)
        self._thread.start()
        _held[str(path)] = self

    def check(self) -> None:
        """Raises `LostError` where the lease is no longer this process's.

        Raises:
            LostError: it is not.
        """
        if _token(_read(self._file)) != self._token:
            raise LostError(
                f"another worker has taken over {self._path.name}, since this one had shown no "
                f"sign of life for {EXPIRY:g} seconds."
            )

    def release(self) -> None:
        """Releases the lease, unless it was lost; one that cannot be removed expires."""
        self._ended.set()
        self._thread.join()
        if _held.get(str(self._path)) is self:
            del _held[str(self._path)]
        with suppress(*paths.failures(self._file)):
            if self._is_to_go():
                # Somebody may have died while writing an earlier one, or removing it.
                for left in [*self._file.parent.iterdir()]:
                    if left.name.lstrip(".").startswith(f"{self._file.name.lstrip('.')}."):
                        left.unlink(missing_ok=True)
                self._file.unlink(missing_ok=True)

    def _is_to_go(self) -> bool:
        """Whether the lease is this process's to remove."""
        if time.monotonic() - self._seen < EXPIRY / 2:
            return _token(_read(self._file)) == self._token
        # Somebody may be about to remove it, and will not do so after this.
        return self._beat() and _read(_breaking(self._file, self._token)) is None

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            # The place may be out of reach for a while; if for long, other operations will raise.
            with suppress(*paths.failures(self._file)):
                if not self._beat():
                    return

    def _beat(self) -> bool:
        """Writes one heartbeat; False where the lease was lost."""
        if _token(_read(self._file)) != self._token:
            return False
        self._beats, seen = self._beats + 1, time.monotonic()
        paths.write_atomically(self._file, _content(self._token, self._beats))
        self._seen = seen
        return True

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Watch:
    """Takes leases that are free, or whose holders' heartbeats have stopped; never blocks."""

    def __init__(self) -> None:
        """Starts without knowledge of any lease."""
        self._seen: dict[str, tuple[bytes, float]] = {}

    def take(self, path: epath.Path) -> Lease | None:
        """The lease of a file or directory, which need not exist; None where another has it.

        Args:
            path: what the lease stands for; its parent exists, where that is a directory.
        """
        return self._take(path, _file_of(path))

    def _take(self, path: epath.Path, file: epath.Path) -> Lease | None:
        token = uuid.uuid4().hex[:12]
        # If the answer to a request is lost and it is repeated, our own lease looks like another's.
        if paths.create(file, _content(token, 0)) or _token(_read(file)) == token:
            self._seen.pop(str(file), None)
            return Lease(path, file, token)
        content, now = _read(file), time.monotonic()
        if content is None:
            return None
        before, since = self._seen.get(str(file), (None, now))
        if content != before:
            self._seen[str(file)] = content, now
        elif now - since > EXPIRY:
            self._break(file, content)
        return None

    def _break(self, file: epath.Path, content: bytes) -> None:
        """Removes a dead lease, unless another does so, or it comes to life."""
        # One whose content was torn has no token; there is only one such content at a time.
        ground = _breaking(file, _token(content) or "torn")
        right = self._take(ground, ground)
        if right is None:
            return
        with right:
            if _read(file) == content:
                file.unlink(missing_ok=True)
                self._seen.pop(str(file), None)


@contextmanager
def held(path: epath.Path, busy: Callable[[], None]) -> Iterator[Lease]:
    """Holds the lease of a file or directory, which need not exist, but for its parent.

    Args:
        path: what the lease stands for.
        busy: called once where another process holds it, before waiting for that process.
    """
    watch, told = Watch(), False
    while (lease := watch.take(path)) is None:
        if not told:
            busy()
            told = True
        time.sleep(LOOK)
    with lease:
        yield lease


def clear(done: Iterable[epath.Path]) -> None:
    """Removes the leases of dead processes that nobody wants any more.

    Waits until it is known of each whether its holder lives; those of the living stay.

    Args:
        done: what leases may stand for.
    """
    found = [(path, _read(_file_of(path))) for path in done]
    left = [(path, content) for path, content in found if content is not None]
    watch = Watch()
    while left:
        for path, content in list(left):
            if _read(_file_of(path)) != content:
                left.remove((path, content))
            elif (lease := watch.take(path)) is not None:
                lease.release()
                left.remove((path, content))
        if left:
            time.sleep(LOOK)


def check(path: epath.Path) -> None:
    """Raises `LostError` if this process had a lease of the path and lost it.

    To be called before writing what the lease protects.

    Raises:
        LostError: the lease was taken over.
    """
    if (lease := _held.get(str(path))) is not None:
        lease.check()


def is_held(path: epath.Path) -> bool:
    """Whether a live process seems to hold the lease of a file or directory.

    For onlookers: it compares the clocks of this machine and of the place, and is wrong where these
    differ much.
    """
    try:
        seen = _file_of(path).stat().mtime
    except FileNotFoundError:
        return False
    return time.time() - seen < EXPIRY


def _file_of(path: epath.Path) -> epath.Path:
    return path.with_name(f".{path.name}.lease")


def _breaking(file: epath.Path, token: str) -> epath.Path:
    return file.with_name(f"{file.name}.{token}")


def _content(token: str, beats: int) -> bytes:
    told = {"token": token, "host": socket.gethostname(), "process": os.getpid(), "beats": beats}
    return json.dumps(told).encode()


def _read(file: epath.Path) -> bytes | None:
    """The content of a lease file; None where there is none."""
    try:
        return paths.read_bytes(file)
    except FileNotFoundError:
        return None


def _token(content: bytes | None) -> str | None:
    try:
        found = lines.value(content or b"{}")
    except ValueError:
        return None
    return found.get("token") if isinstance(found, dict) else None
