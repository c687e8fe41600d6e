"""One optimizer step: the state it goes on from, the loss, its gradients and the update."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from physlm import model as model_lib
from physlm.model import ModelConfig
from physlm.sharding import shardings

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """All that a run needs to go on: steps done, parameters, and the optimizer's memory."""

    step: jax.Array
    params: model_lib.Params
    opt_state: optax.OptState


def summed_loss(config: ModelConfig, params: model_lib.Params, batch: Batch) -> jax.Array:
    """Sum over a batch of the nats spent on each next token, times its weight."""
    tokens_BxT, targets_BxT = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    logits_BxTxV = model_lib.apply(config, params, tokens_BxT, batch.get("segments"))
    nll_BxT = optax.losses.softmax_cross_entropy_with_integer_labels(logits_BxTxV, targets_BxT)
    return jnp.sum(nll_BxT * batch["weights"])


def weighed(batch: Batch) -> Batch:
    """The batch with weights that sum to 1."""
    # A batch without any weight has loss 0, not 0 / 0.
    return {**batch, "weights": batch["weights"] / jnp.maximum(jnp.sum(batch["weights"]), 1e-6)}


def summed_loss_and_grads(
    config: ModelConfig, params: model_lib.Params, batch: Batch, rows: int
) -> tuple[jax.Array, model_lib.Params]:
    """`summed_loss` and its gradients, found `rows` sequences at a time."""
    compute = jax.value_and_grad(functools.partial(summed_loss, config))
    parts = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), batch)

    def add(total: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, compute(params, part)), None

    zero = jax.tree.map(jnp.zeros_like, (batch["weights"][0, 0], params))
    return jax.lax.scan(add, zero, parts)[0]


def loss_and_grads(
    config: ModelConfig, mesh: Mesh, params: model_lib.Params, batch: Batch
) -> tuple[jax.Array, model_lib.Params]:
    """Weighted mean of the nats a token costs, over the whole batch, and its gradients."""
    size, window = batch["weights"].shape
    rows = rows_at_once(size // mesh.shape["data"], window, mesh)

    def on_shard(params: model_lib.Params, shard: Batch) -> tuple[jax.Array, model_lib.Params]:
        return jax.lax.psum(summed_loss_and_grads(config, params, shard, rows), "data")

    return jax.shard_map(
        on_shard,
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
        axis_names={"data"},
        check_vma=False,
    )(params, weighed(batch))


def rows_at_once(rows: int, window: int, mesh: Mesh) -> int:
    """Of so many sequences on one device, how many to work on at once; a divisor of them."""
    if mesh.devices.flat[0].platform != "cpu":
        return rows
    # Some 512 tokens at a time leave a core's activations in its cache: a third of a step's time.
    most = max(1, 512 // window)
    return max(few for few in range(1, most + 1) if rows % few == 0)


def init_state(
    config: ModelConfig, transform: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """The state before the first step."""
    params = model_lib.init(config, key)
    return TrainState(jnp.zeros((), jnp.int32), params, transform.init(params))


def updated(
    transform: optax.GradientTransformation,
    state: TrainState,
    loss: jax.Array,
    grads: model_lib.Params,
    scale: jax.Array | None = None,
) -> tuple[TrainState, Metrics]:
    """The state after a step, and the loss and gradient norm before it.

    Args:
      transform: the update rule.
      state: before the step.
      loss: of its parameters.
      grads: of the loss.
      scale: what updates are multiplied by; None is 1.
    """
    updates, opt_state = transform.update(grads, state.opt_state, state.params)
    if scale is not None:
        updates = jax.tree.map(lambda update: update * scale, updates)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
    return TrainState(state.step + 1, params, opt_state), metrics


def abstract_state(
    config: ModelConfig, transform: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of a state."""
    init = functools.partial(init_state, config, transform)
    abstract = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        shardings(abstract, mesh),
    )


def make_step(
    config: ModelConfig, transform: optax.GradientTransformation, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled step, which consumes its state and leaves the next where that lay."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, transform, mesh))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        loss, grads = loss_and_grads(config, mesh, state.params, batch)
        return updated(transform, state, loss, grads)

    return jax.jit(step, donate_argnums=0, out_shardings=(layout, None))


def first_state(
    config: ModelConfig, transform: optax.GradientTransformation, mesh: Mesh, seed: int
) -> TrainState:
    """The state before the first step, each leaf made where it is to lie."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, transform, mesh))
    init = functools.partial(init_state, config, transform)
    return jax.jit(init, out_shardings=layout)(jax.random.key(seed))
