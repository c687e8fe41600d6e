"""Confidence intervals of proportions, and files with one JSON record a line."""

import json
import math
from typing import Any

import numpy as np
from etils import epath

from data_gen.text import lines
from physlm import paths


def wilson_interval(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Args:
      successes: the number of successes.
      n: the number of trials.
      z: the quantile of the normal distribution; its default makes 95% intervals.

    Returns:
      The lower and the upper end, both in 0..1.

    Raises:
      ValueError: there are no trials, or more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion; it takes 0 <= successes <= n.")
    p = successes / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the exact value is 0 or 1, which rounding may miss by an ulp.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return low, high


def auroc(score_N: np.ndarray, positive_N: np.ndarray) -> float | None:
    """The area under the ROC curve: how often a positive case scores above a negative one.

    Ties count half (the Mann-Whitney statistic). None where all cases are alike.

    Args:
      score_N: of each case.
      positive_N: bool, which cases are positive.
    """
    positive = int(positive_N.sum())
    negative = len(positive_N) - positive
    if not positive or not negative:
        return None
    _, place_N, count_U = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_U = np.cumsum(count_U) - (count_U - 1) / 2
    above = rank_U[place_N][positive_N].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def read_lines(path: epath.Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; none, if there is no such file.

    A last line that is incomplete, because the process that wrote it was killed, is dropped.

    Raises:
      ValueError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    written = paths.read_bytes(path).split(b"\n")
    records = []
    for number, line in enumerate(written, start=1):
        if not line:
            continue
        try:
            record = lines.value(line)
            if not isinstance(record, dict):
                raise ValueError("it is no object")
            records.append(record)
        except ValueError as error:
            if number == len(written):
                break
            raise ValueError(f"line {number} of {path} is not valid JSON: {error}.") from error
    return records


class JsonLines:
    """A file with one JSON object a line.

    A line is in a local file as soon as it is written. A bucket has no appending: there the file is
    written anew, with all its lines, whenever it is flushed, and once it is closed. Parts of their
    own would spare that, but there are few lines, and one file is what everybody reads.
    """

    def __init__(self, path: epath.Path, *, upto_step: int):
        """Opens a run's file for appending, and drops its records of steps after `upto_step`."""
        kept = [record for record in read_lines(path) if record["step"] <= upto_step]
        # The file is replaced at once, so that nothing is lost if the process is killed here.
        self._path, self._text = path, "".join(json.dumps(record) + "\n" for record in kept)
        paths.write_atomically(path, self._text)
        self._unsent = False
        self._file = path.open("a") if paths.is_local(path) else None

    def write(self, **fields: float) -> None:
        """Appends one record."""
        line = json.dumps(fields) + "\n"
        if self._file is None:
            self._text, self._unsent = self._text + line, True
        else:
            self._file.write(line)
            self._file.flush()

    def flush(self) -> None:
        """Flushes all records to the file."""
        if self._unsent:
            paths.write_atomically(self._path, self._text)
            self._unsent = False

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        # After an error the file may be another worker's, and the last checkpoint has its lines.
        elif kind is None:
            self.flush()
