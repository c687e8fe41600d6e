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

Found at `night` (rates 0, .1, .2 and .5, seeds 0, 1 and 2, 21 runs): other than in the paper, masks
decide. Unmasked retry data is behind error-free data up to 6 operations, by 2.7 points over the
rates ([-3.8, -1.6], p < .001) and 4.8 at .5, and behind masked data, there by 2.1 ([+1.1, +3.0])
and beyond by 2.8 ([+0.4, +5.2], p = .026). Rates of .1 and .2, masked, are within 0.3 points of
error-free data beyond 6 operations. At .5, masked, of problems of 8, 9 and 10 operations 53.6, 19.4
and 4.7% are solved, of error-free data 45.4, 10.0 and 1.1; all beyond 6 together +3.4 points, which
three seeds do not tell apart ([-0.9, +7.7]; +8.6, +1.8, -0.1). Problems beyond 6 that are lost
first to a step taken too early are 57.1% without mistakes ([51.7, 62.5]) and 57.2, 52.6 and 46.4
([40.9, 51.8]) at .1, .2 and .5, masked; wrong references, which more are lost to instead, 4.7 and
8.4% of all test problems at .5. Of solutions beyond 6 operations 26.2% take back a wrong step first
and 14.2% a right one (.5, masked).

Found at `quick` (seeds 0, 1 and 2, 33 runs, of models that have not learnt their class): other than
in the paper, where mistakes bear loss less is solved beyond training, 8.3, 7.2, 6.0, 5.3 and 5.4%
at rates .05 to .5, where error-free data solves 9.9 (rates together -3.5 points, [-7.0, +0.0]);
from .2 on that is 2.2 to 2.5 points less than error-free models of equal accuracy within training.
Masked data, at 12.2, 11.0, 12.6, 11.0 and 13.2, is ahead of unmasked by 5.6 points over the rates
([+3.5, +7.6], p < .001), and not told apart from error-free data (+2.1 points, [-1.6, +5.7]). Up to
6 operations nothing is told apart, but what is lost first to a step taken too early falls from
22.7% without mistakes to 12.6% at .5, masked. Masked, right steps are taken back as often as wrong
ones. Along right solutions (seed 2, `python experiments/examples/next_names.py`) models of rates
.05 to .5 give right names 77, 74, 71, 68 and 65% of the probability that they do not give mistakes,
where that of error-free data gives 81, and those of masked mistakes 79 to 80.

Cost: eleven runs a seed. `smoke` some minutes, most of it compilation; `quick` 80 minutes on two
CPU cores (measured), `night` ten hours there, by a measured step, and 21 runs eight minutes on an
H200 (`--set mesh.population=21`, measured). Estimated: `mini` 50 minutes on one v5e chip and
`paper` three and a half days on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp, Robustness
from physlm.experiments.published import Beside

RATES = (0.05, 0.1, 0.2, 0.4, 0.5)
MASKS = ("none", "name")

FIGURES = (
    Against(
        "retry_rate", "retry rate", heading="Problems solved, by the rate of mistakes in training"
    ),
    Against("retry_rate", "retry rate", y="skip", name="skip"),
    AgainstOp(),
    Robustness(),
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
