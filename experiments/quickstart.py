"""Does a model that has read mistakes and their corrections reason better? The smallest answer.

Question: two models of one size see equally many tokens, one of error-free solutions, the other of
solutions in which a wrong step, taken back at once, stands before a step with probability 0.5 and
its wrong name bears no loss. How many problems does each solve, up to the number of operations seen
in training and beyond it?

Command: `python -m physlm.experiments.sweep` (the same as `… sweep quickstart --scale quick`).

Expected: at scale `quick`, with seeds 0 and 1, retry data is ahead where problems are hard: of
problems of 6 operations, the most in training, it solves 45.0% where error-free data solves
34.5; of 7, 20.0 and 14.9; of 8, 6.5 and 2.6. Of all problems up to 6 it is not
behind (59.8 and 56.9). The paper (arXiv 2408.16293, Figure 4) has it ahead at every length, after
39 billion tokens.

Cost: `smoke` a minute, most of it compilation; `quick` eleven minutes on two CPU cores, a seed;
`night`, four times as many tokens, three quarters of an hour there, estimated from `quick`; `mini`
is meant for half an hour on one GPU or TPU chip and `paper` for two runs of 39 billion tokens on a
TPU slice (none of these has been run).
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from physlm.experiments import config

CONDITIONS: tuple[dict[str, Any], ...] = (
    {"mistakes.rate": 0.0},
    {"mistakes.rate": 0.5, "mistakes.mask": "name"},
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[dict[str, Any]]:
    """Error-free data, and data with a mistake before half of the steps."""
    yield from CONDITIONS
