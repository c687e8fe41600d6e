"""Where training data is made: beside the step or inside it, tokens a second of both.

    python tests/benchmarks/input.py [--scale quick] [--set KEY=VALUE …]

These ways take turns, and the table shows medians over the rounds:

- ready: the data is there already; the bound of the other two.
- beside: as `physlm.train` does it; a thread makes blocks of windows ahead, another lays out the
  next batch, while the step runs.
- inside: one program makes a block of windows and takes the steps that they are for, so that
  nothing ever leaves the device.
- alone: the data is made, and no step taken.

Beside and alone, data is made where it is by default (`data_gen.device`).

A block is as large as a stream's, whole segments of it, so that all make as many windows at once.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_gen import keys
from data_gen.device import of_data
from data_gen.keys import Purpose
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.windows import packing, stream
from data_gen.windows.configuration import Windows
from data_gen.windows.tokenizer import tokenizer
from physlm import devices, optimizer, sharding
from physlm import step as step_lib
from physlm.architecture import ModelConfig
from physlm.optimizer import OptimizerConfig
from physlm.population import Single


class Work(NamedTuple):
    """What is trained on what."""

    spec: Spec
    mistakes: Mistakes
    windows: Windows
    model: ModelConfig
    optimizer: OptimizerConfig
    batch: int
    accumulate: int = 1
    seed: int = 0

    @property
    def block(self) -> int:
        """Windows of a block."""
        least = int(np.lcm(self.batch, stream.SEGMENT))
        return least * max(1, stream.BLOCK_WINDOWS // least)


def made_inside(work: Work) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """A function of a block's number that traces its batches [steps, B, …], as a stream's are."""
    laid = {
        "spec": work.spec,
        "mistakes": work.mistakes,
        "loss_on": work.windows.loss_on,
        "whole": work.windows.pack == "whole",
    }
    count, size = work.block // stream.SEGMENT, work.windows.window + 1

    def block(number: jax.Array) -> dict[str, jax.Array]:
        numbers_Q = number * count + jnp.arange(count, dtype=jnp.int32)
        blank = packing.empty(stream.SEGMENT, size, tokenizer(work.spec).end)
        packed = jax.tree.map(lambda x: jnp.repeat(x[None], count, 0), blank)
        root = keys.root(work.seed, Purpose.TRAINING)

        def lay(carry: tuple) -> tuple:
            turn, packed = carry
            keys_QxD = stream._chunk_keys(root, numbers_Q, turn)
            made = stream.problems(keys_QxD.reshape(-1), spec=work.spec)
            return turn + 1, stream._lay(packed, keys_QxD, made, **laid)[0]

        start = (jnp.int32(0), packed)
        full = stream.SEGMENT
        _, packed = jax.lax.while_loop(lambda c: (c[1].window != full).any(), lay, start)
        tokens = packed.tokens_KxS.reshape(-1, work.batch, size)
        batches = {
            "tokens": tokens,
            "weights": packed.weights_KxS.reshape(tokens.shape)[..., 1:],
        }
        if work.windows.attention == "document":
            begins = tokens[..., :-1] == tokenizer(work.spec).problem
            batches["segments"] = jnp.cumsum(begins, axis=-1, dtype=jnp.int32) - 1
        return batches

    return block


def ways_of(
    work: Work, mesh: Mesh, names: Sequence[str], stack: contextlib.ExitStack
) -> dict[str, Callable[[], None]]:
    """The ways asked for, each a function that takes the steps of a block."""
    transform = optimizer.make(work.optimizer, 10_000_000)
    program = Single(work.model, transform, mesh, work.batch, work.accumulate)
    data = stream.Stream(
        work.spec,
        work.mistakes,
        work.windows,
        seed=work.seed,
        batch=work.batch,
        device=of_data(),
    )
    stack.enter_context(contextlib.closing(data))
    steps = work.block // work.batch
    at = dict.fromkeys(("beside", "inside", "alone"), 0)
    held = {
        name: step_lib.first_state(work.model, transform, mesh, 0)
        for name in names
        if name != "alone"
    }

    def fetch(step: int) -> dict[str, jax.Array]:
        return jax.block_until_ready(program.put([data.batch(step)]))

    def step(name: str, batch: dict[str, jax.Array]) -> None:
        held[name], out = program.step(held[name], batch)
        jax.block_until_ready(out)

    def ready() -> Callable[[], None]:
        batch = fetch(1)

        def take() -> None:
            for _ in range(steps):
                step("ready", batch)

        return take

    def beside() -> Callable[[], None]:
        worker = stack.enter_context(ThreadPoolExecutor(1))
        upcoming = [worker.submit(fetch, 0)]

        def take() -> None:
            for _ in range(steps):
                batch = upcoming.pop().result()
                at["beside"] += 1
                upcoming.append(worker.submit(fetch, at["beside"]))
                step("beside", batch)

        return take

    def inside() -> Callable[[], None]:
        block = made_inside(work)
        first = {name: value[1] for name, value in jax.jit(block)(jnp.int32(0)).items()}
        for name, value in data.batch(1).items():
            np.testing.assert_array_equal(value, first[name])

        @jax.jit
        def steps_of(state: step_lib.TrainState, number: jax.Array) -> tuple:
            step = step_lib.make_step(work.model, transform, mesh, work.accumulate)
            place = jax.P(None, ("data", "fsdp"))
            batches = jax.lax.with_sharding_constraint(block(number), place)
            return jax.lax.scan(step, state, batches)

        def take() -> None:
            held["inside"], out = steps_of(held["inside"], jnp.int32(at["inside"]))
            jax.block_until_ready(out)
            at["inside"] += 1

        return take

    def alone() -> Callable[[], None]:
        def take() -> None:
            data._load(at["alone"])
            at["alone"] += 1

        return take

    known = {"ready": ready, "beside": beside, "inside": inside, "alone": alone}
    return {name: known[name]() for name in names}


def measure(
    work: Work, mesh: Mesh, names: Sequence[str], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Tokens a second by way, round by round."""
    speeds: dict[str, list[float]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        ways = ways_of(work, mesh, names, stack)
        stack.enter_context(jax.set_mesh(mesh))
        for way in ways.values():
            way()
        for _ in range(rounds):
            for name, way in ways.items():
                started, blocks = time.perf_counter(), 0
                while time.perf_counter() - started < seconds:
                    way()
                    blocks += 1
                tokens = blocks * work.block * work.windows.window
                speeds[name].append(tokens / (time.perf_counter() - started))
    return speeds


def main() -> None:
    """Runs the rounds and prints the table."""
    from physlm.experiments import config as config_lib

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", default="quick")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--set", nargs="+", action="extend", default=[])
    options = parser.parse_args()
    config = config_lib.base(options.scale)
    chosen = config_lib.parse_assignments(options.set)
    settings = config_lib.resolve(config_lib.override(config, chosen))
    train = settings.train
    devices.prepare(settings.mesh, train.batch)
    work = Work(
        settings.data,
        settings.mistakes,
        settings.windows,
        settings.model,
        settings.optimizer,
        train.batch,
        train.accumulate,
        settings.seed,
    )
    mesh = sharding.make_mesh(settings.mesh)
    names = ("ready", "beside", "inside", "alone")
    speeds = measure(work, mesh, names, options.rounds, options.seconds)
    print(
        f"{options.scale}, mistakes at {work.mistakes.rate}, {work.batch} x {work.windows.window}"
    )
    for name, values in speeds.items():
        pairs = [v / bound for v, bound in zip(values, speeds["ready"], strict=True)]
        print(
            f"{name:8}{statistics.median(values):10.0f} tokens/s  {statistics.median(pairs):5.2f}"
        )


if __name__ == "__main__":
    main()
