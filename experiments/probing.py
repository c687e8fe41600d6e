"""Does a model know that it has made a mistake, as soon as it has named a parameter too early?

Question: after a prefix of a solution, can a probe tell from a frozen model whether a parameter can
be computed next? Models of error-free data and of data with mistakes are asked, and, as controls, a
model as it is drawn and a linear head without any change of the embedding. Other tasks say what
else the error-free model knows.

Command: `python -m physlm.experiments.sweep probing`. Models that the quickstart has trained in the
same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Section 3 and Figure 3) probes are right about 99% of all
parameters and see about 60% of the model's own first wrong steps.

Found at `quick` (seed 0, up to 6 operations, 2,560 questions; results and plot are committed): a
probe of the model of data with mistakes is right about 96.6% of all parameters (area under the ROC
curve 0.995), and beyond its training, at 7 and 8 operations, about 95. One of the error-free model
is right about 85.6% (0.91), one of a model as it is drawn about 73.8% (0.75), LINEARS Of the
model's own first wrong steps that name what cannot be computed yet the first sees 62 to 85% by
cell, of its right steps it calls 7 to 20% wrong: its own texts are not those that it was trained
on. In the paper the error-free model, too, knows what can be computed next; here it has not learnt
its class (it solves 58% of it).

Cost: `smoke` some minutes, most of it compilation; at `quick` eight minutes on two CPU cores for
each of three probes, two for each linear one and for each of the other tasks, beside the
quickstart.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from data_gen.windows.questions import TASKS
from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned, Times

# Probes learn sooner than models: half of the steps, and an eighth for what is only asked to see
# what else a model knows. With 16 problems each these are at the paper's scale 8 and 2 million
# questions.
SHORT: dict[str, Any] = {
    "train.batch": 16,
    "evaluate.problems": Times(0.25),
    "mistakes.rate": 0.0,
}


CAN_NEXT: dict[str, Any] = {**SHORT, "train.steps": Times(0.5), "probe.task": "can_next"}


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """can_next of two models with its controls; the other tasks of the error-free one."""
    error_free = conditions.pretrain(**{"mistakes.rate": 0.0})
    retry = conditions.pretrain(**{"mistakes.rate": 0.5, "mistakes.mask": "name"})
    for parent in (retry, error_free, None):
        yield conditions.probe(parent, **CAN_NEXT)
    for parent in (retry, error_free):
        yield conditions.linear_probe(parent, **CAN_NEXT)
    for task in TASKS:
        if task != "can_next":
            others = {"train.steps": Times(0.125), "optimizer.warmup_steps": Times(0.25)}
            yield conditions.probe(error_free, **{**SHORT, **others, "probe.task": task})
