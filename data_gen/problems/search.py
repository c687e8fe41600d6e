"""How a problem is found: drafts until one is accepted, which is then finished."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from data_gen import keys
from data_gen.keys import Stage
from data_gen.problems import arithmetic, dependency, distractors, draws, reask, slots, structure
from data_gen.problems.parameters import parameters
from data_gen.problems.problem import Problem
from data_gen.problems.template import TRAIN_BINS, template_hash
from data_gen.spec import Spec

# Draws after which a search gives up; the published classes need about ten.
TRIES = 1 << 16
# Structures drawn for one plan before it is given up for a new one, as the public program does.
STRUCTURES = 1000
# Drafts a round and problems finished at once, at most: enough to keep a processor's vectors
# and threads busy, few enough to stay in its cache.
LANES = 256
LANES_LEAST = 16
PIECE = 1024


class Draft(NamedTuple):
    """A problem as far as decides whether it is accepted: up to its order (steps 2 to 7)."""

    solved: jax.Array  # bool: an order was found
    accepted: jax.Array  # bool: and it has the operations asked for, and the split's hash
    op: jax.Array  # int32: operations of the solution
    extra_op: jax.Array  # int32: those of them that extra predecessors make
    key_data: jax.Array  # uint32[2]: of its key, of which its right sides are drawn
    graph: structure.Graph
    ordered: dependency.Order


def draft(
    key: jax.Array, goal: structure.Goal, outer: jax.Array, inner: jax.Array, spec: Spec
) -> Draft:
    """Structure `inner` for plan `outer` of a problem, accepted or not."""
    plan_key = keys.numbered(key, outer)
    aim = structure.plan(keys.named(plan_key, Stage.PLAN), goal, spec)
    own_key = keys.numbered(keys.named(plan_key, Stage.STRUCTURES), inner)
    graph = structure.build(keys.named(own_key, Stage.STRUCTURE), aim, spec)
    needs = slots.needs(graph, spec)
    choice = dependency.choose(keys.named(own_key, Stage.CHOICE), aim, needs, spec)
    ordered = dependency.order(keys.named(own_key, Stage.ORDER), choice, needs, spec)
    op = dependency.total_op(choice, ordered, aim, spec)
    accepted = ordered.solved & (op == goal.target)
    key_data = jax.random.key_data(own_key)
    drawn = Draft(ordered.solved, accepted, op, op - choice.op, key_data, graph, ordered)
    if spec.split != "all":
        bin_ = template_hash(ordered, *_right_sides(drawn, spec), graph.edges, spec)
        mine = (bin_ < TRAIN_BINS) == (spec.split == "train")
        accepted &= mine | (goal.target <= spec.unsplit_op)
    return drawn._replace(accepted=accepted)


def _right_sides(drawn: Draft, spec: Spec) -> tuple[dependency.Terms, arithmetic.Operators]:
    """What a draft's right sides are made of (step 8, and the operators of step 11)."""
    key = jax.random.wrap_key_data(drawn.key_data)
    terms_key = keys.named(key, Stage.TERMS)
    terms = dependency.terms(terms_key, drawn.ordered, drawn.extra_op, spec)
    return terms, arithmetic.operators(keys.named(key, Stage.OPERATORS), spec)


def search(key: jax.Array, goal: structure.Goal, spec: Spec) -> Draft:
    """The first accepted draft of one problem; not accepted, if the search gave up.

    A draft whose order cannot be completed is repeated with the same plan (`inner` + 1), up to
    `STRUCTURES` times; one with another op than asked, or of the other split, is given up for
    a new plan (`outer` + 1), as the public program does.
    """
    draw_key, zero = keys.named(key, Stage.DRAFTS), jnp.int32(0)
    draw = partial(draft, draw_key, goal, spec=spec)

    def step(carry: tuple) -> tuple:
        _, outer, inner, tries = carry
        drawn = draw(outer, inner)
        return drawn, *_next(drawn, outer, inner), tries + 1

    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(draw, zero, zero))
    return jax.lax.while_loop(
        lambda carry: ~carry[0].accepted & (carry[-1] < TRIES), step, (blank, zero, zero, zero)
    )[0]


def _next(drawn: Draft, outer: jax.Array, inner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which draft comes after one that is not accepted: the plan's next structure, or a plan."""
    again = ~drawn.solved & (inner + 1 < STRUCTURES)
    return jnp.where(again, outer, outer + 1), jnp.where(again, inner + 1, 0)


def search_many(
    keys_N: jax.Array, goals_N: structure.Goal, spec: Spec, lanes: int | None = None
) -> Draft:
    """`search` for many problems at once (leading axis N).

    A vmapped search would run until its unluckiest lane is done. Here a lane that is done takes
    the next problem, so that the work is proportional to the drafts; the result is the same.

    Args:
      keys_N: keys of N problems.
      goals_N: their numbers of operations.
      spec: the class.
      lanes: drafts a round; by default few enough that those of the unluckiest problems, which
        come last and leave most lanes idle, are a small part.
    """
    count = keys_N.shape[0]
    lanes = min(lanes or max(LANES_LEAST, min(LANES, count // 8)), count)
    draw_keys_N = jax.vmap(lambda key: keys.named(key, Stage.DRAFTS))(keys_N)

    def draw(which_L: jax.Array, outer_L: jax.Array, inner_L: jax.Array) -> Draft:
        safe_L = jnp.minimum(which_L, count - 1)
        goals_L = jax.tree.map(lambda x: x[safe_L], goals_N)
        draw_one = partial(draft, spec=spec)
        return jax.vmap(draw_one)(draw_keys_N[safe_L], goals_L, outer_L, inner_L)

    def body(carry: tuple) -> tuple:
        which_L, outer_L, inner_L, tries_L, taken, filled, found_M = carry
        drawn_L = draw(which_L, outer_L, inner_L)
        done_L = (drawn_L.accepted | (tries_L + 1 >= TRIES)) & (which_L < count)
        # Those that are done go, side by side, behind those found before; what is written
        # beyond them is written over by the next round.
        first_L = jnp.argsort(~done_L)
        found_M = jax.tree.map(
            lambda old_M, new_L: jax.lax.dynamic_update_slice_in_dim(
                old_M, new_L[first_L], filled, axis=0
            ),
            found_M,
            (which_L, drawn_L),
        )
        turn_L = jnp.cumsum(done_L) - 1
        which_next_L = jnp.where(done_L, jnp.minimum(taken + turn_L, count), which_L)
        outer_next_L, inner_next_L = _next(drawn_L, outer_L, inner_L)
        outer_next_L = jnp.where(done_L, 0, outer_next_L)
        inner_next_L = jnp.where(done_L, 0, inner_next_L)
        tries_next_L = jnp.where(done_L, 0, tries_L + 1)
        taken = jnp.minimum(taken + done_L.sum(), count)
        filled += done_L.sum()
        return which_next_L, outer_next_L, inner_next_L, tries_next_L, taken, filled, found_M

    first_L, zero_L = jnp.arange(lanes, dtype=jnp.int32), jnp.zeros(lanes, jnp.int32)
    blank_M = jax.tree.map(
        lambda x: jnp.zeros((count + lanes, *x.shape[1:]), x.dtype),
        (first_L, jax.eval_shape(draw, first_L, zero_L, zero_L)),
    )
    start = (first_L, zero_L, zero_L, zero_L, jnp.int32(lanes), jnp.int32(0), blank_M)
    *_, (which_M, found_M) = jax.lax.while_loop(lambda c: (c[0] < count).any(), body, start)
    place_N = jnp.argsort(which_M[:count])
    return jax.tree.map(lambda x_M: x_M[place_N], found_M)


def finish(key: jax.Array, core: Draft, spec: Spec) -> Problem:
    """Makes the problem of an accepted draft: distractors, constants, values, names."""
    needs = slots.needs(core.graph, spec)
    graph = structure.structure(core.graph, spec)
    params = parameters(graph, spec)
    terms, ops = _right_sides(core, spec)
    definitions = distractors.fill(
        keys.named(key, Stage.DISTRACTORS), core.ordered, terms, needs, spec
    )
    constant_I, refs_IxR = definitions.constant_I, definitions.refs_IxR
    number_I = arithmetic.constants(keys.named(key, Stage.CONSTANTS), ops.times_I, refs_IxR, spec)
    number_I = jnp.where(constant_I, number_I, 0)
    value_P = arithmetic.values(definitions, number_I, ops, params, spec)
    word = draws.words(keys.named(key, Stage.NAMES), 2 + 2 * spec.max_depth)
    subcategory_D = draws.below(word[2 : 2 + spec.max_depth], spec.subcategories)
    all_names = jnp.ones(spec.names, bool)
    items_DxW = jax.vmap(lambda w: draws.shuffled(w, all_names, spec.max_width))(
        word[2 + spec.max_depth :]
    )
    instances = spec.instance_slots
    sentence_word = draws.words(keys.named(key, Stage.SENTENCES), 1)[0]
    letter_word = draws.words(keys.named(key, Stage.LETTERS), 1)[0]
    order_T = jnp.pad(core.ordered.step_T, (0, spec.op_room - spec.op_cap), constant_values=-1)
    made = Problem(
        ok=core.accepted,
        op=core.op,
        structure=graph,
        steps=core.ordered.steps,
        order_T=order_T,
        constant_I=constant_I,
        number_I=number_I,
        refs_IxR=refs_IxR,
        times_I=ops.times_I,
        difference_I=ops.difference_I,
        value_P=value_P,
        sentences_E=draws.shuffled(sentence_word, params.exists_P[:instances], spec.edge_cap),
        hierarchy=draws.below(word[0], spec.hierarchies),
        first_category=draws.below(word[1], 4 - graph.depth + 1),
        subcategory_D=subcategory_D,
        items_DxW=items_DxW,
        letters=draws.shuffled(letter_word, jnp.ones(spec.letters, bool), spec.letters),
    )
    if spec.reask or spec.solution == "any":
        return reask.resolve(key, made, spec)
    return made


def sample(key: jax.Array, spec: Spec) -> Problem:
    """One problem of the class, a pure function of the key.

    `vmap` over it works; `sample_many` does the same faster.
    """
    goal = structure.goal(keys.named(key, Stage.GOAL), spec)
    return finish(key, search(key, goal, spec), spec)


def sample_many(keys_N: jax.Array, spec: Spec, goals_N: structure.Goal | None = None) -> Problem:
    """N problems (leading axis N), each equal to `sample` of its key.

    Args:
      keys_N: their keys.
      spec: the class.
      goals_N: numbers of operations to have, none above the spec's cap; drawn, if None.
    """
    if goals_N is None:
        goals_N = jax.vmap(lambda key: structure.goal(keys.named(key, Stage.GOAL), spec))(keys_N)
    found_N = search_many(keys_N, goals_N, spec)
    # Piece by piece, so that what is worked on stays in a processor's cache.
    count = keys_N.shape[0]
    pieces = -(-count // PIECE)
    place_CxQ = jnp.minimum(jnp.arange(pieces * min(PIECE, count)).reshape(pieces, -1), count - 1)
    finish_all = jax.vmap(partial(finish, spec=spec))
    made_CxQ = jax.lax.map(
        lambda place_Q: finish_all(*jax.tree.map(lambda x_N: x_N[place_Q], (keys_N, found_N))),
        place_CxQ,
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], made_CxQ)
