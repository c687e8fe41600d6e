"""A block of the decoder, and the layers before the first and after the last block.

Names of arrays are those of `physlm.model`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from data_gen import keys
from physlm.architecture import PRODUCT, ModelConfig
from physlm.attention import Attention, Rotary
from physlm.canon import Behind, Canon, Neighbours
from physlm.feedforward import MLP, Mixture
from physlm.sharding import FREE, constrain, manual_size


class KeyValue(NamedTuple):
    """Keys (already rotated) and values of one layer, each [B, N, S, K]."""

    k_BxNxSxK: jax.Array
    v_BxNxSxK: jax.Array


# How a block attends: from the layer's number, queries, keys and values to the output of the heads
# and to what the layer keeps for later tokens.
Attend = Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


class Reading(NamedTuple):
    """How blocks access earlier tokens: the only difference between training, prefill and decoding.

    Attributes:
      attend: by attention.
      behind: by Canon layers.
      same: for distances 1, 2, …, whether the position so far before is of the same document
        (bool [B, T]); None where all are.
    """

    attend: Attend
    behind: Behind
    same: list[jax.Array] | None = None


class Memory(NamedTuple):
    """A layer's share of the cache."""

    attention: KeyValue
    canon: dict[str, jax.Array]  # inputs of each Canon layer, [B, W - 1 + S, …], zeros first


class Block(nnx.Module):
    """One pre-normalised block: attention, then an MLP or a mixture of several."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.norm_attention = norm(config, rngs)
        self.attention = Attention(config, rngs=rngs)
        self.norm_mlp = norm(config, rngs)
        if "A" in config.canon:
            self.canon_attention = Canon(config, "attention", (config.width,), P(), rngs=rngs)
        if "C" in config.canon:
            self.canon_mlp = Canon(config, "mlp", (config.width,), P(), rngs=rngs)
        if config.mixture > 1:
            self.mixture = Mixture(config, rngs=rngs)
        else:
            self.mlp = MLP(config, rngs=rngs)

    def __call__(
        self,
        layer: Any,
        x_BxTxD: jax.Array,
        rotary: Rotary,
        reading: Reading,
        keys_B: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array, Memory]:
        """Applies the block to the residual stream.

        Args:
          layer: its number, as `reading` is given it.
          x_BxTxD: the residual stream before the block.
          rotary: the rotary angles of the positions.
          reading: how earlier tokens are read.
          keys_B: a key for each row, for dropout; None drops nothing.

        Returns:
          The residual stream after the block, the load-balancing loss of its experts (0 without
          experts), and what the block keeps for later tokens.
        """
        neighbours = Neighbours(layer, reading.behind, reading.same)
        h_BxTxD = self.norm_attention(x_BxTxD)
        if "A" in self.config.canon:
            h_BxTxD = neighbours(self.canon_attention, h_BxTxD)
        q, k, v = self.attention.project(h_BxTxD, rotary, neighbours)
        read_BxHxTxK, kept = reading.attend(layer, q, k, v)
        added_BxTxD = checkpoint_name(self.attention.merge(read_BxHxTxK), PRODUCT)
        x_BxTxD += dropped(self.config, added_BxTxD, keys_B, 2 * layer + 1)
        h_BxTxD = self.norm_mlp(x_BxTxD)
        if "C" in self.config.canon:
            h_BxTxD = neighbours(self.canon_mlp, h_BxTxD)
        if self.config.mixture > 1:
            added_BxTxD, loss = self.mixture(h_BxTxD)
        else:
            added_BxTxD, loss = self.mlp(h_BxTxD, neighbours)
        x_BxTxD += dropped(self.config, added_BxTxD, keys_B, 2 * layer + 2)
        memory = Memory(kept, neighbours.kept)
        return constrain(x_BxTxD, P(FREE, FREE, None)), loss, memory


class Frame(nnx.Module):
    """The parts of the model outside of its blocks: embedding, final normalisation and head."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        dtype = jnp.dtype(config.dtype)
        init = nnx.initializers.normal(config.init_std)
        self.embed = nnx.Embed(
            config.vocab, config.width, embedding_init=init, dtype=dtype, rngs=rngs
        )
        self.norm = norm(config, rngs)
        if not config.tied:
            self.head = nnx.Linear(
                config.width,
                config.vocab,
                use_bias=False,
                kernel_init=init,
                dtype=dtype,
                rngs=rngs,
            )

    def begin(self, tokens_BxT: jax.Array) -> jax.Array:
        """The residual stream [B, T, D] that enters the first block."""
        x_BxTxD = self.embed(tokens_BxT)
        if self.config.family.scaled_embedding:
            x_BxTxD *= jnp.asarray(self.config.width**0.5, x_BxTxD.dtype)
        return constrain(x_BxTxD, P(FREE, FREE, None))

    def logits(self, stream: jax.Array) -> jax.Array:
        """Float32 logits [..., V] of any part [..., D] of the stream after the last block."""
        stream = self.norm(stream)
        out = self.embed.attend(stream) if self.config.tied else self.head(stream)
        out, cap = out.astype(jnp.float32), self.config.logit_cap
        return cap * jnp.tanh(out / cap) if cap else out


def norm(config: ModelConfig, rngs: nnx.Rngs) -> nnx.LayerNorm | nnx.RMSNorm:
    """Normalisation with a scale, and a bias where the variant has one; statistics in float32."""
    dtype, epsilon = jnp.dtype(config.dtype), config.norm_eps
    if config.family.norm == "rms":
        return nnx.RMSNorm(config.width, epsilon=epsilon, dtype=dtype, rngs=rngs)
    return nnx.LayerNorm(config.width, epsilon=epsilon, dtype=dtype, rngs=rngs)


def dropped(config: ModelConfig, x_BxTxD: jax.Array, keys_B: Any, place: Any) -> jax.Array:
    """Dropout with a key for each row, so that it does not depend on the mesh."""
    if keys_B is None or not config.dropout:
        return x_BxTxD
    length, parts = x_BxTxD.shape[1], manual_size("sequence")

    def kept(key: jax.Array) -> jax.Array:
        shape = (parts * length, config.width)
        kept_TxD = jax.random.bernoulli(keys.numbered(key, place), 1 - config.dropout, shape)
        if parts == 1:
            return kept_TxD
        first = jax.lax.axis_index("sequence") * length
        return jax.lax.dynamic_slice_in_dim(kept_TxD, first, length)

    return jnp.where(jax.vmap(kept)(keys_B), x_BxTxD / (1 - config.dropout), 0)
