"""What `against.py` times in a checkout: one process that does a piece of work when it is told to.

    PYTHONPATH=CHECKOUT python tests/benchmarks/workloads.py

Names come on standard input, one a line; for each, units a second are printed. The first line it
prints is a list of all names.
"""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable

from physlm import devices
from physlm.experiments import config

# What models are trained on and how: stated here, so that it stays when the scale changes.
SETTINGS = {
    "data.max_op": 5,
    "data.max_edges": 4,
    "data.max_depth": 2,
    "data.max_width": 2,
    "data.max_terms": 4,
    "data.op_draw": "lesser",
    "data.modulus": 5,
    "data.names": 3,
    "data.letters": 7,
    "data.unsplit_op": 3,
    "data.split_by": "solution",
    "data.tokenizer": "word",
    "evaluate.beyond": (6,),
    "model.layers": 4,
    "model.heads": 2,
    "model.head_dim": 32,
    "model.rotary_fraction": 1.0,
    "train.batch": 16,
    "train.window": 256,
}
# Seconds of each measurement, at least.
SECONDS = 1.5
# Problems at once, and seeds that take turns: how long the unluckiest search takes is chance.
PROBLEMS, SEEDS = 4096, 4
DOCUMENTS, SIZE = 512, 1024
STEPS = 10
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 128, 96, 128


def workloads() -> dict[str, Callable[[], int]]:
    """Work by name: each call does some of it and returns how many units that was."""
    settings = config.resolve(config.override(config.base("quick"), SETTINGS))
    devices.prepare(settings.mesh, settings.train.batch)

    import jax
    import jax.numpy as jnp
    import numpy as np

    from data_gen.keys import problem_key
    from data_gen.solutions import kinds
    from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
    from data_gen.spec import HARD, MED, Spec
    from data_gen.windows import stream
    from physlm import optimizer, sharding
    from physlm import step as step_lib
    from physlm.architecture import ModelConfig
    from physlm.decoding import engine
    from physlm.decoding.sampling import Greedy
    from physlm.population import Single

    def keys(seed: int, count: int) -> jax.Array:
        return jax.vmap(functools.partial(problem_key, seed))(jnp.arange(count))

    def problems(spec: Spec) -> Callable[[], int]:
        seeds = [keys(seed, PROBLEMS) for seed in range(SEEDS)]

        def sample() -> int:
            for keys_N in seeds:
                jax.block_until_ready(stream.problems(keys_N, spec=spec))
            return SEEDS * PROBLEMS

        return sample

    def documents(mistakes: Mistakes) -> Callable[[], int]:
        keys_N = keys(0, DOCUMENTS)

        @jax.jit
        def write(keys_N: jax.Array) -> object:
            made = stream.problems(keys_N, spec=MED)
            return stream.documents(keys_N, made, size=SIZE, spec=MED, mistakes=mistakes)

        def sample() -> int:
            jax.block_until_ready(write(keys_N))
            return DOCUMENTS

        return sample

    retry = Mistakes("retry", 0.5)
    windows, batch = settings.windows, settings.train.batch
    tokens = batch * windows.window
    data = stream.Stream(settings.data, retry, windows, seed=0, batch=batch)
    first = data.batch(0)
    taken = iter(range(1, 2**31))

    def batches() -> int:
        for _ in range(STEPS):
            data.batch(next(taken))
        return STEPS * tokens

    model = dataclasses.replace(settings.model, canon="")
    mesh = sharding.make_mesh(settings.mesh)
    transform = optimizer.make(settings.optimizer, 1_000_000)

    def training(model: ModelConfig) -> Callable[[], int]:
        program = Single(model, transform, mesh, batch, 1)
        with jax.set_mesh(mesh):
            held = {"state": step_lib.first_state(model, transform, mesh, 0)}
            ready = program.put([first])

        def train() -> int:
            with jax.set_mesh(mesh):
                for _ in range(STEPS):
                    held["state"], out = program.step(held["state"], ready)
                jax.block_until_ready(out)
            return STEPS * tokens

        return train

    with jax.set_mesh(mesh):
        params = step_lib.first_state(model, transform, mesh, 0).params
    prompts = np.random.default_rng(0).integers(0, model.vocab, (PROMPTS, PROMPT_TOKENS))
    lengths = np.full(PROMPTS, PROMPT_TOKENS)

    def decoding() -> int:
        # No token ends a text, so that all rows are as long.
        settings = {"strategy": Greedy(), "max_new_tokens": NEW_TOKENS, "stop": -1}
        return engine.decode(model, params, prompts, lengths, **settings).tokens_NxSxM.size

    # Those of which the judge can tell what they are.
    mixed = ",".join(f"{kind}:0.125" for kind in kinds.by_fault().values())
    canon = dataclasses.replace(settings.model, canon="AC")
    wide = dataclasses.replace(model, heads=2 * model.heads)
    return {
        "problems, med": problems(MED),
        "problems, hard": problems(HARD),
        "problems, med, split train": problems(dataclasses.replace(MED, split="train")),
        "documents, error-free": documents(ERROR_FREE),
        "documents, retry .5": documents(retry),
        "documents, all kinds": documents(Mistakes(mixed, 0.2)),
        "documents, fix or restart": documents(Mistakes(mixed, 0.2, mend="fix:0.8,restart:0.2")),
        "documents, late": documents(Mistakes(mixed, 0.2, whole=True, late=2)),
        "training batches": batches,
        "training": training(model),
        "training, Canon A and C": training(canon),
        "training, twice as wide": training(wide),
        "decoding": decoding,
    }


def main() -> None:
    """Compiles everything, then does what it is told."""
    known = workloads()
    for work in known.values():
        work()
    print(json.dumps(list(known)), flush=True)
    for line in sys.stdin:
        work, done, started = known[line.rstrip("\n")], 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            done += work()
        print(done / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
