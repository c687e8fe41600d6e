"""Which colour, marker and dashes each condition of a study has."""

import collections
import json
import re
from collections.abc import Sequence
from typing import Any

from physlm.experiments import condition
from physlm.experiments.condition import PARENT, TRAINED
from physlm.experiments.figures.style import COLOURS, DASHES, RAMP, ordered, style
from physlm.experiments.summary import Line

# Rates, or ranks, that are told apart better by colours in an order than by any.
_ORDERED = 3

_NUMBER = re.compile(r"\d+(\.\d+)?")


def are_probes(lines: Sequence[Line]) -> bool:
    """Whether it is probes that were asked, and not models that wrote."""
    return any(point.probe is not None for line in lines for point in line.points)


def looks(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """How each condition is drawn, in their order.

    Few that were trained in several ways have a colour each. Of many, colours tell the ways, those
    that differ in a number alone (ranks of LoRA) in their order, and dashes data. Otherwise, where
    rates of mistakes differ, colours tell these in their order, and dashes the rest.
    """
    ways = [line.condition.get(TRAINED, "") for line in lines]
    probes = are_probes(lines)
    if len(lines) <= len(COLOURS) and (probes or len(set(ways)) > 1):
        return [style(number) for number in range(len(lines))]
    if probes:
        return _by_probe(lines, ways)
    if len(set(ways)) > 1:
        return _by_way(lines, ways)
    rate = [float(line.condition.get(condition.RATE) or 0.0) for line in lines]
    rates = sorted({*rate} - {0.0})
    free = [condition.is_error_free(line.condition) for line in lines]
    data = [_said(line.condition, condition.RATE) for line in lines]
    rest = list(dict.fromkeys(one for one, no_rate in zip(data, free, strict=True) if not no_rate))
    few = sum(free) < 2 and len(rest) <= len(DASHES) and len(rates) <= len(RAMP)
    if len(rates) < _ORDERED or not few:
        return [style(number) for number in range(len(lines))]
    return [
        style(0) if no_rate else ordered(rates.index(own), len(rates), rest.index(one))
        for own, one, no_rate in zip(rate, data, free, strict=True)
    ]


def _by_way(lines: Sequence[Line], ways: Sequence[str]) -> list[dict[str, Any]]:
    """A colour for each way of training, and dashes for each kind of data, error-free ones last."""
    distinct = list(dict.fromkeys(ways))
    alike = collections.Counter(map(_without_number, distinct))
    series = [way for way in distinct if alike[_without_number(way)] >= _ORDERED]
    others = [way for way in distinct if way not in series]
    data = [_said(line.condition, TRAINED, PARENT) for line in lines]
    free = [condition.is_error_free(line.condition) for line in lines]
    last = [said for said, no_mistakes in zip(data, free, strict=True) if no_mistakes]
    dashes = [*dict.fromkeys(said for said in data if said not in last), *dict.fromkeys(last)]
    return [
        ordered(series.index(way), len(series), dashes.index(said))
        if way in series
        else style(others.index(way), dashes.index(said))
        for way, said in zip(ways, data, strict=True)
    ]


def _by_probe(lines: Sequence[Line], ways: Sequence[str]) -> list[dict[str, Any]]:
    """A colour for each kind of probe, and dashes for each model that was probed."""
    kinds = [
        (way, _said(line.condition, TRAINED, PARENT)) for way, line in zip(ways, lines, strict=True)
    ]
    models = [str(line.condition.get(PARENT, "")) for line in lines]
    colours = list(dict.fromkeys(kinds))
    # A model as it is drawn is told by the kind.
    dashes = list(dict.fromkeys(filter(None, models)))
    return [
        style(colours.index(kind), dashes.index(model) if model else 0)
        for kind, model in zip(kinds, models, strict=True)
    ]


def _without_number(way: str) -> str:
    return _NUMBER.sub("", way)


def _said(found: condition.Condition, *without: str) -> str:
    return json.dumps({name: found[name] for name in found if name not in without}, sort_keys=True)
