"""The published numbers that ours are shown beside (arXiv 2408.16293, Figure 4(b)).

Strict accuracy in percent of models that were trained on retry data, by its rate and by whether
mistakes bore no loss. Each number is the best of two seeds and two beams.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Published:
    """One model of the paper.

    Attributes:
        average: over its 30 cells.
        by_op: on `med_pq` by number of operations, of which training had up to `CAP`.
    """

    average: float
    by_op: Mapping[int, float]

    @property
    def hardest(self) -> float:
        """At the most operations."""
        return self.by_op[max(self.by_op)]


CAP = 15
_OPS = (15, 20, 21, 22, 23)


def _published(average: float, *by_op: float) -> Published:
    return Published(average, dict(zip(_OPS, by_op, strict=True)))


# By rate, and whether mistakes were masked. The paper does not say token by token what its mask is.
PAPER: Mapping[tuple[float, bool], Published] = {
    (0.0, False): _published(91.8, 99.1, 92.0, 88.4, 84.5, 77.7),
    (0.05, False): _published(93.3, 99.7, 94.8, 93.0, 88.5, 83.9),
    (0.1, False): _published(94.9, 99.7, 97.1, 95.8, 93.3, 90.6),
    (0.2, False): _published(96.2, 99.9, 97.9, 96.8, 95.2, 91.6),
    (0.4, False): _published(96.4, 99.8, 97.6, 95.8, 94.3, 90.6),
    (0.5, False): _published(97.5, 99.9, 98.3, 96.8, 95.8, 93.6),
    (0.05, True): _published(93.1, 99.5, 93.1, 89.5, 84.6, 78.5),
    (0.1, True): _published(94.8, 99.8, 96.6, 94.2, 91.5, 87.5),
    (0.2, True): _published(96.3, 99.9, 97.2, 95.5, 93.0, 87.8),
    (0.5, True): _published(97.7, 100.0, 98.8, 97.9, 96.8, 94.8),
}
