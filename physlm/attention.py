"""Causal self-attention with rotary positions, and the ways to compute it.

Array names as in `physlm.model`, and G: the H / N heads of queries that share one head of keys and
values.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from physlm.architecture import PRODUCT, ModelConfig
from physlm.canon import Canon, Neighbours
from physlm.sharding import FREE, constrain, gathered_along, manual_size, over_tensor

# The name under which `jax.vmap` goes over several runs (`physlm.population`).
VECTORIZED = "vectorized"

# Splash attention works on tiles of a multiple of this many positions.
_TILE = 128


class Rotary(NamedTuple):
    """Cosines and sines of the rotary angles, each [..., T, R / 2] in float32; R channels turn."""

    cos: jax.Array
    sin: jax.Array


def rotary_angles(config: ModelConfig, positions: jax.Array) -> Rotary:
    """The rotary angles of integer positions [..., T] (RoFormer, arXiv 2104.09864)."""
    channels = config.rotary_channels
    exponents = jnp.arange(0, channels, 2, dtype=jnp.float32) / max(channels, 1)
    angles = positions[..., None].astype(jnp.float32) * config.rotary_base**-exponents
    return Rotary(jnp.cos(angles), jnp.sin(angles))


def rotate(x_BxHxTxK: jax.Array, rotary: Rotary) -> jax.Array:
    """Rotates each pair of channels (i, i + R / 2) of a head by the angle of its position.

    R channels of a head rotate, its first; the others stay as they are.
    """
    cos, sin = (a[..., None, :, :].astype(x_BxHxTxK.dtype) for a in rotary)
    half = cos.shape[-1]
    a, b, rest = jnp.split(x_BxHxTxK, [half, 2 * half], axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def attention(
    q_BxHxTxK: jax.Array,
    k_BxNxSxK: jax.Array | Sequence[jax.Array],
    v_BxNxSxK: jax.Array | Sequence[jax.Array],
    visible: jax.Array,
) -> jax.Array:
    """Softmax attention, with the softmax in float32.

    Args:
      q_BxHxTxK: queries.
      k_BxNxSxK: keys, in one array or in several, one after the other.
      v_BxNxSxK: values, in as many arrays of the same lengths; their width may be another.
      visible: bool, which keys each query attends to; it broadcasts to [B, 1, T, S].

    Returns:
      The output of each head, [B, H, T, K].
    """
    keys = [k_BxNxSxK] if isinstance(k_BxNxSxK, jax.Array) else k_BxNxSxK
    values = [v_BxNxSxK] if isinstance(v_BxNxSxK, jax.Array) else v_BxNxSxK
    size, heads, length, width = q_BxHxTxK.shape
    shared = keys[0].shape[1]
    q_BxNxGxTxK = (q_BxHxTxK * width**-0.5).reshape(size, shared, heads // shared, length, width)
    scores = [jnp.einsum("bngtk,bnsk->bngts", q_BxNxGxTxK, part) for part in keys]
    scores_BxNxGxTxS = jnp.concatenate(scores, axis=-1).astype(jnp.float32)
    scores_BxNxGxTxS = jnp.where(visible[..., None, :, :], scores_BxNxGxTxS, -1e30)
    # The shift cancels, and so does its gradient. To divide the output instead of the scores is
    # K / S of the work.
    largest = jax.lax.stop_gradient(scores_BxNxGxTxS.max(axis=-1, keepdims=True))
    shares_BxNxGxTxS = jnp.exp(scores_BxNxGxTxS - largest)
    total_BxNxGxTx1 = shares_BxNxGxTxS.sum(axis=-1, keepdims=True)
    shares_BxNxGxTxS = shares_BxNxGxTxS.astype(q_BxHxTxK.dtype)
    ends = np.cumsum([part.shape[2] for part in values])[:-1]
    shares = jnp.split(shares_BxNxGxTxS, ends, axis=-1)
    reads = map(functools.partial(jnp.einsum, "bngts,bnsk->bngtk"), shares, values)
    read_BxNxGxTxK = functools.reduce(jnp.add, reads)
    read_BxNxGxTxK = (read_BxNxGxTxK / total_BxNxGxTx1).astype(q_BxHxTxK.dtype)
    return read_BxNxGxTxK.reshape(size, heads, length, -1)


def in_blocks(
    q_BxHxTxK: jax.Array,
    k_BxNxSxK: jax.Array,
    v_BxNxSxK: jax.Array,
    segments_BxS: jax.Array | None = None,
    first: jax.Array | int = 0,
) -> jax.Array:
    """Causal attention in plain JAX, one block of queries after the other.

    Args:
      q_BxHxTxK: queries of the positions `first`, `first + 1`, …
      k_BxNxSxK: keys of the positions from 0 on.
      v_BxNxSxK: values of the same positions.
      segments_BxS: int32, the segment of each position. A position attends to its own segment only;
        None is one segment.
      first: the position of the first query. It is not 0 on a device that has later positions of
        the sequences than another one.

    Returns:
      The output of each head, [B, H, T, K].
    """
    length, total = q_BxHxTxK.shape[2], k_BxNxSxK.shape[2]
    # A block of queries skips the keys that come after it, and its scores fit a core's cache. More
    # than eight blocks cost more to compile than they save.
    block = max(64, -(-length // 8))
    reads = []
    for start in range(0, length, block):
        end = min(start + block, length)
        seen = end if isinstance(first, int) else total
        at_T = first + jnp.arange(start, end)
        visible = (at_T[:, None] >= jnp.arange(seen))[None, None]
        if segments_BxS is not None:
            own_BxT = jax.lax.dynamic_slice_in_dim(segments_BxS, first + start, end - start, 1)
            visible = visible & (own_BxT[:, None, :, None] == segments_BxS[:, None, None, :seen])
        queries = q_BxHxTxK[:, :, start:end]
        reads.append(attention(queries, k_BxNxSxK[:, :, :seen], v_BxNxSxK[:, :, :seen], visible))
    return jnp.concatenate(reads, axis=2)


def _is_vectorized() -> bool:
    try:
        jax.lax.axis_size(VECTORIZED)
    except NameError:
        return False
    return True


def _cudnn(
    q_BxHxTxK: jax.Array, k_BxNxTxK: jax.Array, v_BxNxTxK: jax.Array, segments_BxT: jax.Array | None
) -> jax.Array:
    mask: tuple[jax.Array, ...] = ()
    if segments_BxT is not None:
        same_Bx1xTxT = (segments_BxT[:, :, None] == segments_BxT[:, None, :])[:, None]
        if _is_vectorized():
            # There JAX refuses a mask that heads share, of jax 0.10 to 0.12.
            shape = (*q_BxHxTxK.shape[:3], q_BxHxTxK.shape[2])
            same_Bx1xTxT = jnp.broadcast_to(same_Bx1xTxT, shape)
        mask = (same_Bx1xTxT,)

    def on_heads(
        q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        read = jax.nn.dot_product_attention(
            q, k, v, mask=mask, is_causal=True, implementation="cudnn"
        )
        return jnp.swapaxes(read, 1, 2)

    heads = P(None, "tensor")
    places = (heads, heads, heads, *(P() for _ in mask))
    return over_tensor(on_heads, places, heads)(q_BxHxTxK, k_BxNxTxK, v_BxNxTxK, *mask)


def splash(
    q_BxHxTxK: jax.Array,
    k_BxNxTxK: jax.Array,
    v_BxNxTxK: jax.Array,
    segments_BxT: jax.Array | None,
    interpret: bool = False,
) -> jax.Array:
    """Causal attention by splash attention, the flash attention of JAX for TPUs.

    Args:
      q_BxHxTxK: queries.
      k_BxNxTxK: keys.
      v_BxNxTxK: values.
      segments_BxT: int32, the segment of each position; None is one segment.
      interpret: run the kernel in Pallas' interpreter, slowly, on any machine.

    Returns:
      The output of each head, [B, H, T, K].
    """
    # Imported here, since the kernel is for one kind of machine only.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash_lib

    length, width = q_BxHxTxK.shape[2:]
    # Padded positions come after all others, so that no query of ours attends to them.
    pad = ((0, 0), (0, 0), (0, -length % _TILE), (0, 0))
    q, k, v = (jnp.pad(x, pad) for x in (q_BxHxTxK * width**-0.5, k_BxNxTxK, v_BxNxTxK))
    padded = q.shape[2]
    if segments_BxT is None:
        segments_BxT = jnp.zeros((q.shape[0], length), jnp.int32)
    segments_BxT = jnp.pad(segments_BxT, ((0, 0), (0, padded - length)), constant_values=-1)
    tile = max(t for t in range(_TILE, 4 * _TILE + 1, _TILE) if padded % t == 0)
    sizes = splash_lib.BlockSizes(
        block_q=tile,
        block_kv=tile,
        block_kv_compute=tile,
        block_q_dkv=tile,
        block_kv_dkv=tile,
        block_kv_dkv_compute=tile,
        block_q_dq=tile,
        block_kv_dq=tile,
    )

    def on_heads(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        heads = q.shape[1]
        mask = splash_lib.MultiHeadMask([splash_lib.CausalMask((padded, padded))] * heads)
        kernel = splash_lib.make_splash_mha(
            mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
        )
        ids = jax.vmap(lambda s: splash_lib.SegmentIds(s, s))(segments)
        shared = heads // k.shape[1]
        k, v = (jnp.repeat(x, shared, axis=1) for x in (k, v))
        return jax.vmap(kernel)(q, k, v, ids)

    heads = P(None, "tensor")
    return over_tensor(on_heads, (heads, heads, heads, P()), heads)(q, k, v, segments_BxT)[
        :, :, :length
    ]


def causal(
    config: ModelConfig,
    q_BxHxTxK: jax.Array,
    k_BxNxTxK: jax.Array,
    v_BxNxTxK: jax.Array,
    segments_BxT: jax.Array | None = None,
) -> jax.Array:
    """Causal attention, by the kernel that the configuration names.

    Where `mesh.sequence` divides the positions, T is the number of positions of this device, and
    keys and values of the others are gathered.

    Args:
      config: the model's configuration.
      q_BxHxTxK: queries.
      k_BxNxTxK: keys.
      v_BxNxTxK: values.
      segments_BxT: int32, the segment of each position, those of other devices included. A position
        attends to its own segment only; None is one segment.

    Returns:
      The output of each head, [B, H, T, K].
    """
    if manual_size("sequence") > 1:
        first = jax.lax.axis_index("sequence") * q_BxHxTxK.shape[2]
        heads = P(None, "tensor", "sequence", None)
        k, v = (gathered_along("sequence", x, 2, heads) for x in (k_BxNxTxK, v_BxNxTxK))
        return in_blocks(q_BxHxTxK, k, v, segments_BxT, first)
    kernel = config.kernel
    if kernel == "auto":
        half = config.dtype == "bfloat16"
        best = {"gpu": "cudnn" if half else "blocks", "tpu": "splash"}
        kernel = best.get(jax.default_backend(), "blocks")
    if kernel == "cudnn":
        return _cudnn(q_BxHxTxK, k_BxNxTxK, v_BxNxTxK, segments_BxT)
    if kernel == "splash":
        return splash(q_BxHxTxK, k_BxNxTxK, v_BxNxTxK, segments_BxT)
    return in_blocks(q_BxHxTxK, k_BxNxTxK, v_BxNxTxK, segments_BxT)


class Attention(nnx.Module):
    """The projections before and after attention: queries, keys, values and output."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        project = functools.partial(
            nnx.LinearGeneral,
            config.width,
            kernel_init=nnx.initializers.normal(config.init_std),
            use_bias=config.family.biases,
            dtype=dtype,
            rngs=rngs,
        )
        self.query = project((config.heads, config.head_dim))
        self.key = project((config.shared_heads, config.head_dim))
        self.value = project((config.shared_heads, config.head_dim))
        self.out = nnx.LinearGeneral(
            (config.heads, config.head_dim),
            config.width,
            axis=(-2, -1),
            kernel_init=nnx.initializers.normal(config.residual_std),
            use_bias=config.family.biases,
            dtype=dtype,
            rngs=rngs,
        )
        self.qk_norm = config.qk_norm
        if config.qk_norm:
            norm = functools.partial(
                nnx.RMSNorm, config.head_dim, epsilon=config.norm_eps, dtype=dtype, rngs=rngs
            )
            self.norm_query, self.norm_key = norm(), norm()
        self.canon = "B" in config.canon
        if self.canon:
            heads = P(None, None, "tensor", None)
            shapes = {
                "query": config.heads,
                "key": config.shared_heads,
                "value": config.shared_heads,
            }
            self.canon_query, self.canon_key, self.canon_value = (
                Canon(config, name, (count, config.head_dim), heads, rngs=rngs)
                for name, count in shapes.items()
            )

    def project(
        self, x_BxTxD: jax.Array, rotary: Rotary, neighbours: Neighbours
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries [B, H, T, K], rotated keys and values [B, N, T, K]."""
        q, k, v = self._projected(x_BxTxD)
        if self.qk_norm:
            q, k = self.norm_query(q), self.norm_key(k)
        if self.canon:
            q = neighbours(self.canon_query, q)
            k = neighbours(self.canon_key, k)
            v = neighbours(self.canon_value, v)
        heads = P(FREE, "tensor", FREE, None)
        q, k, v = (constrain(jnp.swapaxes(x, 1, 2), heads) for x in (q, k, v))
        return rotate(q, rotary), rotate(k, rotary), v

    def _projected(self, x_BxTxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # One product, with each head of keys and values beside the query heads that share it. It
        # is faster than three, and along `tensor` its input's gradient is one all-reduce.
        shared, dtype = self.key.kernel.shape[1], self.query.dtype

        def together(query: jax.Array, *others: jax.Array) -> jax.Array:
            # [..., H, K] as [..., N, G, K].
            parts = [query.reshape(*query.shape[:-2], shared, -1, query.shape[-1])]
            parts += [other[..., None, :] for other in others]
            return jnp.concatenate([part.astype(dtype) for part in parts], axis=-2)

        modules = (self.query, self.key, self.value)
        kernel_DxNxGxK = together(*(module.kernel[...] for module in modules))
        out_BxTxNxGxK = jnp.einsum("btd,dngk->btngk", x_BxTxD.astype(dtype), kernel_DxNxGxK)
        biases = [module.bias[...] for module in modules if module.bias is not None]
        if biases:
            out_BxTxNxGxK += together(*biases)
        out_BxTxNxGxK = checkpoint_name(out_BxTxNxGxK, PRODUCT)
        q_BxTxHxK = out_BxTxNxGxK[..., :-2, :].reshape(
            *x_BxTxD.shape[:2], -1, kernel_DxNxGxK.shape[-1]
        )
        return q_BxTxHxK, out_BxTxNxGxK[..., -2, :], out_BxTxNxGxK[..., -1, :]

    def merge(self, read_BxHxTxK: jax.Array) -> jax.Array:
        """Projects the outputs of the heads to the model's width, [B, T, D]."""
        return self.out(jnp.swapaxes(read_BxHxTxK, 1, 2))
