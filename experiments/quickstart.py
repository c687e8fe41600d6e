"""Does a model that has read mistakes and their corrections reason better? The smallest answer.

Question: two models of one size see equally many tokens, one of error-free solutions, the other of
solutions in which a wrong step, taken back at once, stands before a step with probability 0.5 and
its wrong name bears no loss. How many problems does each solve, up to the number of operations seen
in training and beyond it?

Command: `python -m physlm.experiments.sweep` (the same as `… sweep quickstart --scale quick`).

Expected: at scale `night` with the learning rate of `quick`, and seeds 0, 1 and 2, error-free
models solve 96.8% of problems of up to 6 operations, the most in training, and 71.7, 38.0 and 7.0%
of those of 7, 8 and 9. Other than in the paper, retry data depends on the seed: two models are
level up to 6 operations and ahead beyond (by 4.3 and 2.4 points), and one, whose training loss ends
at 0.155 where the others' ends at 0.146, is behind by 12.5 and 19.7. Over seeds and problems the
two are not told apart (beyond 6 operations -4.3 points, [-26.2, +17.6]). At half that rate, as
`night` has it now, seed 2 of retry data has 97.2% up to 6 operations and 74.8, 43.8 and 13.9 of 7,
8 and 9, error-free data 98.5, 82.9, 42.6 and 9.3. At `quick`, with a quarter of the tokens and
seeds 0 and 1, of problems of 6 operations retry data solves 45.0% where error-free data solves
34.5; of 7, 20.0 and 14.9; of 8, 6.5 and 2.6; of all up to 6, 59.8 and 56.9; with
`data.statement_op=2`, as at `night`, and seed 0 retry data is behind there. The paper (arXiv
2408.16293, Figure 4) has it ahead at every length, after 39 billion tokens.

Cost: `smoke` a minute, most of it compilation; `quick` eleven to fourteen minutes on two CPU cores,
a seed; `night` three quarters of an hour there; `mini` is meant for half an hour on one GPU or TPU
chip and `paper` for two runs of 39 billion tokens on a TPU slice (neither has been run).
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
