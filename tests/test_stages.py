"""The sampler's stages, each beside a slow one that is easy to read."""

import collections
import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from drawn import drawn

from data_gen.problems import bits, dependency, draws, slots, structure
from data_gen.problems.parameters import parameters
from data_gen.spec import MED

pytestmark = pytest.mark.slow


def test_abstract_closure_matches_a_walk():
    """Closures and costs from words equal a recursive walk over the definition."""
    spec = MED
    problems, _, _ = drawn(spec)
    params = jax.vmap(functools.partial(parameters, spec=spec))(problems)
    table, first = slots.layout(spec), spec.instance_slots

    def closures(graph):
        needs = slots.prerequisites(graph, spec)
        everything = bits.empty(slots.bounds(spec))
        return jax.vmap(lambda slot: needs.closure(everything.one(slot)).mask())(
            jnp.arange(first, spec.slots)
        )

    def total(graph, slot):
        needs = slots.prerequisites(graph, spec)
        return needs.operations(needs.closure(bits.empty(slots.bounds(spec)).one(slot)))

    graphs = jax.vmap(functools.partial(structure.pack, spec=spec))(problems.structure)
    closure_NxAxP = jax.jit(jax.vmap(closures))(graphs)
    totals = jax.jit(jax.vmap(jax.vmap(total, (None, 0)), (0, None)))
    total_NxA = totals(graphs, jnp.arange(first, spec.slots))

    def walk(n, abstract):
        found, terms = {abstract}, 0
        for child, factor in zip(
            table.children_AxW[abstract - first], table.factors_AxW[abstract - first], strict=True
        ):
            if params.exists_P[n, child]:
                found.add(int(child))
                terms += 1 if factor < 0 else 2
                if factor >= 0:
                    found |= walk(n, int(factor))
        costs[abstract] = max(terms - 1, 1)
        return found

    for n in range(16):
        for abstract in range(first, spec.slots):
            if params.slot_P[n, abstract]:
                costs = {}
                found = walk(n, abstract)
                closure = set(np.flatnonzero(closure_NxAxP[n, abstract - first]))
                assert closure == found
                instances = sum(slot < first for slot in found)
                assert total_NxA[n, abstract - first] == sum(costs.values()) + instances


def test_picks_and_subsets_are_uniform():
    mask = np.array([True, False, True, True, False, True, True])
    word = draws.words(jax.random.key(1), 60_000)
    # Members in two words, as slots are.
    members = bits.of(mask, (0, 3, 7))
    for picked in (draws.pick(word, mask), jax.vmap(members.pick)(word)):
        counts = np.bincount(picked, minlength=7)
        assert counts.sum() == counts[mask].sum() == 60_000
        assert ((counts[mask] - 12_000) ** 2 / 12_000).sum() < 18.5  # 4 degrees, p = 0.001
    chosen = jax.vmap(lambda w: members.subset(w, jnp.int32(2)).mask())(word)
    assert (chosen.sum(-1) == 2).all()
    pairs = np.bincount(np.asarray(chosen) @ (1 << np.arange(7)))
    pairs = pairs[pairs > 0]
    assert len(pairs) == 10 and ((pairs - 6000) ** 2 / 6000).sum() < 27.9  # 9 degrees
    order = jax.vmap(lambda w: draws.shuffled(w, mask, 6))(word[:6000])
    assert (np.sort(order, -1) == [-1, 0, 2, 3, 5, 6]).all()
    assert abs(np.mean(order[:, 0] == 3) - 0.2) < 0.02


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.sets(st.integers(0, 52)), st.sets(st.integers(0, 52)))
def test_bits_are_sets(left, right):
    def held(members):
        return bits.of(np.isin(np.arange(53), list(members)), (0, 16, 48, 53))

    def read(members):
        return set(np.flatnonzero(members.mask()))

    a, b = held(left), held(right)
    assert read(a & b) == left & right
    assert read(a | b) == left | right
    assert read(a - b) == left - right
    assert a.size() == len(left) and bool(a.any()) == bool(left)
    found = [int(a.member(jnp.int32(n))) for n in range(len(left) + 1)]
    assert found == [*sorted(left), -1]
    assert read(a.subset(jnp.uint32(len(left)), jnp.int32(99))) == left
    assert len(read(a.subset(jnp.uint32(7), jnp.int32(3)))) == min(3, len(left))
    assert read(a.one(jnp.int32(min(left, default=-1)))) == set(sorted(left)[:1])


def slow_order(rng, needs):
    """Step 7 with sets: the slots from the query down, each with the predecessor it is given."""
    quote, scale = rng.random(), abs(rng.normal())
    remain, stack, placed = set(needs), set(), []

    def ready():
        return [a for a in remain if not any(a in needs[b] for b in remain)]

    while remain:
        pool = [a for a in ready() if not placed or a in stack]
        if not pool:
            return None
        slot = pool[rng.integers(len(pool))]
        remain.discard(slot)
        stack.discard(slot)
        stack |= needs[slot]
        link = -1
        must = not stack & set(ready())
        if not needs[slot] and remain and (rng.random() < quote or must):
            among = sorted(ready() if must else remain)
            weight = [math.exp(scale * (bool(needs[a]) + (a not in stack))) for a in among]
            link = int(rng.choice(among, p=np.array(weight) / sum(weight)))
            stack.add(link)
        placed.append((slot, link))
    return tuple(reversed(placed))


def test_the_order_follows_the_law_of_step_7():
    """Whole outcomes (order and predecessors given) occur as often as in a plain version."""
    spec, count = MED, 30_000
    # Item 0 of the top layer has items 0, 1, 2; items 0 and 1 of these have one item each. The
    # abstract parameter puts three on the stack at once, so that quoting is a free choice.
    edges_GxWxW = np.zeros((3, 4, 4), bool)
    edges_GxWxW[0, 0, :3] = edges_GxWxW[1, 0, 0] = edges_GxWxW[1, 1, 0] = True
    shape = structure.Structure(jnp.int32(3), jnp.array([1, 3, 1, 0]), jnp.array(edges_GxWxW))
    table = slots.layout(spec)
    needs_of = {int(slot): set() for slot in np.flatnonzero(edges_GxWxW.reshape(-1))}
    total = spec.instance_slots
    assert (table.layer_P[total], table.item_P[total], table.category_P[total]) == (0, 0, 1)
    needs_of[total] = {slot for slot in needs_of if table.layer_P[slot] == 0}

    def draw(key):
        needs = slots.prerequisites(structure.pack(shape, spec), spec)
        chosen = bits.of(np.isin(np.arange(spec.slots), list(needs_of)), slots.bounds(spec))
        made = dependency.arrange(
            key, dependency.Choice(chosen, jnp.int32(0), jnp.uint32(0)), needs, spec
        )
        return made.solved, made.step_T[: len(needs_of)], made.link_T[: len(needs_of)]

    solved, step_T, link_T = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), count))
    rows = zip(np.asarray(solved), step_T.tolist(), link_T.tolist(), strict=True)
    ours = [tuple(zip(step, link, strict=True)) if ok else None for ok, step, link in rows]
    rng = np.random.default_rng(4)
    theirs = [slow_order(rng, needs_of) for _ in range(count)]

    def agree(of):
        left, right = (collections.Counter(map(of, x)) for x in (ours, theirs))
        common = [key for key in left | right if left[key] + right[key] >= 20]
        table = [[side[key] for key in common] for side in (left, right)]
        rest = [count - sum(row) for row in table]
        if min(rest):
            table = [[*row, more] for row, more in zip(table, rest, strict=True)]
        assert len(table[0]) > 1
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3

    agree(lambda outcome: outcome)
    agree(lambda outcome: outcome and sum(link >= 0 for _, link in outcome))
    agree(lambda outcome: outcome and tuple(slot for slot, _ in outcome))
