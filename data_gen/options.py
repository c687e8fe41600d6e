"""The options of `python -m data_gen`: its command line, and the class and mistakes it asks for."""

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from data_gen import settings
from data_gen.arguments import Parser
from data_gen.solutions import kinds
from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import ERROR_FREE, MENDINGS, Mistakes
from data_gen.spec import NAMED, ORDERS, SOLUTIONS, SPLITS, Spec

# What is said of mistakes beside their kind, and what holds where nothing is said.
OF_MISTAKES: dict[str, Any] = {"rate": 0.5, "whole": False, "mend": "back", "late": 0}


def parse(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Parses the command line.

    Args:
      argv: the arguments; None are those of the process.
      description: of the program, with its examples.
    """
    igsm = pathlib.PurePath(sys.argv[0]).stem == "igsm"
    parser = Parser(
        prog="igsm" if igsm else "python -m data_gen",
        description=description.replace("python -m data_gen", "igsm") if igsm else description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = Parser(add_help=False)
    drawing.add_argument("--spec", choices=sorted(NAMED), default="med")
    drawing.add_argument("--seed", type=functools.partial(_whole, 0), default=0)
    drawing.add_argument("--op", type=functools.partial(_whole, 1), help="the number of operations")
    drawing.add_argument("--order", choices=ORDERS)
    drawing.add_argument("--split", choices=SPLITS)
    drawing.add_argument("--solution", choices=SOLUTIONS)
    drawing.add_argument(
        "--reask",
        action="store_const",
        const=True,
        help="ask for another parameter than the problem was made for",
    )
    drawing.add_argument("--names-file", help="a JSON file of names")
    drawing.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting of the problem class",
    )

    def adding(name: str, count: int, help: str) -> Parser:
        command = commands.add_parser(name, parents=[drawing], help=help)
        command.add_argument("--count", type=functools.partial(_whole, 1), default=count)
        return command

    sampling = adding("sample", 1, "print problems as JSON lines")
    sampling.add_argument("--start", type=functools.partial(_whole, 0), default=0)
    _add_mistakes(sampling)
    sampling.add_argument("--types", action="store_true", help="name the kind of each mistake")
    freezing = adding("freeze", 1024, "write problems to files that others read")
    freezing.add_argument(
        "--test",
        type=functools.partial(_whole, 1),
        metavar="N",
        help="N problems more, as a split `test` of templates that the others do not have",
    )
    _add_mistakes(freezing)
    freezing.add_argument("--types", action="store_true", help="name the kind of each mistake")
    freezing.add_argument("--format", default="jsonl", help="jsonl, parquet or tfds")
    freezing.add_argument(
        "--out", required=True, metavar="DIR", help="a new directory, or an empty one"
    )
    checking = commands.add_parser("check", help="judge the solutions of JSON lines")
    checking.add_argument("file", help="a file of JSON lines, or - for standard input")
    checking.add_argument(
        "--types", action="store_true", help="also name the kinds of mistakes, mended or not"
    )
    checking.add_argument("--modulus", type=functools.partial(_whole, 2), default=Spec.modulus)
    counting = adding("stats", 1024, "print a table of what can be counted on problems")
    counting.add_argument("--start", type=functools.partial(_whole, 0), default=0)
    timing = adding("bench", 4096, "measure problems a second")
    timing.add_argument("--rounds", type=functools.partial(_whole, 1), default=5)
    picturing = commands.add_parser("draw", parents=[drawing], help="draw a problem's two graphs")
    _add_mistakes(picturing)
    picturing.add_argument("--out", required=True, help="file to write, .png or .svg")
    picturing.add_argument("--index", type=functools.partial(_whole, 0), default=0)
    correcting = commands.add_parser(
        "correct", parents=[drawing], help="correct a model's wrong solutions, for training"
    )
    correcting.add_argument("file", help="solutions.jsonl of a run, or - for standard input")
    correcting.add_argument(
        "--whole", action="store_true", help="write wrong sentences whole, not their names alone"
    )
    commands.add_parser("kinds", help="print the kinds of mistake")
    return parser.parse_args(argv)


def _add_mistakes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--mistakes",
        metavar="KIND",
        help=f"put mistakes in: one of {', '.join(kinds.names())}, or several with their shares, "
        "as in skip:0.7,calculation:0.3; MODULE.NAME is a kind that a module of yours registers",
    )
    command.add_argument("--rate", type=float, help="of mistakes, in [0, 1) (0.5)")
    command.add_argument(
        "--whole",
        action="store_const",
        const=True,
        help="write wrong sentences whole, not their names alone",
    )
    command.add_argument(
        "--mend", help=f"one of {', '.join(MENDINGS)}, or several with their shares (back)"
    )
    command.add_argument(
        "--late", type=functools.partial(_whole, 0), help="steps until a mistake is noticed (0)"
    )


def _whole(low: int, text: str) -> int:
    # JAX seeds and counts in 32 bits.
    if not text.isascii() or not text.isdigit() or not low <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; it must be a whole number in {low}..{2**31 - 1}"
        )
    return int(text)


def problem_class(args: argparse.Namespace) -> Spec:
    """The problem class that the options ask for.

    Raises:
      ValueError: a setting is unknown, not allowed, or given twice; or names cannot be used.
    """
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


def mistakes(args: argparse.Namespace, spec: Spec) -> Mistakes:
    """The mistakes that the options ask for; none without `--mistakes`.

    Raises:
      ValueError: a setting is not allowed, or is given without `--mistakes`.
    """
    given = {name: getattr(args, name) for name in OF_MISTAKES if getattr(args, name) is not None}
    if args.mistakes is None:
        if given:
            name = next(iter(given))
            raise ValueError(f"--{name} is given without --mistakes KIND, which puts mistakes in.")
        return ERROR_FREE
    found = Mistakes(args.mistakes, **(OF_MISTAKES | given))
    found.check(spec)
    return found
