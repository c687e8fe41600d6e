"""How a command line says what is wrong with its arguments."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Leaves with code 2."""
        # Arguments are repeated as they were given, line breaks and all.
        self.exit(2, f"{' '.join(message.split())} (--help lists what there is).\n")
