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

Cost: eleven runs a seed. `smoke` some minutes, most of it compilation; at `quick` an hour on two
CPU cores; `mini` and `paper` have not been run.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp

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
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Error-free data, and each kind of mistake at one rate."""
    yield conditions.pretrain(**{"mistakes.rate": 0.0})
    for kind in KINDS:
        yield conditions.pretrain(**{"mistakes.rate": RATE, "mistakes.kind": kind})
