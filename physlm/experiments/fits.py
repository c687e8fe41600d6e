"""Scaling laws: how a loss, or a share of errors, falls with parameters N and training tokens D.

The law is E + A / N**alpha + B / D**beta (Hoffmann et al., arXiv 2203.15556, Approach 3), fitted as
there: Huber's loss of the differences of logarithms, from many starts. For fixed exponents the law
is linear in E, A and B, so that a start is a pair of exponents with the best non-negative E, A and
B for it.

Intervals are percentiles of fits to resampled data. Where each pair of N and D has several runs,
runs are resampled within their pair, and the intervals speak of other seeds of these very sizes.
Otherwise the spread over seeds cannot be told from sizes that the law does not fit; the residuals
of the law are resampled over all pairs instead, and the intervals speak of both. Residuals, and
deviations from the mean of a pair, are smaller than the errors that they stand for by a known
factor, by which they are stretched. On simulated data, five sizes by four lengths, 95% intervals
held the truth in 89 to 93 of 100 cases.

A share of errors is bounded. Where several pairs of N and D have the same smallest or the same
largest value, as where no problem is solved or every one, they only bound the truth: the law is
fitted without them.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from scipy import optimize

from data_gen import keys
from data_gen.keys import Purpose

# Five numbers are fitted; nine pairs, three by three, leave four degrees of freedom.
LEAST_PAIRS = 9
LEAST_VALUES = 3
# Values nearer to each other than this count as one: they are too close to tell an exponent.
_APART = 1.2
# Differences of logarithms beyond it count in proportion, not by their squares: 3%, where Hoffmann
# et al. have 0.1%, for losses of larger models that are known better than shares of problems.
_HUBER = 0.03
_STARTS = (0.1, 0.3, 0.6, 1.0)
# How many starts are optimised: those that fit the data best.
_TRIED = 4
_STEPS = 100
_MOST = 4.0
# Of the smallest value; what is below might as well be 0.
_NOTHING = -14.0
RESAMPLED = 200
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Measured:
    """The result of a run: its size, tokens, and loss or error rate.

    Attributes:
        parameters: of its model.
        tokens: that it was trained on.
        value: its loss, or its share of errors; above 0.
    """

    parameters: float
    tokens: float
    value: float


@dataclasses.dataclass(frozen=True)
class Law:
    """E + A / N**alpha + B / D**beta.

    Attributes:
        floor: E, in the unit of what was fitted.
        alpha, beta: the exponents of parameters and of tokens.
        of_parameters, of_tokens: the second and the third term at the `middle`.
        middle: a number of parameters and one of tokens.
    """

    floor: float
    alpha: float
    beta: float
    of_parameters: float
    of_tokens: float
    middle: tuple[float, float]

    def __call__(self, parameters: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The predicted value for models of N parameters after D training tokens."""
        smaller = (np.asarray(parameters) / self.middle[0]) ** -self.alpha
        shorter = (np.asarray(tokens) / self.middle[1]) ** -self.beta
        return self.floor + self.of_parameters * smaller + self.of_tokens * shorter


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted law, with bootstrap intervals.

    Attributes:
        law: the law.
        within: the 95% intervals of `alpha`, `beta` and `floor`.
        pairs: to how many pairs of N and D it is fitted.
        residuals: of each run, in the order given: the logarithm of what was measured over what
            the law says.
        drawn: what was resampled for the intervals: `runs` within their pairs, or `residuals`.
        left_out: of each run, bool, in the order given: it is not fitted, as its value is a bound.
    """

    law: Law
    within: dict[str, tuple[float, float]]
    pairs: int
    residuals: np.ndarray
    drawn: str
    left_out: np.ndarray


def fit(measured: Sequence[Measured], *, resampled: int = RESAMPLED, seed: int = 0) -> Fit:
    """Fits a law to some runs.

    Args:
        measured: the runs, of several seeds or of one.
        resampled: how often the law is fitted to resampled data for the intervals.
        seed: of the resampling.

    Raises:
        ValueError: there are too few pairs of N and D, or too few values of either, not counting
            those whose value is a bound; or values are all equal, or not above 0.
    """
    every = np.array([dataclasses.astuple(one) for one in measured], float).reshape(-1, 3)
    if not (np.isfinite(every).all() and (every > 0).all()):
        raise ValueError("a law of scaling is of numbers above 0.")
    if len(every) and np.ptp(every[:, 2]) <= 1e-9 * every[:, 2].max():
        raise ValueError("a law of scaling needs values that differ, and these are all equal.")
    bound_R = _at_bounds(every)
    table = every[~bound_R]
    pairs, of_pair_R = np.unique(table[:, :2], axis=0, return_inverse=True)
    of_pair_R = of_pair_R.reshape(-1)
    beside = ""
    if bound_R.any():
        count, shared = len(np.unique(every[bound_R, :2], axis=0)), np.unique(every[bound_R, 2])
        said = " or ".join(f"{value:.4g}" for value in shared)
        beside = f", beside {count} that share {said}, as where all problems are solved or none"
    for number, name in enumerate(("parameters", "tokens")):
        found = _apart(table[:, number])
        if found < LEAST_VALUES:
            raise ValueError(
                f"a law of scaling needs {LEAST_VALUES} numbers of {name}, each at least a fifth "
                f"above the one before, and there {_are(found)}{beside}."
            )
    if len(pairs) < LEAST_PAIRS:
        raise ValueError(
            f"a law of scaling has five numbers to be fitted and needs {LEAST_PAIRS} pairs of "
            f"parameters and tokens, and there {_are(len(pairs))}{beside}."
        )
    logs = np.log(table)
    middle_2 = logs[:, :2].mean(0)
    size_R, length_R = (logs[:, :2] - middle_2).T
    value_R = logs[:, 2]
    starts = [
        _begun(size_R, length_R, value_R, alpha, beta) for alpha in _STARTS for beta in _STARTS
    ]
    starts.sort(key=lambda start: float(np.abs(_logs(start, size_R, length_R) - value_R).sum()))
    best = _best(size_R, length_R, value_R, starts[:_TRIED])
    said_R = _logs(best, size_R, length_R)
    residual_R = value_R - said_R
    runs_R = np.bincount(of_pair_R)[of_pair_R]
    several = bool((runs_R > 1).all())
    centre_R = said_R
    if several:
        centre_R = (np.bincount(of_pair_R, value_R) / np.bincount(of_pair_R))[of_pair_R]
    found_5: list[np.ndarray] = []
    uniform = jax.random.uniform(keys.root(seed, Purpose.RESAMPLING), (resampled, len(logs)))
    for drawn_R in np.asarray(uniform):
        if several:
            spread_R = (value_R - centre_R) * np.sqrt(runs_R / (runs_R - 1))
            again_R = centre_R + spread_R[_within(of_pair_R, drawn_R)]
        else:
            spread_R = (residual_R - residual_R.mean()) * np.sqrt(len(logs) / (len(logs) - 5))
            again_R = centre_R + spread_R[_within(np.zeros_like(of_pair_R), drawn_R)]
        # The fit to all data is near; but it is no start where one of its terms is nothing.
        others = (best, _begun(size_R, length_R, again_R, 0.3, 0.3))
        found_5.append(_best(size_R, length_R, again_R, others, 1e-7))
    ends = {}
    columns = {"floor": 0, "alpha": 2, "beta": 4}
    for name, column in columns.items():
        values = np.array([one[column] for one in found_5] or [best[column]])
        low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        ends[name] = (float(low), float(high))
    ends["floor"] = (float(np.exp(ends["floor"][0])), float(np.exp(ends["floor"][1])))
    floor, small, alpha, short, beta = map(float, best)
    middle = (float(np.exp(middle_2[0])), float(np.exp(middle_2[1])))
    law = Law(np.exp(floor), alpha, beta, np.exp(small), np.exp(short), middle)
    off_R = np.log(every[:, 2] / law(every[:, 0], every[:, 1]))
    return Fit(law, ends, len(pairs), off_R, "runs" if several else "residuals", bound_R)


def _at_bounds(table_Rx3: np.ndarray) -> np.ndarray:
    """Which runs are of pairs that only bound the truth: bool [R].

    Those are pairs of N and D all of whose runs have the smallest value of all, or the largest, if
    another pair has the same.
    """
    _, of_pair_R = np.unique(table_Rx3[:, :2], axis=0, return_inverse=True)
    of_pair_R, value_R = of_pair_R.reshape(-1), table_Rx3[:, 2]
    bound_R = np.zeros(len(value_R), bool)
    for end in {value_R.min(), value_R.max()} if len(value_R) else ():
        others = set(of_pair_R[value_R != end])
        at_end_R = np.array([pair not in others for pair in of_pair_R])
        if len(set(of_pair_R[at_end_R])) > 1:
            bound_R |= at_end_R
    return bound_R


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"


def _apart(values: np.ndarray) -> int:
    """The number of values that are at least a fifth above the previous one."""
    found, last = 0, 0.0
    for value in np.sort(values).tolist():
        if value > last * _APART or not found:
            found, last = found + 1, value
    return found


def _within(of_pair_R: np.ndarray, drawn_R: np.ndarray) -> np.ndarray:
    """For each run one of its pair, with replacement, as numbers in [0, 1) say."""
    chosen_R = np.empty(len(of_pair_R), int)
    for pair in range(of_pair_R.max() + 1):
        members = np.flatnonzero(of_pair_R == pair)
        places = (drawn_R[members] * len(members)).astype(int)
        chosen_R[members] = members[np.minimum(places, len(members) - 1)]
    return chosen_R


def _logs(numbers_5: np.ndarray, size_R: np.ndarray, length_R: np.ndarray) -> np.ndarray:
    """Logarithms of what a law says; its numbers are log E, log A, alpha, log B, beta."""
    floor, small, alpha, short, beta = numbers_5
    return np.logaddexp(np.logaddexp(floor, small - alpha * size_R), short - beta * length_R)


def _slopes(numbers_5: np.ndarray, size_R: np.ndarray, length_R: np.ndarray) -> np.ndarray:
    floor, small, alpha, short, beta = numbers_5
    whole_R = _logs(numbers_5, size_R, length_R)
    of_size_R = np.exp(small - alpha * size_R - whole_R)
    of_length_R = np.exp(short - beta * length_R - whole_R)
    parts = (np.exp(floor - whole_R), of_size_R, -size_R * of_size_R)
    return np.stack([*parts, of_length_R, -length_R * of_length_R], axis=1)


def _begun(
    size_R: np.ndarray, length_R: np.ndarray, value_R: np.ndarray, alpha: float, beta: float
) -> np.ndarray:
    """The coefficients that, with these exponents, minimise the relative errors."""
    terms = np.stack([np.ones_like(size_R), np.exp(-alpha * size_R), np.exp(-beta * length_R)], 1)
    factors_3, _ = optimize.nnls(terms / np.exp(value_R)[:, None], np.ones(len(value_R)))
    least = value_R.min() + _NOTHING / 2
    floor, small, short = np.log(np.maximum(factors_3, np.exp(least)))
    return np.array([floor, small, alpha, short, beta])


def _best(
    size_R: np.ndarray,
    length_R: np.ndarray,
    value_R: np.ndarray,
    starts: Sequence[np.ndarray],
    tolerance: float = 1e-12,
) -> np.ndarray:
    """The best parameters of the law among local optima from several starts."""
    found = [_near(size_R, length_R, value_R, start, tolerance) for start in starts]
    return min(found, key=lambda one: one[0])[1]


def _near(
    size_R: np.ndarray,
    length_R: np.ndarray,
    value_R: np.ndarray,
    start_5: np.ndarray,
    tolerance: float,
) -> tuple[float, np.ndarray]:
    """The cost and parameters of the local optimum near a start."""
    least, most = value_R.min() + _NOTHING, value_R.max() + 1.0
    low, high = [least, least, 0.0, least, 0.0], [most, most, _MOST, most, _MOST]
    found = optimize.least_squares(
        lambda numbers_5: _logs(numbers_5, size_R, length_R) - value_R,
        np.clip(start_5, np.add(low, 1e-6), np.subtract(high, 1e-6)),
        jac=lambda numbers_5: _slopes(numbers_5, size_R, length_R),
        bounds=(low, high),
        loss="huber",
        f_scale=_HUBER,
        ftol=tolerance,
        xtol=tolerance,
        gtol=tolerance,
        # Where a term is almost 0 its exponent has no effect, and a search for it would not end.
        max_nfev=_STEPS,
    )
    return float(found.cost), found.x
