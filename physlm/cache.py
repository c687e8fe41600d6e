"""The cache of decoding: keys, values and the inputs of Canon layers.

Slots belong to rows: token t of a row's text is in slot t of that row, whatever other rows do. So
a row is rolled back by shortening its length, and can be given to another text at any time.

Names as in `physlm.model`, and S: slots, R: rows that are replaced, A: tokens that a row adds.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from physlm import model
from physlm.architecture import ModelConfig
from physlm.attention import attention, causal
from physlm.block import Frame, KeyValue, Memory, Reading
from physlm.canon import with_zeros
from physlm.model import Params

# Slots that are copied at once where texts part (`continued`).
_FEW_SLOTS = 16

# Of each layer. Keys and values are [B, N, S, K]. Inputs of Canon layers are [B, W - 1 + S, …],
# with W - 1 zeros before those of the first token.
Cache = list[Memory]


def read(config: ModelConfig, params: Params, tokens_BxP: jax.Array) -> Cache:
    """Prefill: reads texts, all positions at once.

    Args:
      config: the model's configuration.
      params: its parameters, `unrolled`.
      tokens_BxP: int32 token ids, padded on the right with any id: no slot of the text itself
        depends on what comes after it.

    Returns:
      A cache of P slots.
    """
    before = config.canon_width - 1

    def attend(layer: Any, *qkv: jax.Array) -> tuple[jax.Array, KeyValue]:
        del layer
        return causal(config, *qkv), KeyValue(*qkv[1:])

    def behind(layer: Any, name: str, x: jax.Array, place: P) -> tuple[jax.Array, jax.Array]:
        del layer, name, place
        behind_BxZxC = with_zeros(x, before)
        return behind_BxZxC, behind_BxZxC

    positions, reading = jnp.arange(tokens_BxP.shape[1]), Reading(attend, behind)
    return model.run(config, params, tokens_BxP, positions, reading)[3]


def go_on(
    config: ModelConfig,
    params: Params,
    tokens_BxA: jax.Array,
    before_B: jax.Array,
    cache: Cache,
) -> tuple[Frame, jax.Array, Cache]:
    """Runs the model on the next tokens of each row.

    Args:
      config: the model's configuration.
      params: its parameters, `unrolled`.
      tokens_BxA: int32 token ids.
      before_B: int32, how many tokens of a row stand before them, at most S - A. What the cache has
        in later slots is overwritten.
      cache: of what stands before.

    Returns:
      The frame with its parameters, the residual stream [B, A, D] after the last block, and the
      cache with these tokens in it.
    """
    count = tokens_BxA.shape[1]
    slots = cache[0].attention.k_BxNxSxK.shape[2]
    at_BxA = before_B[:, None] + jnp.arange(count)
    visible_Bx1xAxS = (jnp.arange(slots) <= at_BxA[..., None])[:, None]

    def attend(layer: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, KeyValue]:
        kept = jax.tree.map(
            lambda held, new: _written(held, new, before_B, 2),
            cache[layer].attention,
            KeyValue(k, v),
        )
        return attention(q, kept.k_BxNxSxK, kept.v_BxNxSxK, visible_Bx1xAxS), kept

    def behind(layer: Any, name: str, x: jax.Array, place: P) -> tuple[jax.Array, jax.Array]:
        del place
        earlier = config.canon_width - 1
        kept = _written(cache[layer].canon[name], x, before_B + earlier, 1)
        length = earlier + count

        def near(row: jax.Array, start: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(row, start, length)

        return jax.vmap(near)(kept, before_B), kept

    frame, x_BxAxD, _, kept = model.run(config, params, tokens_BxA, at_BxA, Reading(attend, behind))
    return frame, x_BxAxD, kept


def _written(held: jax.Array, new: jax.Array, start_B: jax.Array, axis: int) -> jax.Array:
    """`held` with `new` written to the slots of each row from its own `start` on."""

    def put(row: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(row, part, start, axis - 1)

    return jax.vmap(put)(held, new.astype(held.dtype), start_B)


def resized(cache: Cache, slots: int) -> Cache:
    """The cache grown by empty slots, or cut to its first `slots`."""

    def resize(x: jax.Array, axis: int) -> jax.Array:
        spare = slots - cache[0].attention.k_BxNxSxK.shape[2]
        if spare < 0:
            return jax.lax.slice_in_dim(x, 0, x.shape[axis] + spare, axis=axis)
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, spare)
        return jnp.pad(x, pad)

    return _each(resize, cache)


def once(pending: jax.Array, change: Callable[[Any], Any], carry: Any) -> Any:
    """`change(carry)` where `pending` is true, else `carry`; as `jax.lax.cond`, without copies.

    It is a loop of at most one turn, which XLA updates in place, whereas both branches of a `cond`
    copy the arrays that they leave unchanged.
    """

    def body(pair: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        return jnp.zeros_like(pair[0]), change(pair[1])

    return jax.lax.while_loop(lambda pair: pair[0], body, (pending, carry))[1]


def alike(text_BxL: jax.Array, source_B: jax.Array) -> jax.Array:
    """How many tokens each text and that of row `source_B[b]` have in common at their beginning."""
    place_L = jnp.arange(text_BxL.shape[1])
    return jnp.where(text_BxL == text_BxL[source_B], len(place_L), place_L).min(1)


def continued(cache: Cache, source_B: jax.Array, shared_B: jax.Array, length_B: jax.Array) -> Cache:
    """The cache in which row b goes on from row `source_B[b]`.

    Of what the rows have in common nothing is copied, and of the rest a few slots at a time.

    Args:
      cache: as it is.
      source_B: int32, indices of rows.
      shared_B: int32, how many slots at the beginning hold the same in a row and in its source.
      length_B: int32, how many slots of each row hold anything.
    """
    slots = cache[0].attention.k_BxNxSxK.shape[2]
    size = min(_FEW_SLOTS, slots)
    moved_B = source_B != jnp.arange(source_B.shape[0])
    begin = jnp.where(moved_B, shared_B, slots).min()
    end = jnp.where(moved_B, length_B[source_B], 0).max()

    def copying(carry: tuple[jax.Array, Cache]) -> jax.Array:
        return carry[0] < end

    def copy(carry: tuple[jax.Array, Cache]) -> tuple[jax.Array, Cache]:
        at, cache = carry

        # The last part may begin before `at`, where all is copied already: to do so twice would
        # undo it for rows that change places.
        start = jnp.minimum(at, slots - size)
        left_T = jnp.arange(size) >= at - start

        def each(x: jax.Array, axis: int) -> jax.Array:
            # Counted from the end, so that what stands before the first slot is left out.
            place = start + x.shape[axis] - slots
            part = jax.lax.dynamic_slice_in_dim(x, place, size, axis)
            left = left_T.reshape([size if n == axis else 1 for n in range(x.ndim)])
            part = jnp.where(left, part[source_B], part)
            return jax.lax.dynamic_update_slice_in_dim(x, part, place, axis)

        return at + size, _each(each, cache)

    return jax.lax.while_loop(copying, copy, (begin, cache))[1]


def put(cache: Cache, rows_R: jax.Array, other: Cache) -> Cache:
    """The cache with the rows of `other`, of at most as many slots, at the indices `rows_R`;
    indices past the last row are dropped."""

    def place(x: jax.Array, new: jax.Array) -> jax.Array:
        at = (rows_R, *(slice(0, size) for size in new.shape[1:]))
        return x.at[at].set(new, mode="drop")

    return jax.tree.map(place, cache, other)


def _each(change: Callable[[jax.Array, int], jax.Array], cache: Cache) -> Cache:
    """Applies `change(array, axis of its slots)` to every array."""
    return [
        Memory(
            jax.tree.map(lambda x: change(x, 2), layer.attention),
            {name: change(x, 1) for name, x in layer.canon.items()},
        )
        for layer in cache
    ]


@functools.lru_cache(maxsize=64)
def bytes_a_token(config: ModelConfig) -> int:
    """Bytes of the cache for one token of a row, over all layers."""
    shapes = jax.eval_shape(
        lambda params, tokens: read(config, model.unrolled(config, params), tokens),
        model.shapes(config),
        jax.ShapeDtypeStruct((1, 1), jnp.int32),
    )
    # A read of one token has the zeros before it, which are there once a row.
    one = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves([c.attention for c in shapes]))
    canon = sum(
        x.size // x.shape[1] * x.dtype.itemsize for layer in shapes for x in layer.canon.values()
    )
    return one + canon
