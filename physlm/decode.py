"""Greedy decoding of many prompts at once, with a key/value cache."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from physlm import model
from physlm.architecture import ModelConfig
from physlm.block import Memory
from physlm.model import Params
from physlm.sharding import AXES, along

# The number of new tokens that the cache has room for at first.
_FIRST_GROWTH = 64


class _State(NamedTuple):
    n: jax.Array  # int32: number of new tokens so far
    token_B: jax.Array  # int32: the last new token of each row
    out_BxN: jax.Array
    cache: list[Memory]


def greedy(
    config: ModelConfig,
    params: Params,
    prompts_BxP: ArrayLike,
    lengths_B: ArrayLike,
    *,
    max_new_tokens: int,
    stop: int,
) -> jax.Array:
    """Continues each prompt with the most likely next token, again and again, until `stop`.

    The rows are divided over the devices that hold the parameters. Devices along `tensor` work on
    the same rows.

    Args:
      config: the model's configuration.
      params: its parameters.
      prompts_BxP: int32 token ids, padded on the right with any id.
      lengths_B: int32, the number of tokens of each prompt, in 1..P.
      max_new_tokens: the largest number of tokens to add. Prompt and continuation together may be
        longer than the training window.
      stop: the id of the token that ends a text.

    Returns:
      Int32 token ids [B, max_new_tokens]. From its first `stop` on a row has nothing else.

    Raises:
      ValueError: shapes do not fit, a length is out of range, or nothing is to be decoded.
    """
    prompts_BxP = jnp.asarray(prompts_BxP, jnp.int32)
    lengths_B = jnp.asarray(lengths_B, jnp.int32)
    if prompts_BxP.ndim != 2 or lengths_B.shape != prompts_BxP.shape[:1] or not prompts_BxP.size:
        raise ValueError(
            f"prompts have the shape {prompts_BxP.shape} and lengths {lengths_B.shape}; "
            "they must be [B, P] and [B] with at least one token."
        )
    if int(lengths_B.min()) < 1 or int(lengths_B.max()) > prompts_BxP.shape[1]:
        raise ValueError(
            f"lengths range from {int(lengths_B.min())} to {int(lengths_B.max())}; "
            f"they must be in 1..{prompts_BxP.shape[1]}."
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be at least 1.")
    params, mesh = _laid_out(params)
    # Every device gets as many groups of rows, all full: added rows have a prompt of one token and
    # are dropped afterwards.
    rows, shards = prompts_BxP.shape[0], mesh.shape["data"]
    group = _rows_at_once(-(-rows // shards), mesh)
    spare = -rows % (shards * group)
    prompts_BxP = jnp.pad(prompts_BxP, ((0, spare), (0, 0)))
    lengths_B = jnp.pad(lengths_B, (0, spare), constant_values=1)
    divided = jax.device_put((prompts_BxP, lengths_B), NamedSharding(mesh, P("data")))
    out_BxN = _decode_shards(config, params, *divided, max_new_tokens, stop, group, mesh)
    if jax.process_count() > 1:
        out_BxN = multihost_utils.process_allgather(out_BxN, tiled=True)
    return out_BxN[:rows]


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


def _rows_at_once(shard: int, mesh: Mesh) -> int:
    # The keys and values of a few rows fit a core's cache, and each group stops when it is done.
    return min(shard, 8) if mesh.devices.flat[0].platform == "cpu" else shard


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))
def _decode_shards(
    config: ModelConfig,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    new: int,
    stop: int,
    group: int,
    mesh: Mesh,
) -> jax.Array:
    def on_shard(params: Params, prompts: jax.Array, lengths: jax.Array) -> jax.Array:
        out = jax.lax.map(
            lambda rows: _decode(config, params, rows[0], rows[1], new, stop),
            (prompts.reshape(-1, group, prompts.shape[1]), lengths.reshape(-1, group)),
        )
        return out.reshape(-1, new)

    # Each device stops when its rows are done, without a collective after every token.
    return jax.shard_map(
        on_shard,
        mesh=mesh,
        in_specs=(P(), P("data"), P("data")),
        out_specs=P("data"),
        axis_names={"data"},
        check_vma=False,
    )(params, prompts_BxP, lengths_B)


def _decode(
    config: ModelConfig,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    new: int,
    stop: int,
) -> jax.Array:
    size, width = prompts_BxP.shape
    params = model.unrolled(config, params)
    logits_BxV, cache = model.prefill(config, params, prompts_BxP, lengths_B)
    token_B = jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    out_BxN = jnp.full((size, new), stop, jnp.int32).at[:, 0].set(token_B)

    def advance(state: _State, slots: jax.Array) -> _State:
        slot = width + state.n - 1
        # All rows write to the same slot, so that shorter prompts have a gap before their answers.
        visible_BxS = (slots < lengths_B[:, None]) | ((slots >= width) & (slots <= slot))
        positions_B = lengths_B + state.n - 1
        logits_BxV, cache = model.decode_step(
            config, params, state.token_B, positions_B, state.cache, slot, visible_BxS
        )
        next_B = jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
        # A finished row is given `stop` again and again; its logits are not used.
        token_B = jnp.where(state.token_B == stop, stop, next_B)
        return _State(state.n + 1, token_B, state.out_BxN.at[:, state.n].set(token_B), cache)

    def unfinished(state: _State, limit: int) -> jax.Array:
        return (state.n < limit) & jnp.any(state.token_B != stop)

    state = _State(jnp.int32(1), token_B, out_BxN, cache)
    # The cache grows when it is full, so that short answers do not cost as much as long ones.
    for limit in [*_doublings(_FIRST_GROWTH, new), new]:
        spare = width + limit - state.cache[0].attention.k_BxNxSxK.shape[2]
        grow = functools.partial(jnp.pad, pad_width=((0, 0), (0, 0), (0, spare), (0, 0)))
        state = jax.lax.while_loop(
            functools.partial(unfinished, limit=limit),
            functools.partial(advance, slots=jnp.arange(width + limit)),
            state._replace(
                cache=[
                    layer._replace(attention=jax.tree.map(grow, layer.attention))
                    for layer in state.cache
                ]
            ),
        )
    return state.out_BxN


def _doublings(first: int, end: int) -> list[int]:
    return [first * 2**i for i in range(end.bit_length()) if first * 2**i < end]
