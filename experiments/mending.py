"""How should a mistake be mended, and how soon?

Question: the paper takes a mistake back at once and goes on. LEMMA (arXiv 2503.17439) mends the
step in place (fix & continue) or drops the attempt and begins anew (fresh & restart), and mistakes
may be noticed only some steps later. Which of these teaches most, at the same number of tokens?

Command: `python -m physlm.experiments.sweep mending`. Models that other studies have trained in the
same store are not trained again.

Expected: not published for pretraining. In LEMMA, after finetuning, leaving out fresh & restart
costs 2.6 points of a mean of 62.4 over seven tasks; what is noticed late was not tried.

Found: nothing yet; only `smoke` has been run.

Cost: nine runs a seed. `smoke` some minutes, most of it compilation. The rest is estimated: `quick`
an hour and `night` eight on two CPU cores; `mini` 40 minutes on one v5e chip and `paper` three days
on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp, Robustness

RATE = 0.2
# A wrong parameter is always mended by going back; a wrong number in each way.
KIND = "skip:0.5,calculation:0.5"
WAYS = ("back", "fix", "restart", "fix:0.5,restart:0.5")
LATE = (1, 2)

FIGURES = (
    Against("mend", "way of mending", heading="Problems solved, by how mistakes are mended"),
    Against(
        "late",
        "steps after which a mistake is noticed",
        name="late",
        heading="Problems solved, by how late mistakes are noticed",
    ),
    AgainstOp(),
    Robustness(),
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: whole sentences, which can be gone on with before they are mended."""
    return config.override(config.base(scale), {"mistakes.whole": True})


def sweep() -> Iterator[Planned]:
    """Error-free data; mistakes mended in each way at once, and in two ways later."""
    yield conditions.pretrain(**{"mistakes.rate": 0.0})
    for way in WAYS:
        yield _mistakes(way, 0)
    for steps in LATE:
        for way in ("back", "fix"):
            yield _mistakes(way, steps)


def _mistakes(way: str, late: int) -> Planned:
    said = {"mistakes.rate": RATE, "mistakes.kind": KIND, "mistakes.mend": way}
    return conditions.pretrain(**said, **{"mistakes.late": late})
