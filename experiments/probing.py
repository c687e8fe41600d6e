"""Does a model know that it has made a mistake, as soon as it has named a parameter too early?

Question: after a prefix of a solution, can a probe tell from a frozen model whether a parameter can
be computed next? Models of error-free data and of data with mistakes are asked, and, as controls, a
model as it is drawn and a linear head without any change of the embedding. Other tasks say what
else the error-free model knows.

Command: `python -m physlm.experiments.sweep probing`. Models that the quickstart has trained in the
same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Section 3 and Figure 3) probes are right about 99% of all
parameters and see about 60% of the model's own first wrong steps.

Found at `quick`: nothing yet. With so few questions (60,000) a probe of the error-free model is
right about 73%, one of a model as it is drawn about 71.

Cost: `smoke` some minutes, most of it compilation; at `quick` a quarter of an hour on two CPU
cores, beside the quickstart.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from data_gen.windows.questions import TASKS
from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned, Times

# Probes learn sooner than models: a quarter of the steps. With 16 problems each these are at the
# paper's scale 4 million questions, between those of its second probe and of its first; half of the
# batch of `quick` would be two.
SHORT: dict[str, Any] = {
    "train.steps": Times(0.25),
    "train.batch": 16,
    "evaluate.problems": Times(0.25),
    "mistakes.rate": 0.0,
}


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """can_next of two models with its controls; the other tasks of the error-free one."""
    error_free = conditions.pretrain(**{"mistakes.rate": 0.0})
    retry = conditions.pretrain(**{"mistakes.rate": 0.5, "mistakes.mask": "name"})
    can_next = {**SHORT, "probe.task": "can_next"}
    for parent in (error_free, retry, None):
        yield conditions.probe(parent, **can_next)
    yield conditions.linear_probe(error_free, **can_next)
    for task in TASKS:
        if task != "can_next":
            yield conditions.probe(error_free, **{**SHORT, "probe.task": task})
