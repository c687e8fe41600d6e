"""The options of a sweep: the command line, and the entries that it asks for.

Options that exclude each other are refused here, before anything is planned or compiled.
"""

import argparse
import shlex
from collections.abc import Sequence
from typing import Any

from physlm.experiments import adoption, cluster, estimate, logs, registry, scales, selection
from physlm.experiments.arguments import Parser, called, place
from physlm.experiments.plan import plan
from physlm.experiments.view import Entry

# The slice for which a dry run estimates times by default.
_SLICE = "v5e-8"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line; None is that of the process."""
    parser = Parser(
        prog=called("physlm.experiments.sweep"),
        description="Runs a study, or what is left of it, and reports the results.",
    )
    known = ", ".join(registry.names())
    parser.add_argument(
        "study",
        nargs="?",
        default="quickstart",
        help=f"{known}; or a module of yours, as mine.masking (quickstart)",
    )
    parser.add_argument("--scale", default="quick", help=f"{', '.join(scales.NAMES)} (quick)")
    parser.add_argument(
        "--workdir",
        type=place,
        default="runs",
        metavar="DIR",
        help="where models and results are stored: a directory, or gs://… (runs)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only print the runs, their state and their cost"
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="with --dry-run: time some training steps of shapes that were never trained here",
    )
    parser.add_argument(
        "--slice",
        metavar="CHIP-COUNT",
        help=f"with --dry-run: the TPU slice to estimate times for ({_SLICE})",
    )
    parser.add_argument(
        "--only",
        metavar="I/N",
        help="do the I-th of N shares of the runs, as an array job does: $SLURM_ARRAY_TASK_ID/8; "
        "parents in other shares are waited for, or trained",
    )
    parser.add_argument(
        "--filter",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="only runs with these settings, and their parents: retry_rate=0.2,0.5 (either), "
        "mask!=none, seed=1, model.layers=4; probe= for runs that have none",
    )
    parser.add_argument(
        "--seeds",
        metavar="SEEDS",
        help="repeat every run with these seeds: 0,1,2 or 0:3",
    )
    parser.add_argument(
        "--settings",
        action="store_true",
        help="only print all settings with their meanings and values",
    )
    parser.add_argument(
        "--profile",
        type=_steps,
        nargs="?",
        const=10,
        default=0,
        metavar="STEPS",
        help="write a profiler trace of this many training steps (10) to each run's directory",
    )
    parser.add_argument(
        "--log",
        nargs="+",
        action="extend",
        choices=logs.NAMES,
        default=[],
        help="also write metrics there, beside metrics.jsonl",
    )
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="auto",
        metavar="ADDRESS:PORT,PROCESSES,NUMBER",
        help="run as one of several JAX processes, e.g. on a TPU slice; without a value JAX finds "
        "the others itself",
    )
    parser.add_argument(
        "--executor",
        choices=["ray"],
        help="execute runs as tasks of a Ray cluster instead of in this process",
    )
    parser.add_argument(
        "--address",
        default="",
        metavar="HOST:PORT",
        help="the address of the Ray cluster, or auto; without it a local one is started",
    )
    parser.add_argument(
        "--resources",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=NUMBER",
        help="the resources of a Ray task, as CPU=8 GPU=1 (CPU=1, and one GPU or TPU chip where "
        "there are any)",
    )
    parser.add_settings(
        "change settings of all runs, as train.steps=500 seed=1 (all: --settings); model.from=DIR "
        "has all begin with a model of Hugging Face"
    )
    return parser.parse_args(arguments)


def _steps(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it must be a number of steps")
    return int(text)


def command(options: argparse.Namespace) -> str:
    """The command that asks for the same entries, without its store and the share of a worker."""
    words = ["python", "-m", "physlm.experiments.sweep", options.study, "--scale", options.scale]
    if options.seeds is not None:
        words += ["--seeds", options.seeds]
    for name in ("filter", "set"):
        if given := getattr(options, name):
            words += [f"--{name}", *given]
    return shlex.join(words)


def assignments(options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """The `key=value` texts, and settings of the model that all runs begin with, if one is named.

    That model becomes a run of the store, unless this is a dry run.

    Raises:
        ValueError: that model cannot be adopted.
    """
    keep = not (options.dry_run or options.settings)
    return adoption.begun(options.set, options.workdir, options.scale, keep=keep)


def entries(options: argparse.Namespace) -> list[Entry]:
    """All entries that the command line asks for, before shares are dealt.

    Raises:
        ValueError: the study, a seed or a setting is not allowed, or no entry is left.
    """
    study = registry.load(options.study)
    seeds: list[list[str]] = [[]]
    if options.seeds is not None:
        if any(text.split("=")[0].strip() == "seed" for text in options.set):
            raise ValueError("--seeds and --set seed=… both say which seeds: give one of them.")
        seeds = [[f"seed={seed}"] for seed in selection.parse_seeds(options.seeds)]
    given, begun = assignments(options)
    found = [
        entry for seed in seeds for entry in plan(study, options.scale, [*given, *seed], begun)
    ]
    return selection.filtered(found, options.filter) if options.filter else found


def check_settings(options: argparse.Namespace) -> None:
    """Checks what is given with `--settings`, which reads the study, its scale and `--set` alone.

    Raises:
        ValueError: another option is.
    """
    unread = ("dry_run", "measure", "slice", "only", "filter", "seeds", "profile", "log")
    for name in (*unread, "distributed", "executor", "address", "resources"):
        if getattr(options, name):
            name = name.replace("_", "-")
            raise ValueError(f"--{name} is given with --settings, which only prints settings.")


def chips(options: argparse.Namespace) -> estimate.Slice:
    """The slice for which a dry run estimates times.

    Raises:
        ValueError: there is no such slice, or this is no dry run.
    """
    for name in ("measure", "slice"):
        if getattr(options, name) and not options.dry_run:
            raise ValueError(f"--{name} is for --dry-run.")
    return estimate.parse_slice(options.slice or _SLICE)


def executor(options: argparse.Namespace) -> cluster.Cluster | None:
    """The Ray cluster that executes the study; None for this process.

    Raises:
        ValueError: options exclude each other.
    """
    if options.executor is None:
        for name in ("address", "resources"):
            if getattr(options, name):
                raise ValueError(f"--{name} is for --executor ray.")
        return None
    for name in ("distributed", "profile", "dry_run"):
        if getattr(options, name):
            name = name.replace("_", "-")
            raise ValueError(f"--executor ray is given with --{name}, which is for this process.")
    return cluster.Cluster(options.address, cluster.parse_resources(options.resources))
