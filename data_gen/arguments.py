"""The argument parser of all commands."""

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, without the usage.

    Options have to be written out: `--seed 3` is not taken for `--seeds 3`. One that takes a value
    may be given once, since nobody sees which of two values counts.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})
        for name in (None, "store"):
            self.register("action", name, _Once)

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits with code 2."""
        # Arguments are repeated as they were given, line breaks and all.
        self.exit(2, f"{' '.join(message.split())} (--help lists what there is).\n")


class _Once(argparse.Action):
    """Keeps the value of an argument; a second one of the same option is refused."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        # A parser may be used again, for another namespace.
        if option_string and getattr(self, "_filled", None) is namespace:
            before = getattr(namespace, self.dest)
            parser.error(f"{option_string} is given twice, as '{before}' and as '{values}'")
        self._filled = namespace
        setattr(namespace, self.dest, values)
