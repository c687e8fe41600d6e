"""Paths of local files and of objects in buckets, and writing each whole or not at all."""

import contextlib
import errno
import importlib.util
import io
import logging
import os
import shutil
from collections.abc import Iterator
from typing import Any

from etils import epath

_BUCKET = "gs://"

# Of fsspec. No path of `etils.epath` leads there, and TensorStore, which writes the arrays of
# checkpoints for Orbax, has a memory of its own.
_MEMORY = "memory://"

# Seconds after which a file that was not put in its place is left over from a dead process.
STALE = 60.0

# A file system, or what one may have of it, is full.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class FullError(OSError):
    """There is no room for what was to be written; the text is one sentence."""

    def __init__(self, what: str, place: os.PathLike[str]) -> None:
        """Says that `what`, at a place, has no room, and how much there is."""
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.what, self.place, left = what, place, free(place)
        room = "no room is left" if left is None else f"only {in_bytes(left)} are free"
        where = "there" if os.fspath(place) in what else f"in {os.fspath(place)}"
        self._text = (
            f"{what} cannot be written: {room} {where}. Once there is more, the same command goes "
            "on."
        )

    def __str__(self) -> str:
        return self._text


def path(text: str | os.PathLike[str]) -> epath.Path:
    """A local path, or one in a bucket of Google Cloud Storage, `gs://BUCKET/…`.

    Raises:
      ValueError: it is empty, a URL of another kind (fsspec's `memory://`, too, to which Orbax
        writes no checkpoints), names no bucket, or a package is missing.
    """
    written = os.fspath(text)
    # Which would be the directory that one happens to be in.
    if not written.strip():
        raise ValueError(f"{written!r} is not allowed; a local path is, and gs://BUCKET/DIR.")
    kind, mark, rest = written.partition("://")
    if not mark:
        return epath.Path(written)
    if f"{kind}://" == _MEMORY:
        raise ValueError(
            f"{written!r} is not allowed, as Orbax cannot write checkpoints there; a directory in "
            "memory is, as /dev/shm/runs, and gs://BUCKET/DIR."
        )
    if f"{kind}://" != _BUCKET or not rest.strip("/"):
        raise ValueError(f"{written!r} is not allowed; a local path is, and gs://BUCKET/DIR.")
    if importlib.util.find_spec("gcsfs") is None:
        raise ValueError(f"{written} needs the package gcsfs: pip install 'physlm[gcs]'.")
    import fsspec

    # Whether an object is there would be read off an old list of its neighbours otherwise, which
    # hides what other workers have done since.
    fsspec.config.conf.setdefault("gs", {})["use_listings_cache"] = False
    # It logs, with a traceback, what it raises as well; that is told in a sentence.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    return epath.Path(written)


def is_local(place: os.PathLike[str]) -> bool:
    """Whether a path is local, where files can be appended to and renamed."""
    return not os.fspath(place).startswith(_BUCKET)


def found(place: epath.Path) -> bool:
    """Whether a path given by a user exists.

    Raises:
      ValueError: it cannot be said, since the place cannot be reached or read.
    """
    # A name that no file can have is told of by ValueError.
    unreachable: tuple[type[Exception], ...] = (*failures(place), ValueError)
    try:
        return place.exists()
    except unreachable as error:
        raise ValueError(f"{os.fspath(place)!r} cannot be looked for: {why(error)}.") from error


def check_bucket(place: epath.Path) -> None:
    """Raises where the bucket of a path does not exist or cannot be read.

    Raises:
      one of `failures`: it is not so.
    """
    if not epath.Path("/".join(os.fspath(place).split("/")[:3])).exists():
        raise FileNotFoundError
    place.exists()


def absolute(place: os.PathLike[str]) -> epath.Path:
    """The absolute path."""
    return epath.Path(os.path.abspath(place) if is_local(place) else place)


def read_bytes(place: epath.Path) -> bytes:
    """The content of a file, consistent while others replace it.

    Raises:
      FileNotFoundError: there is none.
    """
    # A file of a bucket that is opened is asked for its size first, and read then.
    return place.read_bytes() if is_local(place) else _bucket(place).cat_file(os.fspath(place))


def make_directory(place: epath.Path) -> None:
    """Makes a directory and its parents; in buckets there is nothing to make."""
    if is_local(place):
        place.mkdir(parents=True, exist_ok=True)


def write_atomically(place: epath.Path, content: str | bytes) -> None:
    """Writes a file atomically: after a crash it is as before, or complete.

    Objects of a bucket are there when all of them has been sent.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if not is_local(place):
        _bucket(place).pipe_file(os.fspath(place), data)
        return
    with room_for(str(place), place):
        try:
            _replace(place, data)
        except FileNotFoundError:
            # Others may have taken it for a dead process's, if this one stood still meanwhile.
            _replace(place, data)
    with contextlib.suppress(OSError):
        _clear(place)


def _replace(place: epath.Path, data: bytes) -> None:
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
    finally:
        # A file system that can be read alone has none, and says so once more.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _clear(place: epath.Path) -> None:
    """Removes temporary files that killed processes have left of earlier writes."""
    # By the clock of the file system alone.
    written = os.stat(place).st_mtime
    for left in os.scandir(os.path.dirname(place) or "."):
        if left.name.startswith(f".{place.name}.") and left.name.endswith(".tmp"):
            with contextlib.suppress(OSError):
                if written - left.stat().st_mtime > STALE:
                    os.unlink(left)


def create(place: epath.Path, content: bytes) -> bool:
    """Creates a file; of several processes that try, exactly one succeeds.

    Returns:
      Whether this one has.
    """
    try:
        if is_local(place):
            # Nothing that waits to be written is tried once more when it is closed.
            with open(place, "xb", buffering=0) as file:
                _fill(file, place, content)
        else:
            _bucket(place).pipe_file(os.fspath(place), content, mode="create")
    except FileExistsError:
        return False
    return True


def free(place: os.PathLike[str]) -> int | None:
    """Free bytes at a path, which need not exist; None where that is unknown."""
    if not is_local(place):
        return None
    nearest = os.path.abspath(place)
    while not os.path.exists(nearest) and nearest != os.path.dirname(nearest):
        nearest = os.path.dirname(nearest)
    return shutil.disk_usage(nearest).free


def in_bytes(number: float) -> str:
    """A number of bytes, as 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one in its chain, says that a file system is full."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or says_full(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def says_full(text: str) -> bool:
    """Whether an error's text says that a file system is full, for libraries without errno."""
    return any(os.strerror(number) in text for number in _FULL)


def explained(error: Exception, what: str, place: os.PathLike[str]) -> Exception:
    """The error, or a `FullError` in its place where it means that.

    Args:
      error: that was raised.
      what: was to be written, where the error does not say.
      place: where.
    """
    if isinstance(error, FullError):
        # Without what led to it, which keeps alive what failed.
        return FullError(error.what, error.place)
    return FullError(what, place) if is_full(error) else error


def unreachable(error: Exception, place: epath.Path) -> str:
    """One sentence about one of `failures`, for a place that was in use."""
    if is_full(error):
        return str(explained(error, os.fspath(place), place))
    what = getattr(error, "filename", None) or os.fspath(place)
    return f"{what} cannot be read or written: {why(error)}. Once it can, the same command goes on."


@contextlib.contextmanager
def room_for(what: str, place: os.PathLike[str]) -> Iterator[None]:
    """Turns errors that mean a full file system into `FullError`."""
    try:
        yield
    except Exception as error:
        found = explained(error, what, place)
        if found is error:
            raise
        raise found from None


def _bucket(place: epath.Path) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(os.fspath(place))[0]


def _fill(file: io.FileIO, place: epath.Path, content: bytes) -> None:
    """Writes to a file that was just created, and removes it if that fails."""
    with room_for(str(place), place):
        try:
            file.write(content)
        except OSError:
            place.unlink(missing_ok=True)
            raise


def failures(place: epath.Path) -> tuple[type[Exception], ...]:
    """The exceptions raised where a path cannot be reached, read or written."""
    if is_local(place):
        return (OSError,)
    from aiohttp import ClientError
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError

    return OSError, ClientError, HttpError, GoogleAuthError


def is_disconnected(error: Exception, place: epath.Path) -> bool:
    """Whether one of `failures` says that nothing answers, rather than that it refuses."""
    if is_local(place):
        return False
    from aiohttp import ClientConnectionError

    return isinstance(error, ClientConnectionError)


def why(error: Exception) -> str:
    """The reason of one of `failures`, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket"
    (first, *_) = str(error).splitlines() or [type(error).__name__]
    return first.rstrip(".")
