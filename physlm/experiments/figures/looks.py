"""Which colour, marker and dashes each condition of a study has."""

import json
from collections.abc import Sequence
from typing import Any

from physlm.experiments import condition
from physlm.experiments.condition import PARENT, TRAINED
from physlm.experiments.figures.style import COLOURS, DASHES, RAMP, ordered, style
from physlm.experiments.summary import Line

# Rates that are told apart better by colours in an order than by any.
_ORDERED = 3


def are_probes(lines: Sequence[Line]) -> bool:
    """Whether it is probes that were asked, and not models that wrote."""
    return any(point.probe is not None for line in lines for point in line.points)


def looks(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """How each condition is drawn, in their order.

    Colours tell ways of training apart where these differ, and dashes data; otherwise, where rates
    of mistakes differ, colours tell these in their order, and dashes the rest.
    """
    ways = [line.condition.get(TRAINED, "") for line in lines]
    probes = are_probes(lines)
    # Probes of several models differ in their parents.
    if len(set(ways)) > 1 and not (probes and len(lines) <= len(COLOURS)):
        data = [_said(line.condition, TRAINED, PARENT) for line in lines]
        colours, dashes = list(dict.fromkeys(ways)), list(dict.fromkeys(data))
        return [
            style(colours.index(way), dashes.index(one))
            for way, one in zip(ways, data, strict=True)
        ]
    rate = [float(line.condition.get(condition.RATE) or 0.0) for line in lines]
    rates = sorted({*rate} - {0.0})
    free = [condition.is_error_free(line.condition) for line in lines]
    data = [_said(line.condition, condition.RATE) for line in lines]
    rest = list(dict.fromkeys(one for one, no_rate in zip(data, free, strict=True) if not no_rate))
    few = sum(free) < 2 and len(rest) <= len(DASHES) and len(rates) <= len(RAMP)
    if probes or len(rates) < _ORDERED or not few:
        return [style(number) for number in range(len(lines))]
    return [
        style(0) if no_rate else ordered(rates.index(own), len(rates), rest.index(one))
        for own, one, no_rate in zip(rate, data, free, strict=True)
    ]


def _said(found: condition.Condition, *without: str) -> str:
    return json.dumps({name: found[name] for name in found if name not in without}, sort_keys=True)
