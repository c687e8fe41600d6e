"""Statistics: intervals and tests over seeds and problems.

All runs of a study are judged on the same problems, so that an outcome Y of condition c, seed s and
problem i is a crossed design with two random factors,

    Y_csi = mean_c + seed_cs + problem_i + (condition x problem)_ci + rest_csi,

seeds being independent between conditions (whatever equal seeds have in common, their first data
for example, can only make the test more cautious). In the difference of two conditions' means the
problem effects cancel, and with k = 1/S_A + 1/S_B, S seeds a condition and N problems its variance
is

    k var(seed) + 2 var(condition x problem)/N + k var(rest)/N.

The variance of means over the seeds of a condition, pooled over conditions and times k, estimates
the first and the last term. The variance over problems of d, the difference of seed means, divided
by N estimates the second and the last, which is taken out again by the mean square of the
interaction of seeds and problems. Degrees of freedom of the sum are Satterthwaite's (Biometrics
Bulletin 2, 1946), and the difference over its root is compared with Student's t, as in the tests
over two random factors of Clark (J. Verbal Learning and Verbal Behavior 12, 1973). Where seeds
agree by chance, their part is at least what the rest alone makes of it.

Two or three seeds of a condition say little of how far seeds vary, so that the variance is pooled
over all conditions of a study, as in an analysis of variance: with eleven conditions of two seeds
it has eleven degrees of freedom and not two. A share p of correct answers leaves room for
p (1 - p), to which the variance of a condition is taken to be proportional, with one factor for all
(quasi-binomial overdispersion: McCullagh and Nelder, Generalized Linear Models, 1989, section
4.5); of a count, it is taken to be proportional to the square of its mean, as seeds differ by
factors (there, chapter 8). `tests/test_inference.py` simulates it: where there is no difference,
p < .05 comes up in at most about one case in twenty, fewer where seeds hardly vary.

A bootstrap that draws seeds and then problems again is not used: of two or three seeds it makes
intervals that are too narrow, by a third or more, as the variance of few draws with replacement is
too small by the factor (S - 1) / S and its percentiles know nothing of Student's t.

Where all conditions have one seed the variance over seeds is not known, and what is left compares
two models alone: McNemar's exact test.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special

from physlm.metrics import wilson_interval

_LEVEL = 0.95
_NORMAL = 1.959964


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two conditions, with its interval and p.

    Attributes:
        value: difference of the means.
        low, high: its 95% interval.
        p: two-sided probability of a difference at least as large where there is none.
        over_seeds: whether it speaks of other seeds and other problems, or of other problems alone.
    """

    value: float
    low: float
    high: float
    p: float
    over_seeds: bool


def difference(
    a_SxN: np.ndarray, b_SxN: np.ndarray, others: Sequence[np.ndarray] = ()
) -> Difference:
    """Compares whether problems were solved under two conditions, A minus B.

    The variance over problems is that of two problems more, one solved by A alone and one by B
    alone; otherwise models that agree on all problems would have an interval of no width (Bonett
    and Price, J. Educational and Behavioral Statistics 37, 2012).

    Args:
        a_SxN, b_SxN: 0 or 1, by seed and problem; the same problems, in one order. The numbers of
            seeds may differ.
        others: of further conditions, whose runs are neither in A nor in B; they too are used to
            estimate the variance over seeds.

    Raises:
        ValueError: the numbers of problems differ, or there is none.
    """
    a_SxN, b_SxN = np.asarray(a_SxN, float), np.asarray(b_SxN, float)
    count = a_SxN.shape[1]
    if count < 1 or count != b_SxN.shape[1]:
        raise ValueError(f"{count} and {b_SxN.shape[1]} problems cannot be paired.")
    each_N = a_SxN.mean(0) - b_SxN.mean(0)
    if max(len(values_SxN) for values_SxN in (a_SxN, b_SxN, *others)) == 1:
        more_N = np.append(each_N, [1.0, -1.0])
        spread = _NORMAL * math.sqrt(float(more_N.var()) / len(more_N))
        centre = float(more_N.mean())
        ends = (max(-1.0, centre - spread), min(1.0, centre + spread))
        value = float(each_N.mean())
        return Difference(value, *ends, _mcnemar(each_N), over_seeds=False)
    return _over_seeds(each_N, (a_SxN, b_SxN), (1.0, -1.0), others)


def contrast(
    parts: Sequence[np.ndarray], weights: Sequence[float], others: Sequence[np.ndarray] = ()
) -> Difference | None:
    """Compares several conditions at once: a weighted sum of their shares of solved problems.

    For several rates against one error-free condition, for example, each rate has the weight one
    over their number, and the error-free condition the weight -1. Here it does matter that seeds
    are taken to be independent between conditions: an effect of a seed that all rates share is
    not in the interval.

    Args:
        parts: 0 or 1, by seed and problem, of each condition; the same problems, in one order.
        weights: of each condition, of sum 0.
        others: as for `difference`.

    Returns:
        None where all conditions have one seed.

    Raises:
        ValueError: the numbers of problems differ.
    """
    if len({np.shape(values_SxN)[1] for values_SxN in parts}) > 1:
        raise ValueError("Conditions that were judged on different problems cannot be compared.")
    if max(len(values_SxN) for values_SxN in (*parts, *others)) == 1:
        return None
    means = zip(weights, parts, strict=True)
    each_N = sum(weight * np.asarray(values_SxN, float).mean(0) for weight, values_SxN in means)
    return _over_seeds(np.asarray(each_N), parts, weights, others)


def _over_seeds(
    each_N: np.ndarray,
    parts: Sequence[np.ndarray],
    weights: Sequence[float],
    others: Sequence[np.ndarray],
) -> Difference:
    value = float(each_N.mean())
    variance, freedom = _variance(
        np.append(each_N, [1.0, -1.0]), parts, weights, others, room=_room
    )
    error = math.sqrt(variance)
    spread = _quantile(freedom) * error
    p = 2 * float(special.stdtr(freedom, -abs(value) / error))
    return Difference(
        value, max(-1.0, value - spread), min(1.0, value + spread), p, over_seeds=True
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction of several p, which bounds the family-wise error rate.

    Holm's method (Scandinavian Journal of Statistics 6, 1979): the smallest is multiplied by the
    number of tests, the next by one less, and so on; none becomes smaller than one before it.

    Args:
        ps: of one family, in any order.
    """
    found, least = [0.0] * len(ps), 0.0
    for rank, number in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[number]))
        found[number] = least
    return found


def in_words(p: float) -> str:
    """A p as texts and tables say it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def of_mean(values_SxN: np.ndarray, others: Sequence[np.ndarray] = ()) -> tuple[float, float]:
    """The 95% interval of a count's mean over seeds and problems.

    The design is the same, with one condition. Where all conditions have one seed the interval is
    over other problems alone; where there is one problem it has no width.

    Args:
        values_SxN: counts by seed and problem.
        others: of further conditions, on problems of the same cell. Conditions whose counts are all
            0, such as the mistakes of models that have read none, tell nothing of how seeds vary.

    Returns:
        the lower and the upper end, in the count's unit.
    """
    values_SxN = np.asarray(values_SxN, float)
    mean, variance, freedom = float(values_SxN.mean()), 0.0, 1.0
    if values_SxN.shape[1] > 1 and mean:
        known = [counts_SxN for counts_SxN in others if np.any(counts_SxN)]
        variance, freedom = _variance(
            values_SxN.mean(0), (values_SxN,), (1.0,), known, room=_square
        )
    spread = _quantile(freedom) * math.sqrt(variance)
    return mean - spread, mean + spread


def of_share(
    shares: Sequence[float], n: int, others: Sequence[Sequence[float]] = ()
) -> tuple[float, float]:
    """The 95% interval of the mean over seeds of shares of the same n problems.

    Where all conditions have one seed it is Wilson's. Otherwise the variance over seeds, pooled
    over conditions, is added to that over n problems, which is taken from Wilson's interval of the
    mean share. Part of the variance is then counted twice, which shares alone do not allow to take
    out; so the interval is rather too wide where seeds vary little.

    Args:
        shares: of each seed, in 0..1.
        n: number of problems.
        others: of each seed of further conditions, on problems of the same cell.

    Returns:
        the lower and the upper end, in 0..1.
    """
    mean = float(np.mean(shares))
    # Whole successes: a mean over seeds may lie between two of them.
    ends = wilson_interval(round(mean * n), n)
    known = [np.asarray(each, float) for each in (shares, *others)]
    free = sum(len(each) - 1 for each in known)
    if not free:
        return ends
    squares = sum(
        float(((each - each.mean()) ** 2).sum()) / _room(float(each.mean()), n * len(each))
        for each in known
    )
    seeds = squares / free * _room(mean, n * len(shares)) / len(shares)
    spreads = []
    for end in ends:
        problems = ((end - mean) / _NORMAL) ** 2
        variance = seeds + problems
        if not variance:
            spreads.append(0.0)
            continue
        freedom = variance**2 / (seeds**2 / free + problems**2 / max(n - 1, 1))
        spreads.append(_quantile(freedom) * math.sqrt(variance))
    return max(0.0, mean - spreads[0]), min(1.0, mean + spreads[1])


def _variance(
    each_N: np.ndarray,
    parts: Sequence[np.ndarray],
    weights: Sequence[float],
    others: Sequence[np.ndarray] = (),
    *,
    room: Callable[[float, int], float],
) -> tuple[float, float]:
    """The variance of a weighted sum of means, and its degrees of freedom.

    Args:
        each_N: the weighted sum of each problem.
        parts: what it is the sum of the means of, by seed and problem.
        weights: of each part.
        others: what the variance over seeds is estimated from, too.
        room: what that variance is proportional to, of a mean and the number of values.
    """
    problems, many_free = float(each_N.var(ddof=1)) / len(each_N), len(each_N) - 1
    known = [np.asarray(values_SxN, float) for values_SxN in (*parts, *others)]
    free = sum(len(values_SxN) - 1 for values_SxN in known)
    if not free:
        return problems, many_free
    rooms = [room(float(values_SxN.mean()), values_SxN.size) for values_SxN in known]
    over_seeds, rest = 0.0, 0.0
    for values_SxN, unit in zip(known, rooms, strict=True):
        mean_S = values_SxN.mean(1)
        rest_SxN = values_SxN - mean_S[:, None] - values_SxN.mean(0) + values_SxN.mean()
        over_seeds += float(((mean_S - mean_S.mean()) ** 2).sum()) / unit
        rest += float((rest_SxN**2).sum()) / unit
    many = parts[0].shape[1]
    scale = sum(
        weight**2 * unit / len(values_SxN)
        for values_SxN, weight, unit in zip(parts, weights, rooms, strict=False)
    )
    noise = scale * rest / free / max(many - 1, 1) / many
    seeds, problems = max(scale * over_seeds / free, noise), max(0.0, problems - noise)
    total = seeds + problems
    if not total:
        return 0.0, many_free
    return total, total**2 / (seeds**2 / free + problems**2 / many_free)


def _room(share: float, n: int) -> float:
    """p (1 - p) of a share p of n, with one success and one failure added."""
    share = (share * n + 1) / (n + 2)
    return share * (1 - share)


def _square(mean: float, n: int) -> float:
    """The square of a count's mean over n values, with one added to the sum."""
    return (mean + 1 / n) ** 2


def _quantile(freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + _LEVEL) / 2))


def _mcnemar(each_N: np.ndarray) -> float:
    """McNemar's exact test: by chance, half of the problems that one model alone solves are A's."""
    wins, losses = int((each_N > 0).sum()), int((each_N < 0).sum())
    return min(1.0, 2 * float(special.bdtr(min(wins, losses), wins + losses, 0.5)))
