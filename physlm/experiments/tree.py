"""The dry run of a sweep as a tree: runs under their parents, with their evaluations."""

import collections
import json
import textwrap
from collections.abc import Collection, Iterable, Sequence

from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import run as run_lib
from physlm.experiments.condition import label
from physlm.experiments.estimate import Estimate, Slice, estimate
from physlm.experiments.execution import Task
from physlm.experiments.pace import Judging, Paces, judging_of
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.experiments.view import Entry
from physlm.progress import format_seconds
from physlm.tools import roofline

_WIDTH = 100

# Of the SI, by powers of a thousand.
_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")


class Tree:
    """The runs of some tasks, with their costs and progress."""

    def __init__(
        self,
        tasks: Sequence[Task],
        store: Store,
        paces: Paces,
        judging: Judging,
        place: Slice,
        entries: Sequence[Entry],
        own: Collection[str],
    ) -> None:
        """Reads the progress of all runs; nothing is written.

        Args:
            tasks: parents before children.
            store: where runs are, or are to be.
            paces: tokens a second here (`physlm.experiments.pace`).
            judging: seconds that evaluations take here, likewise.
            place: the chips that times are estimated for.
            entries: of the study, which say under which conditions runs are judged.
            own: the names of the runs whose cost is summed up; others are of another share.
        """
        self._store, self._place, self._judging = store, place, judging
        self._runs = {task.run.name: task.run for task in tasks}
        self._own = set(own)
        conditions = [entry.condition for entry in entries]
        self._called = {
            (entry.run.name, json.dumps(entry.evaluation.config)): label(
                entry.condition, conditions
            )
            for entry in entries
        }
        self._tasks = collections.defaultdict(list)
        for task in tasks:
            self._tasks[task.run.name].append(task)
        self._sizes = {run.name: estimate(run, paces, place) for run in self._runs.values()}
        self._statuses = {name: run_lib.status(store.of_run(name)) for name in self._runs}

    def text(self) -> str:
        """The tree in lines of at most 100 columns, with sums at the end."""
        lines = _wrapped(
            "Below each run: its parameters; its tokens; model FLOPs of its training, time here "
            f"and time on {self._place}. Evaluations: the time that others like them took here.",
            "",
        )
        for run in self._runs.values():
            if run.parent is None or run.parent.name not in self._runs:
                lines += ["", *self._run(run, "", "")]
        return "\n".join([*lines, "", *self._sums()])

    def _run(self, run: Run, head: str, indent: str) -> list[str]:
        """A run, its evaluations and its children; `head` is before the first line."""
        children = [
            other for other in self._runs.values() if other.parent and other.parent.name == run.name
        ]
        judged = [line for task in self._tasks[run.name] for line in self._judged(task)]
        bar = "│ " if judged or children else "  "
        lines = _wrapped(f"{run.name}: {self._status(run)}", head, indent + bar)
        lines += _wrapped(self._size(run), indent + bar)
        for number, text in enumerate(judged, 1):
            last = number == len(judged) and not children
            begin, rest = ("└ ", "  ") if last else ("├ ", "│ ")
            lines += _wrapped(text, indent + begin, indent + rest)
        for child in children:
            begin, rest = ("└ ", "  ") if child is children[-1] else ("├ ", "│ ")
            lines += self._run(child, indent + begin, indent + rest)
        return lines

    def _status(self, run: Run) -> str:
        status: str = self._statuses[run.name]
        if status not in ("finished", "to do"):
            status += f" at step {self._done(run):,} of {run.settings.train.steps:,}"
        return status if run.name in self._own else f"{status}, another share's"

    def _done(self, run: Run) -> int:
        """The step from which an unfinished run goes on."""
        return max(run_lib.saved_steps(self._store.of_run(run.name)), default=0)

    def _size(self, run: Run) -> str:
        size = self._sizes[run.name]
        parameters = f"{size.trained:,} parameters"
        if size.trained < size.parameters:
            parameters += f" trained, {size.parameters:,} in all"
        # A budget of problems takes more steps; how many is only known when the run begins.
        more = "+" if run_lib.takes_longer(run.settings) else ""
        most = "up to " if size.trained < size.parameters else ""
        here = "not measured" if size.here is None else f"{_seconds(size.here)} here"
        there = "does not fit" if size.there is None else _seconds(size.there)
        flops = f"{most}{_counted(size.flops)}FLOP"
        return "; ".join([parameters, f"{size.tokens:,}{more} tokens", f"{flops}, {here}, {there}"])

    def _judged(self, task: Task) -> list[str]:
        """The evaluations of a run, in words."""
        found = []
        for one in task.evaluations:
            status = evaluation_lib.status(self._store.of_run(task.run.name), one.config)
            way = f"judged: {one.config['decode']}, {one.settings.problems:,} problems a cell"
            if one.settings.checkpoint != "final":
                way += f", of the checkpoint {one.settings.checkpoint}"
            if one.settings.probe:
                way += f", asks {one.settings.probe}"
            called = self._called[task.run.name, json.dumps(one.config)]
            seconds = self._judging.get(judging_of(task.run.config, one.config))
            takes = "" if seconds is None or status == "finished" else f", {_seconds(seconds)} here"
            found.append(f"{way} ({called}): {status}{takes}")
        return found

    def _judging_to_do(self) -> str:
        """The time that pending evaluations take, in words; empty where there are none."""
        left = [
            self._judging.get(judging_of(run.config, one.config))
            for run in self._runs.values()
            if run.name in self._own
            for task in self._tasks[run.name]
            for one in task.evaluations
            if evaluation_lib.status(self._store.of_run(run.name), one.config) != "finished"
        ]
        if not left:
            return ""
        return f"Judging to do: {_time(left, 'here', 'not measured', 'evaluations')}."

    def _sums(self) -> list[str]:
        own = [self._runs[name] for name in self._runs if name in self._own]
        judged = [
            evaluation_lib.status(self._store.of_run(run.name), one.config)
            for run in own
            for task in self._tasks[run.name]
            for one in task.evaluations
        ]
        trained = _statuses(self._statuses[run.name] for run in own)
        runs = f"{_many(len(own), 'run')} in {self._store.models}: {trained}"
        lines = [f"{runs}; {_many(len(judged), 'evaluation')}: {_statuses(judged)}."]
        sizes = [self._sizes[run.name] for run in own]
        lines += _wrapped(f"Training in all: {self._sum(sizes, [1.0] * len(own))}.", "")
        left = [self._left(run) for run in own]
        if not any(left):
            lines.append("Nothing is left to train.")
        elif any(share < 1 for share in left):
            lines += _wrapped(f"Training to do: {self._sum(sizes, left)}.", "")
        lines += _wrapped(self._judging_to_do(), "")
        notes = []
        if any(size.here is None for size in sizes):
            notes.append("--measure times some steps of what was not measured here.")
        notes.append(
            f"Times on {self._place} are estimates and not measured (physlm.tools.roofline), for "
            "each run alone, on as many chips as can share its batch. A step is taken to last "
            f"{1e3 * roofline.DISPATCH:g} ms at least, as a small model's does on an H200, and "
            "less where parameters are frozen."
        )
        return [*lines, *_wrapped(" ".join(notes), "")]

    def _left(self, run: Run) -> float:
        """The fraction of a run's steps that are still to be trained."""
        if self._statuses[run.name] == "finished":
            return 0.0
        return 1 - self._done(run) / run.settings.train.steps

    def _sum(self, sizes: Sequence[Estimate], shares: Sequence[float]) -> str:
        pairs = [(size, share) for size, share in zip(sizes, shares, strict=True) if share > 0]
        tokens = sum(share * size.tokens for size, share in pairs)
        flops = sum(share * size.flops for size, share in pairs)
        here = [None if size.here is None else share * size.here for size, share in pairs]
        there = [None if size.there is None else share * size.there for size, share in pairs]
        times = [
            _time(here, "here", "not measured"),
            _time(there, f"on {self._place}", "does not fit"),
        ]
        return ", ".join([f"{tokens:,.0f} tokens", f"{_counted(flops)}FLOP", *times])


def _time(seconds: Sequence[float | None], where: str, unknown: str, what: str = "runs") -> str:
    """The sum of the known times, in words."""
    known = [one for one in seconds if one is not None]
    if not known:
        return f"{unknown} {where}"
    missing = len(seconds) - len(known)
    less = f" ({missing} of {len(seconds)} {what}: {unknown})" if missing else ""
    return f"{_seconds(sum(known))} {where}{less}"


def _seconds(seconds: float) -> str:
    return format_seconds(seconds) if seconds >= 1 else "less than 1 s"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _statuses(statuses: Iterable[str]) -> str:
    counts = collections.Counter(statuses)
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"


def _counted(number: float) -> str:
    """A number to three digits with an SI prefix: 2.35e13 is `23.5 T`."""
    size = 0
    while number >= 999.5 and size < len(_PREFIXES) - 1:
        number, size = number / 1000, size + 1
    return f"{number:.3g} {_PREFIXES[size]}"


def _wrapped(text: str, first: str, rest: str | None = None) -> list[str]:
    """Wraps a text, with one indent for its first line and another for the rest."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_on_hyphens=False,
    )
