"""How fast training windows are made on a host's cores and on an accelerator, and that both agree.

    python tests/benchmarks/streams.py [--scale night] [--streams 16] [--blocks 8]

As many streams as runs of a sweep make their blocks side by side, each on a thread of its own, of
error-free data and of data with mistakes in turn. On an accelerator one stream is timed, since it
works on one block after the other anyway. Compilation is not counted.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor

import jax

from data_gen.device import of_data
from data_gen.windows.stream import Stream
from physlm.experiments import config as config_lib

# What streams differ in: the rate of mistakes, and what of them bears no loss.
DATA = ((0.0, "none"), (0.5, "none"), (0.5, "name"), (0.2, "name"))


def stream(scale: str, number: int, device: jax.Device | None) -> Stream:
    """The stream of a number, its seed."""
    rate, mask = DATA[number % len(DATA)]
    chosen = config_lib.parse_assignments([f"mistakes.rate={rate}", f"mistakes.mask={mask}"])
    found = config_lib.resolve(config_lib.override(config_lib.base(scale), chosen))
    batch = found.train.batch
    return Stream(
        found.data, found.mistakes, found.windows, seed=number, batch=batch, device=device
    )


def pace(streams: list[Stream], blocks: int) -> float:
    """Tokens a second of all streams together."""
    with ThreadPoolExecutor(len(streams)) as threads:
        made = list(threads.map(lambda one: one._load(0), streams))
        started = time.perf_counter()
        list(threads.map(lambda one: [one._load(n) for n in range(1, blocks + 1)], streams))
        seconds = time.perf_counter() - started
    return blocks * sum(weights.size for _, weights in made) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="night")
    parser.add_argument("--streams", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--blocks", type=int, default=8)
    args = parser.parse_args()
    cores = [stream(args.scale, n, of_data("cpu")) for n in range(args.streams)]
    print(
        f"{pace(cores, args.blocks):,.0f} tokens/s by {args.streams} streams on "
        f"{len(os.sched_getaffinity(0))} cores"
    )
    device = jax.devices()[0]
    if device.platform == "cpu":
        return
    there = stream(args.scale, 1, device)
    print(f"{pace([there], 3):,.0f} tokens/s by one stream on {device.device_kind}")
    other = sum(
        int((a != b).sum())
        for n in range(4)
        for a, b in zip(there._load(n), cores[1]._load(n), strict=True)
    )
    print(f"tokens and weights that differ in four blocks: {other}")


if __name__ == "__main__":
    main()
