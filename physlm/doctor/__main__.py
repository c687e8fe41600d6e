"""The command line: `python -m physlm.doctor`."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from data_gen import interrupts
from physlm import paths
from physlm.doctor.finding import Asked, Finding, Status
from physlm.experiments.arguments import Parser, called, one_line, place, put

_COLOURS: Mapping[Status, str] = {"ok": "32", "warning": "33", "failed": "31"}
_SETTABLE = ("data", "fsdp", "sequence", "tensor", "cpu_devices")

# What is checked, in this order; in which module; and what to do where it ends in an error.
CHECKS: Mapping[str, tuple[str, str]] = {
    "versions": ("machine", "install physlm again"),
    "devices": ("machine", "see which other process has them, and what JAX_PLATFORMS says"),
    "mesh": ("trials", "choose mesh.* by the devices that there are"),
    "training": ("trials", "another version of jax, or of the accelerator's driver"),
    "decoding": ("trials", "another version of jax, or of the accelerator's driver"),
    "checkpoint": ("trials", "give a --path that can be written and locked"),
    "generator": ("trials", "another version of jax; report which one this is"),
    "disk": ("machine", "give another --path"),
}


def examine(asked: Asked) -> Iterator[tuple[str, Finding]]:
    """Makes all checks, whatever comes of the others, each when its turn is asked for."""
    of_mesh = None
    for name, (module, advice) in CHECKS.items():
        try:
            # Imported here, since to import what is broken is an error, too.
            check = getattr(importlib.import_module(f"physlm.doctor.{module}"), name)
            finding = check(asked)
        # Whatever may be wrong with a machine: to say so is what this is for.
        except Exception as error:
            finding = Finding("failed", one_line(error), advice)
            # What the mesh is refused for, all that need it are; no other advice mends that.
            if name == "mesh":
                of_mesh = finding
            elif of_mesh is not None and finding.seen == of_mesh.seen:
                finding = of_mesh
        yield name, finding


def line(name: str, finding: Finding, *, colour: bool) -> str:
    """A finding as a line of text, with a coloured mark on a terminal."""
    mark = f"{finding.status:<7}"
    if colour:
        mark = f"\033[{_COLOURS[finding.status]}m{mark}\033[0m"
    advice = f" → {finding.advice}" if finding.advice else ""
    return f"{mark}  {name:<10}  {finding.seen}{advice}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        0: nothing failed; 1: something did; 2: bad input, and nothing was tried.
    """
    parser = Parser(prog=called("physlm.doctor"), description="Says whether studies can run here.")
    parser.add_argument(
        "--path",
        type=place,
        default=epath.Path("runs"),
        metavar="DIR",
        help="where results are to be: a checkpoint is written, read and removed there (runs)",
    )
    parser.add_argument(
        "--distributed",
        nargs="?",
        const="auto",
        default="",
        metavar="ADDRESS:PORT,PROCESSES,NUMBER",
        help="run as one of several JAX processes, as with the sweep",
    )
    parser.add_settings(f"try another mesh: mesh.* of {', '.join(_SETTABLE)}")
    options = parser.parse_args(arguments)
    asked = Asked(options.path, tuple(options.set), options.distributed)
    try:
        _check_input(asked)
    except ValueError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    failed = 0
    for name, finding in examine(asked):
        failed += finding.status == "failed"
        put(line(name, finding, colour=sys.stdout.isatty()))
    return 1 if failed else 0


def _check_input(asked: Asked) -> None:
    text = os.fspath(asked.path)
    if paths.is_local(asked.path):
        path = paths.absolute(asked.path)
        nearest = next(place for place in (path, *path.parents) if place.exists())
        if not nearest.is_dir():
            raise ValueError(
                f"--path is {text!r}; it must be a directory, and {nearest} is a file."
            )
    allowed = [f"mesh.{name}" for name in _SETTABLE]
    for assignment in asked.mesh:
        if not assignment.startswith(tuple(f"{name}=" for name in allowed)):
            there = ", ".join(allowed)
            raise ValueError(f"--set {assignment!r} is not allowed: {there} are.")
    # Where a package is missing, the check of versions says which.
    with contextlib.suppress(ImportError):
        from physlm import devices

        if asked.distributed:
            devices.parse(asked.distributed)
        _ = asked.settings


if __name__ == "__main__":
    interrupts.run(main)
