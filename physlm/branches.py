"""Several short continuations of prefixes of one document, which is read once for all of them.

A branch attends to the document up to where it leaves it, and to itself; its positions go on from
there. What the model computes on it is what it would compute on that prefix and the branch alone,
since no token of a prefix reads what comes after it.

Names as in `physlm.model`, and Q: branches of a document, A: tokens of a branch, S: slots.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from physlm import cache, model
from physlm.architecture import ModelConfig
from physlm.attention import attention
from physlm.block import Reading


def states(
    config: ModelConfig,
    params: model.Params,
    document: cache.Cache,
    cuts_BxQ: jax.Array,
    asked_BxQxA: jax.Array,
) -> jax.Array:
    """The normalised last hidden states of the branches, [B, Q, A, D], in the model's dtype.

    Args:
      config: the model.
      params: its parameters, `unrolled` or not.
      document: of the documents, as `physlm.cache` reads them, with these parameters or others.
      cuts_BxQ: int32: tokens of the document before each branch, all of which were read.
      asked_BxQxA: int32, the branches, padded on the right with any id.
    """
    params = model.unrolled(config, params)
    size, count, length = asked_BxQxA.shape
    total = document[0].attention.k_BxNxSxK.shape[2]
    before = config.canon_width - 1

    place_A = jnp.arange(length)
    own_QxAxQxA = (jnp.arange(count)[:, None, None, None] == jnp.arange(count)[:, None]) & (
        place_A[:, None, None] >= place_A
    )
    own = jnp.broadcast_to(
        own_QxAxQxA.reshape(1, count * length, count * length),
        (size, count * length, count * length),
    )
    seen_BxQxS = jnp.arange(total) < cuts_BxQ[:, :, None]
    visible = jnp.concatenate([jnp.repeat(seen_BxQxS, length, axis=1), own], axis=-1)[:, None]

    def together(x_RxHxAxK: jax.Array) -> jax.Array:
        """[B * Q, H, A, K] as [B, H, Q * A, K]."""
        heads, width = x_RxHxAxK.shape[1], x_RxHxAxK.shape[3]
        parts = x_RxHxAxK.reshape(size, count, heads, length, width)
        return jnp.swapaxes(parts, 1, 2).reshape(size, heads, count * length, width)

    def attend_branch(
        layer: Any, q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, None]:
        first, (heads, width) = document[layer].attention, (q.shape[1], q.shape[3])
        keys, values = (first.k_BxNxSxK, together(k)), (first.v_BxNxSxK, together(v))
        out = attention(together(q), keys, values, visible)
        out = jnp.swapaxes(out.reshape(size, heads, count, length, width), 1, 2)
        return out.reshape(-1, heads, length, width), None

    def behind_branch(layer: Any, name: str, x: jax.Array, place: P) -> tuple[jax.Array, None]:
        del place
        # Token t of the document stands in place t + before.
        at_BxQxW = cuts_BxQ[:, :, None] + jnp.arange(before)
        halo = jax.vmap(lambda row, at: row[at])(document[layer].canon[name], at_BxQxW)
        return jnp.concatenate([halo.reshape(-1, before, *x.shape[2:]), x], axis=1), None

    positions_RxA = cuts_BxQ.reshape(-1, 1) + place_A
    tokens_RxA = asked_BxQxA.reshape(-1, length)
    reading = Reading(attend_branch, behind_branch)
    frame, x_RxAxD, _, _ = model.run(config, params, tokens_RxA, positions_RxA, reading)
    return frame.norm(x_RxAxD).reshape(size, count, length, -1)
