"""What the command lines of studies have in common."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Leaves with code 2."""
        self.exit(2, f"{message} (--help lists what there is).\n")

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


def one_line(error: Exception) -> str:
    """What went wrong, in one line; an error that is not about input is called by its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
