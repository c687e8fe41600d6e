"""What can be had at inference alone: beams, and going back where a probe feels regret?

Question: an error-free model knows, while it writes, when it has named a parameter too early
(study `probing`). How much better does it solve problems if it is sent back whenever a probe says
so, or a perfect detector, or if beams are searched instead?

Command: `python -m physlm.experiments.sweep regret`. Models and probes that other studies have
trained in the same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Figure 3(b)) little: of problems of 23 operations beams of
1, 4, 16 and 32 solve 76.8, 77.7, 77.8 and 79.1%, retry upon regret with its first probe 79.4 (beams
of 4: 80.1), with its second 78.5 (79.6), with a perfect detector 84.1 (85.1), with 50 tries in
place of 10 86.2 (87.0). Pretraining with mistakes, decoded greedily, solves 93.6.

Found at `quick` (seeds 0, 1 and 2; beams of 16 and 32 seed 0 alone; results and plots are
committed), other than in the paper: beyond 6 operations, where greedy decoding solves 9.9%, a
perfect detector adds 11.5 points ([+5.8, +17.1], p = .016 corrected; by seed +13.0, +9.8, +11.7)
and with 50 tries 16.7 ([+10.7, +22.6], p = .002), more than models of data with mistakes, masked,
have, decoded greedily (13.2%). With either probe it adds nothing there (-1.6 [-6.2, +3.0] and -1.4
[-5.8, +2.9]), and up to 6 operations the probes take away, with each seed: 7.4 points ([-13.2,
-1.7]) and 6.6 ([-12.6, -0.6]; Holm's correction leaves neither), since they call right steps wrong
(study `probing`).
Inside beams of 4, where refused beams are dropped, a perfect detector adds 2.0, and beams alone
0.4. The error-free models solve 56% of their class, of which the paper's solve all.

Cost: three models, two probes and 14 evaluations a seed. `smoke` some minutes, most of it
compilation; `quick` an hour on two CPU cores beside the models (measured). The rest is estimated:
`night` four hours there for models and probes; `mini` 15 minutes on one v5e chip and `paper` a day
on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from experiments.probing import CAN_NEXT
from physlm.experiments import conditions, config
from physlm.experiments.condition import Condition
from physlm.experiments.conditions import Planned, Times
from physlm.experiments.figures import Against, AgainstOp, AgainstTokens
from physlm.experiments.published import Beside

BEAMS = (4, 16, 32)
# Retry upon regret alone, and inside beams.
REGRET = (1, 4)
SECOND_ASKED = {"probe.task": "can_next", "mistakes.rate": 0.0, "evaluate.problems": Times(0.25)}
SECOND_RANK = 32
FIRST, SECOND = "probe of rank 8", "probe of rank 32 and 2"


def _regret(beams: int, *said: str) -> str:
    return ",".join([f"regret:{said[0]}", *said[1:], *([f"beams={beams}"] if beams > 1 else [])])


def decoding(condition: Condition) -> str | None:
    """How an error-free model's solutions are written."""
    if condition["retry_rate"]:
        return None
    asked = {FIRST: " v1", SECOND: " v2"}.get(str(condition.get("probe")), "")
    return f"{condition.get('decode', 'greedy')}{asked}"


FIGURES = (
    Against(
        decoding,
        "way of decoding",
        ("decode", "probe"),
        heading="Problems solved, by what is done at inference",
    ),
    AgainstOp(),
    AgainstTokens(),
)

BESIDE = (
    Beside(
        "Fig3b_acc",
        {
            "original beam1": {"retry_rate": 0.0, "decode": "greedy"},
            **{f"original beam{n}": {"retry_rate": 0.0, "decode": f"beam:{n}"} for n in BEAMS},
            **{
                f"regret {row} beam{beams}": {
                    "retry_rate": 0.0,
                    "decode": _regret(beams, *said),
                    **({"probe": probe} if probe else {}),
                }
                for beams in REGRET
                for row, said, probe in (
                    ("v1", ("probe",), FIRST),
                    ("v2", ("probe",), SECOND),
                    ("vP", ("perfect",), ""),
                    ("vP50", ("perfect", "tries=50"), ""),
                )
            },
        },
    ),
    Beside("Fig4b_acc", {"retry 0.5": {"retry_rate": 0.5}}),
)

VERSUS = {"decode": "greedy"}


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale, and rows for all beams of a problem."""
    chosen = config.base(scale)
    chosen.evaluate.batch = max(chosen.evaluate.batch, *BEAMS)
    return chosen


def sweep(config: ConfigDict) -> Iterator[Planned]:
    """An error-free model by every way of decoding; models of data with mistakes, greedily.

    A model that is narrower than the second probe's rank goes without it."""
    error_free = {"mistakes.rate": 0.0}
    ways = ["greedy", *(f"beam:{width}" for width in BEAMS)]
    ways += [_regret(n, *said) for n in REGRET for said in (("perfect",), ("perfect", "tries=50"))]
    for way in ways:
        yield conditions.pretrain(**error_free, **{"evaluate.decode": way})
    model = conditions.pretrain(**error_free)
    first = conditions.probe(model, **CAN_NEXT)
    second = conditions.second_probe(model, **SECOND_ASKED)
    width = config.model.heads * config.model.head_dim
    for probe in (first, second) if width >= SECOND_RANK else (first,):
        for beams in REGRET:
            asked = {"evaluate.decode": _regret(beams, "probe"), "evaluate.probe": probe}
            yield conditions.pretrain(**error_free, **asked)
    for mask in ("none", "name"):
        yield conditions.pretrain(**{"mistakes.rate": 0.5, "mistakes.mask": mask})
