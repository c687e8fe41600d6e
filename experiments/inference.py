"""At a fixed budget of inference: retry inside the chain, try again, or vote?

Question: a model of error-free data and one of data with mistakes solve problems greedily, by
sampling and voting, by beam search, and by retry upon regret, where a probe or a perfect detector
sends the writer back as soon as a parameter is named too early. What is solved, for how many
tokens?

Command: `python -m physlm.experiments.sweep inference`. Models and probes that other studies have
trained in the same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Figures 3(b) and 4(b)) error-free data solves 76.8% of
problems of 23 operations, with beams of 4 to 32 77.7 to 79.1, with retry upon regret 79.4 by a
probe and 84.1 by a perfect detector; pretraining with mistakes solves 93.6 (94.8 masked). Voting
was asked for by its reviewers, and is not published.

Found at `night` (seeds 0, 1 and 2, 256 problems a cell, 7 to 10 operations beyond training;
`--filter 'decode=greedy,beam:4,regret:perfect' --set evaluate.beyond=7,8,9,10`): as in the paper,
beams add little (36.1% of what is beyond training to 36.6 for the error-free models, 40.9 to 41.1
for the others, for four times the tokens). Other than there, a perfect detector gives the
error-free models about as much (42.4%) as mistakes in pretraining (40.9, decoded greedily), and it
adds to both (44.5). Over three seeds the two kinds of models are not told apart by any way. With
seed 0 alone, whose model of data with mistakes is the best of three, votes of 4 and 16 samples at
temperature 0.7 take the error-free model from 32.2 to 31.0 and 27.9% and the other from 45.1 to
46.1 and 45.7.

Found at `quick` (seed 0, 256 problems a cell; results and plots are committed): other than in the
paper, retry upon regret with a probe makes both models worse (58 to 51% and 61 to 57% up to 6
operations), whose own right steps it calls wrong too often. With a perfect detector it does more
than anything else, and most for the error-free model (19 to 37% at 7 operations, 3 to 14 at 8),
which it takes beyond the other. Beams and votes add nothing to the error-free model and some points
to the one that has read mistakes (61 to 68% up to 6 operations with four samples), for four and
more times the tokens. Decoded greedily, that one takes steps back without end in 11 to 24% of its
solutions. Neither has learnt its class.

Cost: `smoke` some minutes, most of it compilation; `quick` twenty minutes on two CPU cores beside
the models and the probes, `night` these three ways two minutes a seed (both measured). Estimated:
all ways' models and probes at `night` four hours there; `mini` ten minutes on one v5e chip and
`paper` 16 hours on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from experiments.probing import CAN_NEXT
from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned, Times

# A quarter of the problems, and two cells beside those up to the cap: there are many ways.
CELLS = {"evaluate.problems": Times(0.25), "evaluate.within": ()}

WAYS = (
    "greedy",
    *(f"sample:{n},temperature=0.7" for n in (1, 4, 16)),
    "sample:16,temperature=0.7,pick=likeliest",
    "beam:4",
    "beam:16",
    "regret:perfect",
    "regret:perfect,tries=50",
)
ASKING = ("regret:probe", "sample:16,temperature=0.7,pick=weighted")


VERSUS = {"decode": "greedy"}


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Both models by every way of decoding."""
    error_free = {"mistakes.rate": 0.0}
    retry = {"mistakes.rate": 0.5, "mistakes.mask": "name"}
    for data in (error_free, retry):
        for way in WAYS:
            yield conditions.pretrain(**data, **CELLS, **{"evaluate.decode": way})
        probe = conditions.probe(conditions.pretrain(**data), **CAN_NEXT)
        for way in ASKING:
            asked = {"evaluate.decode": way, "evaluate.probe": probe}
            yield conditions.pretrain(**data, **CELLS, **asked)
