"""What mistakes cost: documents a second, as arrays, beside error-free ones in alternating rounds.

    python tests/benchmarks/documents.py [--spec med] [--count 512] [--rounds 21]

Problems are sampled and written, tokens, roles and sentences, as many at once as a training stream
makes. Each rate is of whole documents, and the share of time is beside what error-free ones take.
Longer documents take longer to write whatever makes them long: the last column is what a token
takes beside an error-free one.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from data_gen.keys import problem_key
from data_gen.solutions import kinds
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.spec import NAMED, Spec
from data_gen.windows import stream

SIZE = 1024
PROBLEMS = "problems alone"
# Those of which the judge can tell what they are.
ALL = ",".join(f"{kind}:0.125" for kind in kinds.by_fault().values())
DISTRIBUTIONS = {
    "error-free": ERROR_FREE,
    "retry 0.05": Mistakes("retry", 0.05),
    "retry 0.2": Mistakes("retry", 0.2),
    "retry 0.5": Mistakes("retry", 0.5),
    "retry 0.2, whole": Mistakes("retry", 0.2, whole=True),
    "calculation 0.2": Mistakes("calculation", 0.2),
    "all kinds, 0.2": Mistakes(ALL, 0.2),
    "all kinds, 0.2, fix or restart": Mistakes(ALL, 0.2, mend="fix:0.8,restart:0.2"),
    "all kinds, 0.2, late": Mistakes(ALL, 0.2, whole=True, late=2),
}


class Pace(NamedTuple):
    """How fast something is written.

    Attributes:
      seconds: for `count` of them, the median of the rounds.
      tokens: of one, on average; 0 where nothing is written.
    """

    seconds: float
    tokens: float


def measure(
    spec: Spec, count: int, rounds: int, distributions: Mapping[str, Mistakes]
) -> dict[str, Pace]:
    """The pace of `PROBLEMS`, and of documents by distribution, `count` at once."""
    keys = jax.vmap(functools.partial(problem_key, 0))(jnp.arange(count))

    def write(mistakes, keys_N):
        problems = stream.problems(keys_N, spec=spec)
        return stream.documents(keys_N, problems, size=SIZE, spec=spec, mistakes=mistakes)

    def sample(keys_N):
        return stream.problems(keys_N, spec=spec)

    made = {PROBLEMS: jax.jit(sample)}
    made |= {name: jax.jit(functools.partial(write, m)) for name, m in distributions.items()}
    tokens = {}
    for name, make in made.items():
        found = jax.block_until_ready(make(keys))
        tokens[name] = 0.0 if name == PROBLEMS else float(found.length.mean())
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, make in made.items():
            started = time.perf_counter()
            jax.block_until_ready(make(keys))
            seconds[name].append(time.perf_counter() - started)
    return {name: Pace(statistics.median(seconds[name]), tokens[name]) for name in made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", default="med", choices=sorted(NAMED))
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    found = measure(NAMED[args.spec], args.count, args.rounds, DISTRIBUTIONS)
    plain = found["error-free"]
    device = jax.devices()[0].device_kind
    print(f"{args.spec}, {args.count} at once, median of {args.rounds} rounds, on {device}")
    print(f"{'':<32}{'documents/s':>12}{'speed':>8}{'tokens':>8}{'a token':>9}")
    for name, pace in found.items():
        length, speed = pace.tokens / plain.tokens, plain.seconds / pace.seconds
        each = f"{1 / speed / length:>9.2f}" if length else ""
        per_second = args.count / pace.seconds
        print(f"{name:<32}{per_second:>12,.0f}{speed:>8.2f}{pace.tokens:>8.0f}{each}")


if __name__ == "__main__":
    main()
