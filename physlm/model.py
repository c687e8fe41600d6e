"""The decoder: GPT-2 with rotary positions (the paper's, sections 2 and 3), and its relatives.

Array names carry their axes: B batch, T position, P position of a prompt, S key or cache slot, D
model width, H head, N head of keys and values, K head width, V vocabulary.

Parameters are a plain nested dictionary; those of `blocks` have the layers as their first axis.
Flax modules are used only here and in the modules of a block: the rest of the package calls
functions of parameters.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from data_gen import keys
from data_gen.keys import Purpose, Stage
from physlm.architecture import PRODUCT, ModelConfig
from physlm.attention import causal, rotary_angles
from physlm.block import Block, Frame, Reading, dropped
from physlm.canon import same_document, with_halo
from physlm.sharding import gathered, manual_size

Params = dict[str, Any]


@functools.lru_cache(maxsize=64)
def _graph(kind: type[Block] | type[Frame], config: ModelConfig) -> Any:
    # Shapes alone: nothing is drawn from this seed.
    abstract = nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0)))
    return nnx.split(abstract, nnx.Param)[0]


def _drawn(kind: type[Block] | type[Frame], config: ModelConfig, key: jax.Array) -> Params:
    # `nnx.Rngs` gives out the numbered children of this key, as `data_gen.keys` would.
    _, params = nnx.split(kind(config, rngs=nnx.Rngs(key)), nnx.Param)
    return nnx.to_pure_dict(params)


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Initial parameters, a nested dictionary of float32 arrays."""
    frame, blocks = keys.named(key, Stage.FRAME), keys.named(key, Stage.BLOCKS)
    draw = functools.partial(_drawn, Block, config)
    return {
        **_drawn(Frame, config, frame),
        "blocks": jax.vmap(draw)(keys.all_numbered(blocks, jnp.arange(config.layers))),
    }


def shapes(config: ModelConfig) -> Params:
    """Shapes and dtypes of a model's parameters, without computing anything."""
    # A fresh tree for each caller, who may change it.
    return jax.tree.map(lambda leaf: leaf, _shapes(config))


@functools.cache
def _shapes(config: ModelConfig) -> Params:
    return jax.eval_shape(lambda: init(config, keys.root(0, Purpose.PARAMETERS)))


@functools.lru_cache(maxsize=64)
def count(config: ModelConfig) -> int:
    """The number of parameters, embeddings included."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(config)))


def unrolled(config: ModelConfig, params: Params) -> Params:
    """The parameters with a list under `blocks`, one entry a layer, for loops without a scan."""
    if isinstance(params["blocks"], list):
        return params
    leaves, tree = jax.tree.flatten(params["blocks"])
    # The transpose of a split is one concatenation; that of slices would be a sum of padded arrays.
    parts = [jax.lax.split(leaf, (1,) * config.layers) for leaf in leaves]
    layers = zip(*parts, strict=True)
    blocks = [jax.tree.unflatten(tree, [leaf[0] for leaf in layer]) for layer in layers]
    return {**params, "blocks": blocks}


def rolled(params: Params) -> Params:
    """The inverse of `unrolled`; trees without such a list are returned unchanged."""
    if not isinstance(params.get("blocks"), list):
        return params
    return {**params, "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *params["blocks"])}


def _frame(config: ModelConfig, params: Params) -> Frame:
    around = {name: part for name, part in params.items() if name != "blocks"}
    around = {name: gathered(part, name, config.dtype) for name, part in around.items()}
    return nnx.merge(_graph(Frame, config), around)


def _policy(config: ModelConfig) -> Any:
    """The rematerialisation policy of blocks; None to keep everything."""
    if config.remat == "full":
        return jax.checkpoint_policies.nothing_saveable
    # Along `fsdp`, to keep all values would be to keep the gathered kernels of every layer.
    if config.remat == "dots" or manual_size("fsdp") > 1:
        return jax.checkpoint_policies.save_only_these_names(PRODUCT)
    return None


def run(
    config: ModelConfig,
    params: Params,
    tokens_BxT: jax.Array,
    positions: jax.Array,
    reading: Reading,
    keys_B: jax.Array | None = None,
) -> tuple[Frame, jax.Array, jax.Array, list[Any]]:
    """Runs the model up to its last block.

    Args:
      config: the model's configuration.
      params: its parameters, `unrolled` or not.
      tokens_BxT: int32 token ids.
      positions: their positions, [T] or [B, T].
      reading: how blocks read earlier tokens.
      keys_B: a key for each row, for dropout; None drops nothing.

    Returns:
      The frame with its parameters, the residual stream [B, T, D] after the last block, the sum of
      the blocks' load-balancing losses, and what the blocks keep: a list, one entry a layer, or,
      where layers are scanned, arrays with the layers as their first axis.
    """
    if config.scan and not isinstance(params["blocks"], list):
        frame, x_BxTxD, block = _begun(
            config, params, tokens_BxT, positions, reading, keys_B, scanned=True
        )

        def body(carry: tuple[jax.Array, jax.Array], layer: Any) -> tuple[Any, Any]:
            x, loss, kept = block(layer[0], carry[0], layer[1])
            return (x, carry[1] + loss), kept

        start = (x_BxTxD, jnp.zeros((), jnp.float32))
        layers = (jnp.arange(config.layers), params["blocks"])
        (x_BxTxD, losses), kept = jax.lax.scan(body, start, layers)
        return frame, x_BxTxD, losses, kept
    frame, states, losses, kept = streams(config, params, tokens_BxT, positions, reading, keys_B)
    return frame, states[-1], losses, kept


def streams(
    config: ModelConfig,
    params: Params,
    tokens_BxT: jax.Array,
    positions: jax.Array,
    reading: Reading,
    keys_B: jax.Array | None = None,
) -> tuple[Frame, list[jax.Array], jax.Array, list[Any]]:
    """As `run`, with the residual streams [B, T, D] before each block and after the last one, and
    with layers written out one after the other."""
    frame, x_BxTxD, block = _begun(config, params, tokens_BxT, positions, reading, keys_B)
    losses, states = jnp.zeros((), jnp.float32), [x_BxTxD]
    kept: list[Any] = []
    for layer, one in enumerate(unrolled(config, params)["blocks"]):
        x_BxTxD, loss, keep = block(layer, x_BxTxD, one)
        losses, states, kept = losses + loss, [*states, x_BxTxD], [*kept, keep]
    return frame, states, losses, kept


def _begun(
    config: ModelConfig,
    params: Params,
    tokens_BxT: jax.Array,
    positions: jax.Array,
    reading: Reading,
    keys_B: jax.Array | None,
    *,
    scanned: bool = False,
) -> tuple[Frame, jax.Array, Callable[[Any, jax.Array, Params], Any]]:
    """The frame, the residual stream before the first block, and the function of a block."""
    frame, graph = _frame(config, params), _graph(Block, config)
    rotary = rotary_angles(config, positions)

    def block(layer: Any, x: jax.Array, one: Params) -> tuple[jax.Array, jax.Array, Any]:
        one = gathered(one, "blocks", config.dtype, layer=True)
        return nnx.merge(graph, one)(layer, x, rotary, reading, keys_B)

    policy = _policy(config)
    if policy is not None:
        # Scanned, the recomputation is a loop of its own, which XLA does not merge with the first.
        # Written out, the number of a layer is one of Python, by which decoding finds its cache.
        static = () if scanned else (0,)
        block = jax.checkpoint(
            block, policy=policy, prevent_cse=not config.scan, static_argnums=static
        )
    return frame, dropped(config, frame.begin(tokens_BxT), keys_B, 0), block


def apply_with_loss(
    config: ModelConfig,
    params: Params,
    tokens_BxT: jax.Array,
    segments_BxT: jax.Array | None = None,
    keys_B: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Next-token logits, and the load-balancing loss of experts.

    Where `mesh.sequence` divides the positions, T is the number of positions of this device.

    Args:
      config: the model's configuration.
      params: its parameters, `unrolled` or not.
      tokens_BxT: int32 token ids.
      segments_BxT: int32, the segment of each position, those of other devices included. A position
        attends to its own segment only; None is one segment. Rotary angles are relative, so that
        the logits of a segment do not depend on where in the window it stands.
      keys_B: a key for each row, for dropout; None drops nothing.

    Returns:
      Float32 logits [B, T, V], and the load-balancing loss of the experts, averaged over layers.
    """

    def attend(layer: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        del layer
        return causal(config, q, k, v, segments_BxT), None

    def behind(layer: Any, name: str, x: jax.Array, place: P) -> tuple[jax.Array, None]:
        del layer, name
        return with_halo(x, config.canon_width - 1, place), None

    same = None
    if segments_BxT is not None and config.canon:
        same = same_document(segments_BxT, config.canon_width - 1, tokens_BxT.shape[1])
    reading = Reading(attend, behind, same)
    positions_T = jnp.arange(tokens_BxT.shape[1])
    if manual_size("sequence") > 1:
        positions_T += jax.lax.axis_index("sequence") * tokens_BxT.shape[1]
    frame, x_BxTxD, losses, _ = run(config, params, tokens_BxT, positions_T, reading, keys_B)
    return frame.logits(x_BxTxD), losses / config.layers


def apply(
    config: ModelConfig,
    params: Params,
    tokens_BxT: jax.Array,
    segments_BxT: jax.Array | None = None,
) -> jax.Array:
    """Float32 logits [B, T, V] of the token after each position; arguments as `apply_with_loss`."""
    return apply_with_loss(config, params, tokens_BxT, segments_BxT)[0]
