"""Several hosts at work on one run: what they decide together, and what the first alone prints."""

import contextlib
import io
import sys
import traceback
from collections.abc import Sequence

from etils import epath

from physlm import devices, paths
from physlm.experiments import leases
from physlm.experiments import run as run_lib
from physlm.progress import Progress


def check_leases(directories: Sequence[epath.Path]) -> None:
    """Raises, on all hosts alike, where this process has lost a lease of what it works on.

    Raises:
        leases.LostError: another process has taken it over.
    """
    gone = lost(directories)
    if devices.agreed(int(gone is not None)):
        raise gone or leases.LostError("another worker has taken it over.")


def lost(directories: Sequence[epath.Path]) -> leases.LostError | None:
    """The error that says that this process has lost a lease, as the first host knows.

    Any failure after the loss may come from another process's changes to the files.
    """
    try:
        for directory in directories if devices.is_first() else ():
            leases.check(directory)
    except leases.LostError as error:
        return error
    return None


def progress(title: str, total: int, unit: str = "step") -> Progress:
    """A progress display on the first host; none on others."""
    stream = None if devices.is_first() else io.StringIO()
    return Progress(title, total, unit, stream=stream)


def say(text: str) -> None:
    """Prints a message on the first host."""
    if devices.is_first():
        print(text, file=sys.stderr, flush=True)


def record_failure(directory: epath.Path, error: Exception) -> None:
    """Writes an error with its traceback to the directory of what failed, if the disk has room."""
    if not devices.is_first():
        return
    text = "".join(traceback.format_exception(error))
    # A full disk may be the very failure, which the caller reports anyway.
    with contextlib.suppress(*paths.failures(directory)):
        paths.make_directory(directory)
        paths.write_atomically(directory / run_lib.ERROR_FILE, text)
