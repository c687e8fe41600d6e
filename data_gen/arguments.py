"""The argument parser of all commands."""

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, without the usage.

    Options have to be written out: `--seed 3` is not taken for `--seeds 3`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits with code 2."""
        # Arguments are repeated as they were given, line breaks and all.
        self.exit(2, f"{' '.join(message.split())} (--help lists what there is).\n")
