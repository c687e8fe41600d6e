"""Several runs as one program, beside the same runs one after the other: tokens/s of all of them.

    python tests/benchmarks/population.py [--runs 8] [--rounds 5] [--seconds 2] [--head-dim 32 …]

The same optimizer steps on the same random tokens, in alternating rounds; "mapped" works on a
device's runs one after the other, "vectorized" on all at once (`physlm.population`).
"""

import argparse
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from physlm import model, optimizer
from physlm import step as step_lib
from physlm.architecture import ModelConfig
from physlm.population import Population
from physlm.sharding import MeshConfig, batch_sharding, make_mesh

# The way that the others are compared with.
ALONE = "one after the other"


def measure(
    config: ModelConfig, runs: int, batch: int, optimizer_name: str, rounds: int, seconds: float
) -> dict[str, float]:
    """Tokens a second of all runs together, the median of the rounds, by the way they train."""
    of_one, of_all = (
        optimizer.make(optimizer.OptimizerConfig(name=optimizer_name), 10_000, peak)
        for peak in (1e-3, 1.0)
    )
    mesh, rates = make_mesh(MeshConfig()), [1e-3] * runs
    random = np.random.default_rng(0)
    batches = [
        {
            "tokens": random.integers(0, config.vocab, (batch, config.window + 1), np.int32),
            "weights": np.ones((batch, config.window), np.float32),
        }
        for _ in range(runs)
    ]

    def first(seed: int) -> step_lib.TrainState:
        return step_lib.first_state(config, of_one, mesh, seed)

    def alone():
        step = step_lib.make_step(config, of_one, mesh)
        states = [first(seed) for seed in range(runs)]
        placed = [jax.device_put(batch, batch_sharding(mesh)) for batch in batches]

        def once() -> jax.Array:
            with jax.set_mesh(mesh):
                for number, batch in enumerate(placed):
                    states[number], out = step(states[number], batch)
                    jax.block_until_ready(out)
            return out["loss"]

        return once

    def together(vectorized: bool):
        program = Population(config, of_all, mesh, rates, vectorized=vectorized)
        held = [program.gathered([first(seed) for seed in range(runs)])]
        batch = program.put(batches)

        def once() -> jax.Array:
            with jax.set_mesh(program.mesh):
                state, out = program.step(held.pop(), batch)
            held.append(state)
            return jax.block_until_ready(out["loss"])

        return once

    ways = {ALONE: alone(), "mapped": together(False), "vectorized": together(True)}
    for once in ways.values():
        assert jnp.isfinite(once()).all()
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, once in ways.items():
            count, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                once()
                count += runs * batch * config.window
            speeds[name].append(count / (time.perf_counter() - started))
    return {name: statistics.median(found) for name, found in speeds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=512)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    shape = {name: getattr(args, name) for name in ("vocab", "window", "layers", "heads", "dtype")}
    config = ModelConfig(**shape, head_dim=args.head_dim)
    found = measure(config, args.runs, args.batch, args.optimizer, args.rounds, args.seconds)
    params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    devices = jax.devices()
    print(
        f"{args.runs} runs of {parameters:,} parameters, {args.layers} layers, width "
        f"{config.width}, {args.batch} x {args.window} tokens a step, {args.optimizer}, "
        f"{args.dtype}, on {len(devices)} x {devices[0].device_kind}, median of {args.rounds}"
    )
    for name, speed in found.items():
        print(f"{name:<20} {speed:>12,.0f} tokens/s  {speed / found[ALONE]:.2f} x")


if __name__ == "__main__":
    main()
