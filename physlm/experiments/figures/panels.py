"""Conditions that are too many for one panel, divided into several that are alike."""

import dataclasses
import itertools
import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from physlm.experiments import condition
from physlm.experiments.condition import TRAINED, Condition
from physlm.experiments.summary import Line

# More lines than these can't be told apart in one panel, and more panels can't be taken in.
LINES, PANELS = 6, 9


@dataclasses.dataclass(frozen=True)
class Panel:
    """Some conditions of a study.

    Attributes:
        heading: what they have in common; "" where that is nothing.
        lines: labels and conditions without it, so that they mean the same in all panels.
    """

    heading: str
    lines: Sequence[Line]


def divided(lines: Sequence[Line]) -> list[Panel]:
    """The conditions by one or two of their settings, in the fewest panels that can be read.

    An error-free condition stands in every panel that nothing but mistakes sets it apart from, to
    compare with, unless the panel has its own. Where no setting divides conditions well, such as
    one that has a value of its own in each of them, they are dealt out in their order. What is too
    much for that, too, is one panel.

    Args:
        lines: of a study; at most `LINES` are one panel.
    """
    if len(lines) <= LINES:
        return [Panel("", list(lines))]
    meant = [condition.meant(line.condition) for line in lines]
    names = [name for name in dict.fromkeys(itertools.chain(*meant)) if _differs(name, meant)]
    # A panel for nearly each condition would compare nothing.
    most = min(PANELS, len(lines) - 2)
    choices = [
        found
        for count in (1, 2)
        for chosen in itertools.combinations(names, count)
        if 1 < len(found := _by(chosen, lines)) <= most
    ]
    small = [found for found in choices if _largest(found) <= LINES]
    if small:
        return min(small, key=len)
    if choices:
        return min(choices, key=_largest)
    dealt = _dealt(lines)
    return dealt if len(dealt) <= PANELS else [Panel("", list(lines))]


def _differs(name: str, meant: Sequence[Condition]) -> bool:
    return len({str(said[name]) for said in meant if name in said}) > 1


def _largest(panels: Sequence[Panel]) -> int:
    return max(len(panel.lines) for panel in panels)


def _by(names: Collection[str], lines: Sequence[Line]) -> list[Panel]:
    parts = [_part(line.condition, names) for line in lines]
    free = [condition.is_error_free(line.condition) for line in lines]
    groups: dict[str, Condition] = {}
    for of_free in (False, True):
        for part, is_free in zip(parts, free, strict=True):
            known = is_free and any(part.items() <= other.items() for other in groups.values())
            if is_free == of_free and not known:
                groups.setdefault(json.dumps(part, sort_keys=True), part)
    apart = [_apart(line.condition, names) for line in lines]
    panels = []
    for group in groups.values():
        named = [
            (part == group, replace(line, label=_label(said, apart), condition=said))
            for line, said, part, is_free in zip(lines, apart, parts, free, strict=True)
            if part == group or (is_free and part.items() <= group.items())
        ]
        own = {line.label for is_own, line in named if is_own}
        shown = [line for is_own, line in named if is_own or line.label not in own]
        panels.append(Panel(_heading(group, list(groups.values())), shown))
    return panels


def _part(said: Condition, names: Collection[str]) -> Condition:
    """Its settings of these names; what is error-free is so in panels of every rate."""
    free = condition.is_error_free(said)
    meant = condition.meant(said)
    return {n: meant[n] for n in meant if n in names and not (free and n == condition.RATE)}


def _apart(said: Condition, names: Collection[str]) -> Condition:
    part = _part(said, names)
    return {name: value for name, value in condition.meant(said).items() if name not in part}


def _dealt(lines: Sequence[Line]) -> list[Panel]:
    free = [line for line in lines if condition.is_error_free(line.condition)]
    free = free if len(free) == 1 else []
    rest = [line for line in lines if line not in free]
    count = -(-len(rest) // (LINES - len(free)))
    size = -(-len(rest) // count)
    return [Panel("", [*free, *rest[at : at + size]]) for at in range(0, len(rest), size)]


def _heading(part: Condition, parts: Sequence[Condition]) -> str:
    said = _label(part, parts).removeprefix("with mistakes and corrections, ")
    return said[0].upper() + said[1:]


def _label(said: Condition, every: Sequence[Condition]) -> str:
    if said:
        return condition.label(said, every)
    return "trained once" if any(TRAINED in other for other in every) else "others"
