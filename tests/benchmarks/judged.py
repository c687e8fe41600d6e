"""Draws many problems and has the judge read every one of them as text.

    python tests/benchmarks/judged.py [--spec med,hard] [--count 1000000] [--processes 2]

Prints the first that are judged wrong, and exits with 1 where there are any.
"""

import argparse
import functools
import multiprocessing
import sys
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from data_gen.keys import problem_key
from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.spec import NAMED
from data_gen.text import records
from data_gen.text.judge import judge
from data_gen.text.reader import read
from data_gen.windows import stream

BATCH = 4096
ROOM = 1280


def fault(record: dict[str, Any]) -> str:
    """What is wrong with a problem's own solution; "" where nothing is."""
    facts = read(record["layers"], record["problem"], record["question"])
    verdict = judge(facts, record["solution"], f" {record['answer']}")
    if verdict.unnecessary or verdict.retries or verdict.op != record["op"]:
        return f"unnecessary, retries or op: {verdict}"
    return verdict.reason


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", default="med,hard")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    wrong = 0
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for name in args.spec.split(","):
            spec = NAMED[name]
            write = jax.jit(
                functools.partial(stream.documents, size=ROOM, spec=spec, mistakes=ERROR_FREE)
            )
            with tqdm(total=args.count, unit=" problems", desc=name, mininterval=5) as bar:
                for first in range(0, args.count, BATCH):
                    numbers = first + jnp.arange(BATCH, dtype=jnp.uint32)
                    keys = jax.vmap(functools.partial(problem_key, args.seed))(numbers)
                    problems = stream.problems(keys, spec=spec)
                    documents = write(keys, problems)
                    assert problems.ok.all() and documents.length.max() <= ROOM
                    found = records.records(problems, documents, spec)[: args.count - first]
                    for record, reason in zip(
                        found, pool.map(fault, found, chunksize=128), strict=True
                    ):
                        wrong += bool(reason)
                        if reason and wrong < 10:
                            print(reason, record)
                    bar.update(len(found))
            print(f"{name}: {args.count} problems judged, {wrong} wrong so far")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
