"""Measures problems a second beside the public generator, on one core, in alternating rounds.

    python tests/benchmarks/sampling.py PUBLIC [--rounds 3] [--seconds 5] [--core 0]

PUBLIC is a checkout of the authors' program (facebookresearch/iGSM). Its tokenizer is replaced by
one that does nothing, in its favour: ours gives arrays, as it would. Both are warm; ours draws
4,096 problems at once.
"""

import argparse
import os
import statistics
import subprocess
import sys

OURS = """
import functools, sys, time
import jax, jax.numpy as jnp
from data_gen.keys import problem_key
from data_gen.problems.search import sample_many
from data_gen.spec import NAMED
spec = NAMED[sys.argv[1]]
keys = jax.vmap(functools.partial(problem_key, 0))
make = jax.jit(lambda start: sample_many(keys(start + jnp.arange(4096)), spec))
started = time.perf_counter()
jax.block_until_ready(make(0))
print(f"compiled in {time.perf_counter() - started:.1f} s", flush=True)
done = 0
for line in sys.stdin:
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < float(line):
        done += 4096
        assert make(done).ok.all()
        count += 4096
    print(count / (time.perf_counter() - started), flush=True)
"""

PUBLIC = """
import random, sys, time, types
import numpy as np
for name in ("pandas", "torch", "torch.nn", "torch.nn.functional", "torch.distributed"):
    try:
        __import__(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)
class Tokenizer:
    from_pretrained = classmethod(lambda cls, name: cls())
    encode = __call__ = lambda self, text, **rest: np.zeros((1, 1), int)
    decode = lambda self, ids, **rest: ""
sys.modules["transformers"] = types.ModuleType("transformers")
sys.modules["transformers"].GPT2Tokenizer = Tokenizer
from data_gen.pretrain.id_gen import IdGen
op, edge = {"med": (15, 20), "hard": (21, 28)}[sys.argv[1]]
random.seed(0), np.random.seed(0)
def make():
    one = IdGen(max_op=op, max_edge=edge, perm_level=5, detail_level=0)
    one.gen_prob(list(range(23)), p_format="pq")
make()
print("ready", flush=True)
for line in sys.stdin:
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < float(line):
        make()
        count += 1
    print(count / (time.perf_counter() - started), flush=True)
"""


class Side:
    """One program, waiting for rounds."""

    def __init__(self, code: str, spec: str, directory: str, core: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, spec],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": directory, "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        self.ready = self.read()

    def read(self) -> str:
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit("A program stopped; its message is above.")
        return line

    def round(self, seconds: float) -> float:
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return float(self.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("public")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    args = parser.parse_args()
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for spec in ("med", "hard"):
        ours = Side(OURS, spec, here, args.core)
        public = Side(PUBLIC, spec, os.path.abspath(args.public), args.core)
        rounds = [
            (ours.round(args.seconds), public.round(args.seconds)) for _ in range(args.rounds)
        ]
        mine, theirs = map(statistics.median, zip(*rounds, strict=True))
        print(
            f"{spec}: {mine:,.0f} problems/s, the public program {theirs:.1f}: "
            f"{mine / theirs:.0f} times as many ({ours.ready})"
        )
        for side in (ours, public):
            side.process.stdin.close()
            side.process.wait()


if __name__ == "__main__":
    main()
