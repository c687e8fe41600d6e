"""This checkout beside another one, the commit before say: the speed of all that should stay fast.

    git worktree add ../before COMMIT
    python tests/benchmarks/against.py ../before [--rounds 9] [--only problems decoding]

Each checkout has a process of its own that keeps its compiled programs. The two take turns, work
by work, and the one that begins changes with every round, so that a slow hour is slow for both.
What is timed is in `workloads.py`, of each checkout its own where it has one, since names of
functions change; else this one's. The table has medians over the rounds, and of the ratio of each
round's two speeds the median and the middle half.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parents[2]
WORKLOADS = pathlib.Path("tests/benchmarks/workloads.py")


class Checkout:
    """A process that works with the code of a directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Starts it; `ready` waits until it has compiled everything."""
        own = directory / WORKLOADS
        self._process = subprocess.Popen(
            [sys.executable, str(own if own.is_file() else HERE / WORKLOADS)],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._directory = directory

    def ready(self) -> list[str]:
        """The names of what it can do."""
        return json.loads(self._answer())

    def speed(self, name: str) -> float:
        """Does one thing for a while: units a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(
                f"{self._directory}: the process ended with {self._process.wait()}; see above."
            )
        return line


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", default=[""], help="what names begin with")
    options = parser.parse_args()
    other = options.checkout.resolve()
    if not (other / "physlm").is_dir():
        parser.error(f"{options.checkout} is no checkout of this project.")
    # One after the other, since both compile on all cores.
    before = Checkout(other)
    shared = before.ready()
    after = Checkout(HERE)
    shared = [name for name in after.ready() if name in shared]
    names = [name for name in shared if name.startswith(tuple(options.only))]
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            turn = [before, after] if number % 2 else [after, before]
            found = {checkout: checkout.speed(name) for checkout in turn}
            speeds[name].append((found[before], found[after]))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print(f"{'units a second':<30}{'before':>12}{'here':>12}{'ratio':>8}{'middle half':>14}")
    for name, pairs in speeds.items():
        old, new = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [here / there for there, here in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"{name:<30}{old:>12,.0f}{new:>12,.0f}{middle:>8.3f}{low:>8.2f}–{high:.2f}")


if __name__ == "__main__":
    main()
