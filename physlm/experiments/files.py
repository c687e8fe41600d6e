"""Files that several processes read and write: each is there whole or not at all, or is a lock."""

import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that it is there whole or, after a crash, as it was before."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes a value as indented JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def read_json(path: pathlib.Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        ValueError: it is not JSON, or cannot be read; the file is named.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error.msg}).") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error


@contextmanager
def locked(path: pathlib.Path, busy: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock of a file or directory, which need not exist, but for its parent.

    The lock is a file beside it, which is gone when the lock is free. Where a process dies, the
    system lifts its locks.

    Args:
        path: what the lock stands for.
        busy: called where another process holds the lock, before waiting for that process; without
            it there is no waiting.

    Raises:
        ValueError: another process holds the lock, and `busy` is not given.
    """
    lock = path.with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        while True:
            file = stack.enter_context(lock.open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if busy is None:
                    raise ValueError(
                        f"another process is at work in {path}: wait for it."
                    ) from error
                busy()
                fcntl.flock(file, fcntl.LOCK_EX)
            # Who held it before has removed the file, and others may have made it anew.
            if _is_at(lock, file.fileno()):
                break
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def is_locked(path: pathlib.Path) -> bool:
    """Whether some process holds the lock of a file or directory at this moment."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
