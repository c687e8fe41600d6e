"""Intervals of proportions."""

import pytest

from physlm import metrics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Published values of Wilson's interval (Newcombe 1998, Brown et al. 2001).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)
    mirrored = metrics.wilson_interval(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_no_interval_without_trials() -> None:
    with pytest.raises(ValueError, match="0 of 0 is no proportion"):
        metrics.wilson_interval(0, 0)
