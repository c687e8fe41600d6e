"""Which mistakes teach most?

Question: the paper's mistakes name a parameter that cannot be computed yet. LEMMA (arXiv
2503.17439) draws mistakes by type, from what student models really get wrong. At the same rate and
number of tokens, what does each kind teach that error-free data does not: a wrong calculation, a
misread value, a wrong reference, operator or constant, something missing, something unneeded?

Command: `python -m physlm.experiments.sweep mistake_kinds`. Models that other studies have trained
in the same store are not trained again.

Expected: asked for by the paper's reviewers, and not published. LEMMA reports, after finetuning
models of 7 to 70 billion parameters on seven tasks, a mean of 62.4 with typed mistakes and 56.7
without types.

Found at `quick` (rate 0.2, nothing masked, seeds 0 to 2 of all kinds; results and plots are
committed): no kind helps for certain, and one does harm. Names of whatever is left (retry_miss)
solve 3.6% beyond 6 operations, error-free data 12.7 (-9.0, [-13.7, -4.3], p = 0.005 after Holm's
correction). Beside error-free models that solve as many problems of 6 operations, the three kinds
are behind whose wrong names bear loss where another is right: retry_miss by 2.0 points ([-2.7,
-1.1]), the paper's mistakes by 2.4 ([-3.7, -0.7], p = 0.085), later steps (retry_weak) by 1.3; in
the paper its mistakes, unmasked and at this rate, are ahead (91.6 against 77.7% of 23 operations).
The other seven are ahead, by 3.5 (wrong values, [+0.9, +6.8], p = 0.078) to 0.2. Misread numbers
led by 11.3 points with seeds 0 to 2, which the next four did not bear out: they solve 22.1, 6.9,
20.1 and 13.6% beyond 6 operations, error-free data 8.7, 14.1, 22.6 and 13.4; over all seven +5.4
([-0.0, +10.8], p = 0.30).

Cost: eleven runs a seed. `smoke` some minutes, most of it compilation; `quick` an hour on two CPU
cores (measured). The rest is estimated: `night` ten hours there; `mini` 50 minutes on one v5e chip
and `paper` three and a half days on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp, Robustness

RATE = 0.2
KINDS = (
    *("skip", "retry_weak", "retry_miss", "unneeded", "calculation"),
    *("value", "reference", "operator", "missing", "misread"),
)

FIGURES = (
    Against(
        "kind", "kind of mistake", heading="Problems solved, by the kind of mistakes in training"
    ),
    Against("kind", "kind of mistake", y="retries", name="retries"),
    AgainstOp(),
    Robustness(),
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Error-free data, and each kind of mistake at one rate."""
    yield conditions.pretrain(**{"mistakes.rate": 0.0})
    for kind in KINDS:
        yield conditions.pretrain(**{"mistakes.rate": RATE, "mistakes.kind": kind})
