"""One optimizer step: the training state, the loss, its gradients and the update.

Each device computes the loss and the gradients of its own part of a batch. Gradients are then
summed by one all-reduce a step along `data` and `sequence`. Along `fsdp` the kernels of a block are
all-gathered when the block is computed, forward and backward, and their gradients reduce-scattered.
Along `sequence` keys and values are all-gathered in every block.
"""

import dataclasses
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
from physlm.adaptation import WHOLE, Adaptation
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

# From a model, its parameters, a part of a batch and the number of rows of the whole batch to what
# that part adds to the objective, and to the loss that is reported.
Objective = Callable[[ModelConfig, model_lib.Params, Batch, int], tuple[jax.Array, jax.Array]]

# The recent loss is an exponential moving mean over about this many steps.
_RECENT = 100


class Trend(NamedTuple):
    """The loss of recent steps: its moving mean and variance, in nats per token."""

    mean: jax.Array
    variance: jax.Array


class TrainState(NamedTuple):
    """The state that a run needs to resume, apart from frozen parameters.

    Attributes:
      step: steps done.
      params: what is trained of the model; `Adaptation.join` makes a model of it.
      opt_state: what the optimizer remembers.
      trend: of the loss.
    """

    step: jax.Array
    params: model_lib.Params
    opt_state: optax.OptState
    trend: Trend


def next_token(
    config: ModelConfig, params: model_lib.Params, batch: Batch, sequences: int
) -> tuple[jax.Array, jax.Array]:
    """The contribution of a part of a batch to the batch's next-token loss.

    Where `mesh.sequence` divides the positions, this is the contribution of the device's own.

    Args:
      config: the model.
      params: its parameters.
      batch: tokens int32 [B, W + 1] and weights float32 [B, W]. With attention within documents
        also segments int32 [B, W]; with dropout also keys, as `row_keys` makes them; with dropout
        of adapters also adapters, as `physlm.adaptation.step_keys` does.
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


@dataclasses.dataclass(frozen=True)
class Learning:
    """The objective, and the parameters that are trained on it.

    Attributes:
      adaptation: what of it is trained.
      objective: what is lowered.
    """

    adaptation: Adaptation = WHOLE
    objective: Objective = next_token

    def loss(
        self,
        config: ModelConfig,
        trained: model_lib.Params,
        frozen: model_lib.Params,
        batch: Batch,
        sequences: int,
    ) -> tuple[jax.Array, jax.Array]:
        """The objective of the joined model; arguments and result as those of an `Objective`."""
        key = jax.random.wrap_key_data(batch["adapters"][0]) if "adapters" in batch else None
        params = self.adaptation.join(trained, frozen, key)
        return self.objective(config, params, batch, sequences)


PRETRAINING = Learning()


def weighed(batch: Batch) -> Batch:
    """The batch with its weights scaled to sum to 1."""
    # A batch without any weight has loss 0, not 0 / 0.
    return {**batch, "weights": batch["weights"] / jnp.maximum(jnp.sum(batch["weights"]), 1e-6)}


def summed_loss_and_grads(
    config: ModelConfig,
    params: model_lib.Params,
    batch: Batch,
    rows: int,
    sequences: int,
    learning: Learning = PRETRAINING,
    frozen: model_lib.Params | None = None,
) -> tuple[jax.Array, model_lib.Params]:
    """The loss of a part of a batch and the gradients of its objective.

    Args:
      config: the model.
      params: what is trained of it.
      batch: a part of a batch, as the objective takes it.
      rows: sequences computed at once; it divides those of this part.
      sequences: the number of sequences of the whole batch.
      learning: what is learnt, and by what.
      frozen: the rest of the model, where there is any.
    """

    def loss_of(params: model_lib.Params, part: Batch) -> tuple[jax.Array, jax.Array]:
        return learning.loss(config, params, frozen or {}, part, sequences)

    compute = jax.value_and_grad(loss_of, has_aux=True)
    if not config.scan and learning.adaptation.full:
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
    config: ModelConfig,
    mesh: Mesh,
    params: model_lib.Params,
    batch: Batch,
    accumulate: int = 1,
    learning: Learning = PRETRAINING,
    frozen: model_lib.Params | None = None,
) -> tuple[jax.Array, model_lib.Params]:
    """The loss of a batch, a weighted mean over tokens in nats, and the gradients.

    The gradients are those of the loss plus the load-balancing loss of experts, if there are any.

    Args:
      config: the model.
      mesh: the devices.
      params: what is trained of it, divided over the mesh by `physlm.sharding.RULES`.
      batch: as the objective takes it, its rows divided over `data` and `fsdp`.
      accumulate: parts of its rows that each device works on one after the other.
      learning: what is learnt, and by what.
      frozen: the rest of the model, where there is any, divided likewise.
    """
    size = len(batch["weights"])
    length = batch["tokens"].shape[1] - 1
    rows = rows_at_once(size // batch_shards(mesh) // accumulate, length, mesh)
    lie, lies = (
        jax.tree.map(lambda spec: along(spec, SHARED_OUT), specs(part))
        for part in (params, frozen or {})
    )

    def on_shard(
        params: model_lib.Params, frozen: model_lib.Params, shard: Batch
    ) -> tuple[jax.Array, model_lib.Params]:
        loss, grads = summed_loss_and_grads(config, params, shard, rows, size, learning, frozen)
        return total(loss, SHARED_OUT), summed_grads(grads)

    return jax.shard_map(
        on_shard,
        mesh=mesh,
        in_specs=(lie, lies, P(BATCH_AXES)),
        out_specs=(P(), lie),
        axis_names=set(SHARED_OUT),
        check_vma=False,
    )(params, frozen or {}, weighed(batch))


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
    config: ModelConfig,
    transform: optax.GradientTransformation,
    key: jax.Array,
    adaptation: Adaptation = WHOLE,
    base: model_lib.Params | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      config: the model.
      transform: the update rule.
      key: of the parameters.
      adaptation: what of the model is trained.
      base: the model to begin with; None draws one.
    """
    base = model_lib.init(config, key) if base is None else base
    params, _ = adaptation.split(base, config, key)
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
    config: ModelConfig,
    transform: optax.GradientTransformation,
    mesh: Mesh,
    adaptation: Adaptation = WHOLE,
) -> TrainState:
    """The shapes, dtypes and shardings of a training state, as `jax.ShapeDtypeStruct`s."""
    init = functools.partial(init_state, config, transform, adaptation=adaptation)
    return _laid_out(jax.eval_shape(init, keys.root(0, Purpose.PARAMETERS)), mesh)


def abstract_params(config: ModelConfig, mesh: Mesh) -> model_lib.Params:
    """The same of a whole model's parameters."""
    return _laid_out(model_lib.shapes(config), mesh)


def _laid_out(tree: Any, mesh: Mesh) -> Any:
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree,
        shardings(tree, mesh),
    )


def _places(abstract: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def make_step(
    config: ModelConfig,
    transform: optax.GradientTransformation,
    mesh: Mesh,
    accumulate: int = 1,
    learning: Learning = PRETRAINING,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The compiled training step; the given state is donated.

    Args:
      config: the model.
      transform: the update rule.
      mesh: the devices.
      accumulate: parts of its rows that each device works on one after the other.
      learning: what is learnt, and by what of the model.

    Returns:
      A function of the state, the batch and, where some of the model is frozen, that. It returns
      the next state, with the shardings of the one before, and the metrics of `updated`.
    """
    layout = _places(abstract_state(config, transform, mesh, learning.adaptation))

    def step(
        state: TrainState, batch: Batch, frozen: model_lib.Params | None = None
    ) -> tuple[TrainState, Metrics]:
        found = loss_and_grads(config, mesh, state.params, batch, accumulate, learning, frozen)
        return updated(transform, state, *found)

    return jax.jit(step, donate_argnums=0, out_shardings=(layout, None))


def first_state(
    config: ModelConfig,
    transform: optax.GradientTransformation,
    mesh: Mesh,
    seed: int,
    adaptation: Adaptation = WHOLE,
    base: model_lib.Params | None = None,
) -> TrainState:
    """The state before the first step, each leaf created with its sharding.

    Arguments are those of `init_state`, with the seed of the parameters in place of their key.
    """
    layout = _places(abstract_state(config, transform, mesh, adaptation))
    init = functools.partial(init_state, config, transform, adaptation=adaptation)
    key = keys.root(seed, Purpose.PARAMETERS)
    return jax.jit(init, out_shardings=layout)(key, base=base)


def first_params(config: ModelConfig, mesh: Mesh, seed: int) -> model_lib.Params:
    """Initial parameters, each leaf created with its sharding."""
    init = functools.partial(model_lib.init, config)
    layout = _places(abstract_params(config, mesh))
    return jax.jit(init, out_shardings=layout)(keys.root(seed, Purpose.PARAMETERS))
