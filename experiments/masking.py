"""Does it matter which tokens of a mistake bear loss?

Question: what of a mistake does a model have to be kept from learning to write? Its wrong name, the
sentence, the marker that takes it back too, or nothing?

Command: `python -m physlm.experiments.sweep masking`. Models that `retry_rate` has trained in the
same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Figure 4(b)) masking what is wrong is not needed: at rate
.2 it solves 87.8% of problems of 23 operations, and 91.6 without; at rate .5 94.8 and 93.6. The
paper does not say token by token what its mask is; masks of the sentence or the marker are not
published.

Found at `quick` (seed 0 of all; seeds 0 to 6 of error-free data and, at rate .5, of no mask and of
masked names, 0 to 2 of masked sentences; results and plots are committed): other than in the paper,
mistakes that bear loss take away most of what is solved beyond 6 operations, with each of seven
seeds. At .5 they solve 4.9% there, where error-free data solves 12.7 (-7.8 points, [-12.3, -3.2], p
= 0.016 after Holm's correction) and masked names 15.5 (-10.6, [-15.5, -5.8], p = 0.001); up to 6
operations nothing is told apart. Beside error-free models that solve as many problems of 6
operations they are 3.1 points behind ([-4.3, -1.7]), masked names 1.2 ahead ([-1.7, +4.7]),
sentences 1.7 ([-2.2, +6.6]). Beyond training 72% of solutions take back a wrong step first, and
three in ten take steps back until they are cut off at 256 tokens; with room for 1,024 seeds 0 to 2
solve as many. Which mask is best seeds do not tell, nor that any helps. No model has learnt its
class; those of `retry_rate` at `night` have, and there unmasked mistakes cost accuracy within
training; that they cost any beyond it, at equal accuracy within, is not seen.

Along right solutions of 8 operations (all 21 models of seven seeds, `python
experiments/examples/next_names.py RUN… --op 8 --mixed 0.5`) those of no mask give right names 33.2%
of the probability, which is 66 of the half that is not for mistakes; of error-free data it is 81.3,
of masked names 81.2. What cannot be computed yet is the likeliest name at 38.4% of steps ([34.6,
42.3]); without mistakes at 12.6, with masked names at 11.6, and at 19.7 if what error-free models
know is mixed with as many mistakes as data of this rate has.

Cost: nine runs a seed. `smoke` some minutes, most of it compilation; `quick` 50 minutes on two CPU
cores, by measured pairs of eleven runs. The rest is estimated: `night` eight hours there; `mini` 40
minutes on one v5e chip and `paper` three days on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp, Robustness
from physlm.experiments.published import Beside

RATES = (0.2, 0.5)
MASKS = ("none", "name", "sentence", "all")

_CALLED = "tokens of a mistake that bear no loss"

FIGURES = (
    Against("mask", _CALLED, values=MASKS),
    AgainstOp(),
    Robustness(),
    Against("mask", _CALLED, values=MASKS, y="skip", name="skip"),
    Against("mask", _CALLED, values=MASKS, y="retries", name="retries"),
)

BESIDE = (
    Beside(
        "Fig4b_acc",
        {
            "original": {"retry_rate": 0.0},
            **{f"retry {rate}": {"retry_rate": rate} for rate in RATES},
            **{f"retry {rate} mask": {"retry_rate": rate, "mask": "name"} for rate in RATES},
        },
    ),
)

VERSUS = {"mask": "none"}


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Error-free data; each rate by each mask."""
    yield conditions.pretrain(**{"mistakes.rate": 0.0})
    for changes in conditions.product(
        conditions.over("mistakes.rate", *RATES), conditions.over("mistakes.mask", *MASKS)
    ):
        yield conditions.pretrain(**changes)
