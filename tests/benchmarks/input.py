"""Where training data is made: beside the step or inside it, tokens a second of both.

    python tests/benchmarks/input.py [--scale quick] [--set KEY=VALUE …]

Three ways take turns, and the table shows medians over the rounds:

- ready: the data is there already; the bound of the other two.
- beside: as `physlm.train` does it; a thread makes blocks of windows ahead, another lays out the
  next batch, while the step runs.
- inside: one program makes a block of windows and takes the steps that they are for, so that
  nothing ever leaves the device.

A block is as large as a stream's, whole segments of it, so that all make as many windows at once.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from physlm import devices
from physlm.experiments import config as config_lib


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", default="quick")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--set", nargs="+", action="extend", default=[])
    options = parser.parse_args()
    config = config_lib.base(options.scale)
    chosen = dict(config_lib.parse_assignment(text) for text in options.set)
    settings = config_lib.resolve(config_lib.override(config, chosen))
    devices.prepare(settings.mesh, settings.train.batch)

    import jax
    import jax.numpy as jnp
    import numpy as np

    from data_gen import keys
    from data_gen.keys import Purpose
    from data_gen.windows import packing, stream
    from data_gen.windows.tokenizer import tokenizer
    from physlm import optimizer, sharding
    from physlm import step as step_lib
    from physlm.population import Single

    train, spec, laid_out = settings.train, settings.data, settings.windows
    mesh = sharding.make_mesh(settings.mesh)
    transform = optimizer.make(settings.optimizer, 10_000_000)
    program = Single(settings.model, transform, mesh, train.batch, train.accumulate)
    windows = np.lcm(train.batch, stream.SEGMENT)
    windows *= max(1, stream.BLOCK_WINDOWS // windows)
    steps = windows // train.batch
    laid = {
        "spec": spec,
        "mistakes": settings.mistakes,
        "loss_on": laid_out.loss_on,
        "whole": laid_out.pack == "whole",
    }

    def block(number: jax.Array) -> dict[str, jax.Array]:
        """The batches [steps, B, …] of a block; as `stream.segments` and `Stream.batch` do."""
        count, size = windows // stream.SEGMENT, laid_out.window + 1
        numbers_Q = number * count + jnp.arange(count, dtype=jnp.int32)
        blank = packing.empty(stream.SEGMENT, size, tokenizer(spec).end)
        packed = jax.tree.map(lambda x: jnp.repeat(x[None], count, 0), blank)
        root = keys.root(settings.seed, Purpose.TRAINING)

        def lay(carry: tuple) -> tuple:
            turn, packed = carry
            keys_QxD = stream._chunk_keys(root, numbers_Q, turn)
            made = stream.problems(keys_QxD.reshape(-1), spec=spec)
            return turn + 1, stream._lay(packed, keys_QxD, made, **laid)[0]

        start = (jnp.int32(0), packed)
        full = stream.SEGMENT
        _, packed = jax.lax.while_loop(lambda c: (c[1].window != full).any(), lay, start)
        tokens = packed.tokens_KxS.reshape(steps, train.batch, size)
        batches = {
            "tokens": tokens,
            "weights": packed.weights_KxS.reshape(tokens.shape)[..., 1:],
        }
        if laid_out.attention == "document":
            begins = tokens[..., :-1] == tokenizer(spec).problem
            batches["segments"] = jnp.cumsum(begins, axis=-1, dtype=jnp.int32) - 1
        return batches

    @jax.jit
    def inside(state: step_lib.TrainState, number: jax.Array) -> tuple:
        step = step_lib.make_step(settings.model, transform, mesh, train.accumulate)
        batches = jax.lax.with_sharding_constraint(block(number), jax.P(None, ("data", "fsdp")))
        return jax.lax.scan(step, state, batches)

    data = stream.Stream(
        spec,
        settings.mistakes,
        laid_out,
        seed=settings.seed,
        batch=train.batch,
    )
    first = {name: np.asarray(value[1]) for name, value in jax.jit(block)(jnp.int32(0)).items()}
    for name, value in data.batch(1).items():
        np.testing.assert_array_equal(value, first[name])
    ready = program.put([first])
    held = {
        name: step_lib.first_state(settings.model, transform, mesh, 0)
        for name in ("ready", "beside", "inside")
    }
    at = {"beside": 0, "inside": 0}
    worker = ThreadPoolExecutor(1)

    def fetch(step: int) -> dict[str, jax.Array]:
        return jax.block_until_ready(program.put([data.batch(step)]))

    upcoming = [worker.submit(fetch, 0)]

    def step(name: str, batch: dict[str, jax.Array]) -> None:
        held[name], out = program.step(held[name], batch)
        jax.block_until_ready(out)

    def take_ready() -> None:
        for _ in range(steps):
            step("ready", ready)

    def take_beside() -> None:
        for _ in range(steps):
            batch = upcoming.pop().result()
            at["beside"] += 1
            upcoming.append(worker.submit(fetch, at["beside"]))
            step("beside", batch)

    def take_inside() -> None:
        held["inside"], out = inside(held["inside"], jnp.int32(at["inside"]))
        jax.block_until_ready(out)
        at["inside"] += 1

    ways: dict[str, Callable[[], None]] = {
        "ready": take_ready,
        "beside": take_beside,
        "inside": take_inside,
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    with jax.set_mesh(mesh):
        for way in ways.values():
            way()
        for _ in range(options.rounds):
            for name, way in ways.items():
                started, blocks = time.perf_counter(), 0
                while time.perf_counter() - started < options.seconds:
                    way()
                    blocks += 1
                tokens = blocks * steps * train.batch * laid_out.window
                speeds[name].append(tokens / (time.perf_counter() - started))
    data.close()
    print(
        f"{options.scale}, mistakes at {settings.mistakes.rate}, {train.batch} x {laid_out.window}"
    )
    for name, values in speeds.items():
        pairs = [v / bound for v, bound in zip(values, speeds["ready"], strict=True)]
        print(
            f"{name:8}{statistics.median(values):10.0f} tokens/s  {statistics.median(pairs):5.2f}"
        )


if __name__ == "__main__":
    main()
