"""What a problem is made of, beside a plain version that draws the same words, draw by draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import COUNT, drawn, first_keys

from data_gen import keys
from data_gen.keys import Stage
from data_gen.problems import bits, dependency, distractors, draws, slots, structure
from data_gen.spec import MED, Spec

pytestmark = pytest.mark.slow


class Words:
    """The random words of a source, one at a time."""

    def __init__(self, source):
        self.first, self.second = int(source.first), int(source.second)

    @staticmethod
    def mix(x):
        x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
        x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
        return x ^ x >> 16

    @staticmethod
    def numbered(word, number):
        return Words.mix((word + number * 0x9E3779B9) % 2**32)

    def word(self, number):
        return self.mix(self.numbered(self.first, number) ^ self.second)

    @staticmethod
    def below(word, n):
        return (word >> 8) * n >> 24

    def pick(self, number, members):
        """One of these, or None."""
        members = sorted(members)
        return members[self.below(self.word(number), len(members))] if members else None

    def picks(self, start, members, count):
        found, left = [], set(members)
        for number in range(start, start + min(count, len(left))):
            found.append(self.pick(number, left))
            left.discard(found[-1])
        return found


class Slow:
    """A graph's parameters, as slots, and what the public program does with them in step 6."""

    def __init__(self, graph, spec):
        self.spec, self.table = spec, slots.layout(spec)
        self.sizes = [int(size) for size in graph.sizes_D[: graph.depth]]
        self.depth, self.edges = len(self.sizes), graph.edges_GxWxW
        parameters = [
            (g, j, c)
            for g in range(self.depth - 1)
            for c in range(g + 1, self.depth)
            for j in range(self.sizes[g])
        ]
        width = spec.max_width
        numbers = zip(
            self.table.layer_P, self.table.item_P, self.table.category_P, self.table.abstract_P,
            strict=True,
        )  # fmt: skip
        number = {tuple(map(int, row[:3])): n for n, row in enumerate(numbers) if row[3]}
        self.abstract = {number[parameter]: parameter for parameter in parameters}
        self.number = {parameter: slot for slot, parameter in self.abstract.items()}
        self.instances = set(np.flatnonzero(self.edges.reshape(-1)).tolist())
        self.slot = lambda g, j, k: (g * width + j) * width + k

    def things(self, g, j):
        return [k for k in range(self.sizes[g + 1]) if self.edges[g, j, k]]

    def total(self):
        """All operations, as the public program adds them up: none for items without children."""
        found = len(self.instances)
        for g, j, c in self.number:
            count = len(self.things(g, j))
            found += max(count - 1, min(count, 1)) if c == g + 1 else max(2 * count - 1, 0)
        return found

    def pick(self, slot, chosen):
        """Appends an abstract parameter and what it needs to the chosen ones; its operations."""
        g, j, c = self.abstract[slot]
        chosen.append(slot)
        cost, things = 0, self.things(g, j)
        for k in things:
            below = self.number.get((g + 1, k, c))
            if below is not None and below not in chosen:
                cost += self.pick(below, chosen)
            if self.slot(g, j, k) not in chosen:
                chosen.append(self.slot(g, j, k))
                cost += 1
        return cost + max(len(things) - 1 if c == g + 1 else 2 * len(things) - 1, 1)

    def choose(self, words, aim):
        """Step 6: what was picked, in its order; instance parameters besides; the operations."""
        left = budget = min(int(aim.abstract_op), self.total())
        chosen, turn, lowest, highest = [], 0, 1, self.depth - 1
        fits = left > 0
        while left > 0 and fits:
            before = None
            for reach in range(1, self.spec.max_depth):
                turn += 1
                free = {
                    slot
                    for slot, (g, _, c) in self.abstract.items()
                    if c - g == reach and slot not in chosen
                }
                if not free:
                    if reach == lowest:
                        lowest += 1
                    elif reach == highest:
                        highest -= 1
                    continue
                grown = list(chosen)
                cost = self.pick(words.pick(turn, free), grown)
                if cost > left:
                    if reach == lowest:
                        fits = False
                    else:
                        chosen, left = before[0], left - before[1]
                    break
                if reach >= highest:
                    chosen, left = grown, left - cost
                    break
                before = grown, cost
        wanted = int(aim.least_op) - budget + left
        rest, extra = sorted(self.instances - set(chosen)), set()
        op = int(aim.least_op) - wanted + min(wanted, len(rest))
        for n, slot in enumerate(rest):
            g, place = divmod(slot, self.spec.max_width**2)
            lot = words.numbered(words.word(0), g * self.spec.max_width**2 + place)
            if words.below(lot, len(rest) - n) < wanted - len(extra):
                extra.add(slot)
        return chosen, extra, op

    def parameter(self, slot):
        if slot in self.abstract:
            return (*self.abstract[slot], "abstract")
        table = self.table
        return int(table.layer_P[slot]), int(table.item_P[slot]), int(table.thing_P[slot])

    def fill(self, words, graph, chosen, extra):
        """Step 9: of each distractor, its constant and what it refers to, in order."""
        defined = [*chosen, *words.picks(0, extra, 4)] if len(extra) <= 4 else [*chosen, *extra]
        look = Availability(graph, {self.parameter(slot) for slot in defined})

        def available():
            return [slot for slot in self.abstract if self.parameter(slot) not in look.open]

        free = [slot for slot in available() if slot not in defined]
        near = [slot for slot in free if self.abstract[slot][2] == self.abstract[slot][0] + 1]
        known = [*defined, *near, *sorted(set(free) - set(near))]
        rest, independent, found = self.instances - set(defined), [], {}
        for start in range(4, 10**6, 8):
            if not rest:
                return found
            slot = words.pick(start, rest)
            alone = words.word(start + 1) >> 31 == 0
            pool = independent if alone else known
            count = 1 + 32 - words.word(start + 2).bit_length()
            count = min(count, len(pool) + 1, self.spec.max_terms)
            constant = count == len(pool) + 1 or words.word(start + 3) >> 31 == 0
            refs = words.picks(start + 4, pool, count - constant)
            if count == len(pool) + 1:
                refs = list(pool)
            found[slot] = constant, refs
            rest.discard(slot)
            known.append(slot)
            if alone:
                independent.append(slot)
            g, j, k = self.parameter(slot)
            look.define(g, j, k)
            fresh = [slot for slot in available() if slot not in known]
            known += sorted(fresh, key=lambda slot: (-self.abstract[slot][0], slot))


@pytest.mark.parametrize("max_terms", [4, 3])
def test_choices_and_distractors_are_those_of_a_plain_version(max_terms):
    """Step 6 and what distractors refer to, draw by draw: small pools are taken in order."""
    spec = Spec(max_op=6, max_edges=8, max_terms=max_terms)

    def draw(key):
        goal = structure.goal(keys.named(key, Stage.GOAL), spec)
        aim = structure.plan(keys.named(key, Stage.PLAN), goal, spec)
        graph = structure.build(keys.named(key, Stage.STRUCTURE), aim, spec)
        needs = slots.prerequisites(graph, spec)
        choice = dependency.choose(keys.named(key, Stage.CHOICE), aim, needs, spec)
        # Of what is chosen, in any order: whether step 7 finds one does not matter here.
        step_T = choice.chosen.member(jnp.arange(spec.op_cap))
        arranged = dependency.Arrangement(True, choice.chosen.size(), step_T, step_T)
        terms = dependency.Terms(step_T < 0, jnp.full((spec.op_cap, 4), -1))
        made = distractors.fill(
            keys.named(key, Stage.DISTRACTORS), arranged, choice.picks, terms, needs, spec
        )
        stages = Stage.CHOICE, Stage.DISTRACTORS
        sources = [draws.source(keys.named(key, stage)) for stage in stages]
        found = choice.op, choice.chosen.mask(), made
        return sources, aim, structure.unpack(graph, spec), found

    drawn_N = jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(first_keys(COUNT)))
    capped = whole = picked = 0
    for n in range(COUNT):
        sources, aim, graph, found = jax.tree.map(lambda x, n=n: x[n], drawn_N)
        slow = Slow(graph, spec)
        chosen, extra, op = slow.choose(Words(sources[0]), aim)
        capped += slow.total() < aim.abstract_op
        op_found, chosen_P, made = found
        assert set(np.flatnonzero(chosen_P)) == {*chosen, *extra} and op == op_found
        for slot, (constant, refs) in slow.fill(Words(sources[1]), graph, chosen, extra).items():
            assert constant == made.constant_I[slot]
            assert refs == made.refs_IxR[slot][made.refs_IxR[slot] >= 0].tolist()
            whole += len(refs) > 1 and refs != sorted(refs)
            picked += sum(ref in slow.abstract and ref in chosen for ref in refs) > 1
    assert min(capped, whole, picked) > 0, (capped, whole, picked)


class Availability:
    """Which abstract parameters the public program lets distractors refer to, with sets."""

    def __init__(self, graph, needed):
        sizes = [int(size) for size in graph.sizes_D[: graph.depth]]
        self.depth, self.sizes, self.edges = len(sizes), sizes, graph.edges_GxWxW
        self.defined = {slot[:3] for slot in needed if len(slot) == 3}
        self.open = {
            (g, j, c, "abstract")
            for g in range(self.depth - 1)
            for j in range(sizes[g])
            for c in range(g + 1, self.depth)
        } - needed
        for g in range(self.depth - 1):
            for j in range(sizes[g]):
                if self.full(g, j):
                    self.open.discard((g, j, g + 1, "abstract"))
        for g in range(self.depth - 1):
            self.look(g, g + 2)

    def things(self, g, j):
        return [k for k in range(self.sizes[g + 1]) if self.edges[g, j, k]]

    def full(self, g, j):
        return all((g, j, k) in self.defined for k in self.things(g, j))

    def lacks(self, g, j, c):
        return any((g + 1, k, c, "abstract") in self.open for k in self.things(g, j))

    def look(self, g, first):
        stopped = False
        for c in range(first, self.depth):
            for j in range(self.sizes[g]):
                if (g, j, g + 1, "abstract") in self.open:
                    continue
                stopped = stopped or self.lacks(g, j, c)
                if stopped:
                    break
                self.open.discard((g, j, c, "abstract"))

    def define(self, g, j, k):
        self.defined.add((g, j, k))
        if not self.full(g, j):
            return
        self.open.discard((g, j, g + 1, "abstract"))
        for c in range(g + 2, self.depth):
            if self.lacks(g, j, c):
                break
            self.open.discard((g, j, c, "abstract"))
        for upper in reversed(range(g)):
            self.look(upper, g + 1)


def test_abstract_parameters_become_available_as_in_the_public_program():
    spec = MED
    problems, _, _ = drawn(spec)
    table, bounds = slots.layout(spec), slots.bounds(spec)

    def follow(shape, needed_P, order_E):
        needs = slots.prerequisites(structure.pack(shape, spec), spec)
        needed = bits.empty(bounds)
        for slot in range(spec.slots):
            needed |= needed.one(jnp.int32(slot)).only(needed_P[slot])
        first = distractors.unavailable(needed, needs, spec)

        def step(carry, slot):
            defined, open_ = carry
            defined |= defined.one(slot)
            found = distractors.complete(open_, slot, defined, needs, spec)
            open_ = jnp.where(slot >= 0, found, open_)
            return (defined, open_), open_

        return first, jax.lax.scan(step, (needed, first), order_E)[1]

    def named(slot):
        where = int(table.layer_P[slot]), int(table.item_P[slot])
        if table.abstract_P[slot]:
            return (*where, int(table.category_P[slot]), "abstract")
        return (*where, int(table.thing_P[slot]))

    rng, orders = np.random.default_rng(0), []
    needed = np.zeros((COUNT, spec.slots), bool)
    for n in range(COUNT):
        needed[n, problems.order_T[n][problems.order_T[n] >= 0]] = True
        rest = np.flatnonzero(problems.structure.edges_GxWxW[n].reshape(-1))
        rest = rng.permutation([slot for slot in rest if not needed[n, slot]])
        orders.append(np.pad(rest, (0, 20 - len(rest)), constant_values=-1))
    first, later = jax.jit(jax.vmap(follow))(
        problems.structure, jnp.array(needed), jnp.array(np.array(orders), jnp.int32)
    )

    def held(word):
        rows = range(spec.instance_slots, spec.slots)
        return {named(slot) for n, slot in enumerate(rows) if int(word) >> n & 1}

    early = 0
    for n in range(COUNT):
        graph = jax.tree.map(lambda x, n=n: x[n], problems.structure)
        slow = Availability(graph, {named(slot) for slot in np.flatnonzero(needed[n])})
        assert held(first[n]) == slow.open
        for turn, slot in enumerate(orders[n][orders[n] >= 0]):
            slow.define(*named(slot))
            assert held(later[n, turn]) == slow.open
            # The order of looking matters: some are complete and still not available.
            early += any(
                all((g, j, k) in slow.defined for k in slow.things(g, j))
                and not slow.lacks(g, j, c)
                for g, j, c, _ in slow.open
                if c > g + 1
            )
    assert early > 10
