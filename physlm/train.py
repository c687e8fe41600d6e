"""The training loop."""

import collections
import concurrent.futures
import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from data_gen.stream import ATTENTION, LOSS_ON, PACKING
from physlm import model as model_lib
from physlm import optimizer as optimizer_lib
from physlm.checkpoint import Checkpoints
from physlm.metrics import JsonLines
from physlm.model import ModelConfig
from physlm.optimizer import OptimizerConfig
from physlm.progress import Reporter
from physlm.sharding import batch_sharding, check_batch, shardings

# Steps that may be under way at once: enough to keep devices busy, and few, since collectives of
# a CPU shown as several devices get stuck behind thousands of waiting steps.
_IN_FLIGHT = 2

BUDGETS = ("tokens", "problems")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and on what to train.

    Attributes:
      steps: optimizer steps.
      budget: what `steps` count: `tokens`, the same for every kind of data, as in the paper; or
        `problems`: a run on data with mistakes takes as many steps more as it needs to see as many
        problems as `steps` of error-free data hold. Read by the run.
      batch: sequences a step.
      window: tokens a sequence feeds to the model.
      loss_on: which tokens bear loss, `all` or those of the `solution`; read by the stream.
      attention: how far it reaches, over the whole `window`, as in the paper, or within a
        `document`; read by the stream.
      pack: documents that run over their window are `cut`, as in the paper, or go `whole` to
        the next; read by the stream.
      log_every: steps between lines of metrics.
      save_every: steps between checkpoints.
      keep: checkpoints kept; two, so that a damaged one leaves another.

    Raises:
      ValueError: a field is out of its range.
    """

    steps: int
    batch: int
    window: int
    budget: str = "tokens"
    loss_on: str = "all"
    attention: str = "window"
    pack: str = "cut"
    log_every: int = 50
    save_every: int = 1000
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "window", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.budget not in BUDGETS:
            raise ValueError(f"train.budget is {self.budget!r}; it must be one of {BUDGETS}.")
        if self.loss_on not in LOSS_ON:
            raise ValueError(f"train.loss_on is {self.loss_on!r}; it must be one of {LOSS_ON}.")
        if self.attention not in ATTENTION:
            raise ValueError(
                f"train.attention is {self.attention!r}; it must be one of {ATTENTION}."
            )
        if self.pack not in PACKING:
            raise ValueError(f"train.pack is {self.pack!r}; it must be one of {PACKING}.")


class TrainState(NamedTuple):
    """All that a run needs to go on: steps done, parameters, and the optimizer's memory."""

    step: jax.Array
    params: model_lib.Params
    opt_state: optax.OptState


class Stream(Protocol):
    """Batches by number."""

    def batch(self, step: int) -> Mapping[str, ArrayLike]:
        """`tokens` int32 [batch, window + 1] and `weights` float32 [batch, window].

        Where attention stays within a document, `segments` int32 [batch, window] too.
        """
        ...


def summed_loss(
    config: ModelConfig, params: model_lib.Params, batch: dict[str, jax.Array]
) -> jax.Array:
    """Sum over a batch of the nats spent on each next token, times its weight."""
    tokens_BxT, targets_BxT = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    logits_BxTxV = model_lib.apply(config, params, tokens_BxT, batch.get("segments"))
    nll_BxT = optax.losses.softmax_cross_entropy_with_integer_labels(logits_BxTxV, targets_BxT)
    return jnp.sum(nll_BxT * batch["weights"])


def loss_and_grads(
    config: ModelConfig, mesh: Mesh, params: model_lib.Params, batch: dict[str, jax.Array]
) -> tuple[jax.Array, model_lib.Params]:
    """Weighted mean of the nats a token costs, over the whole batch, and its gradients."""
    # A batch without any weight has loss 0, not 0 / 0.
    weights_BxT = batch["weights"] / jnp.maximum(jnp.sum(batch["weights"]), 1e-6)
    batch = {**batch, "weights": weights_BxT}
    size, window = weights_BxT.shape
    rows = _rows_at_once(size, window, mesh)
    compute = jax.value_and_grad(functools.partial(summed_loss, config))

    def on_shard(
        params: model_lib.Params, shard: dict[str, jax.Array]
    ) -> tuple[jax.Array, model_lib.Params]:
        parts = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), shard)

        def add(total: Any, part: dict[str, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, compute(params, part)), None

        zero = jax.tree.map(jnp.zeros_like, (weights_BxT[0, 0], params))
        return jax.lax.psum(jax.lax.scan(add, zero, parts)[0], "data")

    return jax.shard_map(
        on_shard,
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
        axis_names={"data"},
        check_vma=False,
    )(params, batch)


def _rows_at_once(batch: int, window: int, mesh: Mesh) -> int:
    shard = batch // mesh.shape["data"]
    if mesh.devices.flat[0].platform != "cpu":
        return shard
    # Some 512 tokens at a time leave a core's activations in its cache: a third of a step's time.
    most = max(1, 512 // window)
    return max(rows for rows in range(1, most + 1) if shard % rows == 0)


def init_state(
    config: ModelConfig, transform: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """The state before the first step."""
    params = model_lib.init(config, key)
    return TrainState(jnp.zeros((), jnp.int32), params, transform.init(params))


def train_step(
    config: ModelConfig,
    transform: optax.GradientTransformation,
    mesh: Mesh,
    state: TrainState,
    batch: dict[str, jax.Array],
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step, and the loss and gradient norm before it."""
    loss, grads = loss_and_grads(config, mesh, state.params, batch)
    updates, opt_state = transform.update(grads, state.opt_state, state.params)
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
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """The compiled step, which consumes its state and leaves the next where that lay."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, transform, mesh))
    step = functools.partial(train_step, config, transform, mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=(layout, None))


def first_state(
    config: ModelConfig, transform: optax.GradientTransformation, mesh: Mesh, seed: int
) -> TrainState:
    """The state before the first step, each leaf made where it is to lie."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, transform, mesh))
    init = functools.partial(init_state, config, transform)
    return jax.jit(init, out_shardings=layout)(jax.random.key(seed))


def train(
    *,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    train: TrainConfig,
    mesh: Mesh,
    seed: int,
    stream: Stream,
    run_dir: pathlib.Path,
    progress: Reporter,
) -> TrainState:
    """Trains to the last step, from the newest checkpoint in the run's directory if there is one.

    Writes `run_dir/checkpoints` and `run_dir/metrics.jsonl`. A run that was killed ends, when
    called again, where it would have ended: every step depends on the state and its number only.

    Args:
      model: the decoder.
      optimizer: the update rule.
      train: length and batch.
      mesh: devices to train on; the batch is divided over its axis `data`.
      seed: of the initial parameters.
      stream: the data.
      run_dir: directory of this run; made if it is missing.
      progress: told of every finished step.

    Raises:
      ValueError: configurations do not fit together, before anything is written.
      FloatingPointError: the loss or the gradient is not finite.
    """
    check_batch(train.batch, mesh, "train.batch")
    if model.window != train.window:
        raise ValueError(
            f"model.window is {model.window}; it must be train.window, {train.window}."
        )
    rate = optimizer_lib.schedule(optimizer, train.steps)
    transform = optimizer_lib.make(optimizer, train.steps)
    step_fn = make_step(model, transform, mesh)

    def fetch(step: int) -> dict[str, jax.Array]:
        return jax.block_until_ready(jax.device_put(stream.batch(step), batch_sharding(mesh)))

    run_dir.mkdir(parents=True, exist_ok=True)
    with (
        Checkpoints(run_dir / "checkpoints", train.keep) as checkpoints,
        jax.set_mesh(mesh),
        concurrent.futures.ThreadPoolExecutor(1) as worker,
    ):
        state = checkpoints.restore_latest(abstract_state(model, transform, mesh))
        if state is None:
            state = first_state(model, transform, mesh, seed)
        first = int(state.step)
        with JsonLines(run_dir / "metrics.jsonl", upto_step=first) as lines:
            report = _Reporter(train, rate, lines, checkpoints, progress, first)
            in_flight: collections.deque[tuple[int, Any]] = collections.deque()
            upcoming = [worker.submit(fetch, first)] if first < train.steps else []
            for step in range(first + 1, train.steps + 1):
                batch = upcoming.pop().result()
                if step < train.steps:
                    # The next batch is made while this step runs.
                    upcoming.append(worker.submit(fetch, step))
                state, metrics = step_fn(state, batch)
                in_flight.append((step, metrics))
                saving = step % train.save_every == 0 or step == train.steps
                while len(in_flight) > (0 if saving else _IN_FLIGHT):
                    report(*in_flight.popleft())
                if saving:
                    checkpoints.save(step, state)
    return state


class _Reporter:
    """Takes the metrics of finished steps: refuses bad numbers, shows and writes the others."""

    def __init__(
        self,
        train: TrainConfig,
        rate: optax.Schedule,
        lines: JsonLines,
        checkpoints: Checkpoints,
        progress: Reporter,
        first: int,
    ):
        self._train = train
        self._rate = rate
        self._lines = lines
        self._checkpoints = checkpoints
        self._progress = progress
        self._start = time.perf_counter()
        self._mark = (first, self._start)

    def __call__(self, step: int, metrics: dict[str, jax.Array]) -> None:
        loss, norm = (float(metrics[name]) for name in ("loss", "grad_norm"))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"At step {step} the loss is {loss} and the gradient norm {norm}; "
                f"the last good checkpoint is that of step {self._checkpoints.latest or 0}."
            )
        self._progress.update(step, loss=loss)
        now = time.perf_counter()
        if step % self._train.log_every == 0 or step == self._train.steps:
            marked_step, marked_time = self._mark
            tokens_per_step = self._train.batch * self._train.window
            self._lines.write(
                step=step,
                loss=loss,
                grad_norm=norm,
                # The schedule counts from 0: this is the rate that made this step.
                learning_rate=float(self._rate(step - 1)),
                tokens=step * tokens_per_step,
                tokens_per_s=round((step - marked_step) * tokens_per_step / (now - marked_time), 1),
                seconds=round(now - self._start, 3),
            )
            self._mark = (step, now)
