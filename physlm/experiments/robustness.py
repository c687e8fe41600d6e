"""Effective robustness: what models solve beyond training, at equal accuracy within it.

Two kinds of training data may differ beyond training since one has taught the class sooner, or
since what it has taught goes further. Models of one kind lie on a line, in log odds of the two
accuracies ("accuracy on the line": Miller et al., arXiv 2107.04649); how far another kind is above
that line is its effective robustness (Taori et al., arXiv 2007.00644). So

    log odds(beyond)_cs = a_c + b log odds(within)_cs + rest_cs

is fitted to all models s of all conditions c by least squares, and a_c - a_0 compares condition c
with condition 0 at equal accuracy within training. Models of one seed take part: how far models lie
off the line is pooled over all conditions.

It describes, and says nothing of causes: what a condition does to accuracy within training is not
in it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special

# Models that must be left, beyond a level for each condition and a slope, to say how models vary.
_FREEDOM = 3

_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Effect:
    """How far a condition is above the line of another.

    Attributes:
        expected: what the other would solve beyond training, in 0..1, at this condition's mean log
            odds within it.
        value: what this condition solves more there, by the fit.
        low, high: its 95% interval.
        p: two-sided, of an effect at least as large where there is none.
    """

    expected: float
    value: float
    low: float
    high: float
    p: float


@dataclasses.dataclass(frozen=True)
class Fit:
    """Parallel lines, one for each condition.

    Attributes:
        levels: log odds beyond training of each condition at even odds within it.
        slope: log odds beyond training for each of those within.
        rest: standard deviation of models about the lines, in log odds.
        freedom: degrees of freedom of that.
    """

    levels: np.ndarray
    slope: float
    rest: float
    freedom: int
    _means: np.ndarray
    _covariance: np.ndarray

    def beyond(self, condition: int, within: np.ndarray) -> np.ndarray:
        """The line of a condition: shares beyond training for shares within it."""
        return special.expit(self.levels[condition] + self.slope * special.logit(within))

    def effect(self, condition: int, base: int) -> Effect:
        """How far a condition is above the line of another, `base`."""
        contrast = np.zeros(len(self.levels) + 1)
        contrast[condition], contrast[base] = 1.0, -1.0
        height = self.levels[condition] - self.levels[base]
        error = float(np.sqrt(contrast @ self._covariance @ contrast))
        spread = special.stdtrit(self.freedom, (1 + _LEVEL) / 2) * error
        line = self.levels[base] + self.slope * self._means[condition]
        value, low, high = (
            float(special.expit(line + part) - special.expit(line))
            for part in (height, height - spread, height + spread)
        )
        # Models that all lie on their lines leave no doubt.
        size = abs(height) / error if error else np.inf if height else 0.0
        p = 2 * float(special.stdtr(self.freedom, -size))
        return Effect(float(special.expit(line)), value, low, high, p)


def fit(
    within: Sequence[Sequence[float]], beyond: Sequence[Sequence[float]], problems: tuple[int, int]
) -> Fit | None:
    """Fits parallel lines to the models of several conditions.

    Args:
        within: of each condition the share of problems that each model solves within training.
        beyond: the same beyond it.
        problems: of how many problems these are shares. As 0 and 1 have no log odds, half a problem
            is added to those that were solved and to those that were not.

    Returns:
        None where models are too few to say how they vary about lines, or where all models of each
        condition are alike within training, which gives no slope.
    """
    count = len(within)
    which = np.repeat(np.arange(count), [len(each) for each in within])
    x, y = (
        special.logit((np.concatenate([*map(np.asarray, shares)]) * n + 0.5) / (n + 1))
        for shares, n in zip((within, beyond), problems, strict=True)
    )
    freedom = len(which) - count - 1
    means = np.array([x[which == c].mean() for c in range(count)])
    if freedom < _FREEDOM or np.allclose(x, means[which]):
        return None
    design = np.column_stack([which[:, None] == np.arange(count), x]).astype(float)
    found = np.linalg.lstsq(design, y, rcond=None)[0]
    rest = float(np.sum((y - design @ found) ** 2) / freedom)
    covariance = rest * np.linalg.inv(design.T @ design)
    return Fit(found[:-1], float(found[-1]), rest**0.5, freedom, means, covariance)
