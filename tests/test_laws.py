"""What the first stages draw from, beside tables and loops worked out here."""

import collections
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from drawn import first_keys

from data_gen.problems import arithmetic, dependency, draws, slots, structure
from data_gen.spec import HARD, MED, Spec

# Four layers, since the range of step 6 matters with several.
DEEP = Spec(
    max_op=10, max_edges=12, max_depth=4, max_width=2, modulus=5, hierarchies=1, subcategories=1,
    names=2, letters=30,
)  # fmt: skip


@pytest.mark.parametrize("spec", [MED, HARD])
@pytest.mark.parametrize("op", [1, 8, 15])
def test_depth_and_widths_have_their_published_law(spec, op):
    """Step 3: ∝ exp(-(r - c)²) with c = .2, .5, .8 for 2, 3, 4, and r = (s - 1) / (E - 1)."""
    shape_Hx3, threshold_OxH = structure._shapes(spec)
    below_H = threshold_OxH[op].astype(float) / 2**32
    found = collections.Counter(
        dict(zip(map(tuple, shape_Hx3.tolist()), np.diff(below_H, prepend=0), strict=True))
    )
    relative = (op - 1) / (spec.max_edges - 1)
    share = {size: math.exp(-((relative - c) ** 2)) for size, c in ((2, 0.2), (3, 0.5), (4, 0.8))}
    wanted = collections.Counter()
    for depth, *widths in itertools.product(share, repeat=3):
        wanted[depth, min(widths), max(widths)] += math.prod(
            share[size] for size in (depth, *widths)
        )
    assert set(found) == set(wanted)
    for shape, weight in wanted.items():
        assert found[shape] == pytest.approx(weight / sum(wanted.values()), abs=1e-6), shape


def test_constants_are_uniform_and_factors_never_0():
    """Step 11: 0..m-1 alone and in "more than", 1..m-1 in "times as much as"."""
    count, modulus = 4000, DEEP.modulus
    times_I = np.arange(DEEP.instance_slots) % 2 == 0
    refs_IxR = np.full((DEEP.instance_slots, 4), -1)
    refs_IxR[DEEP.instance_slots // 2 :, 0] = 0
    drawn_NxI = np.asarray(
        jax.jit(
            jax.vmap(lambda key: arithmetic.constants(key, times_I, jnp.array(refs_IxR), DEEP))
        )(first_keys(count))
    )
    for slot in range(DEEP.instance_slots):
        counts = np.bincount(drawn_NxI[:, slot], minlength=modulus)
        factor = times_I[slot] and refs_IxR[slot, 0] >= 0
        assert (counts[0] == 0) == factor
        assert scipy.stats.chisquare(counts[int(factor) :]).pvalue > 1e-4


def slow_choice(word, exists, depth, budget):
    """Step 6 with sets, from numbered words: the abstract slots picked, and what is left over.

    Passes over reaches 1, 2, …; `lowest` and `highest` are the range that the public program
    narrows where a reach has nothing left.
    """
    table, instances = slots.layout(DEEP), DEEP.instance_slots

    def closure(slot):
        children = [c for c in table.children_AxW[slot - instances] if c in exists]
        found, of = {slot}, table.factors_AxW[slot - instances]
        for child, factor in zip(table.children_AxW[slot - instances], of, strict=True):
            if child in children:
                found |= {int(child)} | (closure(int(factor)) if factor >= 0 else set())
        return found

    def cost(slot):
        if slot < instances:
            return 1
        children = sum(c in exists for c in table.children_AxW[slot - instances])
        return max(children - 1 if table.reach_A[slot - instances] == 1 else 2 * children - 1, 1)

    chosen, picks, left, turn = set(), [], budget, 0
    lowest, highest = 1, depth - 1
    while left > 0:
        best = None
        for reach in range(1, DEEP.max_depth):
            turn += 1
            free = [s for s in sorted(exists - chosen) if s >= instances]
            free = [s for s in free if table.reach_A[s - instances] == reach]
            if not free:
                if lowest == reach:
                    lowest += 1
                elif highest == reach:
                    highest -= 1
                continue
            slot = free[int(draws.below(word(turn), len(free)))]
            new = closure(slot) - chosen
            price = sum(map(cost, new))
            if price > left:
                if lowest == reach:
                    return picks, left
                break
            if reach >= highest:
                best = slot, new, price
                break
            best = (slot, new, price) if reach < DEEP.max_depth - 1 else None
        if best:
            picks.append(best[0] - instances)
            chosen |= best[1]
            left -= best[2]
        if turn > 200:
            break
    return picks, left


def test_abstract_parameters_are_picked_as_by_a_plain_loop():
    goal = structure.Goal(jnp.int32(DEEP.max_op), jnp.int32(DEEP.max_op))

    def choose(key):
        aim = structure.plan(key, goal, DEEP)
        graph = structure.build(key, aim, DEEP)
        needs = slots.prerequisites(graph, DEEP)
        budget = jnp.minimum(aim.abstract_op, needs.most_operations())
        choice = dependency.choose(key, aim, needs, DEEP)
        return aim, needs.exists.mask(), budget, choice.picks, choice.op, choice.chosen.mask()

    keys_N = first_keys(300)
    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(choose))(keys_N))
    aims, exists_NxP, budgets_N, picks_N, ops_N, chosen_NxP = found
    seen = collections.Counter()
    for n in range(len(picks_N)):
        word = functools.cache(draws.source(keys_N[n]).word)
        exists = set(np.flatnonzero(exists_NxP[n]).tolist())
        picks, left = slow_choice(word, exists, int(aims.depth[n]), int(budgets_N[n]))
        packed = 0
        for pick in picks:
            packed = packed << dependency.PICK_BITS | (pick + 1)
        assert packed % 2**32 == picks_N[n], n
        # What abstract parameters leave goes to instance ones, as far as there are some.
        wanted = int(aims.least_op[n] - budgets_N[n]) + left
        spent = int(ops_N[n]) - (int(budgets_N[n]) - left)
        others = {s for s in exists - set(np.flatnonzero(chosen_NxP[n]).tolist())}
        assert spent == wanted or not any(s < DEEP.instance_slots for s in others)
        seen[int(aims.depth[n]), len(picks)] += 1
    assert {depth for depth, _ in seen} == {2, 3, 4} and max(count for _, count in seen) > 2
