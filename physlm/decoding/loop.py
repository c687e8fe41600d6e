"""The decoding loop on a device (continuous batching).

Free rows take waiting problems, generate, are reviewed and rolled back, and finish. The loop
returns to the host only when the cache has to be resized.

Names as in `physlm.decoding.engine`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from data_gen import keys
from physlm import cache as cache_lib
from physlm.architecture import ModelConfig
from physlm.cache import Cache
from physlm.decoding.strategy import Resources, Rows, Strategy
from physlm.model import Params

# New tokens that the cache has room for at first. It grows when a text needs more.
FIRST_GROWTH = 128

# What the loop is compiled with, by platform. On a CPU a token of a few rows is hundreds of
# operations of a microsecond each. To hand them to threads, to order them for several, or to sum a
# few numbers as a tree takes longer than it saves.
OPTIONS: dict[str, dict[str, str | bool]] = {
    "cpu": {
        "xla_disable_hlo_passes": "cpu-parallel-task-assigner,tree_reduction_rewriter",
        **(
            {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
            if jax.__version_info__ >= (0, 9, 1)
            else {"xla_cpu_enable_concurrency_optimized_scheduler": False}
        ),
    },
}


@dataclasses.dataclass(frozen=True)
class Program:
    """The static arguments of the loop: one program is compiled for each value.

    Attributes:
      config: the model's configuration.
      strategy: how tokens are chosen.
      groups: problems that a device works on at once.
      most: tokens that may be written after a prompt.
      stop: the id of the token that ends a text.
      mesh: with the axis `data`, over which problems are divided.
    """

    config: ModelConfig
    strategy: Strategy
    groups: int
    most: int
    stop: int
    mesh: Mesh


class Answers(NamedTuple):
    """The results so far: fields of `physlm.decoding.engine.Written`, [N * S] flattened to Q."""

    tokens_QxM: jax.Array
    length_Q: jax.Array
    score_Q: jax.Array
    spent_Q: jax.Array
    passes_Q: jax.Array
    returns_Q: jax.Array


class Queue(NamedTuple):
    """Waiting problems; every device has a queue of its own."""

    prompts_ExP: jax.Array
    prompt_E: jax.Array
    key_E: jax.Array
    resources_E: Any  # what the strategy was given of each problem
    count_X: jax.Array  # how many there are


class State(NamedTuple):
    """The loop's state on every device."""

    rows: Rows
    solution_B: jax.Array  # index of the row's solution in the queue; Q for an idle row
    own: Any
    cache: Cache
    next_X: jax.Array  # number of the next solution
    answers: Answers


def slots_of(state: State) -> int:
    """How many slots the cache has."""
    return state.cache[0].attention.k_BxNxSxK.shape[2]


def _on_each_device(mesh: Mesh, places: Any) -> Any:
    # Each device goes on at its own pace, without a collective after every token.
    return functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=places,
        out_specs=P("data"),
        axis_names={"data"},
        check_vma=False,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def begun(program: Program, slots: int, params: Params, resources: Any, queue: Queue) -> State:
    """The initial state: all rows idle."""
    strategy, groups, most, stop = program.strategy, program.groups, program.most, program.stop

    def on_device(params: Params, resources: Any, queue: Queue) -> State:
        count, total = groups * strategy.width, queue.prompts_ExP.shape[0] * strategy.samples
        width = queue.prompts_ExP.shape[1]
        prompts = jnp.zeros((groups, width), jnp.int32)

        def empty() -> tuple[Any, Cache]:
            problem_G = jnp.zeros(groups, jnp.int32)
            given = Resources(resources, jax.tree.map(lambda x: x[problem_G], queue.resources_E))
            own = strategy.begin(given, prompts, jnp.ones(groups, jnp.int32), width + most)
            own = strategy.resized(own, slots)
            one = jnp.zeros((count, 1), jnp.int32)
            return own, cache_lib.resized(cache_lib.read(program.config, params, one), slots)

        own, cache = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(empty))
        zero_B, zero_Q = jnp.zeros(count, jnp.int32), jnp.zeros(total, jnp.int32)
        text_BxL = jnp.full((count, width + most), stop, jnp.int32)
        key_B = jnp.broadcast_to(queue.key_E[0], (count,))
        rows = Rows(
            problem_B=zero_B - 1,
            text_BxL=text_BxL,
            prompt_B=zero_B + 1,
            length_B=zero_B + 1,
            score_BxL=jnp.zeros(text_BxL.shape, jnp.float32),
            done_B=zero_B == 0,
            tokens_B=zero_B,
            passes_B=zero_B,
            returns_B=zero_B,
            key_B=key_B,
        )
        tokens_QxM = jnp.full((total, most), stop, jnp.int32)
        answers = Answers(tokens_QxM, zero_Q, jnp.zeros(total), zero_Q, zero_Q, zero_Q)
        return State(rows, zero_B + total, own, cache, jnp.zeros(1, jnp.int32), answers)

    return _on_each_device(program.mesh, (P(), P(), P("data")))(on_device)(params, resources, queue)


@functools.partial(jax.jit, static_argnums=(0, 1))
def resized(program: Program, slots: int, state: State) -> State:
    """The state with its cache resized to `slots` tokens a row."""

    def on_device(state: State) -> State:
        own = program.strategy.resized(state.own, slots)
        return state._replace(own=own, cache=cache_lib.resized(state.cache, slots))

    return _on_each_device(program.mesh, (P("data"),))(on_device)(state)


def run(
    program: Program, params: Params, resources: Any, queue: Queue, state: State
) -> tuple[State, jax.Array, jax.Array]:
    """Decodes until all problems are done, or until the cache has to be resized.

    The state that is given cannot be used afterwards.

    Returns:
      The state, on how many devices problems are left, and how many slots are needed.
    """
    on_platform = _run_on(program.mesh.devices.flat[0].platform)
    return on_platform(program, params, resources, queue, state)


@functools.cache
def _run_on(platform: str) -> Any:
    options = OPTIONS.get(platform)
    return jax.jit(_run, static_argnums=0, donate_argnums=4, compiler_options=options)


def _run(
    program: Program, params: Params, resources: Any, queue: Queue, state: State
) -> tuple[State, jax.Array, jax.Array]:
    """`run`, to be compiled for a platform."""
    width = queue.prompts_ExP.shape[1]
    slots, strategy = slots_of(state), program.strategy
    least = width + min(FIRST_GROWTH, program.most)
    # To begin a few together costs little more than to begin one.
    together = max(1, program.groups // 2)

    def on_device(
        params: Params, resources: Any, queue: Queue, state: State
    ) -> tuple[State, jax.Array, jax.Array]:
        total = queue.count_X[0] * strategy.samples

        def needed(state: State) -> jax.Array:
            # The last token of a text is the next to be read.
            longest = jnp.where(state.rows.done_B, 0, state.rows.length_B).max()
            return jnp.maximum(longest, least)

        def waiting(state: State) -> jax.Array:
            free = state.rows.done_B[:: strategy.width].sum()
            return (state.next_X[0] < total) & (free >= together)

        def going(state: State) -> jax.Array:
            return ~state.rows.done_B.all() | (state.next_X[0] < total)

        def fits(state: State) -> jax.Array:
            return needed(state) <= slots

        def writing(carry: tuple[jax.Array, State]) -> jax.Array:
            looked, state = carry
            on = ~state.rows.done_B.all() & ~waiting(state) & fits(state)
            return on & (looked | ~strategy.due(state.rows, state.own)) if strategy.looks else on

        def write(carry: tuple[jax.Array, State]) -> tuple[jax.Array, State]:
            return jnp.zeros_like(carry[0]), _step(program, params, carry[1])

        def admit(state: State) -> State:
            return _admitted(program, params, resources, queue, together, state)

        def turn(state: State) -> State:
            # A loop and not a condition, so that XLA leaves the cache where it is.
            state = jax.lax.while_loop(waiting, admit, state)
            _, state = jax.lax.while_loop(writing, write, (jnp.array(True), state))
            return _reviewed(strategy, resources, queue, state) if strategy.looks else state

        def turning(state: State) -> jax.Array:
            # Rows with long texts are finished, so that far fewer slots would do.
            roomy = (needed(state) <= slots // 2) & (slots > least)
            return going(state) & fits(state) & ~roomy

        state = jax.lax.while_loop(turning, turn, state)
        state = state._replace(answers=_flushed(program, state))
        return state, going(state)[None].astype(jnp.int32), needed(state)[None]

    places = (P(), P(), P("data"), P("data"))
    everywhere = _on_each_device(program.mesh, places)(on_device)
    state, going_X, needed_X = everywhere(params, resources, queue, state)
    # A device that is done needs no slots.
    return state, going_X.sum(), jnp.where(going_X > 0, needed_X, 0).max()


def _step(program: Program, params: Params, state: State) -> State:
    """Generates one token in each unfinished row."""
    stop, most = program.stop, program.most
    rows, cache = state.rows, state.cache
    all_B = jnp.arange(rows.length_B.shape[0])
    last_B = rows.length_B - 1
    frame, x_Bx1xD, cache = cache_lib.go_on(
        program.config, params, rows.text_BxL[all_B, last_B][:, None], last_B, cache
    )
    logits_BxV = frame.logits(x_Bx1xD[:, 0])
    chosen = program.strategy.choose(rows, state.own, logits_BxV, stop, most)
    log_BxV = jax.nn.log_softmax(logits_BxV)
    if chosen.source_B is not None:
        rows, cache = _continued(rows, cache, chosen.source_B)
        log_BxV = log_BxV[chosen.source_B]
    on_B = ~rows.done_B
    # Rows that are done write where nothing is read.
    at_B = jnp.where(on_B, rows.length_B, rows.text_BxL.shape[1])
    text_BxL = rows.text_BxL.at[all_B, at_B].set(chosen.token_B, mode="drop")
    score_B = jnp.take_along_axis(log_BxV, chosen.token_B[:, None], 1)[:, 0]
    score_BxL = rows.score_BxL.at[all_B, at_B].set(score_B, mode="drop")
    length_B = rows.length_B + on_B
    done_B = chosen.done_B
    if done_B is None:
        done_B = (chosen.token_B == stop) | (length_B - rows.prompt_B >= most)
    rows = rows._replace(
        text_BxL=text_BxL,
        score_BxL=score_BxL,
        length_B=length_B,
        done_B=rows.done_B | done_B,
        tokens_B=rows.tokens_B + on_B,
        passes_B=rows.passes_B + on_B,
    )
    return state._replace(rows=rows, own=chosen.own, cache=cache)


def _continued(rows: Rows, cache: Cache, source_B: jax.Array) -> tuple[Rows, Cache]:
    """Rows with the text and cache of the rows that they continue, as beams do."""
    shared_B = cache_lib.alike(rows.text_BxL, source_B)
    cache = cache_lib.continued(cache, source_B, shared_B, rows.length_B)
    text_BxL, score_BxL = rows.text_BxL[source_B], rows.score_BxL[source_B]
    return rows._replace(text_BxL=text_BxL, score_BxL=score_BxL), cache


def _reviewed(strategy: Strategy, resources: Any, queue: Queue, state: State) -> State:
    """Lets the strategy review the texts, and rolls rows back as it decides."""
    rows = state.rows
    problem_B = jnp.maximum(rows.problem_B, 0)
    of_rows = jax.tree.map(lambda x: x[problem_B], queue.resources_E)
    given = Resources(resources, of_rows, state.cache)
    looked = strategy.review(given, rows, state.own)
    back_B = looked.length_B < rows.length_B
    place_L = jnp.arange(rows.text_BxL.shape[1])
    rows = rows._replace(
        length_B=looked.length_B,
        score_BxL=jnp.where(place_L < looked.length_B[:, None], rows.score_BxL, 0),
        done_B=rows.done_B & ~back_B,
        tokens_B=rows.tokens_B - looked.unsaid_B,
        passes_B=rows.passes_B - looked.unsaid_B + looked.passes_B,
        returns_B=rows.returns_B + looked.returns_B,
    )
    return state._replace(rows=rows, own=looked.own)


def _admitted(
    program: Program, params: Params, resources: Any, queue: Queue, together: int, state: State
) -> State:
    """Gives the next waiting problems, at most `together`, to free rows and prefills them."""
    strategy = program.strategy
    rows, total = state.rows, queue.prompts_ExP.shape[0] * strategy.samples
    count = rows.done_B.shape[0] // strategy.width
    free_G = rows.done_B[:: strategy.width]
    group_F = jnp.argsort(~free_G, stable=True)[:together]
    solution_F = state.next_X[0] + jnp.arange(together)
    begins_F = free_G[group_F] & (solution_F < queue.count_X[0] * strategy.samples)
    # What these rows have written is kept before another problem takes their place.
    answers = _flushed(program, state)
    problem_F = jnp.minimum(solution_F // strategy.samples, queue.prompt_E.shape[0] - 1)
    prompts_FxP, prompt_F = queue.prompts_ExP[problem_F], queue.prompt_E[problem_F]
    key_F = jax.vmap(keys.numbered)(queue.key_E[problem_F], solution_F % strategy.samples)
    given = Resources(resources, jax.tree.map(lambda x: x[problem_F], queue.resources_E))
    own = strategy.begin(given, prompts_FxP, prompt_F, rows.text_BxL.shape[1])
    own = strategy.resized(own, slots_of(state))
    read = cache_lib.read(program.config, params, prompts_FxP)
    # Places past the last are those of rows that do not begin.
    place_F = jnp.where(begins_F, group_F, count)
    row_R = (place_F[:, None] * strategy.width + jnp.arange(strategy.width)).reshape(-1)

    def widened(x: jax.Array) -> jax.Array:
        return jnp.repeat(x, strategy.width, axis=0)

    def put(x: jax.Array, new: jax.Array) -> jax.Array:
        return x.at[row_R].set(new, mode="drop")

    most = rows.text_BxL.shape[1] - prompts_FxP.shape[1]
    zero_R = jnp.zeros(row_R.shape, jnp.int32)
    text_RxL = widened(jnp.pad(prompts_FxP, ((0, 0), (0, most)), constant_values=program.stop))
    begun = Rows(
        problem_B=widened(problem_F),
        text_BxL=text_RxL,
        prompt_B=widened(prompt_F),
        length_B=widened(prompt_F),
        score_BxL=jnp.zeros(text_RxL.shape, jnp.float32),
        done_B=zero_R > 0,
        tokens_B=zero_R,
        # The prompt is read in one pass.
        passes_B=zero_R + 1,
        returns_B=zero_R,
        key_B=widened(key_F),
    )
    read = jax.tree.map(widened, read)
    return State(
        rows=jax.tree.map(put, rows, begun),
        solution_B=put(jnp.where(rows.done_B, total, state.solution_B), widened(solution_F)),
        own=jax.tree.map(put, state.own, own),
        cache=cache_lib.put(state.cache, row_R, read),
        next_X=state.next_X + begins_F.sum(),
        answers=answers,
    )


def _flushed(program: Program, state: State) -> Answers:
    """The answers, with those of finished rows written to them."""
    strategy = program.strategy
    rows, answers = state.rows, state.answers
    first = slice(None, None, strategy.width)
    text_GxL, length_G, score_G = strategy.best(rows, state.own)
    most = answers.tokens_QxM.shape[1]

    def written(text_L: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(text_L, start, most)

    length_G = length_G - rows.prompt_B[first]
    tokens_GxM = jax.vmap(written)(text_GxL, rows.prompt_B[first])
    tokens_GxM = jnp.where(jnp.arange(most) < length_G[:, None], tokens_GxM, program.stop)
    total = answers.length_Q.shape[0]
    at_G = jnp.where(rows.done_B[first], state.solution_B[first], total)
    found = Answers(
        tokens_GxM,
        length_G,
        score_G,
        rows.tokens_B.reshape(-1, strategy.width).sum(1),
        rows.passes_B[first],
        rows.returns_B[first],
    )
    return jax.tree.map(lambda x, new: x.at[at_G].set(new, mode="drop"), answers, found)
