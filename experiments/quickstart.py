"""Does a model that has read mistakes and their corrections reason better? The smallest answer.

Question: two models of one size see equally many tokens, one of error-free solutions, the other of
solutions in which a wrong step, taken back at once, stands before a step with probability 0.5 and
its wrong name bears no loss. How many problems does each solve, up to the number of operations seen
in training and beyond it?

Command: `python -m physlm.experiments.sweep` (the same as `… sweep quickstart --scale quick`).

Expected: at scale `quick` retry data is ahead wherever what to compute next is hard: of problems of
at most 6 operations, as in training, it solves 70% where error-free data solves 65%; of exactly 6,
63 and 48; of 7, 35 and 24. At 8 both are weak; at 1, where a single template is held out, it is
behind. That is one seed. The paper (arXiv 2408.16293, Figure 4) has it ahead at every length, after
39 billion tokens.

Cost: `smoke` a minute, most of it compilation; `quick` less than half an hour on two CPU cores;
`night`, four times as many tokens, an hour and a half there, estimated from `quick`; `mini` is
meant for half an hour on one GPU or TPU chip and `paper` for two runs of 39 billion tokens on a TPU
slice (neither has been timed).
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
