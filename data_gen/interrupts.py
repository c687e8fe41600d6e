"""Handling of Ctrl-C in commands: they exit quietly with code 130, even while importing.

What takes seconds at the start of a command is importing packages, some of which turn an interrupt
into errors of their own. So a command of these packages leaves at once while it is imported, where
nothing can be lost, and takes interrupts as Python does from when it begins.
"""

import contextlib
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

INTERRUPTED = 130

# As Python calls a command while it imports what `python -m` names, and as they are installed.
_COMMANDS = ("-m", "physlm", "igsm")
# `python -m physlm` has become the file of that by the time it imports its commands.
_FILES = ("physlm/__main__.py",)


def leave_while_imported() -> None:
    """For the first lines of a package: an interrupt ends a command of it that is being imported.

    Whoever imports the package for something else is left alone.
    """
    first = pathlib.PurePath(sys.argv[0] if sys.argv else "")
    known = first.name in _COMMANDS or first.as_posix().endswith(_FILES)
    in_main = threading.current_thread() is threading.main_thread()
    if known and in_main and signal.getsignal(signal.SIGINT) is _usual():
        signal.signal(signal.SIGINT, _leave)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """For a command that imports another: an interrupt meanwhile ends it at once."""
    before = signal.getsignal(signal.SIGINT)
    leave_while_imported()
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, before)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and exits with its code, or quietly with 130 on Ctrl-C.

    Installed commands find modules of the working directory, too, as `python -m` does: a study or a
    kind of mistake of one's own.
    """
    if not sys.flags.safe_path and "" not in sys.path:
        sys.path.insert(0, "")
    try:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, _usual())
        code = main()
    except KeyboardInterrupt:
        # Commands that have something to say of it have said it.
        code = INTERRUPTED
    sys.exit(code)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


def _usual() -> Callable[..., object]:
    return signal.default_int_handler
