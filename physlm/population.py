"""Trains several runs of equal shapes as one program, since a small model leaves a chip idle.

Runs may differ in their seed, their data and their learning rate. Axis K is that of the runs.
Where there are several devices each takes some of the runs, so that nothing is communicated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from physlm import step as step_lib
from physlm.architecture import ModelConfig
from physlm.attention import VECTORIZED
from physlm.model import Params
from physlm.sharding import batch_sharding, rows_here
from physlm.step import PRETRAINING, Batch, Learning, Metrics, TrainState
from physlm.throughput import model_flops

# A step of fewer operations than this takes any accelerator of today a few milliseconds: too little
# work to fill it, and not much longer than it takes to launch a step.
_SMALL = 1e12


def usual(config: ModelConfig, tokens: int, platform: str, count: int) -> int:
    """The largest number of runs that are trained as one program, where the user sets none.

    Args:
      config: the model of each run.
      tokens: the number of tokens of a step of one run.
      platform: JAX's name for the kind of device: cpu, gpu or tpu.
      count: devices, which are cores where the platform is cpu.
    """
    if model_flops(config, tokens) >= _SMALL:
        return 1
    # A core for each run takes a third less time than all cores for one after the other.
    return count if platform == "cpu" else 8


class Single:
    """Training steps of one run on the whole mesh, with the methods of a `Population`."""

    def __init__(
        self,
        config: ModelConfig,
        transform: optax.GradientTransformation,
        mesh: Mesh,
        batch: int,
        accumulate: int = 1,
        learning: Learning = PRETRAINING,
    ):
        """Prepares the program; `batch` and `accumulate` as in `TrainConfig`."""
        self.mesh = mesh
        self._batch = batch
        self._step = step_lib.make_step(config, transform, mesh, accumulate, learning)
        self._frozen: Params | None = None

    def freeze(self, frozen: Sequence[Params]) -> None:
        """Sets the frozen parameters, if there are any, for all following steps."""
        self._frozen = frozen[0] or None

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The next state, and the metrics of `updated`; the given state is donated."""
        return self._step(state, batch, self._frozen)

    def gathered(self, states: Sequence[TrainState]) -> TrainState:
        """The state of the one run."""
        return states[0]

    def put(self, batches: Sequence[Mapping[str, ArrayLike]]) -> Batch:
        """Puts the batch [B, …] on the devices; each host is given, and puts, its own rows."""
        place = batch_sharding(self.mesh)
        if jax.process_count() == 1:
            return jax.device_put(dict(batches[0]), place)
        rows = rows_here(self._batch, self.mesh)

        def shared(here: np.ndarray) -> jax.Array:
            def part(index: tuple[slice, ...] | None) -> np.ndarray:
                assert index is not None  # The batch has a first axis.
                return here[np.searchsorted(rows, np.arange(self._batch)[index[0]])]

            return jax.make_array_from_callback((self._batch, *here.shape[1:]), place, part)

        return {name: shared(np.asarray(here)) for name, here in batches[0].items()}

    def member(self, state: TrainState, number: int) -> TrainState:
        """The state of the one run."""
        del number
        return state


class Population:
    """Training steps of K runs at once; their state is one tree with a leading axis K."""

    def __init__(
        self,
        config: ModelConfig,
        transform: optax.GradientTransformation,
        mesh: Mesh,
        learning_rates: Sequence[float],
        *,
        accumulate: int = 1,
        vectorized: bool | None = None,
        learning: Learning = PRETRAINING,
    ) -> None:
        """Prepares the program; nothing is compiled before the first step.

        Args:
          config: the model of every run.
          transform: the update rule, at a peak learning rate of 1.
          mesh: the devices. Each takes as many runs as the others, so that only a number of devices
            that divides the number of runs is used.
          learning_rates: the peak learning rate of each run.
          accumulate: parts of a run's batch that are worked on one after the other.
          vectorized: whether a device computes all its runs at once (`jax.vmap`), or one after the
            other within the same program. None is the former on accelerators and the latter on
            CPUs, where one run fills a core and several would not fit into its cache.
          learning: what is learnt, and by what of each model.
        """
        count = len(learning_rates)
        devices = mesh.devices.flatten().tolist()
        most = max(n for n in range(1, len(devices) + 1) if count % n == 0)
        self.mesh = jax.make_mesh(
            (most,), ("runs",), axis_types=(AxisType.Auto,), devices=devices[:most]
        )
        if vectorized is None:
            vectorized = devices[0].platform != "cpu"
        self._place = NamedSharding(self.mesh, P("runs"))
        self._rates_K = np.asarray(learning_rates, np.float32)

        def one(
            state: TrainState, batch: Batch, rate: jax.Array, frozen: Params | None
        ) -> tuple[TrainState, Metrics]:
            size, length = len(batch["weights"]), batch["tokens"].shape[1] - 1
            rows = step_lib.rows_at_once(size // accumulate, length, self.mesh)
            found = step_lib.summed_loss_and_grads(
                config, state.params, step_lib.weighed(batch), rows, size, learning, frozen
            )
            return step_lib.updated(transform, state, *found, rate)

        def on_device(*runs: Any) -> tuple[TrainState, Metrics]:
            if vectorized:
                return jax.vmap(one, axis_name=VECTORIZED)(*runs)
            return jax.lax.map(lambda run: one(*run), runs)

        step = jax.shard_map(
            on_device, mesh=self.mesh, in_specs=P("runs"), out_specs=P("runs"), check_vma=False
        )
        self._step = jax.jit(step, donate_argnums=0)
        self._frozen_K: Params | None = None
        self._stack = jax.jit(
            lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees),
            out_shardings=self._place,
        )
        self._member = jax.jit(
            lambda state, k: jax.tree.map(lambda leaf_K: leaf_K[k], state),
            out_shardings=NamedSharding(self.mesh, P()),
        )

    def freeze(self, frozen: Sequence[Params]) -> None:
        """Sets the frozen parameters of all runs, if there are any, for all following steps."""
        self._frozen_K = self._stacked(frozen) if frozen[0] else None

    def gathered(self, states: Sequence[TrainState]) -> TrainState:
        """Stacks the states of the runs."""
        return self._stacked(states)

    def _stacked(self, trees: Sequence[Any]) -> Any:
        # Each was made or restored on the mesh of a single run.
        everywhere = NamedSharding(self.mesh, P())
        return self._stack(*(jax.device_put(tree, everywhere) for tree in trees))

    def put(self, batches: Sequence[Mapping[str, ArrayLike]]) -> Batch:
        """Stacks the batches of all runs, [K, B, …], and puts them on the devices."""
        stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        return jax.device_put(stacked, self._place)

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The next state, and the metrics [K] of `updated`; the given state is donated."""
        return self._step(state, batch, self._rates_K, self._frozen_K)

    def member(self, state: TrainState, number: int) -> TrainState:
        """The state of one run."""
        return self._member(state, number)
