"""Greedy decoding of many prompts at once, with a key/value cache."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from physlm import model
from physlm.model import ModelConfig, Params


def greedy(
    config: ModelConfig,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    *,
    max_new_tokens: int,
    stop: int,
) -> jax.Array:
    """Continues each prompt by its likeliest token until `stop`.

    The batch is divided over the `data` axis of the mesh that holds the parameters, if any.

    Args:
      config: the model's configuration.
      params: its parameters.
      prompts_BxP: int32 token ids, padded on the right with anything.
      lengths_B: int32 tokens of each prompt, between 1 and P.
      max_new_tokens: most tokens to add; prompt and answer may exceed the training window.
      stop: the token that ends a text.

    Returns:
      Int32 tokens [B, max_new_tokens]; `stop` from its first occurrence on.

    Raises:
      ValueError: shapes do not fit, a length is out of range, or nothing is to be decoded.
    """
    prompts_BxP, lengths_B = jnp.asarray(prompts_BxP), jnp.asarray(lengths_B)
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
    sharding = jax.tree.leaves(params)[0].sharding
    if not isinstance(sharding, NamedSharding) or sharding.mesh.size == 1:
        return _decode(config, params, prompts_BxP, lengths_B, max_new_tokens, stop)
    mesh = sharding.mesh
    # Whole shards: rows that fill the last one read one token and are dropped.
    rows = prompts_BxP.shape[0]
    spare = -rows % mesh.shape["data"]
    prompts_BxP = jnp.pad(prompts_BxP, ((0, spare), (0, 0)))
    lengths_B = jnp.pad(lengths_B, (0, spare), constant_values=1)
    divided = jax.device_put((prompts_BxP, lengths_B), NamedSharding(mesh, P("data")))
    return _decode_on_mesh(config, params, *divided, max_new_tokens, stop, mesh)[:rows]


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _decode(
    config: ModelConfig,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    new: int,
    stop: int,
) -> jax.Array:
    size, width = prompts_BxP.shape
    slots = jnp.arange(width + new)
    # Rows write the same slot at the same time, and so have a gap between prompt and answer.
    in_prompt_BxS = slots < lengths_B[:, None]
    logits_BxV, cache = model.prefill(config, params, prompts_BxP, lengths_B, width + new)
    token_B = jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    out_BxN = jnp.full((size, new), stop, jnp.int32).at[:, 0].set(token_B)

    def unfinished(state: tuple) -> jax.Array:
        n, token_B, *_ = state
        return (n < new) & jnp.any(token_B != stop)

    def advance(state: tuple) -> tuple:
        n, token_B, out_BxN, cache = state
        slot = width + n - 1
        visible_BxS = in_prompt_BxS | ((slots >= width) & (slots <= slot))
        logits_BxV, cache = model.decode_step(
            config, params, token_B, lengths_B + n - 1, cache, slot, visible_BxS
        )
        next_B = jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
        # A finished row goes on reading `stop`, which nobody sees.
        token_B = jnp.where(token_B == stop, stop, next_B)
        return n + 1, token_B, out_BxN.at[:, n].set(token_B), cache

    state = (jnp.int32(1), token_B, out_BxN, cache)
    return jax.lax.while_loop(unfinished, advance, state)[2]


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _decode_on_mesh(
    config: ModelConfig,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    new: int,
    stop: int,
    mesh: jax.sharding.Mesh,
) -> jax.Array:
    # Each shard stops on its own, without asking the others after every token.
    return jax.shard_map(
        lambda params, prompts, lengths: _decode(config, params, prompts, lengths, new, stop),
        mesh=mesh,
        in_specs=(P(), P("data"), P("data")),
        out_specs=P("data"),
        axis_names={"data"},
        check_vma=False,
    )(params, prompts_BxP, lengths_B)
