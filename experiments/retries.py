"""Do models that have read many mistakes make many?

Question: how often does a model that was trained on mistakes and their corrections take back a step
when it writes greedily, in right solutions and in wrong ones, by the rate of mistakes in its data
and whether they were masked?

Command: `python -m physlm.experiments.sweep retries`. It shows the runs of `retry_rate` and
`fake_mistakes`, which are not trained again in the same store.

Expected: in the paper (arXiv 2408.16293, Figures 5 and 11) few: but for questions asked
anew, at most 0.3 retries in a right solution up to rate .2, also of problems of 23 operations, and
1 to 4 at rate .5, unless mistakes are masked (at most .35). In wrong solutions, of 23 operations,
0.6, 1.2, 1.8, 1.1 and 5.9 at rates .05, .1, .2, .4 and .5 (masked 1.0, 2.7, 2.2, not published,
4.7; the order of these rows was inferred). Imitations are taken back more often in right ones, of
23 operations: retry_weak 0.5, 2.3, 4.3 and 10.6 at rates .05, .1, .2 and .5, retry_miss 0.1, 0.1,
0.8 and 6.0. Whether solutions stay as short as they can be is asked in `shortest`.

Found (results and plots of both scales are committed): as in the paper, few. At `night` (seeds 0 to
2) right solutions beyond training have .21, .40 and 2.27 steps taken back at rates .1, .2 and .5,
masked .14, .25 and .57, and within it .02 at most, but for .45 at .5, not masked; wrong ones beyond
training 2 to 7. At `quick` (seeds 0 to 2) it is .06 to .41 up to rate .2, and 4.3 and .9 at .5;
retry_miss has 3.2 and 9.9 at .2 and .5, retry_weak .7 and 5.0, other than in the paper, where the
latter has more; wrong solutions have up to 19.

Cost: nothing where `retry_rate` and `fake_mistakes` have been run. Else 23 runs a seed, all
estimated: `smoke` some minutes; `quick` three hours and `night` 21 on two CPU cores; `mini` 105
minutes on one v5e chip and `paper` seven and a half days on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments import fake_mistakes, retry_rate
from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp
from physlm.experiments.published import Beside

FIGURES = (
    Against(
        "retry_rate",
        "retry rate",
        y="retries_right",
        name="right",
        heading="Steps taken back in right solutions",
    ),
    Against(
        "retry_rate",
        "retry rate",
        y="retries_wrong",
        name="wrong",
        heading="Steps taken back in wrong solutions",
    ),
    AgainstOp(),
)

_ROWS: dict[str, dict[str, Any]] = {
    **{f"retry {r}": {"retry_rate": r} for r in retry_rate.RATES},
    **{f"retry {r} mask": {"retry_rate": r, "mask": "name"} for r in retry_rate.RATES if r != 0.4},
    **{f"weak {r}": {"retry_rate": r, "kind": "retry_weak"} for r in fake_mistakes.RATES},
    **{f"miss {r}": {"retry_rate": r, "kind": "retry_miss"} for r in fake_mistakes.RATES},
}

BESIDE = (
    Beside("Fig5a_11a_retries_on_right", _ROWS),
    Beside(
        "Fig5b_retries_on_wrong",
        {name: said for name, said in _ROWS.items() if name.startswith("retry")},
    ),
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """All runs of both studies, each once."""
    yield conditions.pretrain(**{"mistakes.rate": 0.0})
    data: list[tuple[str, str, tuple[float, ...]]]
    data = [("skip", mask, retry_rate.RATES) for mask in retry_rate.MASKS]
    data += [(k, m, fake_mistakes.RATES) for k, m in fake_mistakes.DATA if k != "skip"]
    for kind, mask, rates in data:
        for rate in rates:
            yield conditions.pretrain(
                **{"mistakes.kind": kind, "mistakes.rate": rate, "mistakes.mask": mask}
            )
