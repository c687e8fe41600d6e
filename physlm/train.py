"""The training loop, of one run or of several that are trained as one program."""

import collections
import concurrent.futures
import dataclasses
import math
import pathlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from data_gen.stream import ATTENTION, LOSS_ON, PACKING
from physlm import optimizer as optimizer_lib
from physlm.checkpoint import Checkpoints, restore_all
from physlm.metrics import JsonLines
from physlm.model import ModelConfig
from physlm.optimizer import OptimizerConfig
from physlm.population import Population
from physlm.progress import Reporter
from physlm.sharding import batch_sharding, check_batch, check_heads
from physlm.step import Batch, Metrics, TrainState, abstract_state, first_state, make_step
from physlm.throughput import Meter, Trace, model_flops, peak_flops

# Steps that may be under way at once: enough to keep devices busy, and few, since collectives of
# a CPU shown as several devices get stuck behind thousands of waiting steps.
_IN_FLIGHT = 2

# Figures of `Meter` that are shown beside the progress.
_SHOWN = {"tokens/s": "tokens_per_s", "input": "input_share", "MFU": "mfu"}

CHECKPOINTS_DIR = "checkpoints"
PROFILE_DIR = "profile"

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


class Stream(Protocol):
    """Batches by number."""

    def batch(self, step: int) -> Mapping[str, ArrayLike]:
        """`tokens` int32 [batch, window + 1] and `weights` float32 [batch, window].

        Where attention stays within a document, `segments` int32 [batch, window] too.
        """
        ...


class TerminatedError(BaseException):
    """The process was asked to end (SIGTERM), and all that was done is saved.

    Not an `Exception`, as `KeyboardInterrupt` is none: it says nothing about the run.
    """


@contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    """An event that is set by SIGTERM, by which machines announce that they are taken away."""
    asked = threading.Event()
    # Elsewhere than in the main thread signals cannot be caught.
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclasses.dataclass(frozen=True)
class Member:
    """What sets one run apart from the others that it is trained with.

    Attributes:
      seed: of the initial parameters.
      stream: the data.
      learning_rate: the peak.
      run_dir: directory of this run; made if it is missing.
    """

    seed: int
    stream: Stream
    learning_rate: float
    run_dir: pathlib.Path


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
      TerminatedError: by SIGTERM, after a checkpoint of the step that was under way.
    """
    member = Member(seed, stream, optimizer.learning_rate, run_dir)
    (outcome,) = train_together(
        [member], model=model, optimizer=optimizer, train=train, mesh=mesh, progress=progress
    )
    if isinstance(outcome, FloatingPointError):
        raise outcome
    return outcome


def train_together(
    members: Sequence[Member],
    *,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    train: TrainConfig,
    mesh: Mesh,
    progress: Reporter,
    profile: int = 0,
) -> list[TrainState | FloatingPointError]:
    """Trains several runs of the same shapes step by step, each as `train` would alone.

    Two or more are one program (`physlm.population`), that shares them out over the mesh's
    devices. They go on from the newest step of which all have a checkpoint. Figures on speed in
    their `metrics.jsonl` are those of all of them together (`physlm.throughput.Meter`).

    Args:
      members: what sets the runs apart.
      model: the decoder of each.
      optimizer: the update rule, but for the learning rate.
      train: length and batch of each.
      mesh: devices to train on.
      progress: told of every finished step, with the mean of the losses.
      profile: steps to write a trace of, early on, into the first run's `profile`.

    Returns:
      the last state of each run, or why it could not be finished.

    Raises:
      ValueError: configurations do not fit together, before anything is written.
      TerminatedError: by SIGTERM, after a checkpoint of the step that was under way.
    """
    if model.window != train.window:
        raise ValueError(
            f"model.window is {model.window}; it must be train.window, {train.window}."
        )
    check_heads(model.heads, mesh)
    rates = [member.learning_rate for member in members]
    program: _Alone | Population
    if len(members) > 1:
        transform = optimizer_lib.make(optimizer, train.steps, peak=1.0)
        program = Population(model, transform, mesh, rates)
    else:
        check_batch(train.batch, mesh, "train.batch")
        transform = optimizer_lib.make(optimizer, train.steps, peak=rates[0])
        program = _Alone(model, transform, mesh)

    def fetch(step: int) -> Batch:
        batches = [member.stream.batch(step) for member in members]
        return jax.block_until_ready(program.put(batches))

    with ExitStack() as stack:
        for member in members:
            member.run_dir.mkdir(parents=True, exist_ok=True)
        checkpoints = [
            stack.enter_context(Checkpoints(member.run_dir / CHECKPOINTS_DIR, train.keep))
            for member in members
        ]
        stack.enter_context(jax.set_mesh(program.mesh))
        abstract = abstract_state(model, transform, mesh)
        states = restore_all(checkpoints, abstract)
        if not states:
            states = [first_state(model, transform, mesh, member.seed) for member in members]
        first, state = int(states[0].step), program.gathered(states)
        del states
        logs = [
            stack.enter_context(JsonLines(member.run_dir / "metrics.jsonl", upto_step=first))
            for member in members
        ]
        schedules = [optimizer_lib.schedule(optimizer, train.steps, rate) for rate in rates]
        tokens = train.batch * train.window
        started = time.perf_counter()
        meter = _meter(model, tokens * len(members), program.mesh, first)
        trace = Trace(members[0].run_dir / PROFILE_DIR, first, profile)
        stack.callback(trace.stop)
        speed: dict[str, float] = {}
        asked = stack.enter_context(_asked_to_end())
        failed: dict[int, FloatingPointError] = {}

        def report(step: int, metrics: Metrics) -> None:
            losses, logs_it = [], step % train.log_every == 0 or step == train.steps
            if logs_it:
                speed.update(meter.mark(step))
            of_K = (np.atleast_1d(metrics[name]) for name in ("loss", "grad_norm"))
            for number, (loss, norm) in enumerate(zip(*of_K, strict=True)):
                if number in failed:
                    continue
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    failed[number] = FloatingPointError(
                        f"At step {step} the loss is {loss} and the gradient norm {norm}; the "
                        f"last good checkpoint is that of step {checkpoints[number].latest or 0}."
                    )
                    continue
                losses.append(float(loss))
                if logs_it:
                    logs[number].write(
                        step=step,
                        loss=float(loss),
                        grad_norm=float(norm),
                        # The schedule counts from 0: this is the rate that made this step.
                        learning_rate=float(schedules[number](step - 1)),
                        tokens=step * tokens,
                        seconds=round(time.perf_counter() - started, 3),
                        **speed,
                    )
            if losses:
                shown = {name: speed[key] for name, key in _SHOWN.items() if key in speed}
                progress.update(step, loss=math.fsum(losses) / len(losses), **shown)

        worker = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
        in_flight: collections.deque[tuple[int, Metrics]] = collections.deque()
        upcoming = [worker.submit(fetch, first)] if first < train.steps else []
        for step in range(first + 1, train.steps + 1):
            with meter.waiting():
                batch = upcoming.pop().result()
            if step < train.steps:
                # The next batch is made while this step runs.
                upcoming.append(worker.submit(fetch, step))
            state, metrics = program.step(state, batch)
            in_flight.append((step, metrics))
            trace(step, metrics)
            ends = asked.is_set()
            saving = ends or step % train.save_every == 0 or step == train.steps
            while len(in_flight) > (0 if saving else _IN_FLIGHT):
                report(*in_flight.popleft())
            if len(failed) == len(members):
                break
            if saving:
                for number in set(range(len(members))) - set(failed):
                    checkpoints[number].save(step, program.member(state, number))
            if ends:
                for run in checkpoints:
                    run.wait()
                raise TerminatedError(f"after step {step}, of which there is a checkpoint")
        layout = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        return [
            failed.get(n) or jax.device_put(program.member(state, n), layout)
            for n in range(len(members))
        ]


def _meter(config: ModelConfig, tokens: int, mesh: Mesh, step: int) -> Meter:
    peak = peak_flops(mesh.devices.flat[0])
    flops = model_flops(config, tokens)
    return Meter(step, tokens, flops, None if peak is None else peak * mesh.size)


class _Alone:
    """The steps of one run, with the methods of a `Population`."""

    def __init__(self, config: ModelConfig, transform: optax.GradientTransformation, mesh: Mesh):
        self.mesh = mesh
        self.step = make_step(config, transform, mesh)

    def gathered(self, states: Sequence[TrainState]) -> TrainState:
        return states[0]

    def put(self, batches: Sequence[Mapping[str, ArrayLike]]) -> Batch:
        return jax.device_put(dict(batches[0]), batch_sharding(self.mesh))

    def member(self, state: TrainState, number: int) -> TrainState:
        del number
        return state
