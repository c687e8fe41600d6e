"""Paths of local files and of objects in buckets, and writing each whole or not at all."""

import importlib.util
import os
from typing import Any

from etils import epath

_BUCKET = "gs://"


def path(text: str | os.PathLike[str]) -> epath.Path:
    """A local path, or one in a bucket of Google Cloud Storage, `gs://BUCKET/…`.

    Raises:
      ValueError: it is a URL of another kind, names no bucket, or a package is missing.
    """
    written = os.fspath(text)
    kind, mark, rest = written.partition("://")
    if not mark:
        return epath.Path(written)
    if f"{kind}://" != _BUCKET or not rest.strip("/"):
        raise ValueError(f"{written!r} is not allowed; a local path is, and gs://BUCKET/DIR.")
    if importlib.util.find_spec("gcsfs") is None:
        raise ValueError(f"{written} needs the package gcsfs: pip install 'physlm[gcs]'.")
    import fsspec

    # Whether an object is there would be read off an old list of its neighbours otherwise, which
    # hides what other workers have done since.
    fsspec.config.conf.setdefault("gs", {})["use_listings_cache"] = False
    return epath.Path(written)


def is_local(place: os.PathLike[str]) -> bool:
    """Whether a path is one of this machine's, where files can be appended to and renamed."""
    return not os.fspath(place).startswith(_BUCKET)


def found(place: epath.Path) -> bool:
    """Whether a file is there, in a place that somebody names.

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
    """Sees to it that there is the bucket of a path, and that it can be read.

    Raises:
      one of `failures`: it is not so.
    """
    if not epath.Path("/".join(os.fspath(place).split("/")[:3])).exists():
        raise FileNotFoundError
    place.exists()


def absolute(place: os.PathLike[str]) -> epath.Path:
    """The same path, from wherever one looks."""
    return epath.Path(os.path.abspath(place) if is_local(place) else place)


def read_bytes(place: epath.Path) -> bytes:
    """What a file holds, at one moment of those at which others write it anew.

    Raises:
      FileNotFoundError: there is none.
    """
    # A file of a bucket that is opened is asked for its size first, and read then.
    return place.read_bytes() if is_local(place) else _bucket(place).cat_file(os.fspath(place))


def make_directory(place: epath.Path) -> None:
    """Makes a directory and those that it is in, where there is none; buckets need none."""
    if is_local(place):
        place.mkdir(parents=True, exist_ok=True)


def write_atomically(place: epath.Path, content: str | bytes) -> None:
    """Writes a file so that it is there whole or, after a crash, as it was before.

    Objects of a bucket are there when all of them has been sent.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if not is_local(place):
        _bucket(place).pipe_file(os.fspath(place), data)
        return
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


def create(place: epath.Path, content: bytes) -> bool:
    """Writes a file that is not there yet; of several processes that do so one alone succeeds.

    Returns:
      Whether this one has.
    """
    try:
        if is_local(place):
            with open(place, "xb") as file:
                file.write(content)
        else:
            _bucket(place).pipe_file(os.fspath(place), content, mode="create")
    except FileExistsError:
        return False
    return True


def _bucket(place: epath.Path) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(os.fspath(place))[0]


def failures(place: epath.Path) -> tuple[type[Exception], ...]:
    """What is raised where a place cannot be reached, read or written."""
    if is_local(place):
        return (OSError,)
    from aiohttp import ClientError
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError

    return OSError, ClientError, HttpError, GoogleAuthError


def why(error: Exception) -> str:
    """In a few words what one of `failures` means."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket"
    (first, *_) = str(error).splitlines() or [type(error).__name__]
    return first.rstrip(".")
