"""Do mistakes have to be real ones, or will cheap imitations do?

Question: a true mistake names a parameter that cannot be computed yet, which takes knowledge of the
problem. Is it as good to name a parameter of a later step (retry_weak), or one that the problem
states and the solution has not reached (retry_miss), which any corpus of solutions allows?

Command: `python -m physlm.experiments.sweep fake_mistakes`. Models that `retry_rate` has trained in
the same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Figure 8) later steps do nearly as well at low rates and
spoil the model at high ones: of problems of 23 operations retry_weak solves 86.4, 90.1, 91.0 and
61.1% at rates .05, .1, .2 and .5, retry_miss 76.3, 81.6, 87.1 and 83.2, true mistakes 83.9, 90.6,
91.6 and 93.6, and error-free data 77.7.

Found at `quick` (rates .2 and .5, seeds 0 to 2, of error-free data and true mistakes at .5 seeds 0
to 6; results and plots are committed): beyond 6 operations, where error-free data solves 12.7%,
true mistakes solve 6.0 and 4.9% at rates .2 and .5, retry_weak 6.1 and 3.0, retry_miss 3.6 and 2.5
(rates together 7.2, 8.1 and 9.6 points behind error-free data, p at most 0.002). So imitations are
no better than true mistakes, as in the paper, and that true mistakes help does not hold of these
models, since they bear loss. Masked, retry_weak solves 12.7 and 12.3%, as error-free data does,
other than in the paper, where a mask does not save it.

Cost: 17 runs a seed. `smoke` some minutes, most of it compilation; `quick` eleven to fourteen
minutes for each pair of runs on two CPU cores (measured), some two hours. The rest is estimated:
`night` 15 hours there; `mini` 80 minutes on one v5e chip and `paper` five and a
half days on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp, Robustness
from physlm.experiments.published import Beside

RATES = (0.05, 0.1, 0.2, 0.5)
# Kinds and whether they are masked; the paper has retry_miss without masks alone.
DATA = (("skip", "none"), ("retry_weak", "none"), ("retry_weak", "name"), ("retry_miss", "none"))

FIGURES = (
    Against("retry_rate", "retry rate", heading="Problems solved, by kind and rate of mistakes"),
    Against("retry_rate", "retry rate", y="skip", name="skip"),
    Against("retry_rate", "retry rate", y="retries", name="retries"),
    AgainstOp(),
    Robustness(),
)

BESIDE = (
    Beside(
        "Fig8_acc",
        {
            "original": {"retry_rate": 0.0},
            **{f"weak {r}": {"retry_rate": r, "kind": "retry_weak"} for r in RATES},
            **{
                f"weak {r} mask": {"retry_rate": r, "kind": "retry_weak", "mask": "name"}
                for r in RATES
            },
            **{f"miss {r}": {"retry_rate": r, "kind": "retry_miss"} for r in RATES},
        },
    ),
    Beside("Fig4b_acc", {f"retry {r}": {"retry_rate": r} for r in RATES}),
)

VERSUS = {"kind": "skip"}


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Error-free data; each kind at each rate."""
    yield conditions.pretrain(**{"mistakes.rate": 0.0})
    for kind, mask in DATA:
        for rate in RATES:
            yield conditions.pretrain(
                **{"mistakes.kind": kind, "mistakes.rate": rate, "mistakes.mask": mask}
            )
