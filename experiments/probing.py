"""Does a model know that it has made a mistake, as soon as it has named a parameter too early?

Question: after a prefix of a solution, can a probe tell from a frozen model whether a parameter can
be computed next? Models of error-free data and of data with mistakes are asked, and, as controls, a
model as it is drawn and a linear head without any change of the embedding. The paper's probe
changes the embedding of the text as well, so that it is read otherwise than it was written: are the
states of writing enough, where questions alone are adapted (`probe.reads=frozen`,
`conditions.reader`)? Other tasks say what else the error-free model knows.

Command: `python -m physlm.experiments.sweep probing`. Models that the quickstart has trained in the
same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Section 3 and Figure 3) probes are right about 99% of all
parameters and see about 60% of the model's own first wrong steps.

Found at `quick` (seed 0, up to 6 operations, 2,560 questions; results and plot are committed): a
probe of the model of data with mistakes is right about 96.7% of all parameters (area under the ROC
curve 0.995), and at 7 and 8 operations, more than in training, about 95.3%. One of the error-free
model is right about 85.7% (0.91), one of a model as it is drawn about 73.9% (0.75), a linear head
on the model of data with mistakes about 72.3% (0.71) and on the error-free one about 69.3% (0.62);
always saying no would be right about 69.4%. A reader is right about 96.8% (model of data with
mistakes), 93.2% (error-free) and 71.6% (as it is drawn), and calls 21 to 27% of the error-free
model's own right steps of 6 to 8 operations wrong, where the paper's probe calls 48 to 56; the
paper's rank of 8 in questions alone gives 88.6 and 78.6%. So states as they are written hold what
can be computed next, and more than the paper's probe finds. Of its own first wrong steps that name
what cannot be computed yet the first sees 50 to 85% by cell, and calls 8 to 23% of its right steps
wrong. In the paper the error-free model knows it as well, which here has not learnt its class (it
solves 58% of it). Other tasks of the error-free model, accuracy and balanced accuracy: known 100.0
and 100.0%, val 93.3 and 77.1, nece 87.9 and 88.0, dep 88.0 and 82.9; nece_next 89.1 and 52.6, no
more than always saying no.

That a probe wants a higher rate than the model, by its width (`conditions.probe`), was seen on this
seed's model and test problems; another seed has not been run.

Cost: `smoke` some minutes, most of it compilation; `quick` eight minutes on two CPU cores for each
of three probes, as much for two of those whose questions alone are adapted, two for each linear one
and for each of the other tasks, beside the quickstart (measured). The rest is estimated: `night`
seven hours there; `mini` eleven minutes on one v5e chip and `paper` 17 hours on eight (training
alone, by `--dry-run`).
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from data_gen.windows.questions import TASKS
from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned, Times
from physlm.probe import FROZEN

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
    for parent in (retry, error_free):
        yield conditions.probe(parent, **{**CAN_NEXT, "probe.reads": FROZEN})
    for parent in (retry, error_free, None):
        yield conditions.reader(parent, **CAN_NEXT)
    for task in TASKS:
        if task != "can_next":
            others = {"train.steps": Times(0.125), "optimizer.warmup_steps": Times(0.25)}
            yield conditions.probe(error_free, **{**SHORT, **others, "probe.task": task})
