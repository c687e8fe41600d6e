"""The engine: problems wait, a row takes the next one as soon as it is free.

It owns the cache, its growth, stopping, the division over devices and the count of what was spent;
a strategy (`physlm.decoding.strategy`) says which token comes next, which row it continues and how
far to go back. What a row writes does not depend on the others: not on how many there are, not on
their order, nor on the devices.

Names as in `physlm.decoding.strategy`, and Q: solutions, those of a problem after each other, M:
tokens that may be written, X: devices along `data`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import ArrayLike

from data_gen import keys
from data_gen.keys import Purpose
from physlm import cache as cache_lib
from physlm import devices, model
from physlm.architecture import ModelConfig
from physlm.cache import Cache
from physlm.decoding.strategy import Rows, Strategy
from physlm.model import Params
from physlm.sharding import AXES, along

# New tokens that the cache has room for at first. It grows when a text needs more.
_FIRST_GROWTH = 128

# Solutions that wait on a device at most, in multiples of its rows.
_WAITING = 32

# The keys and values of a few rows fit a core's cache.
_ROWS_OF_A_CPU = 8


class Written(NamedTuple):
    """What was written after N prompts, each S times (`Strategy.samples`).

    Attributes:
      tokens_NxSxM: int32; after the token that ends a text there is nothing else.
      length_NxS: int32, how many they are, the one that ends the text included.
      score_NxS: float32, the log-likelihood, or what a strategy has in its place.
      spent_NxS: int32, tokens written, those that were taken back or left for better ones too.
      passes_NxS: int32, forward passes of a model that had to be made one after the other.
      returns_NxS: int32, how often the writer went back.
    """

    tokens_NxSxM: np.ndarray
    length_NxS: np.ndarray
    score_NxS: np.ndarray
    spent_NxS: np.ndarray
    passes_NxS: np.ndarray
    returns_NxS: np.ndarray


class _Answers(NamedTuple):
    """`Written` while it is made, with the solutions as one axis."""

    tokens_QxM: jax.Array
    length_Q: jax.Array
    score_Q: jax.Array
    spent_Q: jax.Array
    passes_Q: jax.Array
    returns_Q: jax.Array


class _Queue(NamedTuple):
    """Problems that wait, of each device its own."""

    prompts_ExP: jax.Array
    prompt_E: jax.Array
    key_E: jax.Array
    resources_E: Any  # what the strategy was given of each problem
    count_X: jax.Array  # how many there are


class _State(NamedTuple):
    rows: Rows
    solution_B: jax.Array  # number of what a row works on in the queue; Q where it is on nothing
    own: Any
    cache: Cache
    next_X: jax.Array  # number of the next solution
    answers: _Answers


def decode(
    config: ModelConfig,
    params: Params,
    prompts_NxP: ArrayLike,
    prompt_N: ArrayLike,
    *,
    strategy: Strategy,
    max_new_tokens: int,
    stop: int,
    key: jax.Array | None = None,
    rows: int = 64,
    ids_N: ArrayLike | None = None,
    resources: Any = (),
    resources_N: Any = (),
    done: Callable[[int], None] = lambda _: None,
) -> Written:
    """Continues each prompt.

    Rows are divided over the devices that hold the parameters. Devices along `tensor` work on the
    same rows.

    Args:
      config: the model's configuration.
      params: its parameters.
      prompts_NxP: int32 token ids, padded on the right with any id.
      prompt_N: int32, the number of tokens of each prompt, in 1..P.
      strategy: how tokens are chosen.
      max_new_tokens: M. Prompt and continuation together may be longer than the training window.
      stop: the id of the token that ends a text.
      key: of what is drawn. A solution depends on it, on the problem's id and on the number of the
        sample alone. Without it, that of seed 0.
      rows: how many texts are written at once, at most. On a CPU they are fewer.
      ids_N: int32, a number for each problem; by default its place.
      resources: arrays that the strategy works with beside the model.
      resources_N: arrays that it works with for each problem (leading axis N).
      done: told how many problems are done.

    Raises:
      ValueError: shapes do not fit, a length is out of range, nothing is to be decoded, there are
        fewer rows than the strategy works with together, or more than memory has room for.
    """
    prompts_NxP, prompt_N = np.asarray(prompts_NxP, np.int32), np.asarray(prompt_N, np.int32)
    _check(prompts_NxP, prompt_N, max_new_tokens)
    if strategy.width > rows:
        raise ValueError(f"{strategy.width} rows work on a problem, and there are {rows} at once.")
    params, mesh = _laid_out(params)
    params = jax.jit(model.unrolled, static_argnums=0)(config, params)
    shards = mesh.shape["data"]
    groups = _groups(rows, strategy, mesh)
    _check_memory(config, groups * strategy.width, prompts_NxP.shape[1] + max_new_tokens, mesh)
    root = keys.root(0, Purpose.DECODING) if key is None else key
    count = len(prompt_N)
    ids_N = np.arange(count, dtype=np.int32) if ids_N is None else np.asarray(ids_N, np.int32)
    size = max(1, -(-_WAITING * groups // strategy.samples)) * shards
    parts: list[Written] = []
    for start in range(0, count, size):
        here = slice(start, min(start + size, count))
        resources_E = jax.tree.map(lambda x, here=here: np.asarray(x)[here], resources_N)
        key_E = keys.all_numbered(root, ids_N[here])
        parts_E = (prompts_NxP[here], prompt_N[here], key_E, resources_E)
        queue = _divided(parts_E, -(-min(size, count) // shards), mesh)
        answers = _run_all(
            config, strategy, params, resources, queue, groups, max_new_tokens, stop, mesh
        )
        parts.append(_collected(answers, here.stop - start, strategy.samples, shards))
        done(here.stop)
    return Written(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def _check(prompts_NxP: np.ndarray, prompt_N: np.ndarray, most: int) -> None:
    if prompts_NxP.ndim != 2 or prompt_N.shape != prompts_NxP.shape[:1] or not prompts_NxP.size:
        raise ValueError(
            f"prompts have the shape {prompts_NxP.shape} and lengths {prompt_N.shape}; "
            "they must be [N, P] and [N] with at least one token."
        )
    if prompt_N.min() < 1 or prompt_N.max() > prompts_NxP.shape[1]:
        raise ValueError(
            f"lengths range from {prompt_N.min()} to {prompt_N.max()}; "
            f"they must be in 1..{prompts_NxP.shape[1]}."
        )
    if most < 1:
        raise ValueError(f"max_new_tokens is {most}; it must be at least 1.")


def _check_memory(config: ModelConfig, rows: int, slots: int, mesh: Mesh) -> None:
    """Sees to it that the longest texts of all rows of a device fit its memory."""
    each = slots * cache_lib.bytes_a_token(config) // mesh.shape["tensor"]
    room = devices.room(mesh.local_devices[0])
    if rows * each > room:
        raise ValueError(
            f"{rows} rows of {slots} tokens take {rows * each / 2**30:.1f} GiB of keys and values "
            f"on a device, which has {room / 2**30:.1f} GiB: at most {room // each} rows fit "
            "(evaluate.batch, or narrower beams)."
        )


def _laid_out(params: Params) -> tuple[Params, Mesh]:
    """The parameters, whole on each device or divided along `tensor` only, and a mesh for decoding.

    The mesh has the axes `data`, over which rows are divided, and `tensor`. Devices along any other
    axis of the training mesh are along `data` here, since rows do not depend on each other.
    """
    sharding = jax.tree.leaves(params)[0].sharding
    if not (isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh)):
        axis_types = (AxisType.Auto,) * 2
        devices = list(sharding.device_set)[:1]
        return params, jax.make_mesh((1, 1), ("data", "tensor"), axis_types, devices=devices)
    devices_M = sharding.mesh.devices
    width = sharding.mesh.shape["tensor"] if sharding.mesh.axis_names == AXES else 1
    mesh = Mesh(devices_M.reshape(-1, width), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)

    def place(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, along(leaf.sharding.spec, ("tensor",)))

    return jax.device_put(params, jax.tree.map(place, params)), mesh


def _groups(rows: int, strategy: Strategy, mesh: Mesh) -> int:
    """Problems that a device works on at once."""
    here = max(rows // mesh.shape["data"], 1)
    if mesh.devices.flat[0].platform == "cpu":
        here = min(here, _ROWS_OF_A_CPU)
    return max(here // strategy.width, 1)


def _divided(arrays: Any, each: int, mesh: Mesh) -> _Queue:
    """The problems as queues of the devices, as long as each other, with room for `each`."""
    count, shards = len(arrays[1]), mesh.shape["data"]
    share = -(-count // shards)

    def divided(x: Any) -> Any:
        # What is added is never begun.
        x = jnp.concatenate([x, jnp.repeat(x[:1], share * shards - count, axis=0)])
        x = x.reshape(shards, share, *x.shape[1:])
        x = jnp.concatenate([x, jnp.repeat(x[:, :1], each - share, axis=1)], axis=1)
        return x.reshape(shards * each, *x.shape[2:])

    prompts, prompt, key, resources = jax.tree.map(divided, arrays)
    counts = jnp.clip(count - share * jnp.arange(shards), 0, share)
    queue = _Queue(prompts, prompt, key, resources, counts)
    return jax.device_put(queue, NamedSharding(mesh, P("data")))


def _collected(answers: _Answers, count: int, samples: int, shards: int) -> Written:
    """What was written, in the order of the problems."""
    if jax.process_count() > 1:
        answers = multihost_utils.process_allgather(answers, tiled=True)
    share = -(-count // shards)

    def together(x: Any) -> np.ndarray:
        x = np.asarray(x).reshape(shards, -1, samples, *x.shape[1:])
        return x[:, :share].reshape(-1, *x.shape[2:])[:count]

    return Written(*jax.tree.map(together, answers))


def _run_all(
    config: ModelConfig,
    strategy: Strategy,
    params: Params,
    resources: Any,
    queue: _Queue,
    groups: int,
    most: int,
    stop: int,
    mesh: Mesh,
) -> _Answers:
    """Solves all problems of a queue, with as many slots as are needed at a time."""
    width = queue.prompts_ExP.shape[1]
    steps = [width + grown for grown in (*_doublings(_FIRST_GROWTH, most), most)]
    static = (config, strategy, groups, most, stop, mesh)
    state = _begun(*static, steps[0], params, resources, queue)
    while True:
        slots = state.cache[0].attention.k_BxNxSxK.shape[2]
        state, going, needed = _run(*static, params, resources, queue, state)
        if not int(going):
            return state.answers
        fitting = next(step for step in steps if step >= int(needed))
        assert fitting != slots
        state = _resized(fitting, mesh, state)


def _doublings(first: int, end: int) -> list[int]:
    return [first * 2**i for i in range(end.bit_length()) if first * 2**i < end]


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


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5, 6))
def _begun(
    config: ModelConfig,
    strategy: Strategy,
    groups: int,
    most: int,
    stop: int,
    mesh: Mesh,
    slots: int,
    params: Params,
    resources: Any,
    queue: _Queue,
) -> _State:
    """Rows without a problem."""

    def on_device(params: Params, resources: Any, queue: _Queue) -> _State:
        count, total = groups * strategy.width, queue.prompts_ExP.shape[0] * strategy.samples
        width = queue.prompts_ExP.shape[1]
        prompts = jnp.zeros((groups, width), jnp.int32)

        def empty() -> tuple[Any, Cache]:
            problem_G = jnp.zeros(groups, jnp.int32)
            given = (resources, jax.tree.map(lambda x: x[problem_G], queue.resources_E))
            own = strategy.begin(given, prompts, jnp.ones(groups, jnp.int32), width + most)
            one = jnp.zeros((count, 1), jnp.int32)
            return own, cache_lib.resized(cache_lib.read(config, params, one), slots)

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
        answers = _Answers(tokens_QxM, zero_Q, jnp.zeros(total), zero_Q, zero_Q, zero_Q)
        return _State(rows, zero_B + total, own, cache, jnp.zeros(1, jnp.int32), answers)

    return _on_each_device(mesh, (P(), P(), P("data")))(on_device)(params, resources, queue)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _resized(slots: int, mesh: Mesh, state: _State) -> _State:
    def on_device(state: _State) -> _State:
        return state._replace(cache=cache_lib.resized(state.cache, slots))

    return _on_each_device(mesh, (P("data"),))(on_device)(state)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5), donate_argnums=9)
def _run(
    config: ModelConfig,
    strategy: Strategy,
    groups: int,
    most: int,
    stop: int,
    mesh: Mesh,
    params: Params,
    resources: Any,
    queue: _Queue,
    state: _State,
) -> tuple[_State, jax.Array, jax.Array]:
    """Goes on until all is done, or until texts need another number of slots than there are.

    Returns:
      The state, how many problems are not done, and how many slots are needed.
    """
    width = queue.prompts_ExP.shape[1]
    slots = state.cache[0].attention.k_BxNxSxK.shape[2]
    least = width + min(_FIRST_GROWTH, most)
    # To begin a few together costs little more than to begin one.
    together = max(1, groups // 2)

    def on_device(
        params: Params, resources: Any, queue: _Queue, state: _State
    ) -> tuple[_State, jax.Array, jax.Array]:
        total = queue.count_X[0] * strategy.samples

        def needed(state: _State) -> jax.Array:
            # The last token of a text is the next to be read.
            longest = jnp.where(state.rows.done_B, 0, state.rows.length_B).max()
            return jnp.maximum(longest, least)

        def waiting(state: _State) -> jax.Array:
            free = state.rows.done_B[:: strategy.width].sum()
            return (state.next_X[0] < total) & (free >= together)

        def going(state: _State) -> jax.Array:
            return ~state.rows.done_B.all() | (state.next_X[0] < total)

        def fits(state: _State) -> jax.Array:
            return needed(state) <= slots

        def writing(carry: tuple[jax.Array, _State]) -> jax.Array:
            count, state = carry
            on = ~state.rows.done_B.all() & ~waiting(state) & fits(state)
            return on & (count < strategy.every) if strategy.every else on

        def write(carry: tuple[jax.Array, _State]) -> tuple[jax.Array, _State]:
            return carry[0] + 1, _step(config, params, strategy, stop, most, carry[1])

        def turn(state: _State) -> _State:
            state = _admitted(config, params, strategy, resources, queue, together, stop, state)
            _, state = jax.lax.while_loop(writing, write, (jnp.int32(0), state))
            return _reviewed(strategy, resources, queue, state) if strategy.every else state

        def turning(state: _State) -> jax.Array:
            # Far fewer slots would do: rows with long texts are gone.
            roomy = (needed(state) <= slots // 2) & (slots > least)
            return going(state) & fits(state) & ~roomy

        state = jax.lax.while_loop(turning, turn, state)
        state = state._replace(answers=_flushed(strategy, stop, state))
        return state, going(state)[None].astype(jnp.int32), needed(state)[None]

    places = (P(), P(), P("data"), P("data"))
    run = _on_each_device(mesh, places)(on_device)
    state, going_X, needed_X = run(params, resources, queue, state)
    # Whoever is done needs no slots.
    return state, going_X.sum(), jnp.where(going_X > 0, needed_X, 0).max()


def _step(
    config: ModelConfig,
    params: Params,
    strategy: Strategy,
    stop: int,
    most: int,
    state: _State,
) -> _State:
    """Writes one more token of each row that is not done."""
    rows, cache = state.rows, state.cache
    all_B = jnp.arange(rows.length_B.shape[0])
    last_B = rows.length_B - 1
    frame, x_Bx1xD, cache = cache_lib.go_on(
        config, params, rows.text_BxL[all_B, last_B][:, None], last_B, cache
    )
    logits_BxV = frame.logits(x_Bx1xD[:, 0])
    chosen = strategy.choose(rows, state.own, logits_BxV, stop, most)
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
    """Rows that continue the texts of others of their problem."""
    texts = (rows.text_BxL, rows.score_BxL, cache)

    def moved(texts: Any) -> Any:
        text_BxL, score_BxL, cache = texts
        return text_BxL[source_B], score_BxL[source_B], cache_lib.rows_of(cache, source_B)

    stay = (source_B == jnp.arange(source_B.shape[0])).all()
    text_BxL, score_BxL, cache = jax.lax.cond(stay, lambda texts: texts, moved, texts)
    return rows._replace(text_BxL=text_BxL, score_BxL=score_BxL), cache


def _reviewed(strategy: Strategy, resources: Any, queue: _Queue, state: _State) -> _State:
    """Lets the strategy look at what has been written, and rows go back."""
    rows = state.rows
    problem_B = jnp.maximum(rows.problem_B, 0)
    given = (resources, jax.tree.map(lambda x: x[problem_B], queue.resources_E))
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
    config: ModelConfig,
    params: Params,
    strategy: Strategy,
    resources: Any,
    queue: _Queue,
    together: int,
    stop: int,
    state: _State,
) -> _State:
    """Lets rows that are free take the next problems."""
    rows, total = state.rows, queue.prompts_ExP.shape[0] * strategy.samples
    count = rows.done_B.shape[0] // strategy.width
    free_G = rows.done_B[:: strategy.width]
    group_F = jnp.argsort(~free_G, stable=True)[:together]
    solution_F = state.next_X[0] + jnp.arange(together)
    begins_F = free_G[group_F] & (solution_F < queue.count_X[0] * strategy.samples)
    # What these rows have written is kept before another problem takes their place.
    answers = _flushed(strategy, stop, state)
    problem_F = jnp.minimum(solution_F // strategy.samples, queue.prompt_E.shape[0] - 1)
    prompts_FxP, prompt_F = queue.prompts_ExP[problem_F], queue.prompt_E[problem_F]
    key_F = jax.vmap(keys.numbered)(queue.key_E[problem_F], solution_F % strategy.samples)
    given = (resources, jax.tree.map(lambda x: x[problem_F], queue.resources_E))
    own = strategy.begin(given, prompts_FxP, prompt_F, rows.text_BxL.shape[1])
    read = cache_lib.read(config, params, prompts_FxP)
    # Places past the last are those of rows that do not begin.
    place_F = jnp.where(begins_F, group_F, count)
    row_R = (place_F[:, None] * strategy.width + jnp.arange(strategy.width)).reshape(-1)

    def widened(x: jax.Array) -> jax.Array:
        return jnp.repeat(x, strategy.width, axis=0)

    def put(x: jax.Array, new: jax.Array) -> jax.Array:
        return x.at[row_R].set(new, mode="drop")

    most = rows.text_BxL.shape[1] - prompts_FxP.shape[1]
    zero_R = jnp.zeros(row_R.shape, jnp.int32)
    text_RxL = widened(jnp.pad(prompts_FxP, ((0, 0), (0, most)), constant_values=stop))
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
    return _State(
        rows=jax.tree.map(put, rows, begun),
        solution_B=put(jnp.where(rows.done_B, total, state.solution_B), widened(solution_F)),
        own=jax.tree.map(put, state.own, own),
        cache=cache_lib.put(state.cache, row_R, read),
        next_X=state.next_X + begins_F.sum(),
        answers=answers,
    )


def _flushed(strategy: Strategy, stop: int, state: _State) -> _Answers:
    """The answers with those of rows that are done."""
    rows, answers = state.rows, state.answers
    first = slice(None, None, strategy.width)
    text_GxL, length_G, score_G = strategy.best(rows, state.own)
    most = answers.tokens_QxM.shape[1]

    def written(text_L: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(text_L, start, most)

    length_G = length_G - rows.prompt_B[first]
    tokens_GxM = jax.vmap(written)(text_GxL, rows.prompt_B[first])
    tokens_GxM = jnp.where(jnp.arange(most) < length_G[:, None], tokens_GxM, stop)
    total = answers.length_Q.shape[0]
    at_G = jnp.where(rows.done_B[first], state.solution_B[first], total)
    found = _Answers(
        tokens_GxM,
        length_G,
        score_G,
        rows.tokens_B.reshape(-1, strategy.width).sum(1),
        rows.passes_B[first],
        rows.returns_B[first],
    )
    return jax.tree.map(lambda x, new: x.at[at_G].set(new, mode="drop"), answers, found)
