"""Rejection sampling of problems: drafts until one is accepted, which is then finished."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data_gen import keys
from data_gen.keys import Stage
from data_gen.problems import (
    arithmetic,
    dependency,
    distractors,
    draws,
    reask,
    slots,
    structure,
    template,
)
from data_gen.problems.problem import Problem
from data_gen.spec import Spec

# Drafts after which a search gives up; the published classes need about ten.
TRIES = 1 << 14
# Structures drawn for one plan before it is given up for a new one, as the public program does.
STRUCTURES = 1000
# Drafts a round and problems finished at once, at most: enough to keep a processor's vectors
# and threads busy, few enough to stay in its cache.
LANES = 256
LANES_LEAST = 16
# Once no more than this part of the lanes has a search left, those go on alone: a plan without any
# solvable structure takes a thousand rounds, and idle lanes cost as much as busy ones.
NARROWER = 8
PIECE = 1024
# Of the problems asked for, the share that is searched for at once where each may have to be
# searched for again.
_AGAIN = 4


class Draft(NamedTuple):
    """A partial problem, up to its order (steps 2 to 7), which decides whether it is accepted."""

    solved: jax.Array  # bool: an order was found
    accepted: jax.Array  # bool: and it has the operations asked for, and the split's template
    op: jax.Array  # int32: operations of the solution
    extra_op: jax.Array  # int32: those of them that extra predecessors make
    key_data: jax.Array  # uint32[2]: of its key, of which its right sides are drawn
    graph: structure.Graph
    arranged: dependency.Arrangement
    picks: jax.Array  # uint32: see `dependency.Choice`


class Place(NamedTuple):
    """The position of a search (int32): its next draft."""

    outer: jax.Array  # its plan
    inner: jax.Array  # its structure for that plan
    tries: jax.Array  # drafts before it


def _beginning() -> Place:
    return Place(jnp.int32(0), jnp.int32(0), jnp.int32(0))


def _after(place: Place, drawn: Draft) -> Place:
    """The draft after a rejected one: the next structure of the plan, or a new plan."""
    again = ~drawn.solved & (place.inner + 1 < STRUCTURES)
    return Place(
        jnp.where(again, place.outer, place.outer + 1),
        jnp.where(again, place.inner + 1, 0),
        place.tries + 1,
    )


def _split_after(spec: Spec) -> bool:
    """Whether only the finished problem tells which side of the split it is on."""
    later = spec.reask or spec.solution == "any" or spec.statement_op > 0
    return spec.split != "all" and later


def not_found(spec: Spec) -> str:
    """The error message where searches gave up."""
    return (
        f"{TRIES} drafts gave no problem with op={spec.op}, split={spec.split!r} and "
        f"reask={spec.reask}: there are none, or too few. `python -m data_gen stats --split all` "
        "counts the templates of each half; statement_op splits problems of few operations by what "
        "they state, of which there is more, and unsplit_op gives both sides all of them."
    )


# Traced once, however often and for whatever it is asked for.
@partial(jax.jit, static_argnames="spec")
def draft(key: jax.Array, goal: structure.Goal, place: Place, spec: Spec) -> Draft:
    """The draft of a problem at a place of its search, accepted or not."""
    plan_key = keys.numbered(key, place.outer)
    aim = structure.plan(keys.named(plan_key, Stage.PLAN), goal, spec)
    own_key = keys.numbered(keys.named(plan_key, Stage.STRUCTURES), place.inner)
    graph = structure.build(keys.named(own_key, Stage.STRUCTURE), aim, spec)
    needs = slots.prerequisites(graph, spec)
    choice = dependency.choose(keys.named(own_key, Stage.CHOICE), aim, needs, spec)
    arranged = dependency.arrange(keys.named(own_key, Stage.ORDER), choice, needs, spec)
    op = dependency.total_op(choice, arranged, aim, spec)
    accepted = arranged.solved & (op == goal.target)
    key_data = jax.random.key_data(own_key)
    drawn = Draft(
        arranged.solved, accepted, op, op - choice.op, key_data, graph, arranged, choice.picks
    )
    if spec.split == "all" or _split_after(spec):
        return drawn
    terms, ops = _right_sides(drawn, spec)
    mine = template.draft_admitted(arranged, terms, ops, graph.edges, op, spec)
    return drawn._replace(accepted=accepted & mine)


def _right_sides(drawn: Draft, spec: Spec) -> tuple[dependency.Terms, arithmetic.Operators]:
    """The right sides of a draft: terms (step 8) and operators (step 11)."""
    key = jax.random.wrap_key_data(drawn.key_data)
    terms_key = keys.named(key, Stage.TERMS)
    terms = dependency.draw_terms(terms_key, drawn.arranged, drawn.extra_op, spec)
    return terms, arithmetic.operators(keys.named(key, Stage.OPERATORS), spec)


class _Searching(NamedTuple):
    """Loop state of the search for one problem."""

    drawn: Draft  # the draft before `place`
    place: Place


def find(key: jax.Array, goal: structure.Goal, start: Place, spec: Spec) -> tuple[Draft, Place]:
    """The first accepted draft of one problem, and the place after it.

    A draft whose order cannot be completed is repeated with the same plan (`inner` + 1), up to
    `STRUCTURES` times; one with another op than asked, or of the other split, is given up for
    a new plan (`outer` + 1), as the public program does.

    Returns:
      a draft that is not accepted, if the search gave up; a draft in any case.
    """
    draw = partial(draft, keys.named(key, Stage.DRAFTS), goal, spec=spec)

    def step(at: _Searching) -> _Searching:
        drawn = draw(at.place)
        return _Searching(drawn, _after(at.place, drawn))

    end = jax.lax.while_loop(
        lambda at: ~at.drawn.accepted & (at.place.tries < TRIES),
        step,
        _Searching(_blank(jax.eval_shape(draw, start)), start),
    )
    return end.drawn, end.place


def _blank(shapes: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


class _Lanes(NamedTuple):
    """Parallel searches, and the results of finished ones."""

    which_L: jax.Array  # int32: the problem that a lane searches for, or N
    place_L: Place
    taken: jax.Array  # int32: problems that are searched for, or were
    filled: jax.Array  # int32: problems found
    which_M: jax.Array  # int32: what was found, in the order of finding
    found_M: _Searching


def _narrowed(at: _Lanes, fewer: int) -> _Lanes:
    """The lanes reduced to a number, with all active ones kept and idle ones last."""
    left_L = jnp.argsort(at.which_L)[:fewer]
    which_L, place_L = jax.tree.map(lambda x_L: x_L[left_L], (at.which_L, at.place_L))
    return at._replace(which_L=which_L, place_L=place_L)


def find_many(
    keys_N: jax.Array,
    goals_N: structure.Goal,
    start_N: Place,
    spec: Spec,
    lanes: int | None = None,
    wanted: int | jax.Array | None = None,
) -> tuple[Draft, Place]:
    """`find` for many problems at once (leading axis N).

    A vmapped search would run until its unluckiest lane is done. Here a lane that is done takes
    the next problem, so that the work is proportional to the drafts; the result is the same.

    Args:
      keys_N: keys of N problems.
      goals_N: their numbers of operations.
      start_N: where their searches begin.
      spec: the class.
      lanes: drafts a round, until few searches are left.
      wanted: how many are searched for, the first ones; None for all. What is returned of the
        others is not accepted.
    """
    count = keys_N.shape[0]
    wanted = count if wanted is None else wanted
    lanes = min(lanes or max(LANES_LEAST, min(LANES, count // 8)), count)
    draw_keys_N = jax.vmap(lambda key: keys.named(key, Stage.DRAFTS))(keys_N)

    def asked(which_L: jax.Array) -> jax.Array:
        return jnp.where(which_L < wanted, which_L, count)

    def of(x_N: Any, which_L: jax.Array) -> Any:
        safe_L = jnp.minimum(which_L, count - 1)
        return jax.tree.map(lambda x: x[safe_L], x_N)

    def draw(which_L: jax.Array, place_L: Place) -> Draft:
        keys_L, goals_L = of((draw_keys_N, goals_N), which_L)
        return jax.vmap(partial(draft, spec=spec))(keys_L, goals_L, place_L)

    def step(at: _Lanes) -> _Lanes:
        drawn_L = draw(at.which_L, at.place_L)
        after_L = jax.vmap(_after)(at.place_L, drawn_L)
        done_L = (drawn_L.accepted | (after_L.tries >= TRIES)) & (at.which_L < count)
        # Those that are done go, side by side, behind those found before; what is written
        # beyond them is written over by the next round.
        first_L = jnp.argsort(~done_L)
        which_M, found_M = jax.tree.map(
            lambda old_M, new_L: jax.lax.dynamic_update_slice_in_dim(
                old_M, new_L[first_L], at.filled, axis=0
            ),
            (at.which_M, at.found_M),
            (at.which_L, _Searching(drawn_L, after_L)),
        )
        next_L = asked(at.taken + jnp.cumsum(done_L) - 1)
        which_L = jnp.where(done_L, next_L, at.which_L)
        place_L = jax.tree.map(
            lambda first_L, later_L: jnp.where(done_L, first_L, later_L),
            of(start_N, which_L),
            after_L,
        )
        taken = jnp.minimum(at.taken + done_L.sum(), count)
        return _Lanes(which_L, place_L, taken, at.filled + done_L.sum(), which_M, found_M)

    first_L = asked(jnp.arange(lanes, dtype=jnp.int32))
    place_L = of(start_N, first_L)
    found_L = _Searching(jax.eval_shape(draw, first_L, place_L), place_L)
    which_M, found_M = jax.tree.map(
        lambda x: jnp.zeros((count + lanes, *x.shape[1:]), x.dtype), (first_L, found_L)
    )
    end = _Lanes(first_L, place_L, jnp.int32(lanes), jnp.int32(0), which_M, found_M)
    # Each is a program of its own, which takes seconds to compile; few lanes are narrow anyhow.
    narrower = {lanes // NARROWER, 0} if lanes > LANES_LEAST else {0}
    for fewer in sorted(narrower, reverse=True):

        def crowded(at: _Lanes, fewer: int = fewer) -> jax.Array:
            return (at.which_L < count).sum() > fewer

        end = _narrowed(jax.lax.while_loop(crowded, step, end), fewer)
    is_found_N = jnp.arange(count) < end.filled
    place_N = jnp.argsort(jnp.where(is_found_N, end.which_M[:count], count))
    drawn_N, after_N = jax.tree.map(lambda x_M: x_M[place_N], end.found_M)
    return drawn_N._replace(accepted=drawn_N.accepted & is_found_N), after_N


def finish(key: jax.Array, drawn: Draft, spec: Spec) -> Problem:
    """Makes the problem of an accepted draft: distractors, constants, values, names."""
    needs = slots.prerequisites(drawn.graph, spec)
    graph = structure.unpack(drawn.graph, spec)
    exists_P = needs.exists.mask()
    terms, ops = _right_sides(drawn, spec)
    definitions = distractors.fill(
        keys.named(key, Stage.DISTRACTORS), drawn.arranged, drawn.picks, terms, needs, spec
    )
    constant_I, refs_IxR = definitions.constant_I, definitions.refs_IxR
    number_I = arithmetic.constants(keys.named(key, Stage.CONSTANTS), ops.times_I, refs_IxR, spec)
    number_I = jnp.where(constant_I, number_I, 0)
    value_P = arithmetic.values(definitions, number_I, ops, exists_P, spec)
    word = draws.words(keys.named(key, Stage.NAMES), 2 + 2 * spec.max_depth)
    subcategory_D = draws.below(word[2 : 2 + spec.max_depth], spec.subcategories)
    all_names = jnp.ones(spec.names, bool)
    items_DxW = jax.vmap(lambda w: draws.shuffled(w, all_names, spec.max_width))(
        word[2 + spec.max_depth :]
    )
    instances = spec.instance_slots
    sentence_word = draws.words(keys.named(key, Stage.SENTENCES), 1)[0]
    letter_word = draws.words(keys.named(key, Stage.LETTERS), 1)[0]
    order_T = jnp.pad(drawn.arranged.step_T, (0, spec.op_room - spec.op_cap), constant_values=-1)
    made = Problem(
        ok=drawn.accepted,
        op=drawn.op,
        structure=graph,
        steps=drawn.arranged.steps,
        order_T=order_T,
        constant_I=constant_I,
        number_I=number_I,
        refs_IxR=refs_IxR,
        times_I=ops.times_I,
        difference_I=ops.difference_I,
        value_P=value_P,
        sentences_E=draws.shuffled(sentence_word, exists_P[:instances], spec.edge_cap),
        hierarchy=draws.below(word[0], spec.hierarchies),
        first_category=draws.below(word[1], 4 - graph.depth + 1),
        subcategory_D=subcategory_D,
        items_DxW=items_DxW,
        letters=draws.shuffled(letter_word, jnp.ones(spec.letters, bool), spec.letters),
    )
    if spec.reask or spec.solution == "any":
        # Of the draft's own key, so that a search that goes on asks anew.
        return reask.resolve(jax.random.wrap_key_data(drawn.key_data), made, spec)
    return made


class _Found(NamedTuple):
    """The last finished problem of a search, for splits that only finished problems decide."""

    done: jax.Array  # bool: it is on the right side, or the search gave up
    problem: Problem
    place: Place


def _taken(made: Problem, drawn: Draft, place: Place, spec: Spec) -> _Found:
    mine = made.ok & template.admitted(made, spec)
    gave_up = ~drawn.accepted | (place.tries >= TRIES)
    return _Found(mine | gave_up, made._replace(ok=mine), place)


def sample(key: jax.Array, spec: Spec) -> Problem:
    """One problem of the class, a pure function of the key.

    `vmap` over it works; `sample_many` does the same faster.
    """
    goal = structure.goal(keys.named(key, Stage.GOAL), spec)

    def find_next(start: Place) -> tuple[Problem, Draft, Place]:
        drawn, place = find(key, goal, start, spec)
        return finish(key, drawn, spec), drawn, place

    if not _split_after(spec):
        return find_next(_beginning())[0]

    def step(at: _Found) -> _Found:
        return _taken(*find_next(at.place), spec)

    start = _Found(
        jnp.bool_(False), _blank(jax.eval_shape(find_next, _beginning())[0]), _beginning()
    )
    return jax.lax.while_loop(lambda at: ~at.done, step, start).problem


def sample_many(keys_N: jax.Array, spec: Spec, goals_N: structure.Goal | None = None) -> Problem:
    """N problems (leading axis N), each equal to `sample` of its key.

    Args:
      keys_N: their keys.
      spec: the class.
      goals_N: numbers of operations to have, none above the spec's cap; drawn, if None.
    """
    count = keys_N.shape[0]
    if goals_N is None:
        goals_N = jax.vmap(lambda key: structure.goal(keys.named(key, Stage.GOAL), spec))(keys_N)
    start_N = jax.tree.map(lambda x: jnp.broadcast_to(x, count), _beginning())
    if not _split_after(spec):
        return _finish_many(keys_N, find_many(keys_N, goals_N, start_N, spec)[0], spec)
    # Some of those that are still to be found at a time: all of them would be too many when
    # hardly any is left.
    some = min(count, max(LANES_LEAST, count // _AGAIN))

    def step(at_N: _Found) -> _Found:
        (which_S,) = jnp.nonzero(~at_N.done, size=some, fill_value=count)
        keys_S, goals_S, place_S = jax.tree.map(
            lambda x_N: x_N[jnp.minimum(which_S, count - 1)], (keys_N, goals_N, at_N.place)
        )
        left = (~at_N.done).sum()
        drawn_S, place_S = find_many(keys_S, goals_S, place_S, spec, wanted=left)
        made_S = _finish_many(keys_S, drawn_S, spec)
        found_S = jax.vmap(partial(_taken, spec=spec))(made_S, drawn_S, place_S)
        return jax.tree.map(lambda x_N, x_S: x_N.at[which_S].set(x_S, mode="drop"), at_N, found_S)

    problem_N = _blank(
        jax.eval_shape(lambda: sample_many(keys_N, dataclasses.replace(spec, split="all"), goals_N))
    )
    start = _Found(jnp.zeros(count, bool), problem_N, start_N)
    return jax.lax.while_loop(lambda at_N: ~at_N.done.all(), step, start).problem


def _finish_many(keys_N: jax.Array, drawn_N: Draft, spec: Spec) -> Problem:
    """`finish`, piece by piece, so that what is worked on stays in a processor's cache."""
    count = keys_N.shape[0]
    pieces = -(-count // PIECE)
    which_CxQ = jnp.minimum(jnp.arange(pieces * min(PIECE, count)).reshape(pieces, -1), count - 1)
    finish_all = jax.vmap(partial(finish, spec=spec))
    made_CxQ = jax.lax.map(
        lambda which_Q: finish_all(*jax.tree.map(lambda x_N: x_N[which_Q], (keys_N, drawn_N))),
        which_CxQ,
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], made_CxQ)
