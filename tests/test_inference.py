"""Intervals and tests over seeds and problems, held against simulated experiments."""

import numpy as np
import pytest
from scipy import stats

from physlm.experiments import inference
from physlm.metrics import wilson_interval


def experiment(rng, seeds, gap=0.0, varies=0.3, apart=0.7, problems=256):
    """Two conditions, by seed and problem: on the logit, a gap, seeds, difficulty, what differs."""
    difficulty_N = rng.normal(0.5, 1.5, problems)
    drawn = []
    for count, sign in zip(seeds, (1, -1), strict=True):
        logit_SxN = sign * gap / 2 + rng.normal(0, varies, (count, 1)) + difficulty_N
        logit_SxN = logit_SxN + rng.normal(0, apart, problems)
        drawn.append(rng.random(logit_SxN.shape) < 1 / (1 + np.exp(-logit_SxN)))
    return drawn


def found(seeds, repeats=600, **kinds):
    rng = np.random.default_rng(7)
    return [inference.difference(*experiment(rng, seeds, **kinds)) for _ in range(repeats)]


def rejected(differences):
    return np.mean([one.p < 0.05 for one in differences])


@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (2, 5), (1, 4)])
@pytest.mark.parametrize(("varies", "apart"), [(0.3, 0.7), (1.0, 0.3)])
def test_where_nothing_differs_one_in_twenty_is_significant(seeds, varies, apart):
    differences = found(seeds, varies=varies, apart=apart)
    # 600 draws of 5% have a standard deviation of 0.9 points.
    assert 0.01 < rejected(differences) < 0.08
    covered = np.mean([one.low <= 0 <= one.high for one in differences])
    assert covered == pytest.approx(1 - rejected(differences), abs=0.001)
    assert all(one.over_seeds for one in differences)


def test_seeds_that_hardly_vary_make_it_cautious_not_bold():
    assert rejected(found((2, 2), varies=0.0, apart=0.0)) < 0.05


def conditions(rng, seeds, chances=(0,), varies=0.3, problems=256):
    """Conditions by seed and problem, which differ by nothing but their chances (a logit each)."""
    difficulty_N = rng.normal(0, 1.5, problems)
    drawn = []
    for count, chance in zip(seeds, chances, strict=True):
        logit_SxN = chance + rng.normal(0, varies, (count, 1)) + difficulty_N
        logit_SxN = logit_SxN + rng.normal(0, 0.5, problems)
        drawn.append(rng.random(logit_SxN.shape) < 1 / (1 + np.exp(-logit_SxN)))
    return drawn


@pytest.mark.parametrize("seeds", [(2, 2), (1, 1), (1, 3)])
@pytest.mark.parametrize("chance", [0.0, 1.5, -2.5])
def test_pooled_over_conditions_one_in_twenty_is_significant(seeds, chance):
    """Wherever the two lie, and wherever the others do."""
    rng, chances = np.random.default_rng(13), (chance, chance, -2.5, -1, 0, 0.5, 1, 2)
    drawn = [conditions(rng, (*seeds, *[2] * 6), chances, varies=0.4) for _ in range(500)]
    differences = [inference.difference(a, b, others) for a, b, *others in drawn]
    assert all(one.over_seeds for one in differences)
    assert 0.01 < rejected(differences) < 0.09


def test_pooling_tells_more_apart():
    rng, chances = np.random.default_rng(17), (1, 0, 0, 0, 0, 0, 0)
    drawn = [conditions(rng, [2] * 7, chances, varies=0.3) for _ in range(200)]
    alone = rejected([inference.difference(a, b) for a, b, *_ in drawn])
    pooled = rejected([inference.difference(a, b, others) for a, b, *others in drawn])
    assert pooled > alone + 0.2


def test_the_variance_over_seeds_is_pooled_as_a_share_of_the_room_it_has():
    """By hand, of seeds so far apart and so many problems that nothing else counts."""
    rng, of_seeds = np.random.default_rng(19), [(0.8, 0.4), (0.3, 0.6), (0.1, 0.2, 0.05, 0.3)]
    a, b, c = (rng.random((len(shares), 20_000)) < np.c_[list(shares)] for shares in of_seeds)
    squares = [((np.array(shares) - np.mean(shares)) ** 2).sum() for shares in of_seeds]
    rooms = [np.mean(shares) * (1 - np.mean(shares)) for shares in of_seeds]
    factor = sum(x / room for x, room in zip(squares, rooms, strict=True)) / (1 + 1 + 3)
    width = stats.t.ppf(0.975, 5) * np.sqrt(factor * (rooms[0] / 2 + rooms[1] / 2))
    one = inference.difference(a, b, [c])
    assert one.high - one.value == pytest.approx(width, rel=0.03)


def test_power_grows_with_seeds_problems_and_the_difference():
    few = rejected(found((2, 2), 300, gap=0.5, varies=0.1))
    assert few < rejected(found((2, 2), 300, gap=1.0, varies=0.1))
    assert few < rejected(found((4, 4), 300, gap=0.5, varies=0.1))
    assert few < rejected(found((2, 2), 300, gap=0.5, varies=0.1, problems=2048))
    assert rejected(found((4, 4), 300, gap=1.0, varies=0.1)) > 0.95


def test_to_take_problems_for_all_there_is_would_be_bold():
    """Why seeds are needed: one of each condition says nothing of others."""
    differences = found((1, 1), varies=1.0)
    assert rejected(differences) > 0.3
    assert not any(one.over_seeds for one in differences)
    # Of models that do not differ beyond chance, it is rightly judged.
    assert rejected(found((1, 1), varies=0.0)) < 0.07


def test_one_seed_each_is_mcnemars_test():
    rng = np.random.default_rng(3)
    a, b = experiment(rng, (1, 1), gap=0.6)
    wins, losses = int((a & ~b).sum()), int((b & ~a).sum())
    one = inference.difference(a, b)
    assert one.p == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert one.value == pytest.approx((wins - losses) / 256)
    # Bonett and Price's interval, by their formula.
    p, q = (wins + 1) / 258, (losses + 1) / 258
    spread = 1.959964 * np.sqrt((p + q - (p - q) ** 2) / 258)
    assert (one.low, one.high) == pytest.approx((p - q - spread, p - q + spread))


def test_difference_changes_sign_with_its_conditions():
    a, b = experiment(np.random.default_rng(5), (2, 3), gap=0.6)
    there, back = inference.difference(a, b), inference.difference(b, a)
    assert there.value == pytest.approx(a.mean() - b.mean()) == pytest.approx(-back.value)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p == pytest.approx(back.p)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_models_that_agree_on_all_problems_do_not_differ(seeds):
    same = np.ones((seeds, 40))
    one = inference.difference(same, same)
    assert (one.value, one.p) == (0.0, 1.0)
    assert -0.2 < one.low < 0 < one.high < 0.2


def test_other_problems_are_not_paired():
    with pytest.raises(ValueError, match="3 and 4 problems cannot be paired"):
        inference.difference(np.ones((1, 3)), np.ones((1, 4)))


@pytest.mark.parametrize(
    ("seeds", "varies", "least"), [(2, 0.1, 0.9), (3, 0.1, 0.93), (2, 0, 0.95)]
)
def test_intervals_of_a_mean_hold_the_mean(seeds, varies, least):
    """Of other seeds and problems; two seeds that vary much are too few by a little."""
    rng, inside, shares_inside = np.random.default_rng(11), [], []
    for _ in range(500):
        skill_S, hardness_N = rng.normal(0, varies, (seeds, 1)), rng.normal(0, 0.5, 200)
        counts_SxN = rng.poisson(np.exp(skill_S + hardness_N))
        low, high = inference.of_mean(counts_SxN)
        inside.append(low < np.exp((varies**2 + 0.5**2) / 2) < high)
        right_SxN = rng.random((seeds, 200)) < np.clip(0.6 + skill_S, 0, 1)
        low, high = inference.of_share(list(right_SxN.mean(1)), 200)
        shares_inside.append(low < 0.6 < high)
    assert least < np.mean(inside)
    assert least < np.mean(shares_inside)


def test_one_seed_has_the_intervals_of_its_problems():
    assert inference.of_share([0.975], 200) == wilson_interval(195, 200)
    values_N = np.arange(10.0)
    low, high = inference.of_mean(values_N[None])
    known = stats.t.interval(0.95, 9, values_N.mean(), values_N.std(ddof=1) / np.sqrt(10))
    assert (low, high) == pytest.approx(known)
    assert inference.of_mean(np.zeros((3, 5))) == (0.0, 0.0)


def test_seeds_that_differ_widen_the_interval_of_a_share():
    near, far = (inference.of_share(shares, 200) for shares in ((0.8, 0.8), (0.7, 0.9)))
    alone = wilson_interval(160, 200)
    assert near == pytest.approx(alone, abs=0.001)
    assert far[0] < alone[0] and far[1] > alone[1]
    low, high = inference.of_share([1.0, 1.0, 1.0], 200)
    assert high == 1.0 and low == pytest.approx(wilson_interval(200, 200)[0], abs=0.001)


def test_shares_are_pooled_over_conditions():
    """By hand: one factor of p (1 - p) for all; one seed has its interval from other conditions."""
    n, others = 10**7, [[0.6, 0.8], [0.5, 0.4]]
    factor = (0.02 / (0.7 * 0.3) + 0.005 / (0.45 * 0.55)) / 2
    low, high = inference.of_share([0.2], n, others)
    width = stats.t.ppf(0.975, 2) * np.sqrt(factor * 0.2 * 0.8)
    assert (max(0.0, 0.2 - width), 0.2 + width) == pytest.approx((low, high), rel=0.01)
    alone, pooled = (
        inference.of_share([0.6, 0.8], 200, known) for known in ((), [[0.7, 0.72]] * 6)
    )
    assert pooled[1] - pooled[0] < 0.3 * (alone[1] - alone[0])


def test_pooled_shares_hold_the_mean():
    rng, inside = np.random.default_rng(23), []
    chances = np.array([0.2, 0.35, 0.5, 0.5, 0.6, 0.8])
    for _ in range(400):
        truth = chances[:, None] + rng.normal(0, 0.15, (6, 2)) * (chances * (1 - chances))[:, None]
        shares = rng.binomial(500, truth) / 500
        for number in range(6):
            others = [list(each) for n, each in enumerate(shares) if n != number]
            low, high = inference.of_share(list(shares[number]), 500, others)
            inside.append(low < chances[number] < high)
    assert np.mean(inside) > 0.94


def test_of_two_conditions_a_contrast_is_their_difference():
    a, b, c = conditions(np.random.default_rng(29), (2, 1, 3), (0.5, 0, -1))
    assert inference.contrast([a, b], [1, -1], [c]) == inference.difference(a, b, [c])
    weights = np.array([0.5, 0.5, -1])
    there, back = (inference.contrast([a, c, b], sign * weights) for sign in (1, -1))
    assert there.value == pytest.approx(a.mean() / 2 + c.mean() / 2 - b.mean())
    assert (back.value, back.p) == pytest.approx((-there.value, there.p))
    assert inference.contrast([a[:1], b, c[:1]], weights) is None
    with pytest.raises(ValueError, match="different problems"):
        inference.contrast([a, b[:, 1:]], [1, -1])


def test_where_nothing_differs_one_contrast_in_twenty_is_significant():
    """Five rates against one condition without, all of one seed but for two."""
    rng, weights = np.random.default_rng(31), [0.2] * 5 + [-1]
    drawn = [conditions(rng, [2, 1, 1, 2, 1, 2], [0.5] * 6, varies=0.3) for _ in range(500)]
    differences = [inference.contrast(parts, weights) for parts in drawn]
    assert 0.01 < rejected(differences) < 0.08
    widths = [one.high - one.low for one in differences]
    alone = [inference.difference(p[0], p[5], p[1:5]) for p in drawn]
    assert np.mean(widths) < np.mean([one.high - one.low for one in alone])


def test_counts_are_pooled_over_conditions():
    """By hand: seeds differ by one factor of the squared mean, whatever the mean is."""
    counts = [
        np.repeat([[mean], [mean + 2 * apart]], 10**5, 1) for mean, apart in ((4, 1), (19, 1))
    ]
    one, other, nothing = counts[0][:1], counts[1], np.zeros((2, 10**5))
    low, high = inference.of_mean(one, [other, nothing])
    # Of the other, seeds are at 19 and 21: a variance of 2, and a mean of 20.
    width = stats.t.ppf(0.975, 1) * np.sqrt(2 / 20**2 * 4**2)
    assert (low, high) == pytest.approx((4 - width, 4 + width), rel=1e-3)
    assert inference.of_mean(one, [nothing]) == (4.0, 4.0)
    alone, pooled = (inference.of_mean(counts[0], known) for known in ([], [other]))
    assert pooled[1] - pooled[0] < 0.5 * (alone[1] - alone[0])


def test_pooled_counts_hold_the_mean():
    """Of conditions whose seeds differ by the same factors, and whose means do not."""
    rng, inside = np.random.default_rng(37), []
    means = np.array([0.2, 0.5, 2.0, 4.0, 9.0, 20.0])
    for _ in range(300):
        rate_CxSxN = means[:, None, None] * rng.gamma(8, 1 / 8, (6, 2, 1)) * rng.gamma(2, 0.5, 200)
        counts_CxSxN = rng.poisson(rate_CxSxN)
        for number in range(6):
            others = [each for n, each in enumerate(counts_CxSxN) if n != number]
            low, high = inference.of_mean(counts_CxSxN[number], others)
            inside.append(low < means[number] < high)
    assert 0.93 < np.mean(inside) < 0.98
