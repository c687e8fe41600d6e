"""A whole problem, from its key: find an accepted draw, then finish it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from data_gen import arithmetic, dependency, distractors, draws, slots, structure
from data_gen.spec import Spec

# Template hashes are taken modulo 23; those below 17 are for training (Part 2.1, Section 3).
BINS = 23
TRAIN_BINS = 17
# Draws after which a search gives up; the published classes need about ten.
TRIES = 1 << 16
# Structures drawn for one plan before it is given up for a new one, as the public program does.
STRUCTURES = 1000


class Problem(NamedTuple):
    """A problem and its shortest solution, as arrays of fixed shapes.

    I instance slots, P slots in all, T the op cap, E the edge cap, D and W the caps of the
    structure, R = 4. Slots are laid out as `data_gen.slots` says.
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
    letters: jax.Array  # int32[op cap]: the letter of each operation's result

    @property
    def query(self) -> jax.Array:
        """int32: the slot asked for, the last step's."""
        return jnp.take_along_axis(
            self.order_T, jnp.maximum(self.steps - 1, 0)[..., None], axis=-1
        )[..., 0]


class _Core(NamedTuple):
    """A draw up to the operators: what decides whether it is accepted."""

    solved: jax.Array
    accepted: jax.Array
    op: jax.Array
    structure: structure.Structure
    params: slots.Parameters
    ordered: dependency.Order
    terms: dependency.Terms
    ops: arithmetic.Operators


def problem_key(seed: int | jax.Array, index: jax.Array) -> jax.Array:
    """The key of problem `index` (int32 or uint32) of a seed."""
    return jax.random.fold_in(jax.random.key(seed), index)


def template_hash(
    ordered: dependency.Order,
    terms: dependency.Terms,
    ops: arithmetic.Operators,
    params: slots.Parameters,
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
    position_P = jnp.where(
        (match_PxT := jnp.arange(spec.slots)[:, None] == step_T).any(-1), match_PxT.argmax(-1), -1
    )
    at_T = jnp.where(instance_T, step_T, 0)
    count_T = (terms.refs_TxR >= 0).sum(-1)
    times_T = ops.times_I[at_T] & terms.constant_T & (count_T > 0)
    minus_T = ops.difference_I[at_T] & (count_T == 2)
    shape_T = 1 + terms.constant_T + 2 * times_T + 4 * minus_T

    abstract_T = jnp.clip(step_T - instances, 0, spec.abstract_slots - 1)
    child_TxW = jnp.asarray(table.children_AxW)[abstract_T]
    factor_TxW = jnp.asarray(table.factors_AxW)[abstract_T]
    edge_TxW = params.exists_P[child_TxW]
    factor_position_TxW = jnp.where(factor_TxW >= 0, position_P[factor_TxW], -1)
    pair_TxW = (position_P[child_TxW] + 2) * 64 + factor_position_TxW + 2
    pair_TxW = dependency.compact(jnp.where(edge_TxW, pair_TxW, -1))
    width = max(pair_TxW.shape[-1], dependency.TERMS)
    term_TxK = jnp.where(
        instance_T[:, None],
        _widen(terms.refs_TxR, width),
        _widen(pair_TxW, width),
    )
    tag_K = jnp.arange(width, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    mixed_T = draws.mix(term_TxK.astype(jnp.uint32) + tag_K).sum(-1, dtype=jnp.uint32)
    kind_T = jnp.where(instance_T, shape_T, 0).astype(jnp.uint32)
    place_T = jnp.arange(step_T.shape[0], dtype=jnp.uint32) * jnp.uint32(0x85EBCA77)
    mixed_T = draws.mix(mixed_T ^ (kind_T * jnp.uint32(0xC2B2AE3D)) ^ place_T)
    return draws.mix(jnp.where(live_T, mixed_T, 0).sum(dtype=jnp.uint32)) % BINS


def _widen(x_TxK: jax.Array, width: int) -> jax.Array:
    return jnp.pad(x_TxK, ((0, 0), (0, width - x_TxK.shape[-1])), constant_values=-1)


def _core(
    key: jax.Array, goal: structure.Goal, outer: jax.Array, inner: jax.Array, spec: Spec
) -> _Core:
    aim_key, draw_key = jax.random.split(jax.random.fold_in(key, outer))
    aim = structure.plan(aim_key, goal, spec)
    keys = jax.random.split(jax.random.fold_in(draw_key, inner), 5)
    graph = structure.build(keys[0], aim, spec)
    params = slots.parameters(graph, spec)
    choice = dependency.choose(keys[1], aim, params, spec)
    ordered = dependency.order(keys[2], choice, params, spec)
    op = dependency.total_op(choice, ordered, aim, spec)
    terms = dependency.terms(keys[3], ordered, op - choice.op, spec)
    ops = arithmetic.operators(keys[4], spec)
    accepted = ordered.solved & (op == goal.target)
    if spec.split != "all":
        bin_ = template_hash(ordered, terms, ops, params, spec)
        mine = (bin_ < TRAIN_BINS) == (spec.split == "train")
        accepted &= mine | (goal.target <= spec.unsplit_op)
    return _Core(ordered.solved, accepted, op, graph, params, ordered, terms, ops)


def _keys(key: jax.Array) -> tuple[jax.Array, ...]:
    """Keys of a problem's stages: target, draws, and what finishes an accepted draw."""
    return tuple(jax.random.split(key, 6))


def search(
    key: jax.Array, goal: structure.Goal, spec: Spec
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finds the first accepted draw of one problem.

    A draw whose order cannot be completed is repeated with the same plan (`inner` + 1), up to
    `STRUCTURES` times; one with another op than asked, or of the other split, is given up for
    a new plan (`outer` + 1), as the public program does.

    Returns:
      (ok, outer, inner): scalars that `finish` makes the problem from.
    """
    _, draw_key, *_ = _keys(key)

    def step(carry: tuple) -> tuple:
        _, outer, inner, tries = carry
        core = _core(draw_key, goal, outer, inner, spec)
        again = ~core.solved & (inner + 1 < STRUCTURES)
        outer_next = jnp.where(core.accepted | again, outer, outer + 1)
        inner_next = jnp.where(core.accepted, inner, jnp.where(again, inner + 1, 0))
        return core.accepted, outer_next, inner_next, tries + 1

    start = (jnp.bool_(False), jnp.int32(0), jnp.int32(0), jnp.int32(0))
    ok, outer, inner, _ = jax.lax.while_loop(lambda c: ~c[0] & (c[3] < TRIES), step, start)
    return ok, outer, inner


def search_many(
    keys_N: jax.Array, goals_N: structure.Goal, spec: Spec, lanes: int = 256
) -> tuple[jax.Array, ...]:
    """`search` for many problems at once, without waiting for the slowest of each batch.

    A vmapped `search` runs until its unluckiest lane is done. Here a lane that is done takes
    the next problem, so that the work is proportional to the draws; the result is the same.

    Args:
      keys_N: keys of N problems.
      goals_N: their numbers of operations.
      lanes: draws per round.
    """
    count = keys_N.shape[0]
    lanes = min(lanes, count)
    draw_keys_N = jax.vmap(_keys)(keys_N)[1]

    def body(carry: tuple) -> tuple:
        which_L, outer_L, inner_L, tries_L, taken, result_N = carry
        safe_L = jnp.minimum(which_L, count - 1)
        core = jax.vmap(partial(_core, spec=spec))(
            draw_keys_N[safe_L],
            jax.tree.map(lambda x: x[safe_L], goals_N),
            outer_L,
            inner_L,
        )
        done_L = (core.accepted | (tries_L + 1 >= TRIES)) & (which_L < count)
        at_L = jnp.where(done_L, which_L, count)
        found = (core.accepted, outer_L, inner_L)
        result_N = tuple(
            old.at[at_L].set(new, mode="drop") for old, new in zip(result_N, found, strict=True)
        )
        turn_L = jnp.cumsum(done_L) - 1
        which_next_L = jnp.where(done_L, jnp.minimum(taken + turn_L, count), which_L)
        again_L = ~done_L & ~core.solved & (inner_L + 1 < STRUCTURES)
        outer_next_L = jnp.where(done_L, 0, jnp.where(again_L, outer_L, outer_L + 1))
        inner_next_L = jnp.where(again_L, inner_L + 1, 0)
        tries_next_L = jnp.where(done_L, 0, tries_L + 1)
        taken = jnp.minimum(taken + done_L.sum(), count)
        return which_next_L, outer_next_L, inner_next_L, tries_next_L, taken, result_N

    zero_L = jnp.zeros(lanes, jnp.int32)
    empty_N = jnp.zeros(count, jnp.int32)
    start = (
        jnp.arange(lanes, dtype=jnp.int32),
        zero_L,
        zero_L,
        zero_L,
        jnp.int32(lanes),
        (jnp.zeros(count, bool), empty_N, empty_N),
    )
    return jax.lax.while_loop(lambda c: (c[0] < count).any(), body, start)[-1]


def finish(
    key: jax.Array,
    goal: structure.Goal,
    ok: jax.Array,
    outer: jax.Array,
    inner: jax.Array,
    spec: Spec,
) -> Problem:
    """Makes the problem of an accepted draw: distractors, constants, values, names."""
    _, draw_key, rest_key, number_key, name_key, text_key = _keys(key)
    core = _core(draw_key, goal, outer, inner, spec)
    instances = spec.instance_slots
    constant_I, refs_IxR = distractors.fill(rest_key, core.ordered, core.terms, core.params, spec)
    number_I = arithmetic.constants(number_key, core.ops.times_I, refs_IxR, spec)
    number_I = jnp.where(constant_I, number_I, 0)
    value_P = arithmetic.values(core.params, constant_I, number_I, refs_IxR, core.ops, spec)
    word = draws.words(name_key, 2 + 2 * spec.max_depth)
    depth = core.structure.depth
    subcategory_D = draws.below(word[2 : 2 + spec.max_depth], spec.subcategories)
    all_names = jnp.ones(spec.names, bool)
    items_DxW = jax.vmap(lambda w: draws.shuffled(w, all_names, spec.max_width))(
        word[2 + spec.max_depth :]
    )
    text_word = draws.words(text_key, 2)
    return Problem(
        ok=ok,
        op=core.op,
        structure=core.structure,
        steps=core.ordered.steps,
        order_T=core.ordered.step_T,
        constant_I=constant_I,
        number_I=number_I,
        refs_IxR=refs_IxR,
        times_I=core.ops.times_I,
        difference_I=core.ops.difference_I,
        value_P=value_P,
        sentences_E=draws.shuffled(text_word[0], core.params.exists_P[:instances], spec.edge_cap),
        hierarchy=draws.below(word[0], spec.hierarchies),
        first_category=draws.below(word[1], 4 - depth + 1),
        subcategory_D=subcategory_D,
        items_DxW=items_DxW,
        letters=draws.shuffled(text_word[1], jnp.ones(spec.letters, bool), spec.op_cap),
    )


def sample(key: jax.Array, spec: Spec) -> Problem:
    """One problem of the class, a pure function of the key.

    `vmap` over it works; `sample_many` does the same faster.
    """
    goal = structure.goal(_keys(key)[0], spec)
    return finish(key, goal, *search(key, goal, spec), spec)


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
    found = search_many(keys_N, goals_N, spec)
    return jax.vmap(partial(finish, spec=spec))(keys_N, goals_N, *found)
