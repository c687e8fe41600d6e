"""A whole problem, from its key: find an accepted draw, then finish it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import arithmetic, bits, dependency, distractors, draws, slots, solution, structure
from data_gen.spec import Spec

# Template hashes are taken modulo 23; those below 17 are for training (Part 2.1, Section 3).
BINS = 23
TRAIN_BINS = 17
# Draws after which a search gives up; the published classes need about ten.
TRIES = 1 << 16
# Structures drawn for one plan before it is given up for a new one, as the public program does.
STRUCTURES = 1000
# Drafts a round and problems finished at once, at most: enough to keep a processor's vectors
# and threads busy, few enough to stay in its cache.
LANES = 256
LANES_LEAST = 16
PIECE = 1024


class Problem(NamedTuple):
    """A problem and its shortest solution, as arrays of fixed shapes.

    I instance slots, P slots in all, T the spec's room for operations, E the edge cap, D and W
    the caps of the structure, R = 4. Slots are laid out as `data_gen.slots` says.
    """

    ok: jax.Array  # bool: false where the search gave up
    op: jax.Array  # int32: operations of the solution
    structure: structure.Structure
    steps: jax.Array  # int32: sentences of the solution
    order_T: jax.Array  # int32: the slot that each step computes, -1 from `steps` on
    constant_I: jax.Array  # bool: the right side has a constant
    number_I: jax.Array  # int32: that constant
    refs_IxR: jax.Array  # int32: slots that the right side names, in order, or -1
    times_I: jax.Array  # bool: the constant multiplies
    difference_I: jax.Array  # bool: the second of two references is subtracted
    value_P: jax.Array  # int32: all values, modulo m
    sentences_E: jax.Array  # int32: slots in the order the problem states them, or -1
    hierarchy: jax.Array  # int32
    first_category: jax.Array  # int32: the top layer's, of the hierarchy's four
    subcategory_D: jax.Array  # int32, per layer
    items_DxW: jax.Array  # int32: names within the sub-category
    letters: jax.Array  # int32[letters of the spec]: in the order in which results take them

    @property
    def query(self) -> jax.Array:
        """int32: the slot asked for, the last step's."""
        return jnp.take_along_axis(
            self.order_T, jnp.maximum(self.steps - 1, 0)[..., None], axis=-1
        )[..., 0]


class Draft(NamedTuple):
    """A problem as far as decides whether it is accepted: up to its order (steps 2 to 7)."""

    solved: jax.Array  # bool: an order was found
    accepted: jax.Array  # bool: and it has the operations asked for, and the split's hash
    op: jax.Array  # int32: operations of the solution
    extra_op: jax.Array  # int32: those of them that extra predecessors make
    words: jax.Array  # uint32[2]: what its right sides are drawn from
    graph: structure.Graph
    ordered: dependency.Order


def problem_key(seed: int | jax.Array, index: jax.Array) -> jax.Array:
    """The key of problem `index` (int32 or uint32) of a seed."""
    return jax.random.fold_in(jax.random.key(seed), index)


def template_hash(
    ordered: dependency.Order,
    terms: dependency.Terms,
    ops: arithmetic.Operators,
    edges: bits.Bits,
    spec: Spec,
) -> jax.Array:
    """uint32 in 0..22: a hash of the solution without names, numbers and letters.

    It takes in, step by step, what kind of parameter is computed, from which earlier steps,
    in which order and with which operators.
    """
    table, instances = slots.layout(spec), spec.instance_slots
    step_T = ordered.step_T
    live_T = step_T >= 0
    instance_T = live_T & (step_T < instances)
    position_P = jnp.full(spec.slots + 1, -1).at[step_T].set(np.arange(spec.op_cap))[:-1]
    at_T = jnp.where(instance_T, step_T, 0)
    count_T = (terms.refs_TxR >= 0).sum(-1)
    times_T = ops.times_I[at_T] & terms.constant_T & (count_T > 0)
    minus_T = ops.difference_I[at_T] & (count_T == 2)
    shape_T = 1 + terms.constant_T + 2 * times_T + 4 * minus_T

    abstract_T = jnp.clip(step_T - instances, 0, spec.abstract_slots - 1)
    child_TxW = jnp.asarray(table.children_AxW)[abstract_T]
    factor_TxW = jnp.asarray(table.factors_AxW)[abstract_T]
    edge_TxW = edges.mask()[child_TxW]
    factor_position_TxW = jnp.where(factor_TxW >= 0, position_P[factor_TxW], -1)
    pair_TxW = (position_P[child_TxW] + 2) * 64 + factor_position_TxW + 2
    pair_TxW = jnp.where(edge_TxW, pair_TxW, -1)
    width = max(pair_TxW.shape[-1], dependency.TERMS)
    pair_TxK = dependency.compact(pair_TxW, width)
    refs_TxR = jnp.where(terms.refs_TxR >= 0, position_P[terms.refs_TxR], -1)
    refs_TxK = jnp.pad(refs_TxR, ((0, 0), (0, width - dependency.TERMS)), constant_values=-1)
    term_TxK = jnp.where(instance_T[:, None], refs_TxK, pair_TxK)
    tag_K = jnp.arange(width, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    mixed_T = draws.mix(term_TxK.astype(jnp.uint32) + tag_K).sum(-1, dtype=jnp.uint32)
    kind_T = jnp.where(instance_T, shape_T, 0).astype(jnp.uint32)
    place_T = jnp.arange(step_T.shape[0], dtype=jnp.uint32) * jnp.uint32(0x85EBCA77)
    mixed_T = draws.mix(mixed_T ^ (kind_T * jnp.uint32(0xC2B2AE3D)) ^ place_T)
    return draws.mix(jnp.where(live_T, mixed_T, 0).sum(dtype=jnp.uint32)) % BINS


def draft(
    key: jax.Array, goal: structure.Goal, outer: jax.Array, inner: jax.Array, spec: Spec
) -> Draft:
    """Structure `inner` for plan `outer` of a problem, accepted or not."""
    aim_key, draw_key = jax.random.split(jax.random.fold_in(key, outer))
    aim = structure.plan(aim_key, goal, spec)
    keys = jax.random.split(jax.random.fold_in(draw_key, inner), 4)
    graph = structure.build(keys[0], aim, spec)
    needs = slots.needs(graph, spec)
    choice = dependency.choose(keys[1], aim, needs, spec)
    ordered = dependency.order(keys[2], choice, needs, spec)
    op = dependency.total_op(choice, ordered, aim, spec)
    accepted = ordered.solved & (op == goal.target)
    words = jax.random.key_data(keys[3])
    drawn = Draft(ordered.solved, accepted, op, op - choice.op, words, graph, ordered)
    if spec.split != "all":
        bin_ = template_hash(ordered, *_right_sides(drawn, spec), graph.edges, spec)
        mine = (bin_ < TRAIN_BINS) == (spec.split == "train")
        accepted &= mine | (goal.target <= spec.unsplit_op)
    return drawn._replace(accepted=accepted)


def _right_sides(drawn: Draft, spec: Spec) -> tuple[dependency.Terms, arithmetic.Operators]:
    """What a draft's right sides are made of (step 8, and the operators of step 11)."""
    terms_key, ops_key = jax.random.split(jax.random.wrap_key_data(drawn.words))
    terms = dependency.terms(terms_key, drawn.ordered, drawn.extra_op, spec)
    return terms, arithmetic.operators(ops_key, spec)


def _keys(key: jax.Array) -> tuple[jax.Array, ...]:
    """Keys of a problem's stages: target, drafts, and what finishes an accepted one."""
    return tuple(jax.random.split(key, 7))


def search(key: jax.Array, goal: structure.Goal, spec: Spec) -> Draft:
    """The first accepted draft of one problem; not accepted, if the search gave up.

    A draft whose order cannot be completed is repeated with the same plan (`inner` + 1), up to
    `STRUCTURES` times; one with another op than asked, or of the other split, is given up for
    a new plan (`outer` + 1), as the public program does.
    """
    draw_key, zero = _keys(key)[1], jnp.int32(0)
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
    draw_keys_N = jax.vmap(_keys)(keys_N)[1]

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
    _, _, rest_key, number_key, name_key, text_key, order_key = _keys(key)
    needs = slots.needs(core.graph, spec)
    graph = structure.structure(core.graph, spec)
    params = slots.parameters(graph, spec)
    terms, ops = _right_sides(core, spec)
    definitions = distractors.fill(rest_key, core.ordered, terms, needs, spec)
    constant_I, refs_IxR = definitions.constant_I, definitions.refs_IxR
    number_I = arithmetic.constants(number_key, ops.times_I, refs_IxR, spec)
    number_I = jnp.where(constant_I, number_I, 0)
    value_P = arithmetic.values(definitions, number_I, ops, params, spec)
    word = draws.words(name_key, 2 + 2 * spec.max_depth)
    subcategory_D = draws.below(word[2 : 2 + spec.max_depth], spec.subcategories)
    all_names = jnp.ones(spec.names, bool)
    items_DxW = jax.vmap(lambda w: draws.shuffled(w, all_names, spec.max_width))(
        word[2 + spec.max_depth :]
    )
    text_word, instances = draws.words(text_key, 2), spec.instance_slots
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
        sentences_E=draws.shuffled(text_word[0], params.exists_P[:instances], spec.edge_cap),
        hierarchy=draws.below(word[0], spec.hierarchies),
        first_category=draws.below(word[1], 4 - graph.depth + 1),
        subcategory_D=subcategory_D,
        items_DxW=items_DxW,
        letters=draws.shuffled(text_word[1], jnp.ones(spec.letters, bool), spec.letters),
    )
    if spec.reask or spec.solution == "any":
        return solution.resolve(order_key, made, spec)
    return made


def sample(key: jax.Array, spec: Spec) -> Problem:
    """One problem of the class, a pure function of the key.

    `vmap` over it works; `sample_many` does the same faster.
    """
    goal = structure.goal(_keys(key)[0], spec)
    return finish(key, search(key, goal, spec), spec)


def sample_many(keys_N: jax.Array, spec: Spec, goals_N: structure.Goal | None = None) -> Problem:
    """N problems (leading axis N), each equal to `sample` of its key.

    Args:
      keys_N: their keys.
      spec: the class.
      goals_N: numbers of operations to have, none above the spec's cap; drawn, if None.
    """
    if goals_N is None:
        first_keys_N = jax.vmap(_keys)(keys_N)[0]
        goals_N = jax.vmap(partial(structure.goal, spec=spec))(first_keys_N)
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
