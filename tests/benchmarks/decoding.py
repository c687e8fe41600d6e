"""Measures what decoding a cell of real problems costs, with a trained model.

    python tests/benchmarks/decoding.py RUN [--probe RUN] [--problems 512] [--rounds 5]

RUN is the directory of a trained run, such as `runs/models/<run>` of the quickstart. All ways take
turns in one process, warm, and medians over the rounds are shown:

- with problems waiting, so that a row that is done takes the next one (continuous batching), beside
  the same rows in batches that end when their longest text does;
- beams and samples;
- retry upon regret with the perfect detector and, with `--probe`, with a trained one: its time for
  each token that it writes, beside greedy decoding's. A probe is as large as the model and reads
  all that is written: a line says what that alone takes, of greedy's whole texts and all at once.

Beside the time stands the CPU time of this process, which other work on the machine hardly changes.
"""

import argparse
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from data_gen.windows.tokenizer import tokenizer
from physlm import cache, cells, devices, model
from physlm.architecture import ModelConfig
from physlm.decoding import detectors, engine
from physlm.decoding.recipe import parse
from physlm.experiments import run as run_lib
from physlm.experiments import weights


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--probe", default="", help="a run of a probe of it, beside it")
    parser.add_argument("--problems", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    run = run_lib.load(args.run, ["mesh.cpu_devices=1"])
    settings = run.settings
    devices.prepare(settings.mesh, settings.evaluate.batch)
    state = weights.restored(run, args.run, "final")
    params, _ = weights.joined(run, args.run, state)
    config = dataclasses.replace(settings.evaluate, problems=args.problems)
    spec = cells.test_spec(settings.data, config)
    tests = cells.test_set(cells.of(settings.data, config)[0], spec, config, settings.model.window)
    known = detectors.known(jax.tree.map(np.asarray, tests.problems_N), spec=spec)
    probed = weights.probed(run, args.run, args.probe) if args.probe else None
    resources = () if probed is None else model.unrolled(settings.model, probed)
    rows = min(config.batch, engine._ROWS_OF_A_CPU)

    def way(text: str, batches: bool = False) -> Callable[[], engine.Written]:
        strategy = parse(text).bound(spec, settings.model)
        size = rows if batches else args.problems

        def once() -> engine.Written:
            parts = [
                engine.decode(
                    settings.model,
                    params,
                    tests.prompts_NxP[start : start + size],
                    tests.lengths_N[start : start + size],
                    strategy=strategy,
                    max_new_tokens=config.max_new_tokens,
                    stop=tokenizer(spec).end,
                    rows=config.batch,
                    ids_N=np.arange(start, start + size, dtype=np.int32),
                    resources=resources,
                    resources_N=jax.tree.map(lambda x, at=start: x[at : at + size], known),
                )
                for start in range(0, args.problems, size)
            ]
            return engine.Written(*(np.concatenate(found) for found in zip(*parts, strict=True)))

        return once

    ways = {"greedy": way("greedy"), f"greedy, batches of {rows}": way("greedy", batches=True)}
    asking = ["regret:perfect", *(["regret:probe"] if args.probe else [])]
    ways |= {text: way(text) for text in ("sample:8", "beam:4", *asking)}
    spent: dict[str, int] = {}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for name, once in ways.items():
        spent[name] = int(once().spent_NxS.sum())
    if args.probe:
        name = "reading greedy's texts"
        ways[name] = _reading(settings.model, params, tests, ways["greedy"](), rows)
        ways[name]()
        spent[name], took[name] = spent["greedy"], []
    for _ in range(args.rounds):
        for name, once in ways.items():
            started, worked = time.perf_counter(), time.process_time()
            once()
            took[name].append((time.perf_counter() - started, time.process_time() - worked))
    same = [ways[name]().tokens_NxSxM for name in list(ways)[:2]]
    assert (same[0] == same[1]).all(), "batches write something else"
    lengths = ways["greedy"]().length_NxS
    quarters = ", ".join(f"{n:.0f}" for n in np.percentile(lengths, [25, 50, 75, 100]))
    print(f"{run.name}: {args.problems} problems, tokens (quartiles, most): {quarters}")
    print(f"cache: {cache.bytes_a_token(settings.model):,} bytes a token of a row")
    for name, seconds in took.items():
        ratios = []
        for clock in (0, 1):
            each = [s[clock] / spent[name] for s in seconds]
            base = [s[clock] / spent["greedy"] for s in took["greedy"]]
            ratios.append(statistics.median(a / b for a, b in zip(each, base, strict=True)))
        speed = spent[name] / statistics.median(s[0] for s in seconds)
        print(
            f"{name:24} {speed:10,.0f} tokens/s  {ratios[0]:5.2f} x greedy's time for a token, "
            f"{ratios[1]:5.2f} x its CPU time"
        )


def _reading(
    config: ModelConfig,
    params: model.Params,
    tests: cells.TestSet,
    written: engine.Written,
    rows: int,
) -> Callable[[], None]:
    """Reads prompts and what was written after them, texts of about one length together."""
    texts = [
        [*prompt[:n], *tokens[0, : length[0]]]
        for prompt, n, tokens, length in zip(
            tests.prompts_NxP,
            tests.lengths_N,
            written.tokens_NxSxM,
            written.length_NxS,
            strict=True,
        )
    ]
    texts.sort(key=len)
    parts = []
    for start in range(0, len(texts), rows):
        part = texts[start : start + rows]
        padded = np.zeros((rows, -(-len(part[-1]) // 16) * 16), np.int32)
        for row, text in zip(padded, part, strict=False):
            row[: len(text)] = text
        parts.append(padded)
    params = model.unrolled(config, params)
    read = jax.jit(lambda tokens: model.apply(config, params, tokens))

    def once() -> None:
        for part in parts:
            jax.block_until_ready(read(part))

    return once


if __name__ == "__main__":
    main()
