"""One optimizer step: the training state, the loss, its gradients and the update.

Each device computes the loss and the gradients of its own part of a batch. Gradients are then
summed by one all-reduce a step along `data` and `sequence`. Along `fsdp` the kernels of a block are
all-gathered when the block is computed, forward and backward, and their gradients reduce-scattered.
Along `sequence` keys and values are all-gathered in every block.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from data_gen import keys
from data_gen.keys import Purpose
from physlm import model as model_lib
from physlm.architecture import ModelConfig
from physlm.sharding import (
    BATCH_AXES,
    SHARED_OUT,
    along,
    batch_shards,
    manual_size,
    shardings,
    specs,
    summed_grads,
    total,
)

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]

# The recent loss is an exponential moving mean over about this many steps.
_RECENT = 100


class Trend(NamedTuple):
    """The loss of recent steps: its moving mean and variance, in nats per token."""

    mean: jax.Array
    variance: jax.Array


class TrainState(NamedTuple):
    """All that a run needs to continue: steps done, parameters, optimizer state and loss trend."""

    step: jax.Array
    params: model_lib.Params
    opt_state: optax.OptState
    trend: Trend


def summed_loss(
    config: ModelConfig, params: model_lib.Params, batch: Batch, sequences: int
) -> tuple[jax.Array, jax.Array]:
    """What a part of a batch contributes to the loss of the batch.

    Where `mesh.sequence` divides the positions, this is the contribution of the device's own.

    Args:
      config: the model.
      params: its parameters.
      batch: tokens int32 [B, W + 1] and weights float32 [B, W]. With attention within documents
        also segments int32 [B, W]; with dropout also keys, as `row_keys` makes them.
      sequences: the number of sequences of the whole batch.

    Returns:
      The objective, and the weighted sum over tokens of the negative log-likelihood in nats. The
      objective also has the load-balancing loss of experts, where there are any.
    """
    window = batch["weights"].shape[1]
    length = window // manual_size("sequence")
    first = jax.lax.axis_index("sequence") * length if length < window else 0

    def here(x_BxW: jax.Array, offset: int = 0) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x_BxW, first + offset, length, axis=1)

    keys_B = jax.random.wrap_key_data(batch["keys"]) if "keys" in batch else None
    logits_BxTxV, imbalance = model_lib.apply_with_loss(
        config, params, here(batch["tokens"]), batch.get("segments"), keys_B
    )
    nll_BxT = optax.losses.softmax_cross_entropy_with_integer_labels(
        logits_BxTxV, here(batch["tokens"], 1)
    )
    loss = jnp.sum(nll_BxT * here(batch["weights"]))
    return loss + config.balance / sequences * imbalance, loss


def weighed(batch: Batch) -> Batch:
    """The batch with its weights scaled to sum to 1."""
    # A batch without any weight has loss 0, not 0 / 0.
    return {**batch, "weights": batch["weights"] / jnp.maximum(jnp.sum(batch["weights"]), 1e-6)}


def summed_loss_and_grads(
    config: ModelConfig, params: model_lib.Params, batch: Batch, rows: int, sequences: int
) -> tuple[jax.Array, model_lib.Params]:
    """The weighted nats of `summed_loss` and the gradients of its objective.

    Args:
      config: the model.
      params: its parameters.
      batch: a part of a batch, as in `summed_loss`.
      rows: sequences computed at once; it divides those of this part.
      sequences: the number of sequences of the whole batch.
    """
    loss_of = functools.partial(summed_loss, config, sequences=sequences)
    compute = jax.value_and_grad(loss_of, has_aux=True)
    if not config.scan:
        params = model_lib.unrolled(config, params)
    if rows == len(batch["weights"]):
        # Without a loop: XLA for TPUs would compile the body of a loop of one turn twice.
        (_, loss), grads = compute(params, batch)
        return loss, model_lib.rolled(grads)
    parts = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), batch)

    def add(total: Any, part: Batch) -> tuple[Any, None]:
        (_, loss), grads = compute(params, part)
        return jax.tree.map(jnp.add, total, (loss, grads)), None

    zero = jax.tree.map(jnp.zeros_like, (batch["weights"][0, 0], params))
    loss, grads = jax.lax.scan(add, zero, parts)[0]
    return loss, model_lib.rolled(grads)


def loss_and_grads(
    config: ModelConfig, mesh: Mesh, params: model_lib.Params, batch: Batch, accumulate: int = 1
) -> tuple[jax.Array, model_lib.Params]:
    """The loss of a batch, a weighted mean over tokens in nats, and the gradients.

    The gradients are those of the loss plus the load-balancing loss of experts, if there are any.

    Args:
      config: the model.
      mesh: the devices.
      params: the parameters, divided over the mesh by `physlm.sharding.RULES`.
      batch: as in `summed_loss`, its rows divided over `data` and `fsdp`.
      accumulate: parts of its rows that each device works on one after the other.
    """
    size, window = batch["weights"].shape
    rows = rows_at_once(size // batch_shards(mesh) // accumulate, window, mesh)
    lie = jax.tree.map(lambda spec: along(spec, SHARED_OUT), specs(params))

    def on_shard(params: model_lib.Params, shard: Batch) -> tuple[jax.Array, model_lib.Params]:
        loss, grads = summed_loss_and_grads(config, params, shard, rows, size)
        return total(loss, SHARED_OUT), summed_grads(grads)

    return jax.shard_map(
        on_shard,
        mesh=mesh,
        in_specs=(lie, P(BATCH_AXES)),
        out_specs=(P(), lie),
        axis_names=set(SHARED_OUT),
        check_vma=False,
    )(params, weighed(batch))


def rows_at_once(rows: int, window: int, mesh: Mesh) -> int:
    """How many of the `rows` sequences of a device to compute at once; a divisor of `rows`."""
    if mesh.devices.flat[0].platform != "cpu":
        return rows
    # The activations of about 512 tokens fit a core's cache, which saves a third of a step's time.
    most = max(1, 512 // window)
    return max(few for few in range(1, most + 1) if rows % few == 0)


def row_keys(seed: int, step: int, rows: jax.typing.ArrayLike) -> jax.Array:
    """The dropout keys of some rows of a step, as uint32 key data of shape [rows, 2]."""
    key = keys.numbered(keys.root(seed, Purpose.DROPOUT), step)
    return jax.random.key_data(keys.all_numbered(key, jnp.asarray(rows)))


def init_state(
    config: ModelConfig, transform: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """The state before the first step."""
    params = model_lib.init(config, key)
    trend = Trend(jnp.zeros(()), jnp.zeros(()))
    return TrainState(jnp.zeros((), jnp.int32), params, transform.init(params), trend)


def updated(
    transform: optax.GradientTransformation,
    state: TrainState,
    loss: jax.Array,
    grads: model_lib.Params,
    scale: jax.Array | None = None,
) -> tuple[TrainState, Metrics]:
    """Applies the optimizer.

    Args:
      transform: the update rule.
      state: the state before the step.
      loss: the loss at its parameters.
      grads: the gradients there.
      scale: a factor of the updates; None is 1.

    Returns:
      The state after the step, and metrics: `loss` and `grad_norm`, both before the update;
      `recent_loss`, the moving mean of the loss with this step included; and `rise`, by how many
      standard deviations the loss is above the moving mean of the steps before.
    """
    updates, opt_state = transform.update(grads, state.opt_state, state.params)
    if scale is not None:
        updates = jax.tree.map(lambda update: update * scale, updates)
    params = optax.apply_updates(state.params, updates)
    trend, rise = _followed(state.trend, state.step, loss)
    norm = optax.tree.norm(grads)
    metrics = {"loss": loss, "grad_norm": norm, "recent_loss": trend.mean, "rise": rise}
    return TrainState(state.step + 1, params, opt_state, trend), metrics


def _followed(trend: Trend, step: jax.Array, loss: jax.Array) -> tuple[Trend, jax.Array]:
    above = loss - trend.mean
    # Before the mean is one of many steps a rise above it says nothing.
    rise = jnp.where(step >= _RECENT, above / jnp.sqrt(trend.variance + 1e-12), 0.0)
    rate = 1 / jnp.minimum(step + 1, _RECENT).astype(jnp.float32)
    variance = (1 - rate) * (trend.variance + rate * above**2)
    return Trend(trend.mean + rate * above, variance), rise


def abstract_state(
    config: ModelConfig, transform: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """The shapes, dtypes and shardings of a training state, as `jax.ShapeDtypeStruct`s."""
    init = functools.partial(init_state, config, transform)
    abstract = jax.eval_shape(init, keys.root(0, Purpose.PARAMETERS))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        shardings(abstract, mesh),
    )


def make_step(
    config: ModelConfig,
    transform: optax.GradientTransformation,
    mesh: Mesh,
    accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled step: from a state, whose memory it takes over, and a batch to the next state.

    Args:
      config: the model.
      transform: the update rule.
      mesh: the devices.
      accumulate: parts of its rows that each device works on one after the other.

    Returns:
      A function that returns the next state, with the shardings of the one before, and the metrics
      of `updated`.
    """
    layout = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, transform, mesh))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        loss, grads = loss_and_grads(config, mesh, state.params, batch, accumulate)
        return updated(transform, state, loss, grads)

    return jax.jit(step, donate_argnums=0, out_shardings=(layout, None))


def first_state(
    config: ModelConfig, transform: optax.GradientTransformation, mesh: Mesh, seed: int
) -> TrainState:
    """The state before the first step, with each leaf made on the devices where it belongs."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, transform, mesh))
    init = functools.partial(init_state, config, transform)
    return jax.jit(init, out_shardings=layout)(keys.root(seed, Purpose.PARAMETERS))
