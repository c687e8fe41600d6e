"""Canon layers: a token sees its nearest neighbours without attention.

From "Physics of Language Models: Part 4.1" (arXiv 2512.17351): a depthwise causal convolution over
the last few positions, added to its input, without an activation. It may stand before attention
(A), on queries, keys and values (B), before the MLP (C) and inside it (D).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from physlm.architecture import ModelConfig
from physlm.sharding import manual_size, over_tensor

# From a layer, the name of one of its Canon layers, its input x [B, T, …] and how that lies on the
# mesh: x with the W - 1 inputs before it, [B, W - 1 + T, …], and what to keep for later tokens.
Behind = Callable[[Any, str, jax.Array, P], tuple[jax.Array, Any]]


class Canon(nnx.Module):
    """A depthwise causal convolution over the last W positions, added to its input.

    What is taken from before a text, or from another document, is zero. The published code
    (facebookresearch/PhysicsLM4) knows no documents; without them it computes the same.
    """

    def __init__(
        self,
        config: ModelConfig,
        name: str,
        channels: tuple[int, ...],
        place: P,
        *,
        rngs: nnx.Rngs,
    ):
        """Makes the weights [W, *channels].

        Args:
          config: its `canon_width` is W; `canon_init` says what the weights are at first.
          name: by which its inputs are kept while decoding; one of its own in a block.
          channels: axes of the input after batch and position.
          place: how the input lies along the mesh's axis `tensor`.
          rngs: for the weights.
        """
        self.name, self.place = name, place
        shape = (config.canon_width, *channels)
        if config.canon_init == "zero":
            kernel = jnp.zeros(shape)
        else:
            most = config.canon_width**-0.5
            kernel = jax.random.uniform(rngs.params(), shape, minval=-most, maxval=most)
        self.kernel = nnx.Param(kernel)

    def __call__(
        self, x_BxTxC: jax.Array, behind_BxZxC: jax.Array, same: list[jax.Array] | None
    ) -> jax.Array:
        """The input with what its neighbours add.

        Args:
          x_BxTxC: the input; C stands for one axis or more.
          behind_BxZxC: the input with the W - 1 before it; Z = W - 1 + T.
          same: for 1, …, W - 1, bool [B, T]: the position so far before is of the same document.
            None where all are.
        """
        kernel_WxC = self.kernel[...].astype(x_BxTxC.dtype)
        width, length = kernel_WxC.shape[0], x_BxTxC.shape[1]
        out_BxTxC = x_BxTxC + x_BxTxC * kernel_WxC[0]
        for distance in range(1, width):
            start = width - 1 - distance
            past_BxTxC = behind_BxZxC[:, start : start + length]
            if same is not None:
                seen = same[distance - 1]
                seen = seen.reshape(*seen.shape, *(1,) * (x_BxTxC.ndim - 2))
                past_BxTxC = jnp.where(seen, past_BxTxC, 0)
            out_BxTxC += past_BxTxC * kernel_WxC[distance]
        return out_BxTxC


class Neighbours:
    """The preceding inputs that the Canon layers of a block read, and those that they keep."""

    def __init__(self, layer: Any, behind: Behind, same: list[jax.Array] | None) -> None:
        """Begins a block; arguments as in `Behind` and `Canon`."""
        self._behind, self._same = functools.partial(behind, layer), same
        self.kept: dict[str, Any] = {}

    def __call__(self, canon: Canon, x_BxTxC: jax.Array) -> jax.Array:
        """The input of a Canon layer with what its neighbours add."""
        behind_BxZxC, self.kept[canon.name] = self._behind(canon.name, x_BxTxC, canon.place)
        return canon(x_BxTxC, behind_BxZxC, self._same)


def with_zeros(x_BxTxC: jax.Array, count: int) -> jax.Array:
    """The input with `count` zeros before it: a text's beginning."""
    pad = [(0, 0)] * x_BxTxC.ndim
    pad[1] = (count, 0)
    return jnp.pad(x_BxTxC, pad)


def with_halo(x_BxTxC: jax.Array, count: int, place: P) -> jax.Array:
    """The input with the `count` positions before it, which may lie on another device.

    Along the mesh's axis `sequence` each device sends its last inputs to the next; the first has
    zeros before its own.
    """
    parts = manual_size("sequence")
    if parts == 1:
        return with_zeros(x_BxTxC, count)

    def halo(x_BxTxC: jax.Array) -> jax.Array:
        last = x_BxTxC[:, x_BxTxC.shape[1] - count :]
        return jax.lax.ppermute(last, "sequence", [(n, n + 1) for n in range(parts - 1)])

    received = over_tensor(halo, (place,), place)(x_BxTxC)
    return jnp.concatenate([received, x_BxTxC], axis=1)


def same_document(segments_BxS: jax.Array, count: int, length: int) -> list[jax.Array]:
    """For distances 1, …, `count`, bool [B, T]: both positions are of one document.

    Args:
      segments_BxS: int32, the document of every position of the window.
      count: the largest distance.
      length: T, positions of this device where the mesh divides them, else all S.
    """
    divided = manual_size("sequence") > 1
    first = jax.lax.axis_index("sequence") * length if divided else 0
    padded = jnp.pad(segments_BxS, ((0, 0), (count, 0)), constant_values=-1)

    def at(distance: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(padded, first + count - distance, length, axis=1)

    return [at(0) == at(distance) for distance in range(1, count + 1)]
