"""File systems of a test's own, where root may mount them; elsewhere the test is left out."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

# Bytes of a small file system, several times what a sweep at the smallest scale takes.
SIZE = 16 << 20


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing may be mounted here: {done.stderr.strip()}")


def _unmount(place: pathlib.Path) -> None:
    subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def small(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system in memory of `SIZE` bytes."""
    place.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place))
    try:
        yield place
    finally:
        _unmount(place)


@contextlib.contextmanager
def filled(place: pathlib.Path, left: int) -> Iterator[None]:
    """All of a file system but some bytes is taken meanwhile, to a page."""
    free = os.statvfs(place)
    ballast = place / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def read_only(place: pathlib.Path) -> Iterator[None]:
    """Nothing can be opened for writing in a directory meanwhile; what is open, can be written."""
    _mount("--bind", str(place), str(place))
    try:
        _mount("-o", "remount,bind,ro", str(place))
        yield
    finally:
        _unmount(place)
