"""The metrics of a run of some steps, kept by the journal of a training that did not happen."""

import io
import json

import numpy as np

from physlm import journal, throughput
from physlm.progress import Progress


class Time:
    """Seconds that a test lets pass."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def recorded(directory, monkeypatch, first, last, seconds=1.0, logs=(), fails=False):
    """The lines of a run's metrics after steps that take so many seconds each.

    The loss of a step is one over its number. Where it fails it does so after the last step.
    """
    time = Time()
    monkeypatch.setattr(journal.clock, "seconds", time)
    with journal.Journal(
        [directory],
        [lambda step: 0.1],
        throughput.Meter(first, 10, None, None),
        Progress("train", last, stream=io.StringIO(), clock=time),
        first=first,
        last=last,
        every=2,
        tokens=10,
        logs=[logs],
    ) as kept:
        for step in range(first + 1, last + 1):
            time.now += seconds
            values = {"loss": 1 / step, "grad_norm": 1.0, "recent_loss": 1.0, "rise": 0.0}
            kept.note(step, {name: np.array(value) for name, value in values.items()}, {})
        if fails:
            raise RuntimeError("killed")
    return [json.loads(line) for line in (directory / journal.METRICS_FILE).open()]
