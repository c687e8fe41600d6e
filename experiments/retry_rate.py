"""How many mistakes should pretraining data hold, and should they bear loss?

Question: models of one size see equally many tokens of solutions in which a wrong step, taken back
at once, stands before a step with some probability, the retry rate; its wrong name bears loss, or
is masked. How much does each solve, up to the number of operations in training and beyond it?

Command: `python -m physlm.experiments.sweep retry_rate`. Models that the quickstart has trained in
the same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Figure 4(b)) more mistakes are better, up to the highest
rate, with and without masks: of problems of 23 operations error-free data solves 77.7%, retry data
at rates .05, .1, .2, .4 and .5 solve 83.9, 90.6, 91.6, 90.6 and 93.6 (masked 78.5, 87.5, 87.8, not
published, 94.8); of all 30 cells 91.8, and 93.3, 94.9, 96.2, 96.4 and 97.5 (93.1, 94.8, 96.3, –,
97.7). Each number is the best of two seeds and two beams.

Found at `quick` (seeds 0 and 1 of all conditions, 22 runs): other than in the paper, masks decide.
Beyond training (7 and 8 operations, where error-free data solves 8.8%) masked retry data is ahead
of unmasked at every rate of both seeds, by 6.5 points over rates, seeds and problems ([+4.0, +9.1],
p < .001; by seed 6.3 and 6.7), most at the high rates (.5: +10.2 [+4.3, +16.0]). Masked, more
mistakes are better as in the paper: 11.5, 11.2, 12.7, 13.1 and 15.4% at rates .05, .1, .2, .4 and
.5. Unmasked they are not: 7.9, 5.6, 7.1, 5.2 and 5.2%. Against error-free data neither is told
apart yet: rates together, masked +4.0 points ([-0.4, +8.4]) and unmasked -2.5 ([-6.7, +1.6]). Up to
6 operations no rate is told apart from error-free data, nor masked from unmasked; seeds of one
condition differ by up to 16 points there. The models have seen one 3000th of the paper's tokens and
have not learnt their class (57%), which may be why masks matter: what wrong names teach has to be
unlearnt. What the mistakes are about is learnt: up to 6 operations the share of problems lost first
to a step that cannot be taken yet falls with the rate, masked, from 24.1% without mistakes to 11.5%
at .5; beyond it falls at high rates alone, from 61.3 to 49.9%. But right steps are taken back about
as often as wrong ones, and more is lost in other ways.

Cost: eleven runs a seed. `smoke` some minutes, most of it compilation; `quick` 80 minutes on two
CPU cores (measured), `night` five hours; `mini` and `paper` have not been run.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp
from physlm.experiments.published import Beside

RATES = (0.05, 0.1, 0.2, 0.4, 0.5)
MASKS = ("none", "name")

FIGURES = (
    Against(
        "retry_rate", "retry rate", heading="Problems solved, by the rate of mistakes in training"
    ),
    Against("retry_rate", "retry rate", y="skip", name="skip"),
    AgainstOp(),
)

# The paper has no masked model at rate .4.
BESIDE = (
    Beside(
        "Fig4b_acc",
        {
            "original": {"retry_rate": 0.0},
            **{f"retry {rate}": {"retry_rate": rate} for rate in RATES},
            **{f"retry {r} mask": {"retry_rate": r, "mask": "name"} for r in RATES if r != 0.4},
        },
    ),
)

# Whether masks matter.
VERSUS = {"mask": "none"}


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Error-free data; each rate, its mistakes masked and not."""
    yield conditions.pretrain(**{"mistakes.rate": 0.0})
    for changes in conditions.product(
        conditions.over("mistakes.rate", *RATES), conditions.over("mistakes.mask", *MASKS)
    ):
        yield conditions.pretrain(**changes)
