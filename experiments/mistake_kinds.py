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

Found at `quick` (rate 0.2, nothing masked; results and plots are committed). With seed 0 two kinds
were ahead of error-free data beyond 6 operations, and so were given seeds 1 and 2: misread numbers
solve 12.6, 26.6 and 24.7% where error-free data solves 9.3, 8.2 and 12.3 (+11.3 points, [+1.9,
+20.8], not told apart after Holm's correction for ten kinds), and up to 6 operations 57.5, 73.9 and
73.2% (57.7, 56.1 and 54.4); wrong operators 16.3, 9.1 and 10.7, no more than error-free data. With
seed 0 alone: missing terms 10.4, wrong values 9.4, calculations 8.9, needless steps 7.3, wrong
references 5.8; and names of what cannot be computed yet, later steps (retry_weak) 5.4, the paper's
mistakes 5.2, whatever is left (retry_miss) 1.5, where in the paper its mistakes, unmasked and at
this rate, are ahead (91.6 against 77.7% of 23 operations). What misread numbers gain is not had by
taking steps back: these models do so in one of a hundred solutions.

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
