"""Documents laid one after another into windows, cut on the right or kept whole."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Packed(NamedTuple):
    """Windows being filled: K of them, each `size` tokens."""

    tokens_KxS: jax.Array  # int32
    weights_KxS: jax.Array  # float32: of the loss on each token, 0 where there is none
    window: jax.Array  # int32: the first window with room, K when all are full
    offset: jax.Array  # int32: tokens in it


def empty(windows: int, size: int, fill: int) -> Packed:
    """Windows with nothing in them but padding."""
    return Packed(
        jnp.full((windows, size), fill, jnp.int32),
        jnp.zeros((windows, size), jnp.float32),
        jnp.int32(0),
        jnp.int32(0),
    )


def extend(
    packed: Packed,
    tokens_DxN: jax.Array,
    weights_DxN: jax.Array,
    length_D: jax.Array,
    *,
    whole: bool = False,
) -> Packed:
    """Lays D more documents into the windows (Part 2.2, Appendix: "cut on the right").

    A document that does not fit into what is left of its window loses its end, and the next
    one begins the next window; or, if documents are to stay `whole`, what is left is padding
    and the document itself begins the next window. Documents longer than a window are dropped,
    as are those that come when all windows are full.
    """
    windows, size = packed.tokens_KxS.shape

    def lay(carry: tuple, length: jax.Array) -> tuple[tuple, tuple]:
        window, offset = carry
        if whole:
            moves = (length <= size) & (offset + length > size)
            window, offset = jnp.where(moves, window + 1, window), jnp.where(moves, 0, offset)
        keep = (length <= size) & (window < windows)
        at = jnp.where(keep, window * size + offset, -1)
        end = offset + length
        full = end >= size
        window_next = jnp.where(keep & full, window + 1, window)
        offset_next = jnp.where(keep, jnp.where(full, 0, end), offset)
        return (window_next, offset_next), (at, jnp.where(keep, size - offset, 0))

    (window, offset), (at_D, room_D) = jax.lax.scan(lay, (packed.window, packed.offset), length_D)
    column_N = jnp.arange(tokens_DxN.shape[1])
    used_DxN = column_N < jnp.minimum(length_D, room_D)[:, None]
    goes_DxN = jnp.where(used_DxN, at_D[:, None] + column_N, windows * size)

    def write(old_KxS: jax.Array, new_DxN: jax.Array) -> jax.Array:
        return old_KxS.reshape(-1).at[goes_DxN].set(new_DxN, mode="drop").reshape(windows, size)

    return Packed(
        write(packed.tokens_KxS, tokens_DxN), write(packed.weights_KxS, weights_DxN), window, offset
    )
