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
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NoReturn

from data_gen import interrupts, keys, settings
from data_gen.arguments import Parser
from data_gen.keys import Purpose
from data_gen.settings import RefusedError
from data_gen.solutions import kinds
from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import ERROR_FREE, MENDINGS, Mistakes
from data_gen.spec import NAMED, ORDERS, SOLUTIONS, SPLITS, Spec
from data_gen.text import lines as text_lines
from data_gen.text.judge import judge
from data_gen.text.reader import Facts, read

if TYPE_CHECKING:
    from data_gen.frozen.rows import Drawn

# Problems made at once; it changes nothing but the memory and the time taken.
_BATCH = 256


def _class(args: argparse.Namespace) -> Spec:
    names = ("op", "order", "split", "solution", "reask", "names_file")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    known = settings.of(Spec)
    for name, text in settings.assignments(args.set).items():
        if name not in known:
            raise settings.unknown(name, known)
        if name in given:
            raise settings.twice(name, [f"--{name.replace('_', '-')}", f"--set {name}={text}"])
        given[name] = known[name].parse(name, text)
    spec = dataclasses.replace(NAMED[args.spec], **given)
    # Refuses a file of names that cannot be used before anything compiles.
    vocabulary(spec)
    return spec


# What is said of mistakes beside their kind, and what holds where nothing is said.
_OF_MISTAKES: dict[str, Any] = {"rate": 0.5, "whole": False, "mend": "back", "late": 0}


def _mistakes(args: argparse.Namespace, spec: Spec) -> Mistakes:
    given = {name: getattr(args, name) for name in _OF_MISTAKES if getattr(args, name) is not None}
    if args.mistakes is None:
        if given:
            name = next(iter(given))
            raise ValueError(f"--{name} is given without --mistakes KIND, which puts mistakes in.")
        return ERROR_FREE
    mistakes = Mistakes(args.mistakes, **(_OF_MISTAKES | given))
    mistakes.check(spec)
    return mistakes


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

    spec = _class(args)
    for found, asked in _drawn(args, spec, _mistakes(args, spec)):
        kept = found.only(np.arange(asked))
        yield from rows.written(kept, spec, name=args.spec, seed=args.seed, types=args.types)


def freeze(args: argparse.Namespace) -> str:
    """Writes what `sample` prints to files that others read; says where they are."""
    from data_gen.frozen import card, directory
    from data_gen.frozen.rows import Contents

    spec = _class(args)
    split, counts = spec.split, {}
    if args.test:
        if split == "test" or args.split == "all":
            raise RefusedError("test", args.test, f"left out where split is {split!r}")
        split, counts = "train", {"test": args.test}
    contents = Contents(
        dataclasses.replace(spec, split="all"),
        args.seed,
        {split: args.count, **counts},
        _mistakes(args, spec),
        args.spec,
    )
    # Whoever reads it later may have other defaults.
    usual = {name: value for name, value in _OF_MISTAKES.items() if vars(args)[name] is None}
    said = vars(args) | (usual if args.mistakes else {})
    command = card.command(said, left_out=("out",))
    return directory.write(directory.Order(contents, args.format, args.types, command), args.out)


def stats(args: argparse.Namespace) -> str:
    """The table of features of a class, and that of its templates."""
    import jax
    import numpy as np

    from data_gen.problems import template
    from data_gen.solutions.features import measure, table

    spec, parts = _class(args), []
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

    from data_gen.windows import stream

    spec = _class(args)
    keys_N = jax.vmap(functools.partial(keys.problem_key, args.seed))(jnp.arange(args.count))
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
    device = jax.devices()[0]
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

    spec, verdicts, made = _class(args), [], 0
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
    spec = _class(args)
    mistakes = _mistakes(args, spec)
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


def _whole(low: int, text: str) -> int:
    # JAX seeds and counts in 32 bits.
    if not text.isascii() or not text.isdigit() or not low <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed: an integer in {low}..{2**31 - 1} is."
        )
    return int(text)


def _parser() -> argparse.ArgumentParser:
    igsm = pathlib.PurePath(sys.argv[0]).stem == "igsm"
    parser = Parser(
        prog="igsm" if igsm else "python -m data_gen",
        description=__doc__.replace("python -m data_gen", "igsm") if igsm else __doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = Parser(add_help=False)
    drawing.add_argument("--spec", choices=sorted(NAMED), default="med")
    drawing.add_argument("--seed", type=functools.partial(_whole, 0), default=0)
    drawing.add_argument("--op", type=functools.partial(_whole, 1), help="so many operations")
    drawing.add_argument("--order", choices=ORDERS)
    drawing.add_argument("--split", choices=SPLITS)
    drawing.add_argument("--solution", choices=SOLUTIONS)
    drawing.add_argument(
        "--reask", action="store_const", const=True, help="ask for another parameter"
    )
    drawing.add_argument("--names-file", help="a JSON file of names")
    drawing.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any other field of the spec",
    )

    def adding(name: str, count: int, help: str) -> Parser:
        command = commands.add_parser(name, parents=[drawing], help=help)
        command.add_argument("--count", type=functools.partial(_whole, 1), default=count)
        return command

    one = adding("sample", 1, "print problems as JSON lines")
    one.add_argument("--start", type=functools.partial(_whole, 0), default=0)
    _add_mistakes(one)
    one.add_argument("--types", action="store_true", help="say what kind each mistake is of")
    seven = adding("freeze", 1024, "write problems to files that others read")
    seven.add_argument(
        "--test",
        type=functools.partial(_whole, 1),
        metavar="N",
        help="N problems more, as a split `test` of templates that the others do not have",
    )
    _add_mistakes(seven)
    seven.add_argument("--types", action="store_true", help="say what kind each mistake is of")
    seven.add_argument("--format", default="jsonl", help="jsonl, parquet or tfds")
    seven.add_argument(
        "--out", required=True, metavar="DIR", help="a new directory, or an empty one"
    )
    two = commands.add_parser("check", help="judge the solutions of JSON lines")
    two.add_argument("file", help="a file of JSON lines, or - for standard input")
    two.add_argument("--types", action="store_true", help="of mistakes, mended and not, too")
    two.add_argument("--modulus", type=functools.partial(_whole, 2), default=Spec.modulus)
    three = adding("stats", 1024, "print a table of what can be counted on problems")
    three.add_argument("--start", type=functools.partial(_whole, 0), default=0)
    four = adding("bench", 4096, "measure problems a second")
    four.add_argument("--rounds", type=functools.partial(_whole, 1), default=5)
    five = commands.add_parser("draw", parents=[drawing], help="draw a problem's two graphs")
    _add_mistakes(five)
    five.add_argument("--index", type=functools.partial(_whole, 0), default=0)
    six = commands.add_parser(
        "correct", parents=[drawing], help="mend the wrong solutions that a model wrote"
    )
    six.add_argument("file", help="solutions.jsonl of a run, or - for standard input")
    six.add_argument("--whole", action="store_true", help="wrong sentences, not names alone")
    commands.add_parser("kinds", help="print the kinds of mistake")
    five.add_argument("--out", required=True, help="file to write, .png or .svg")
    return parser


def _add_mistakes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--mistakes",
        metavar="KIND",
        help=f"put mistakes in: one of {', '.join(kinds.names())}, or several with their shares, "
        "as in skip:0.7,calculation:0.3; MODULE.NAME is a kind that a module of yours registers",
    )
    command.add_argument("--rate", type=float, help="of mistakes, in [0, 1) (0.5)")
    command.add_argument(
        "--whole", action="store_const", const=True, help="wrong sentences, not names alone"
    )
    command.add_argument(
        "--mend", help=f"one of {', '.join(MENDINGS)}, or several with their shares (back)"
    )
    command.add_argument(
        "--late", type=functools.partial(_whole, 0), help="steps until it is noticed (0)"
    )


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
    args = _parser().parse_args(argv)
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
