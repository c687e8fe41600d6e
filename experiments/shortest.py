"""Do models that have read many mistakes write longer solutions than they need?

Question: mistakes in training data compute what need not be computed yet, or never. Do models that
were trained on them compute parameters that the question does not need, by the rate of mistakes and
whether these were masked, also where another question is asked than the one that the problem was
made for, of which training shows none?

Command: `python -m physlm.experiments.sweep shortest`. It judges the runs of `retry_rate`, which
are not trained again in the same store, on problems with another question besides.

Expected: in the paper (arXiv 2408.16293, Figure 6) solutions of all models hold next to no
parameter that is not needed, at most .02 of them in a solution, but for re-asked problems. No table
of these numbers is in the package.

Found: nothing yet; only `smoke` has been run.

Cost: where `retry_rate` has been run, judging once more. Else eleven runs a seed, all estimated but
for training at `quick`: `smoke` some minutes; `quick` 80 minutes and `night` ten hours on two CPU
cores; `mini` 50 minutes on one v5e chip and `paper` three and a half days on eight (training alone,
by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from experiments import retry_rate
from physlm.experiments import config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp

FIGURES = (
    Against(
        "retry_rate",
        "retry rate",
        y="unnecessary_right",
        name="unnecessary",
        heading="Steps in right solutions that the question does not need",
        reasked=True,
    ),
    Against(
        "retry_rate",
        "retry rate",
        y="operations_right",
        name="operations",
        heading="Operations in right solutions beyond those that the question takes",
        reasked=True,
    ),
    AgainstOp(),
)


def get_config(scale: str) -> ConfigDict:
    """The defaults of the scale, and problems with other questions.

    These have as many operations as the least that is beyond training, as in the paper.
    """
    shared = config.base(scale)
    shared.evaluate.reasked = (min(shared.evaluate.beyond),)
    return shared


def sweep() -> Iterator[Planned]:
    """The runs of `retry_rate`."""
    return retry_rate.sweep()
