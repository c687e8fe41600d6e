"""The decoder: GPT-2 with rotary positions (the paper's architecture, sections 2 and 3).

Array names carry their axes: B batch, T position, S cache slot, D model width, H head, K head
width, V vocabulary. Parameters are a plain nested dictionary; Flax never leaves this module.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from physlm.sharding import constrain

Params = dict[str, Any]

_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the decoder; its width is `heads * head_dim`.

    Attributes:
      vocab: number of token ids.
      window: tokens a training sequence feeds to the model; rotary positions set no limit of
        their own, so decoding may go beyond it.
      layers: number of blocks.
      heads: attention heads a block.
      head_dim: width of a head, even because rotary positions turn pairs.
      mlp_ratio: hidden width of the MLP over the model's width.
      tied: whether the head shares the embedding. Off: with a closed vocabulary of some hundred
        words the head is a sliver of the parameters, and a shared one must serve two roles.
      rotary_base: base of the geometric series of rotary wavelengths; 10,000 as RoFormer has it.
      norm_eps: added to the variance in layer normalisation; GPT-2's value.
      init_std: deviation of initial weights; GPT-2's value, its residual projections smaller.
      dtype: dtype of activations, `float32` or `bfloat16`; masters and loss stay float32.

    Raises:
      ValueError: a field is out of its range.
    """

    vocab: int
    window: int
    layers: int
    heads: int
    head_dim: int
    mlp_ratio: int = 4
    tied: bool = False
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("vocab", "window", "layers", "heads", "head_dim", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim is {self.head_dim}; it must be even.")
        if self.rotary_base <= 1:
            raise ValueError(f"model.rotary_base is {self.rotary_base}; it must be above 1.")
        for name in ("norm_eps", "init_std"):
            if getattr(self, name) <= 0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be above 0.")
        if self.dtype not in _DTYPES:
            raise ValueError(f"model.dtype is {self.dtype!r}; it must be one of {_DTYPES}.")

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dim


class Rotary(NamedTuple):
    """Cosines and sines of the rotary angles, each [..., T, K / 2] in float32."""

    cos: jax.Array
    sin: jax.Array


class KeyValue(NamedTuple):
    """Keys (already rotated) and values of one layer, each [B, H, S, K]."""

    k_BxHxSxK: jax.Array
    v_BxHxSxK: jax.Array


# What a block does with its queries, keys and values: returns what the heads read, and what the
# layer keeps for later tokens. Training, prefill and decoding differ in this alone.
Attend = Callable[[int, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


def rotary_angles(config: ModelConfig, positions: jax.Array) -> Rotary:
    """Angles for integer positions of any shape [..., T]."""
    exponents = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    angles = positions[..., None].astype(jnp.float32) * config.rotary_base**-exponents
    return Rotary(jnp.cos(angles), jnp.sin(angles))


def rotate(x_BxHxTxK: jax.Array, rotary: Rotary) -> jax.Array:
    """Turns the pairs (i, i + K / 2) of each head by the angle of their position."""
    cos, sin = (a[..., None, :, :].astype(x_BxHxTxK.dtype) for a in rotary)
    a, b = jnp.split(x_BxHxTxK, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention(
    q_BxHxTxK: jax.Array, k_BxHxSxK: jax.Array, v_BxHxSxK: jax.Array, visible: jax.Array
) -> jax.Array:
    """Softmax attention; `visible` broadcasts to [B, H, T, S], the softmax is float32."""
    q_BxHxTxK = q_BxHxTxK * q_BxHxTxK.shape[-1] ** -0.5
    scores_BxHxTxS = jnp.einsum("bhtk,bhsk->bhts", q_BxHxTxK, k_BxHxSxK).astype(jnp.float32)
    scores_BxHxTxS = jnp.where(visible, scores_BxHxTxS, -1e30)
    # The shift cancels, and so does its gradient; dividing at the end is K / S of the work.
    largest = jax.lax.stop_gradient(scores_BxHxTxS.max(axis=-1, keepdims=True))
    shares_BxHxTxS = jnp.exp(scores_BxHxTxS - largest)
    total_BxHxTx1 = shares_BxHxTxS.sum(axis=-1, keepdims=True)
    read_BxHxTxK = jnp.einsum("bhts,bhsk->bhtk", shares_BxHxTxS.astype(q_BxHxTxK.dtype), v_BxHxSxK)
    return (read_BxHxTxK / total_BxHxTx1).astype(q_BxHxTxK.dtype)


def causal_attention(
    q_BxHxTxK: jax.Array,
    k_BxHxTxK: jax.Array,
    v_BxHxTxK: jax.Array,
    segments_BxT: jax.Array | None = None,
) -> jax.Array:
    """Attention in which position t reads positions up to t, those of its own segment alone."""
    length = q_BxHxTxK.shape[2]
    # Blocks of queries skip the keys that come after them, and their scores fit a core's cache.
    # More than eight blocks cost more to compile than they save.
    block = max(64, -(-length // 8))
    reads = []
    for start in range(0, length, block):
        end = min(start + block, length)
        visible = jnp.arange(start, end)[:, None] >= jnp.arange(end)
        if segments_BxT is not None:
            same_BxTxS = segments_BxT[:, start:end, None] == segments_BxT[:, None, :end]
            visible = visible & same_BxTxS[:, None]
        queries = q_BxHxTxK[:, :, start:end]
        reads.append(attention(queries, k_BxHxTxK[:, :, :end], v_BxHxTxK[:, :, :end], visible))
    return jnp.concatenate(reads, axis=2)


class Attention(nnx.Module):
    """The projections around attention; query, key and value come from one product."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.qkv = nnx.LinearGeneral(
            config.width,
            (3, config.heads, config.head_dim),
            kernel_init=nnx.initializers.normal(config.init_std),
            dtype=jnp.dtype(config.dtype),
            rngs=rngs,
        )
        self.out = nnx.LinearGeneral(
            (config.heads, config.head_dim),
            config.width,
            axis=(-2, -1),
            kernel_init=nnx.initializers.normal(residual_std(config)),
            dtype=jnp.dtype(config.dtype),
            rngs=rngs,
        )

    def project(self, x_BxTxD: jax.Array, rotary: Rotary) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rotated queries and keys, and values, each [B, H, T, K]."""
        q, k, v = jnp.moveaxis(self.qkv(x_BxTxD), (2, 3), (0, 2))
        return rotate(q, rotary), rotate(k, rotary), v

    def merge(self, read_BxHxTxK: jax.Array) -> jax.Array:
        """What the heads read, back at the model's width [B, T, D]."""
        return self.out(jnp.swapaxes(read_BxHxTxK, 1, 2))


class Block(nnx.Module):
    """One pre-normalised block: attention, then an MLP."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        hidden = config.mlp_ratio * config.width
        self.norm_attention = layer_norm(config, rngs)
        self.attention = Attention(config, rngs=rngs)
        self.norm_mlp = layer_norm(config, rngs)
        self.up = nnx.Linear(
            config.width,
            hidden,
            kernel_init=nnx.initializers.normal(config.init_std),
            dtype=dtype,
            rngs=rngs,
        )
        self.down = nnx.Linear(
            hidden,
            config.width,
            kernel_init=nnx.initializers.normal(residual_std(config)),
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(
        self, layer: int, x_BxTxD: jax.Array, rotary: Rotary, attend: Attend
    ) -> tuple[jax.Array, Any]:
        """The residual stream after this block, and what the layer keeps."""
        q, k, v = self.attention.project(self.norm_attention(x_BxTxD), rotary)
        read_BxHxTxK, kept = attend(layer, q, k, v)
        x_BxTxD += self.attention.merge(read_BxHxTxK)
        x_BxTxD += self.down(jax.nn.gelu(self.up(self.norm_mlp(x_BxTxD)), approximate=True))
        return constrain(x_BxTxD, P("data", None, None)), kept


class Decoder(nnx.Module):
    """Embedding, blocks, final normalisation and head."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = nnx.Embed(
            config.vocab,
            config.width,
            embedding_init=nnx.initializers.normal(config.init_std),
            dtype=jnp.dtype(config.dtype),
            rngs=rngs,
        )
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.layers)])
        self.norm = layer_norm(config, rngs)
        if not config.tied:
            self.head = nnx.Linear(
                config.width,
                config.vocab,
                use_bias=False,
                kernel_init=nnx.initializers.normal(config.init_std),
                dtype=jnp.dtype(config.dtype),
                rngs=rngs,
            )

    def hidden(
        self, tokens_BxT: jax.Array, positions: jax.Array, attend: Attend
    ) -> tuple[jax.Array, list[Any]]:
        """The normalised stream [B, T, D] below the head, and what each layer keeps."""
        rotary = rotary_angles(self.config, positions)
        x_BxTxD = constrain(self.embed(tokens_BxT), P("data", None, None))
        kept = []
        for layer, block in enumerate(self.blocks):
            x_BxTxD, keep = block(layer, x_BxTxD, rotary, attend)
            kept.append(keep)
        return self.norm(x_BxTxD), kept

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Float32 logits [..., V] for any part [..., D] of the stream."""
        out = self.embed.attend(hidden) if self.config.tied else self.head(hidden)
        return out.astype(jnp.float32)


def layer_norm(config: ModelConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation with scale and bias; its statistics are float32."""
    return nnx.LayerNorm(
        config.width, epsilon=config.norm_eps, dtype=jnp.dtype(config.dtype), rngs=rngs
    )


def residual_std(config: ModelConfig) -> float:
    """GPT-2's deviation for projections onto the residual stream, whose sum then keeps scale."""
    return config.init_std / (2 * config.layers) ** 0.5


@functools.lru_cache(maxsize=64)
def _graph(config: ModelConfig) -> Any:
    abstract = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    return nnx.split(abstract, nnx.Param)[0]


def bind(config: ModelConfig, params: Params) -> Decoder:
    """The decoder over these parameters; for use inside a traced function."""
    return nnx.merge(_graph(config), params)


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Draws float32 parameters, a nested dictionary of arrays."""
    _, params = nnx.split(Decoder(config, rngs=nnx.Rngs(key)), nnx.Param)
    return nnx.to_pure_dict(params)


def apply(
    config: ModelConfig,
    params: Params,
    tokens_BxT: jax.Array,
    segments_BxT: jax.Array | None = None,
) -> jax.Array:
    """Float32 logits [B, T, V] of the token after each position.

    Args:
      config: the model's configuration.
      params: its parameters.
      tokens_BxT: int32 token ids.
      segments_BxT: int32; a position reads those of its own segment alone. None is one segment.
        Rotary positions are relative, so that a document reads the same wherever it stands.
    """
    decoder = bind(config, params)

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        del layer
        return causal_attention(q, k, v, segments_BxT), None

    hidden_BxTxD, _ = decoder.hidden(tokens_BxT, jnp.arange(tokens_BxT.shape[1]), attend)
    return decoder.logits(hidden_BxTxD)


def prefill(
    config: ModelConfig, params: Params, prompts_BxP: jax.Array, lengths_B: jax.Array
) -> tuple[jax.Array, list[KeyValue]]:
    """Reads right-padded prompts at once.

    Args:
      config: the model's configuration.
      params: its parameters.
      prompts_BxP: token ids; what stands beyond a row's length is never read by that row.
      lengths_B: tokens of each prompt, at least 1.

    Returns:
      Float32 logits [B, V] of the token after each prompt, and keys and values of each layer,
      [B, H, P, K], those of the padding included.
    """
    decoder = bind(config, params)

    def attend(layer: int, *qkv: jax.Array) -> tuple[jax.Array, KeyValue]:
        del layer
        return causal_attention(*qkv), KeyValue(*qkv[1:])

    positions = jnp.arange(prompts_BxP.shape[1])
    hidden_BxPxD, cache = decoder.hidden(prompts_BxP, positions, attend)
    last_Bx1xD = jnp.take_along_axis(hidden_BxPxD, lengths_B[:, None, None] - 1, axis=1)
    return decoder.logits(last_Bx1xD[:, 0]), cache


def decode_step(
    config: ModelConfig,
    params: Params,
    tokens_B: jax.Array,
    positions_B: jax.Array,
    cache: list[KeyValue],
    slot: jax.Array,
    visible_BxS: jax.Array,
) -> tuple[jax.Array, list[KeyValue]]:
    """Reads one token a row.

    Args:
      config: the model's configuration.
      params: its parameters.
      tokens_B: the tokens to read.
      positions_B: their positions, which differ between rows while the slot does not.
      cache: keys and values of the layers.
      slot: where to keep this token in the cache.
      visible_BxS: slots that each row may read, this one included.

    Returns:
      Float32 logits [B, V] of the next token, and the caches.
    """
    decoder = bind(config, params)

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, KeyValue]:
        kept = KeyValue(
            jax.lax.dynamic_update_slice_in_dim(cache[layer].k_BxHxSxK, k, slot, axis=2),
            jax.lax.dynamic_update_slice_in_dim(cache[layer].v_BxHxSxK, v, slot, axis=2),
        )
        return attention(q, *kept, visible_BxS[:, None, None, :]), kept

    hidden_Bx1xD, cache = decoder.hidden(tokens_B[:, None], positions_B[:, None], attend)
    return decoder.logits(hidden_Bx1xD[:, 0]), cache
