"""What a step of `accelerator.py` is told, and what it says."""

import math
import pathlib
from typing import NamedTuple


class Figure(NamedTuple):
    """One thing that was found.

    Attributes:
      what: its name, in words.
      value: a number or a text; None where it could not be found, and the note says why.
      unit: of the value.
      note: what is to be seen beside it.
      wrong: why the step has failed, if this is the reason.
    """

    what: str
    value: float | str | None
    unit: str = ""
    note: str = ""
    wrong: str = ""

    @property
    def shown(self) -> str:
        """The value with its unit."""
        if self.value is None:
            return "—"
        text = self.value if isinstance(self.value, str) else _number(self.value)
        return f"{text}{self.unit}" if self.unit == "%" else f"{text} {self.unit}".rstrip()


def _number(value: float) -> str:
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


class UnfinishedError(Exception):
    """The step was asked to end (SIGTERM), and goes on another time from what it has saved."""


class Setting(NamedTuple):
    """Where and how large a step is run.

    Attributes:
      tiny: in seconds on a CPU, to test the step; nothing is measured.
      platform: cpu, gpu or tpu; empty where nobody has looked yet.
      devices: how many there are.
      memory: GiB of one; 0 where it is not known.
      out: the directory of all that is kept.
    """

    tiny: bool
    platform: str
    devices: int
    memory: float
    out: pathlib.Path

    def rows(self, most: int) -> int:
        """Of the rows that fit a device of 80 GB, a power of two, those that fit one here."""
        if not self.memory:
            return most
        return max(1, min(most, 2 ** math.floor(math.log2(most * self.memory / 70))))
