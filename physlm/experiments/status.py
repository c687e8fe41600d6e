"""Shows a study's progress: `python -m physlm.experiments.status DIR/<study>-<scale> [--follow]`.

Prints a table of its runs, parents and probes among them: state, last step, recent loss, accuracy
on problems up to the most operations in training, tokens a second of all runs that are trained
together with it, and the time that its training still takes at that speed. With DIR, a store, it
does so for every study there. It only reads files, so that it can watch sweeps on other machines
that share the store.

With `--follow` it goes on until all is done or failed: on a terminal the table is drawn anew, and
elsewhere a line is printed for each change.
"""

import collections
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence

from etils import epath

from data_gen import interrupts
from physlm.experiments import standing as standing_lib
from physlm.experiments import view as view_lib
from physlm.experiments.arguments import Parser, called, one_line, place
from physlm.experiments.standing import ENDED, Standing, State
from physlm.experiments.store import Store
from physlm.experiments.view import View
from physlm.progress import format_seconds

_SECONDS_BETWEEN_LOOKS = 2.0

# The order in which states are counted and, where there is no room for all runs, runs are shown.
_ORDER: tuple[State, ...] = ("going", "judging", "failed", "stopped", "waiting", "done")

_COLUMNS = ("run", "state", "step", "loss", "solved", "tokens/s", "left")

# Characters of a name's end that tell runs apart.
_HASH = 9

Study = tuple[str, Sequence[Standing]]


def main(arguments: Sequence[str] | None = None, wait: Callable[[float], None] = time.sleep) -> int:
    """The command line.

    Returns:
        0: said; 2: bad input; 130: interrupted.
    """
    parser = Parser(
        prog=called("physlm.experiments.status"),
        description="Says how the runs of a study stand, or of all studies of a store.",
    )
    parser.add_argument(
        "directory",
        type=place,
        metavar="DIR",
        help="a store, as runs, or the directory of a study in it, as runs/quickstart-quick",
    )
    parser.add_argument(
        "--follow", action="store_true", help="go on until all is done or failed, showing changes"
    )
    options = parser.parse_args(arguments)
    try:
        views = _views(options.directory)
        if options.follow:
            _follow(views, wait)
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            tables = ["\n".join(_table(study, width)) for study in _looked(views)]
            print("\n\n".join(tables), flush=True)
    except ValueError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has seen enough; what Python prints on leaving goes nowhere, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


def _views(directory: epath.Path) -> list[View]:
    """The studies of a directory, which is a study's own or a store.

    Raises:
        ValueError: it is neither.
    """
    directory = directory.absolute()
    found = sorted(path.parent for path in directory.glob(f"*/{view_lib.FILE}"))
    if (directory / view_lib.FILE).exists():
        found = [directory]
    if not found:
        raise ValueError(
            f"{directory} is neither a store with a study nor the directory of a study: no sweep "
            f"has left {view_lib.FILE} there."
        )
    names = (path.name.rpartition("-") for path in found)
    return [
        View(Store(path.parent), study, scale)
        for path, (study, _, scale) in zip(found, names, strict=True)
    ]


def _looked(views: Sequence[View]) -> list[Study]:
    return [(view.directory.name, standing_lib.of_view(view)) for view in views]


def _follow(views: Sequence[View], wait: Callable[[float], None]) -> None:
    """Shows changes until all runs have ended."""
    show = _Screen().show if sys.stdout.isatty() else _Log().show
    while True:
        studies = _looked(views)
        show(studies)
        if all(one.state in ENDED for _, standings in studies for one in standings):
            return
        wait(_SECONDS_BETWEEN_LOOKS)


class _Screen:
    """Draws a table in place of the one before."""

    def __init__(self) -> None:
        self._drawn = 0

    def show(self, studies: Sequence[Study]) -> None:
        """Draws the table, running rows first, as far as the screen has room."""
        size = shutil.get_terminal_size()
        lines = [line for study in studies for line in (*_table(study, size.columns), "")][:-1]
        if len(lines) >= size.lines:
            studies = [
                (name, sorted(standings, key=lambda one: _ORDER.index(one.state)))
                for name, standings in studies
            ]
            lines = [line for study in studies for line in _table(study, size.columns)]
            rest = len(lines) - (size.lines - 2)
            lines = [*lines[: size.lines - 2], f"… {rest} lines more"]
        # To the first line of what was drawn; away with all from there on.
        back = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        print(back + "\n".join(lines), flush=True)
        self._drawn = len(lines)


class _Log:
    """Prints a table, and then a line for each change."""

    def __init__(self) -> None:
        self._before: dict[str, Standing] = {}

    def show(self, studies: Sequence[Study]) -> None:
        """Prints what has changed."""
        if not self._before:
            print("\n\n".join("\n".join(_table(study)) for study in studies), flush=True)
        for _, standings in studies:
            for one in standings:
                before = self._before.get(one.run)
                if before is not None and _news(before) != _news(one):
                    print(_in_words(one), flush=True)
                self._before[one.run] = one


def _news(one: Standing) -> tuple[object, ...]:
    """The part of a run's progress whose change is worth a line."""
    return one.state, one.step, one.accuracy


def _in_words(one: Standing) -> str:
    figures = zip(_COLUMNS[2:], _row(one)[2:], strict=True)
    told = [f"{name} {text}" for name, text in figures if text != "–"]
    told += [one.error] if one.error else []
    return ", ".join([f"{time.strftime('%H:%M:%S')} {one.run}: {one.state}", *told])


def _table(study: Study, width: int | None = None) -> list[str]:
    """The lines of a study's table: its name and how many runs are in which state, then the runs.

    Args:
        study: its name and its runs.
        width: columns, to which names and errors are cut; None cuts nothing.
    """
    name, standings = study
    counts = collections.Counter(one.state for one in standings)
    said = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    rows = [_COLUMNS, *map(_row, standings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        beside = sum(widths[1:]) + 2 * (len(widths) - 1)
        widths[0] = min(widths[0], max(width - beside, _HASH + 2))
    lines = [f"{name}: {said or 'no runs'}"]
    for row in rows:
        run, state, *figures = row
        cells = [_cut(run, widths[0]).ljust(widths[0]), state.ljust(widths[1])]
        cells += [text.rjust(size) for text, size in zip(figures, widths[2:], strict=True)]
        lines.append("  ".join(cells))
    lines += [f"{one.run} failed: {one.error}" for one in standings if one.error]
    return [line if width is None else line[:width] for line in lines]


def _row(one: Standing) -> tuple[str, ...]:
    of = "" if one.steps is None else f"/{one.steps:,}"
    return (
        one.run,
        one.state,
        f"{one.step:,}{of}",
        "–" if one.loss is None else f"{one.loss:.3f}",
        "–" if one.accuracy is None else f"{100 * one.accuracy:.1f}%",
        "–" if one.tokens_per_s is None else f"{one.tokens_per_s:,.0f}",
        "–" if one.seconds_left is None else format_seconds(one.seconds_left),
    )


def _cut(name: str, width: int) -> str:
    """Shortens a name, but keeps its hash."""
    if len(name) <= width:
        return name
    return f"{name[: width - _HASH - 1]}…{name[-_HASH:]}"


if __name__ == "__main__":
    interrupts.run(main)
