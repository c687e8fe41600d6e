"""Selection of a study's runs: by seed, by filter, or as one of several shares."""

import dataclasses
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any

from physlm.experiments import config as config_lib
from physlm.experiments import run as run_lib
from physlm.experiments.execution import Task
from physlm.experiments.run import Run
from physlm.experiments.view import Entry

_SEED = "seed"

# Seeds that one command may name: planning takes a second for every few hundred runs.
_SEEDS = 1000


def parse_seeds(text: str) -> list[int]:
    """The seeds of a text like `0,1,2`, or `0:3`, which are the same.

    Raises:
        ValueError: it is not written so, has none, or more than 1,000.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?::(\d+))?", part.strip())
        if not found or (found[2] and int(found[2]) <= int(found[1])):
            raise ValueError(f"--seeds is {text!r}; it must be seeds as 0,1,2 or 0:3.")
        first = int(found[1])
        end = int(found[2]) if found[2] else first + 1
        if len(seeds) + end - first > _SEEDS:
            raise ValueError(f"--seeds is {text!r}; it must be at most {_SEEDS:,} seeds.")
        seeds += range(first, end)
    return list(dict.fromkeys(seeds))


@dataclasses.dataclass(frozen=True)
class Filter:
    """A filter on entries: they must have one of some values of a setting, or none of them.

    Attributes:
        name: a setting of the study's conditions, or any setting by its dotted key.
        values: as they are written, with commas between them; "" is of entries that have none.
        negated: entries with one of the values are left out.
    """

    name: str
    values: str
    negated: bool = False

    def fulfilled(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries that fulfil the filter.

        Raises:
            ValueError: no entry has one of the values, which might then be another that is meant.
        """
        known = [_named(entry).get(self.name) for entry in entries]
        told = list(dict.fromkeys(_written(one) for one in known if one is not None))
        values = _divided(self.values, lambda text: any(_same(one, text) for one in known))
        for value in values:
            if not any(_same(one, value) for one in known):
                there = f"{self.name} is {' or '.join(told)}"
                raise ValueError(
                    f"--filter has {self.name}{'!' * self.negated}={self.values}, and no run has "
                    f"{value!r}: {there}."
                    if value
                    else f"--filter has {self.name}{'!' * self.negated}= for runs that have none, "
                    f"and all have one: {there}."
                )
        return [
            entry
            for entry, one in zip(entries, known, strict=True)
            if any(_same(one, value) for value in values) != self.negated
        ]


def _divided(text: str, is_value: Callable[[str], bool]) -> list[str]:
    """The values of a text with commas between them, of which a value may have some itself.

    As `regret:probe,beams=4` and `evaluate.beyond=4,5`: from the left, the longest that is one.
    """
    parts, values = [part.strip() for part in text.split(",")], []
    while parts:
        ends = range(len(parts), 1, -1)
        end = next((end for end in ends if is_value(",".join(parts[:end]))), 1)
        values.append(",".join(parts[:end]))
        del parts[:end]
    return values


def parse_filter(text: str) -> Filter:
    """The filter of a text: `retry_rate=0.2,0.5`, `mask!=none`, or `probe=` of those without one.

    Raises:
        ValueError: it is not written so.
    """
    found = re.fullmatch(r"\s*([\w.]+)\s*(!?=)\s*(.*?)\s*", text)
    if not found:
        raise ValueError(f"--filter has {text!r}; it must be NAME=VALUE, NAME!=VALUE or several.")
    name, sign, values = found.groups()
    return Filter(name, values, sign == "!=")


def filtered(entries: Sequence[Entry], texts: Sequence[str]) -> list[Entry]:
    """The entries that fulfil all filters, in their order.

    Raises:
        ValueError: a filter cannot be read, names a setting or a value that no entry has, or none
            is left.
    """
    filters = [parse_filter(text) for text in texts]
    for one in filters:
        if not any(one.name in _named(entry) for entry in entries):
            if "." in one.name:
                # If there is no such setting, this raises an error that names the nearest one.
                config_lib.decides(one.name)
            raise ValueError(f"--filter has {one.name!r}, which no run has: {_all(entries)}")
    kept = [{id(entry) for entry in one.fulfilled(entries)} for one in filters]
    left = [entry for entry in entries if all(id(entry) in ids for ids in kept)]
    if not left:
        raise ValueError(f"--filter {' '.join(texts)} lets no run through: {_all(entries)}")
    return left


def _named(entry: Entry) -> dict[str, Any]:
    """The values of an entry that filters can name."""
    settings = config_lib.flatten(entry.run.config)
    settings |= config_lib.flatten({"evaluate": entry.evaluation.facts})
    return {**settings, **entry.condition}


def _same(value: Any, text: str) -> bool:
    """Whether a text stands for a value, an empty one for None."""
    if value is None:
        return not text
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == _written(value)


def _written(value: Any) -> str:
    """A value as filters name it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _all(entries: Sequence[Entry]) -> str:
    """The values that filters can choose from, in words."""
    values: dict[str, list[str]] = {}
    for entry in entries:
        for name, value in {**entry.condition, _SEED: entry.run.settings.seed}.items():
            written = _written(value)
            if written not in values.setdefault(name, []):
                values[name].append(written)
    said = "; ".join(f"{name} {', '.join(found)}" for name, found in values.items())
    return f"there are {said}; and settings, as model.layers."


@dataclasses.dataclass(frozen=True)
class Share:
    """One of several shares of the work.

    Attributes:
        number: which one, from 1.
        of: how many there are.
    """

    number: int
    of: int


def parse_share(text: str) -> Share:
    """The share of a text like `3/8`.

    Raises:
        ValueError: it is not written so, or is not among them.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--only is {text!r}; it must be 1/N to N/N, as 3/8, the third of eight.")
    return Share(int(found[1]), int(found[2]))


def deal(tasks: Sequence[Task], count: int) -> list[set[str]]:
    """Divides runs into shares; returns the names of each.

    Shares depend on the tasks alone, not on progress or devices, so that all who take one agree at
    any time. Runs are dealt by tokens, the largest first. What fits into a share stays together:
    parents, children and the probes that they ask; and runs of one shape, which can be trained as
    one program.
    """
    runs = {task.run.name: task.run for task in tasks}
    needed = {name: _needed(name, tasks) for name in runs}
    most = sum(run.tokens for run in runs.values()) / count

    def family(run: Run) -> Iterable[Hashable]:
        return (run.name, *needed[run.name])

    def program(run: Run) -> Iterable[Hashable]:
        return ((run.depth, run_lib.shape(run)),)

    # A part that is too large for a share is divided by the next of these.
    ways: list[Callable[[Run], Iterable[Hashable]]] = [
        lambda run: (*family(run), *program(run)),
        family,
        program,
        lambda run: (run.name,),
    ]
    units = [list(runs.values())]
    for way in ways:
        units = [
            part
            for unit in units
            for part in ([unit] if _tokens(unit) <= most else _together(unit, way))
        ]
    shares: list[list[Run]] = [[] for _ in range(count)]
    # Sorting is stable: parts of equal size keep their order.
    for unit in sorted(units, key=_tokens, reverse=True):
        min(shares, key=_tokens).extend(unit)
    return [{run.name for run in share} for share in shares]


def of_share(own: Collection[str], tasks: Sequence[Task]) -> list[Task]:
    """The tasks of a share, after training tasks for the runs of other shares that they need.

    Those runs are waited for, or trained here if nobody has begun them.

    Args:
        own: the names of the runs of the share.
        tasks: of all shares.
    """
    needed = {name for one in own for name in _needed(one, tasks)} - {*own}
    return [
        task if task.run.name in own else Task(task.run, ())
        for task in tasks
        if task.run.name in own or (task.run.name in needed and not task.needs)
    ]


def _needed(name: str, tasks: Sequence[Task]) -> set[str]:
    """The names of all runs that have to be trained before a run is trained and judged."""
    found: set[str] = set()
    todo = [task for task in tasks if task.run.name == name]
    waiting = [run for task in todo for run in (task.run.parent, *task.needs) if run]
    while waiting:
        run = waiting.pop()
        if run.name not in found:
            found.add(run.name)
            waiting += [run.parent] if run.parent else []
    return found


def _tokens(runs: Sequence[Run]) -> int:
    return sum(run.tokens for run in runs)


def _together(runs: Sequence[Run], way: Callable[[Run], Iterable[Hashable]]) -> list[list[Run]]:
    """Partitions runs so that those with equal marks are in one part, in their order."""
    parts: list[tuple[set[Hashable], list[Run]]] = []
    for run in runs:
        marks, members = set(way(run)), [run]
        joined = [part for part in parts if part[0] & marks]
        parts = [part for part in parts if not part[0] & marks]
        for before in joined:
            marks |= before[0]
            members = [*before[1], *members]
        parts.append((marks, members))
    return [members for _, members in parts]
