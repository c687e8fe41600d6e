"""Arguments that the command lines share."""

import argparse
import os
import pathlib
import re
import sys

from etils import epath

from data_gen import arguments
from physlm import paths


class Parser(arguments.Parser):
    """The argument parser of commands that take settings."""

    def add_settings(self, description: str) -> None:
        """Adds `--set KEY=VALUE …`, which may be given more than once."""
        self.add_argument(
            "--set",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY=VALUE",
            help=description,
        )


def place(text: str) -> epath.Path:
    """An argparse type: a local path, or one in a bucket."""
    try:
        return paths.path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error


def local(text: str) -> pathlib.Path:
    """An argparse type: a local path; an empty one is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; a path is")
    if re.match(r"[a-z0-9]+:/", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be a local path")
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no path: {why}") from error
    return pathlib.Path(text)


def called(module: str) -> str:
    """The program's name in usage texts: `physlm sweep` or `python -m physlm.experiments.sweep`."""
    if pathlib.PurePath(sys.argv[0]).stem == "physlm":
        return f"physlm {module.rpartition('.')[2]}"
    return f"python -m {module}"


def put(text: str) -> None:
    """Prints a text to standard output; a closed pipe is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader has seen enough; what Python prints on leaving goes nowhere, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(error: Exception) -> str:
    """An error in one line, with its type unless it is about input or a full disk."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | paths.FullError) and text:
        return text
    return f"{type(error).__name__}: {text}"
