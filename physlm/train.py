"""The training loop, of one run or of several that are trained as one program."""

import collections
import concurrent.futures
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh
from jax.typing import ArrayLike

from data_gen import settings
from physlm import adaptation as adaptation_lib
from physlm import optimizer as optimizer_lib
from physlm import paths, sharding
from physlm import step as step_lib
from physlm.adaptation import Adaptation
from physlm.architecture import ModelConfig
from physlm.checkpoint import Checkpoints, check_made_by
from physlm.journal import Journal, Log
from physlm.optimizer import OptimizerConfig
from physlm.population import Population, Single
from physlm.progress import Reporter
from physlm.start import Parent, start
from physlm.step import PRETRAINING, Batch, Learning, Metrics, TrainState, abstract_state
from physlm.throughput import Meter, Trace, model_flops, peak_flops

# Steps that may be under way at once: enough to keep devices busy, and few, since collectives of
# a CPU shown as several devices get stuck behind thousands of waiting steps.
_IN_FLIGHT = 2

CHECKPOINTS_DIR = "checkpoints"
PROFILE_DIR = "profile"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The length of training, the batch, and which checkpoints are kept.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    steps: int = settings.whole(100_000, "Optimizer steps.", low=1)
    budget: str = settings.choice(
        "tokens",
        "What steps count: tokens, the same for every kind of data, as in the paper; or problems: "
        "a run on data with mistakes takes as many steps more as it needs to see as many problems "
        "as that number of steps shows of error-free data.",
        ("tokens", "problems"),
    )
    batch: int = settings.whole(512, "Sequences of a step.", low=1)
    accumulate: int = settings.whole(
        1,
        "Parts of its share of a batch that a device works on one after the other, to need less "
        "memory.",
        low=1,
        decides=False,
    )
    log_every: int = settings.whole(100, "Steps between lines of metrics.", low=1, decides=False)
    save_every: int = settings.whole(1000, "Steps between checkpoints.", low=1, decides=False)
    keep: int = settings.whole(
        2,
        "Newest checkpoints kept, beside that of the lowest recent loss; two, so that a damaged "
        "one leaves another.",
        low=1,
        decides=False,
    )

    def __post_init__(self) -> None:
        settings.check(self)


class Stream(Protocol):
    """A source of batches, each a function of the number of its step."""

    def batch(self, step: int) -> Mapping[str, ArrayLike]:
        """`tokens` int32 [batch, window + 1] and `weights` float32 [batch, window].

        Where attention stays within a document, `segments` int32 [batch, window] too. Of several
        hosts each is given the rows that `physlm.sharding.rows_here` says.
        """
        ...


class TerminatedError(BaseException):
    """The process received SIGTERM; its state is saved.

    Not an `Exception`, as `KeyboardInterrupt` is none: it says nothing about the run.
    """


@contextmanager
def _asked_to_end() -> Iterator[Callable[[int], bool]]:
    """Yields a function of the step that says whether SIGTERM, as at preemption, has come."""
    # Several hosts have to agree on the step; JAX listens to the signal for them.
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    # Python can catch signals in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield lambda _: False
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda _: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclasses.dataclass(frozen=True)
class Member:
    """The part of a run that is its own when several are trained as one program.

    Attributes:
      seed: of the initial parameters, and of what is random in a step.
      stream: the data.
      learning_rate: the peak.
      run_dir: directory of this run; made if it is missing.
      made_by: what else decides the weights of this run, its data above all, by the names of the
        settings. Checkpoints of a run that differs in it are not gone on with.
      parent: the model that it begins with; None draws one from the seed.
      logs: where its metrics go, beside `metrics.jsonl`.
    """

    seed: int
    stream: Stream
    learning_rate: float
    run_dir: epath.Path
    made_by: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parent: Parent | None = None
    logs: Sequence[Log] = ()


def train(
    *,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    train: TrainConfig,
    mesh: Mesh,
    seed: int,
    stream: Stream,
    run_dir: epath.Path,
    progress: Reporter,
) -> TrainState:
    """Trains to the last step, from the newest checkpoint in the run's directory if there is one.

    Writes, in `run_dir`, `checkpoints`, `metrics.jsonl`, and of steps whose loss leaps up
    `spikes.jsonl`. A run that was killed ends, when called again, where it would have ended: every
    step depends on the state and its number only.

    Args:
      model: the decoder.
      optimizer: the update rule.
      train: length and batch.
      mesh: devices to train on (`physlm.sharding.make_mesh`).
      seed: of the initial parameters.
      stream: the data.
      run_dir: directory of this run; made if it is missing.
      progress: told of every finished step.

    Raises:
      ValueError: configurations do not fit together, or the directory holds checkpoints of another
        run, before anything is written.
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
    learning: Learning = PRETRAINING,
    allowed: Callable[[], None] = lambda: None,
    told: Callable[[str], None] = lambda _: None,
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
      learning: what is learnt, and by what of each model.
      allowed: called, on all hosts, before states are saved; raises where that may not be.
      told: takes, in words, how much of a model is trained where that is not all.

    Returns:
      the last state of each run, or why it could not be finished.

    Raises:
      ValueError: configurations do not fit together, or a directory holds checkpoints of another
        run, before anything is written.
      TerminatedError: by SIGTERM, after a checkpoint of the step that was under way.
    """
    adaptation = learning.adaptation
    all_made_by = [made_by(m.seed, model, optimizer, m.made_by) for m in members]
    for member, wanted in zip(members, all_made_by, strict=True):
        check_made_by(member.run_dir / CHECKPOINTS_DIR, wanted)
    rates = [member.learning_rate for member in members]
    schedules = [optimizer_lib.schedule(optimizer, train.steps, rate) for rate in rates]
    program: Single | Population
    if len(members) > 1:
        # Each run is whole on one device.
        one = AbstractMesh((1, 1, 1, 1), sharding.AXES)
        sharding.check(model, train.batch, train.accumulate, one)
        transform = optimizer_lib.make(optimizer, train.steps, peak=1.0)
        program = Population(
            model, transform, mesh, rates, accumulate=train.accumulate, learning=learning
        )
    else:
        sharding.check(model, train.batch, train.accumulate, mesh)
        transform = optimizer_lib.make(optimizer, train.steps, peak=rates[0])
        program = Single(model, transform, mesh, train.batch, train.accumulate, learning)
    with ExitStack() as stack:
        for member in members:
            paths.make_directory(member.run_dir)
        checkpoints = [
            stack.enter_context(Checkpoints(member.run_dir / CHECKPOINTS_DIR, train.keep, wanted))
            for member, wanted in zip(members, all_made_by, strict=True)
        ]
        stack.enter_context(jax.set_mesh(program.mesh))
        states, frozen = start(
            checkpoints,
            [member.seed for member in members],
            [member.parent for member in members],
            model=model,
            transform=transform,
            mesh=mesh,
            adaptation=adaptation,
        )
        if not adaptation.full:
            told(adaptation_lib.counted(states[0].params, frozen[0]))
        first, state = int(states[0].step), program.gathered(states)
        program.freeze(frozen)
        del states, frozen
        tokens = train.batch * model.window
        meter = _meter(model, tokens * len(members), program.mesh, first, adaptation)
        trace = Trace(members[0].run_dir / PROFILE_DIR, first, profile)
        stack.callback(trace.stop)
        journal = stack.enter_context(
            Journal(
                [member.run_dir for member in members],
                schedules,
                meter,
                progress,
                first=first,
                last=train.steps,
                every=train.log_every,
                tokens=tokens,
                logs=[member.logs for member in members],
            )
        )
        loop = _Loop(
            members, model, adaptation, train, program, checkpoints, journal, meter, trace, allowed
        )
        state, failed = loop.run(state, first)
        abstract = abstract_state(model, transform, mesh, adaptation)
        layout = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        return [
            failed.get(n) or jax.device_put(program.member(state, n), layout)
            for n in range(len(members))
        ]


@dataclasses.dataclass(frozen=True)
class _Loop:
    """The training loop; a step is dispatched before the one before it has ended."""

    members: Sequence[Member]
    model: ModelConfig
    adaptation: Adaptation
    train: TrainConfig
    program: Single | Population
    checkpoints: Sequence[Checkpoints]
    journal: Journal
    meter: Meter
    trace: Trace
    allowed: Callable[[], None]

    def fetch(self, step: int) -> Batch:
        """The batches of a step, on the devices."""
        batches = [dict(member.stream.batch(step)) for member in self.members]
        rows = sharding.rows_here(self.train.batch, self.program.mesh)
        for member, batch in zip(self.members, batches, strict=True):
            if self.model.dropout:
                batch["keys"] = np.asarray(step_lib.row_keys(member.seed, step, rows))
            if self.adaptation.config.dropout and not self.adaptation.full:
                found = adaptation_lib.step_keys(member.seed, step, len(rows))
                batch["adapters"] = np.asarray(found)
        # Not waited for: on a GPU a copy begins after the steps that were launched before it, and
        # until it has ended the next step could not be launched.
        return self.program.put(batches)

    def run(
        self, state: TrainState, first: int
    ) -> tuple[TrainState, dict[int, FloatingPointError]]:
        """Trains to the last step.

        Args:
          state: the state of all runs.
          first: the number of steps done so far.

        Returns:
          The last state, and the errors of the runs that were given up, by their number.

        Raises:
          TerminatedError: by SIGTERM, after a checkpoint of the step that was under way.
        """
        last = self.train.steps
        failed: dict[int, FloatingPointError] = {}
        in_flight: collections.deque[tuple[int, Metrics]] = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(1) as worker, _asked_to_end() as asked_to_end:
            upcoming = [worker.submit(self.fetch, first)] if first < last else []
            for step in range(first + 1, last + 1):
                with self.meter.waiting():
                    batch = upcoming.pop().result()
                if step < last:
                    # The next batch is made while this step runs.
                    upcoming.append(worker.submit(self.fetch, step))
                state, metrics = self.program.step(state, batch)
                in_flight.append((step, metrics))
                self.trace(step, metrics)
                ends = asked_to_end(step)
                saving = ends or step % self.train.save_every == 0 or step == last
                while len(in_flight) > (0 if saving else _IN_FLIGHT):
                    self.note(*in_flight.popleft(), failed)
                if len(failed) == len(self.members):
                    break
                if saving:
                    self.allowed()
                    # Whoever goes on from the checkpoint finds all that was recorded up to it.
                    self.journal.flush()
                    for number in set(range(len(self.members))) - set(failed):
                        self.save(step, state, number)
                if ends:
                    for checkpoints in self.checkpoints:
                        checkpoints.wait()
                    raise TerminatedError(f"after step {step}, of which there is a checkpoint")
        return state, failed

    def note(self, step: int, metrics: Metrics, failed: dict[int, FloatingPointError]) -> None:
        """Records the metrics of a step, and an error for each run where they are not finite."""
        for number in self.journal.note(step, metrics, failed):
            of_run = {name: np.atleast_1d(value)[number] for name, value in metrics.items()}
            failed[number] = FloatingPointError(
                f"At step {step} the loss is {of_run['loss']} and the gradient norm "
                f"{of_run['grad_norm']}; the last good checkpoint is that of step "
                f"{self.checkpoints[number].latest or 0}."
            )

    def save(self, step: int, state: TrainState, number: int) -> None:
        """Saves the state of one run."""
        self.checkpoints[number].save(
            step, self.program.member(state, number), self.journal.recent_loss[number]
        )


def made_by(
    seed: int, model: ModelConfig, optimizer: OptimizerConfig, further: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that a run's checkpoints depend on."""
    free = {name for name, setting in settings.of(model).items() if not setting.decides}
    shape = {f"model.{k}": v for k, v in dataclasses.asdict(model).items() if k not in free}
    return {"seed": seed, "optimizer.name": optimizer.name, **shape, **further}


def _meter(
    config: ModelConfig, tokens: int, mesh: Mesh, step: int, adaptation: Adaptation
) -> Meter:
    peak = peak_flops(mesh.devices.flat[0])
    flops = model_flops(config, tokens) if adaptation.full else None
    return Meter(step, tokens, flops, None if peak is None else peak * mesh.size)
