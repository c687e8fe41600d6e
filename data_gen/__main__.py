"""Command line: problems as JSON lines or in files, verdicts, pictures, counts, and speed.

python -m data_gen sample --spec med --count 3 --seed 0 --mistakes retry --rate 0.5
python -m data_gen sample --spec hard --op 32 --count 100 | python -m data_gen check -
python -m data_gen freeze --spec med --count 100000 --test 4096 --format parquet --out DIR
python -m data_gen draw --spec med --seed 0 --index 5 --out problem.svg
python -m data_gen stats --spec med --count 2048
python -m data_gen bench --spec med
python -m data_gen correct RUN/evaluations/EVALUATION/solutions.jsonl
python -m data_gen kinds
"""

import argparse
import dataclasses
import functools
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NoReturn

from data_gen import interrupts, keys, options
from data_gen.keys import Purpose
from data_gen.settings import RefusedError
from data_gen.solutions import kinds
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.spec import Spec
from data_gen.text import lines as text_lines
from data_gen.text.judge import judge
from data_gen.text.reader import Facts, read

if TYPE_CHECKING:
    from data_gen.frozen.rows import Drawn

# Problems made at once; it changes nothing but the memory and the time taken.
_BATCH = 256


def _drawn(
    args: argparse.Namespace, spec: Spec, mistakes: Mistakes = ERROR_FREE
) -> "Iterator[tuple[Drawn, int]]":
    """Problems `start`, `start` + 1, … of a seed: batches, and how many of each are asked for."""
    from data_gen.frozen import rows
    from data_gen.problems import search

    left, batch = args.count, min(_BATCH, args.count)
    for found in rows.drawn(spec, seed=args.seed, mistakes=mistakes, start=args.start, batch=batch):
        if not found.problems_N.ok.all():
            raise ValueError(search.not_found(spec))
        yield found, min(batch, left)
        left -= batch
        if left <= 0:
            return


def sample(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Problem `start`, `start` + 1, … of a seed, with their solutions."""
    import numpy as np

    from data_gen.frozen import rows

    spec = options.problem_class(args)
    for found, asked in _drawn(args, spec, options.mistakes(args, spec)):
        kept = found.only(np.arange(asked))
        yield from rows.written(kept, spec, name=args.spec, seed=args.seed, types=args.types)


def freeze(args: argparse.Namespace) -> str:
    """Writes what `sample` prints to files that others read; says where they are."""
    from data_gen.frozen import card, directory
    from data_gen.frozen.rows import Contents

    spec = options.problem_class(args)
    split, counts = spec.split, {}
    if args.test:
        if split == "test" or args.split == "all":
            raise RefusedError("test", args.test, f"left out where split is {split!r}")
        split, counts = "train", {"test": args.test}
    contents = Contents(
        dataclasses.replace(spec, split="all"),
        args.seed,
        {split: args.count, **counts},
        options.mistakes(args, spec),
        args.spec,
    )
    # Whoever reads it later may have other defaults.
    usual = {name: value for name, value in options.OF_MISTAKES.items() if vars(args)[name] is None}
    said = vars(args) | (usual if args.mistakes else {})
    command = card.command(said, left_out=("out",))
    return directory.write(directory.Order(contents, args.format, args.types, command), args.out)


def stats(args: argparse.Namespace) -> str:
    """The table of features of a class, and that of its templates."""
    import jax
    import numpy as np

    from data_gen.problems import template
    from data_gen.solutions.features import measure, table

    spec, parts = options.problem_class(args), []
    count = jax.jit(jax.vmap(functools.partial(measure, spec=spec)))
    for (_, problems, documents), asked in _drawn(args, spec):
        made = (count(problems, documents), template.templates(problems, spec))
        parts.append(jax.tree.map(lambda x, n=asked: np.asarray(x)[:n], made))
    features_N, templates_N = jax.tree.map(lambda *columns: np.concatenate(columns), *parts)
    return f"{table(features_N)}\n\n{template.table(templates_N, features_N.op)}"


def bench(args: argparse.Namespace) -> str:
    """Problems a second, arrays out, once compiled."""
    import jax
    import jax.numpy as jnp

    from data_gen.device import of_data
    from data_gen.windows import stream

    spec = options.problem_class(args)
    device = of_data() or jax.devices()[0]
    with jax.default_device(device):
        keys_N = jax.vmap(functools.partial(keys.problem_key, args.seed))(jnp.arange(args.count))
        keys_N = jax.device_put(keys_N, device)
    started = time.perf_counter()
    make = stream.problems.lower(keys_N, spec=spec).compile()
    compiled = time.perf_counter() - started
    jax.block_until_ready(make(keys_N))
    rates = []
    for _ in range(args.rounds):
        started = time.perf_counter()
        jax.block_until_ready(make(keys_N))
        rates.append(args.count / (time.perf_counter() - started))
    memory = make.memory_analysis()
    used = "" if memory is None else f", {memory.temp_size_in_bytes / 2**20:.0f} MiB of work space"
    # What compiling took is most of it. Kilobytes, but on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    peak /= 1024 if sys.platform == "darwin" else 1
    cores = f", {len(os.sched_getaffinity(0))} cores" if device.platform == "cpu" else ""
    return (
        f"{statistics.median(rates):,.0f} problems/s ({args.spec}, {args.count} at once, median "
        f"of {args.rounds}) on {device.device_kind}{cores}; compiled in {compiled:.1f} s{used}; "
        f"the process at its peak: {peak:.1f} GiB"
    )


def _read(
    lines: Iterable[bytes | str], texts: Sequence[str], modulus: int
) -> Iterator[tuple[int, Any, Facts | str]]:
    """The number, the value and, for problems, the facts of each line that is not blank.

    Where it is none, a sentence stands in their place that says why.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record: Any = None
        try:
            record = text_lines.value(line)
        except ValueError as error:
            yield number, None, f"line {number}: is not valid JSON: {error}."
            continue
        try:
            record = text_lines.record(record, texts)
            facts = read(record["layers"], record["problem"], record["question"], modulus)
        except ValueError as error:
            yield number, record, f"line {number}: {error}"
            continue
        yield number, record, facts


def check(
    lines: Iterable[bytes | str], modulus: int, types: bool = False
) -> Iterator[dict[str, Any]]:
    """A verdict for each line; one that cannot be read is not correct, and says why.

    With `types` also the kind of the first wrong step and the mistakes that were taken back.
    """
    kept = ("correct", "reason", "first_wrong_step", "retries", "unnecessary")
    for _, record, facts in _read(lines, ("problem", "question", "solution"), modulus):
        name = record.get("id") if isinstance(record, dict) else None
        found: dict[str, Any] = {"id": name if isinstance(name, str | int | float) else None}
        if isinstance(facts, str):
            found |= dict.fromkeys(kept) | {"correct": False, "reason": facts}
            yield found | ({"kind": None, "mended": None} if types else {})
            continue
        verdict = judge(facts, record["solution"])
        found |= {key: getattr(verdict, key) for key in kept}
        if types:
            found |= {"kind": verdict.kind, "mended": [each._asdict() for each in verdict.mended]}
        yield found


def correct(lines: Iterable[bytes | str], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Corrects wrong solutions among JSON lines at their first error, and counts errors by kind."""

    from data_gen.text.corrections import corrected, mixture, table

    spec, verdicts, made = options.problem_class(args), [], 0
    root = keys.root(args.seed, Purpose.CORRECTION)
    texts = ("problem", "question", "solution", "written")
    for number, record, facts in _read(lines, texts, spec.modulus):
        if isinstance(facts, str):
            print(facts, file=sys.stderr)
            continue
        written = record.pop("written")
        try:
            found = corrected(record, written, keys.numbered(root, number), spec, args.whole)
        except ValueError as error:
            print(f"line {number}: {error}", file=sys.stderr)
            continue
        verdicts.append(judge(facts, written))
        if found is not None:
            made += 1
            kept = ("id", "layers", "problem", "question", "solution", "answer", "op", "kind")
            yield {key: found[key] for key in kept if key in found}
    if not verdicts:
        return
    print(f"{table(verdicts)}\n\n{made} mended", file=sys.stderr)
    if any(verdict.kind in kinds.by_fault() for verdict in verdicts):
        print(f"as a distribution: --mistakes {mixture(verdicts)}", file=sys.stderr)


def draw(args: argparse.Namespace) -> None:
    """Draws the problem that `sample --seed seed --start index` prints."""
    import jax
    import numpy as np

    from data_gen.frozen import rows
    from data_gen.picture import figure, listing
    from data_gen.text import records
    from data_gen.windows import stream
    from data_gen.windows.documents import whole_documents

    figure.check_out(args.out)
    spec = options.problem_class(args)
    mistakes = options.mistakes(args, spec)
    keys_N = rows.row_keys(spec, args.seed, np.array([args.index], np.uint32))
    problems = stream.problems(keys_N, spec=spec)
    problem = jax.tree.map(lambda x: np.asarray(x[0]), problems)
    if not problem.ok:
        raise ValueError(
            f"index={args.index} has no problem of op={spec.op} and reask={spec.reask}: "
            "many thousand draws, or the letters, were not enough; choose another."
        )
    documents = whole_documents(keys_N, problems, spec=spec, mistakes=mistakes)
    (record,) = records.records(problems, documents, spec)
    facts = read(record["layers"], record["problem"], record["question"], spec.modulus)
    listed = listing.rows(facts, record["solution"])
    figure.save(figure.draw(problem, spec, listed), args.out)


def _open(path: str) -> IO[bytes]:
    return sys.stdin.buffer if path == "-" else open(path, "rb")


def _why(error: ValueError | OSError) -> str:
    """An error in one sentence, with its file's name."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        said = f"{error.filename} cannot be read or written: {error.strerror}."
    # What was typed, line breaks and all, is part of it.
    return " ".join(said.split())


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 2 for bad input, or 130 if interrupted."""
    args = options.parse(argv, __doc__)
    try:
        if args.command == "sample":
            for record in sample(args):
                print(json.dumps(record))
        elif args.command in ("stats", "bench"):
            print({"stats": stats, "bench": bench}[args.command](args))
        elif args.command == "kinds":
            print(kinds.in_words())
        elif args.command == "freeze":
            print(freeze(args))
        elif args.command == "draw":
            draw(args)
        elif args.command == "correct":
            with _open(args.file) as lines:
                for record in correct(lines, args):
                    print(json.dumps(record))
        else:
            with _open(args.file) as lines:
                for verdict in check(lines, args.modulus, args.types):
                    print(json.dumps(verdict))
    except BrokenPipeError:
        # The reader of our output has seen enough; there is nothing left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(_why(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def command() -> NoReturn:
    """The command that is installed."""
    interrupts.run(main)


if __name__ == "__main__":
    command()
