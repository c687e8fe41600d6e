"""Does a model that has read mistakes and their corrections reason better? The smallest answer.

Question: two models of one size see equally many tokens, one of error-free solutions, the other of
solutions in which a wrong step, taken back at once, stands before a step with probability 0.5 and
its wrong name bears no loss. How many problems does each solve, up to the number of operations seen
in training and beyond it?

Command: `python -m physlm.experiments.sweep` (the same as `… sweep quickstart --scale quick`).

Expected: in the paper (arXiv 2408.16293, Figure 4(b)) data with mistakes is ahead at every length,
after 39 billion tokens: with training up to 15 operations, error-free data solves 92.0, 88.4, 84.5
and 77.7% of problems of 20, 21, 22 and 23, data with mistakes 98.8, 97.9, 96.8 and 94.8.

Found at `night` (seeds 0, 1 and 2; results and plots are committed): both models solve 98% of
problems of up to 6 operations, the most in training (error-free 98.5, retry 98.1). Of those of 7,
8, 9 and 10 the error-free models solve 84.6, 45.4, 10.0 and 1.1%, those of retry data 83.6, 53.6,
19.4 and 4.7; all beyond 6 together retry data is ahead by 3.4 points, which three seeds do not tell
apart from nothing ([-3.0, +9.9] by these six runs, [-0.9, +7.7] by the 21 of `retry_rate`; by seed
+8.6, +1.8 and -0.1).

Found at `quick` (seeds 0 to 6; results and plots are committed): nothing is told apart. Of problems
of 6 operations retry data solves 44.8% where error-free data solves 41.5; of 7, 22.7 and 20.4; of
8, 8.4 and 4.9; of all up to 6 both solve 59.5; beyond 6 together +2.9 points ([-3.9, +9.6]; by seed
+3.8, +9.5, -3.4, +20.1, -2.8, -6.0 and -1.3). Chance decides how far a model comes: error-free ones
solve 30 to 63% of 6 operations. Beside error-free models that solve as many of these, retry data is
1.2 points ahead beyond ([-0.8, +3.6]). With `data.statement_op=2`, as at `night`, and seed 0 retry
data is behind.

Cost: two runs a seed. `smoke` a minute, most of it compilation; `quick` eleven to fourteen minutes
on two CPU cores (measured), `night` two hours there, by a measured step. Estimated: `mini` nine
minutes on one v5e chip and `paper` 16 hours on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from physlm.experiments import config
from physlm.experiments.published import Beside

CONDITIONS: tuple[dict[str, Any], ...] = (
    {"mistakes.rate": 0.0},
    {"mistakes.rate": 0.5, "mistakes.mask": "name"},
)

BESIDE = (
    Beside(
        "Fig4b_acc",
        {
            "original": {"retry_rate": 0.0},
            "retry 0.5": {"retry_rate": 0.5},
            "retry 0.5 mask": {"retry_rate": 0.5, "mask": "name"},
        },
    ),
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[dict[str, Any]]:
    """Error-free data, and data with a mistake before half of the steps."""
    yield from CONDITIONS
