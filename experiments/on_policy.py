"""Are a model's own mistakes, mended, better to learn from than mistakes that are made up?

Question: an error-free model is trained on, for as long again, on three kinds of data: error-free
solutions; retry data, in which a wrong step stands before a step with some probability; and
documents two fifths of which are its own: wrong solutions up to their first wrong step, the marker,
and a right continuation (as LEMMA does, arXiv 2503.17439, with a student's mistakes), the others
error-free. How much does each solve, up to the number of operations in training and beyond it?

Its own mistakes are found on problems of the split for training, which has no template of a test
problem. Before the continued training begins the model solves 65,536 of them (`quick` and `night`
16,384) at a temperature of 1, and what is wrong is mended; it is kept in the model's directory. A
document of its own has one mistake, so that there are 0.4 a document; at rate .1 retry data has
0.35 at `quick`, 0.31 at `mini` and 0.47 at `paper`, counted on 512 problems. What differs beside
the mistakes themselves: its own documents come again, at `quick` about ten times where half of its
solutions are wrong, at `paper` hundreds of times; `--set train.records_problems=1000000` gets more.

Command: `python -m physlm.experiments.sweep on_policy`. The error-free model is the quickstart's
and is not trained again in the same store.

Expected: nobody has published this for iGSM. In the paper (arXiv 2408.16293, Section 5) continued
pretraining on made-up mistakes takes an error-free model from 77.7% of problems of 23 operations to
85.2, 87.7, 88.3 and 91.0 at rates .05, .1, .2 and .5. LEMMA's mean over seven tasks is 62.4 with
mistakes that are typed after a student's and 56.7 with others.

Found at `quick` (seeds 8 to 10; results and plots are committed), other than in LEMMA: error-free
data is best, and own mistakes are, by the means, worse than made-up ones. Beyond 6 operations
error-free data solves 24.2%, with made-up mistakes 16.1 (-8.1, [-13.8, -2.4]), with own ones 10.4
(-13.8, [-19.1, -8.5]), which is what the model solved before it was trained on. Its mistakes are
some 6,000, come about ten times each, and bear loss; it then takes back right steps more often than
wrong ones.

Cost: four runs a seed. `smoke` two minutes, most of it compilation; `quick` three quarters of an
hour on two CPU cores (measured, beside other work). The rest is estimated: `night` four hours
there; `mini` 20 minutes on one v5e chip and `paper` 31 hours on eight (training alone, by
`--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import AgainstOp
from physlm.practice import PARENT

SHARE = 0.4
RATE = 0.1

# Problems that the error-free model solves, where they are fewer than by default.
PROBLEMS = {"smoke": 256, "quick": 16_384, "night": 16_384}

FIGURES = (AgainstOp(),)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale, and how many problems are practised on."""
    shared = config.base(scale)
    if scale in PROBLEMS:
        shared.train.records_problems = PROBLEMS[scale]
    return shared


def sweep() -> Iterator[Planned]:
    """The error-free model, and it trained on: error-free, retry data, its own mistakes."""
    error_free = conditions.pretrain(**{"mistakes.rate": 0.0})
    yield error_free
    for rate in (0.0, RATE):
        yield conditions.continued(error_free, **{"mistakes.rate": rate})
    own = {"mistakes.rate": 0.0, "train.records": PARENT, "train.records_share": SHARE}
    yield conditions.continued(error_free, **own)
