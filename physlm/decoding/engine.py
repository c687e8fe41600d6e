"""The decoding engine: problems wait in a queue, and a free row takes the next one.

The engine owns the cache and its size, decides when texts end, divides rows over devices and counts
the cost; a strategy (`physlm.decoding.strategy`) says which token comes next, which row it
continues and how far to go back. What a row writes does not depend on other rows, on their number
and order, nor on the devices.

Names as in `physlm.decoding.strategy`, and Q: solutions, those of a problem after each other, M:
tokens that may be written, X: devices along `data`.
"""

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
from physlm.decoding import loop
from physlm.decoding.loop import Answers, Program, Queue
from physlm.decoding.strategy import Strategy
from physlm.model import Params
from physlm.sharding import AXES, along

# Solutions that wait on a device at most, in multiples of its rows.
_WAITING = 32

# The keys and values of a few rows fit a core's cache.
_ROWS_OF_A_CPU = 8


class Written(NamedTuple):
    """The texts generated after N prompts, S for each (`Strategy.samples`).

    Attributes:
      tokens_NxSxM: int32; after the token that ends a text only that token.
      length_NxS: int32, how many tokens were written, the one that ends the text included.
      score_NxS: float32, the log-likelihood, or the score that a strategy uses in its place.
      spent_NxS: int32, tokens that were generated, discarded ones too.
      passes_NxS: int32, forward passes of a model, one after the other. A pass reads at once all
        that is known, of all rows of a solution: the prompt is one, every token that is added is
        one, whether to one text or to all beams, and so is every question that a probe answers. A
        perfect detector runs no model.
      returns_NxS: int32, how often decoding went back.
    """

    tokens_NxSxM: np.ndarray
    length_NxS: np.ndarray
    score_NxS: np.ndarray
    spent_NxS: np.ndarray
    passes_NxS: np.ndarray
    returns_NxS: np.ndarray


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
        program = Program(config, strategy, groups, max_new_tokens, stop, mesh)
        answers = _run_all(program, params, resources, queue)
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
    """Raises ValueError where the cache of all rows of a device would not fit its memory."""
    each = slots * cache_lib.bytes_a_token(config) // mesh.shape["tensor"]
    room = devices.room(mesh.local_devices[0])
    if rows * each > room:
        raise ValueError(
            f"{rows} rows of {slots} tokens take {rows * each / 2**30:.1f} GiB of keys and values "
            f"on a device, which has {room / 2**30:.1f} GiB: at most {room // each} rows fit "
            "(evaluate.batch, or narrower beams)."
        )


def _laid_out(params: Params) -> tuple[Params, Mesh]:
    """The parameters, replicated or sharded along `tensor` only, and a mesh for decoding.

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
    """Problems that a device decodes at once."""
    here = max(rows // mesh.shape["data"], 1)
    if mesh.devices.flat[0].platform == "cpu":
        here = min(here, _ROWS_OF_A_CPU)
    return max(here // strategy.width, 1)


def _divided(arrays: Any, each: int, mesh: Mesh) -> Queue:
    """The problems as one queue for each device, all padded to `each` problems."""
    count, shards = len(arrays[1]), mesh.shape["data"]
    share = -(-count // shards)

    def divided(x: Any) -> Any:
        # The padding is never decoded, since `counts` leaves it out.
        x = jnp.concatenate([x, jnp.repeat(x[:1], share * shards - count, axis=0)])
        x = x.reshape(shards, share, *x.shape[1:])
        x = jnp.concatenate([x, jnp.repeat(x[:, :1], each - share, axis=1)], axis=1)
        return x.reshape(shards * each, *x.shape[2:])

    prompts, prompt, key, resources = jax.tree.map(divided, arrays)
    counts = jnp.clip(count - share * jnp.arange(shards), 0, share)
    queue = Queue(prompts, prompt, key, resources, counts)
    place = NamedSharding(mesh, P("data"))
    if jax.process_count() == 1:
        return jax.device_put(queue, place)
    # Every host has all problems, and puts those of its own devices there.
    return jax.jit(lambda queue: queue, out_shardings=place)(queue)


def _collected(answers: Answers, count: int, samples: int, shards: int) -> Written:
    """The answers in the order of the problems."""
    if jax.process_count() > 1:
        answers = multihost_utils.process_allgather(answers, tiled=True)
    share = -(-count // shards)

    def together(x: Any) -> np.ndarray:
        x = np.asarray(x).reshape(shards, -1, samples, *x.shape[1:])
        return x[:, :share].reshape(-1, *x.shape[2:])[:count]

    return Written(*jax.tree.map(together, answers))


def _run_all(program: Program, params: Params, resources: Any, queue: Queue) -> Answers:
    """Decodes all problems of a queue, resizing the cache as texts grow and end."""
    width, most = queue.prompts_ExP.shape[1], program.most
    steps = [width + grown for grown in (*_doublings(loop.FIRST_GROWTH, most), most)]
    state = loop.begun(program, steps[0], params, resources, queue)
    while True:
        slots = loop.slots_of(state)
        state, going, needed = loop.run(program, params, resources, queue, state)
        if not int(going):
            return state.answers
        fitting = next(step for step in steps if step >= int(needed))
        assert fitting != slots
        state = loop.resized(program, fitting, state)


def _doublings(first: int, end: int) -> list[int]:
    return [first * 2**i for i in range(end.bit_length()) if first * 2**i < end]
