"""Conditions: the settings, except seeds, in which a study's entries differ; and their labels."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.settings import Setting
from data_gen.solutions.mistakes import Mistakes
from physlm.experiments import config as config_lib
from physlm.practice import PARENT as OWN

Condition = Mapping[str, Any]

RATE = "retry_rate"
DECODE = "decode"
# How a model is trained, what it was pretrained on, and the probe that decoding asks.
TRAINED, PARENT, PROBE = "trained", "parent", "probe"
# Added by a report where runs of one condition have different configurations.
VERSION = "configuration"
_MASK = "mask"
_KIND = "kind"
# What is trained on beside fresh problems, and how much of it.
RECORDS, _SHARE = "records", "records_share"

# The kind of mistakes of the paper, by the name that conditions have.
_USUAL_KIND = Mistakes().kind_by_name

_SHORT_NAMES = {
    "mistakes.rate": "retry_rate",
    "mistakes.kind": "kind",
    "mistakes.mask": "mask",
}


def short_name(key: str, flat: Mapping[str, Any]) -> str:
    """The short name of the setting `key`: its last part, unless another section has the same."""
    if key in _SHORT_NAMES:
        return _SHORT_NAMES[key]
    last = key.rpartition(".")[2]
    taken = [*_SHORT_NAMES.values(), *(other.rpartition(".")[2] for other in flat if other != key)]
    return key.replace(".", "_") if last in taken else last


@functools.cache
def _of_mistakes() -> frozenset[str]:
    """Names of settings that an error-free run does not read (`physlm.experiments.identity`)."""
    keys = config_lib.declared()
    unread = [key for key in keys if key.startswith(("mistakes.", "train.records"))]
    unread.append("train.budget")
    return frozenset(short_name(key, keys) for key in unread)


@functools.cache
def _of_size() -> frozenset[str]:
    keys = config_lib.declared()
    return frozenset(short_name(key, keys) for key in keys if key.startswith("model."))


@functools.cache
def _of_length() -> frozenset[str]:
    keys = config_lib.declared()
    return frozenset(short_name(f"train.{name}", keys) for name in ("steps", "batch", "window"))


def size_of(condition: Condition) -> dict[str, Any]:
    """The part of a condition that concerns the model alone."""
    return {name: value for name, value in condition.items() if name in _of_size()}


def beside_scale(condition: Condition) -> dict[str, Any]:
    """The part of a condition that concerns neither the model nor the length of training."""
    scale = _of_size() | _of_length()
    return {name: value for name, value in meant(condition).items() if name not in scale}


def is_error_free(condition: Condition) -> bool:
    """Whether the runs of a condition see no mistakes."""
    return condition.get(RATE) == 0 and not condition.get(RECORDS)


def is_masked(condition: Condition, otherwise: str = "none") -> bool:
    """Whether tokens of its mistakes are excluded from the loss.

    Args:
        condition: of a study.
        otherwise: the mask that holds where the condition names none, as all of them share it.
    """
    return not is_error_free(condition) and condition.get(_MASK, otherwise) != "none"


def is_of_the_paper(condition: Condition) -> bool:
    """Whether nothing but rate and mask sets it apart, as in the paper's Figure 4(b)."""
    return set(meant(condition)) <= {RATE, _MASK}


def meant(condition: Condition) -> dict[str, Any]:
    """The condition without settings that its runs do not read."""
    if not is_error_free(condition):
        return dict(condition)
    return {RATE: condition[RATE], **_beside_mistakes(condition)}


def baseline(condition: Condition, conditions: Sequence[Condition]) -> int | None:
    """The index of the condition that is error-free and otherwise equal; None without one.

    For a model trained in two steps where there is no such condition, that is the error-free one
    trained in one step.
    """
    once = {name: value for name, value in condition.items() if name not in (TRAINED, PARENT)}
    for wanted in (condition, once):
        for number, other in enumerate(conditions):
            same = _beside_mistakes(other) == _beside_mistakes(wanted)
            if same and is_error_free(other):
                return number
    return None


def baselines(conditions: Sequence[Condition]) -> dict[int, int | None]:
    """The `baseline` of each condition with mistakes, by the indices of both."""
    return {
        number: baseline(one, conditions)
        for number, one in enumerate(conditions)
        if RATE in one and not is_error_free(one)
    }


def order(condition: Condition) -> tuple[Any, ...]:
    """The sort key of conditions: error-free ones first, then by rate.

    Within a rate, what is trained once comes before what is trained on. Then conditions go by their
    values: numbers by size; choices in the order of their declaration, such as no mask first; texts
    with the default first, and by the numbers in them, so that rank 8 comes before rank 16.
    """
    said = meant(condition)
    apart = [name for name in sorted(said) if name not in (RATE, TRAINED)]
    values = tuple((name, *_rank(name, said[name])) for name in apart)
    return float(said.get(RATE, 0.0)), _natural(str(said.get(TRAINED, ""))), values


def _rank(name: str, value: Any) -> tuple[int, float, tuple[Any, ...]]:
    """The sort key of a value, among those of its setting, which may be of mixed types."""
    if isinstance(value, int | float):
        return 0, float(value), ()
    known = _by_short_name().get(name)
    options = list(known.options) if known else []
    if value in options:
        return 1, float(options.index(value)), ()
    is_default = known is not None and value in (known.default, _USUAL_KIND)
    return 2, float(not is_default), _natural(str(value))


def _natural(text: str) -> tuple[Any, ...]:
    """The sort key of a text with numbers in it."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text.lower())
    return tuple(float(part) if at % 2 else part for at, part in enumerate(parts))


@functools.cache
def _by_short_name() -> dict[str, Setting]:
    keys = config_lib.declared()
    return {short_name(key, keys): known for key, known in keys.items()}


def in_common(conditions: Sequence[Condition]) -> str:
    """What all conditions with mistakes share, in words; their labels leave it out."""
    for said in conditions:
        if shared := _shared(said, conditions):
            told = {name: value for name, value in said.items() if name in shared}
            rate = f"mistakes at rate {_written(told.pop(RATE))}"
            return ", ".join([rate, *(setting(name, value) for name, value in told.items())])
    return ""


def label(condition: Condition, conditions: Sequence[Condition]) -> str:
    """The label of a condition, without what all conditions share.

    Nor does it name what all conditions with mistakes share, where these differ in another setting
    of mistakes.
    """
    # What is trained on beside records is named only if other conditions have no records.
    always = {RATE} if len({other.get(RECORDS) for other in conditions}) > 1 else set()
    shared = _shared(condition, conditions)
    told = {
        name: value
        for name, value in meant(condition).items()
        if len(conditions) == 1
        or name in always
        or (name not in shared and any(other.get(name) != value for other in conditions))
    }
    parts = [str(told[TRAINED])] if TRAINED in told else []
    if RATE in shared and _KIND not in told:
        parts.append("mistakes")
    if len({other[PARENT] for other in conditions if PARENT in other}) > 1 and PARENT in told:
        parts.append(f"of a model of {told[PARENT]} data")
    if RATE in told:
        if is_error_free(condition) or (condition.get(RECORDS) and not condition[RATE]):
            parts.append("error-free solutions")
        else:
            parts += [] if TRAINED in told else ["with mistakes and corrections"]
            parts.append(f"rate {_written(told[RATE])}")
    for name, value in told.items():
        if name == _MASK and (words := _mask(value, conditions, RATE in told)) is not None:
            parts += words
        elif name == RECORDS:
            whose = "own mistakes, mended" if value == OWN else f"records {value}"
            parts.append(f"with {whose}")
        elif name == _SHARE:
            parts.append(f"in {_written(value)} of the documents")
        elif name not in (RATE, TRAINED, PARENT, DECODE, PROBE):
            of_mistakes = "mistakes " if name == _KIND and RATE not in told else ""
            parts.append(of_mistakes + setting(name, value))
    # How it is decoded, and who is asked, comes after what was trained.
    parts += [str(told[name]) for name in (DECODE, PROBE) if name in told]
    return ", ".join(parts) or "all"


def setting(name: str, value: Any) -> str:
    """One setting of a condition in words."""
    if name == _MASK and value == "none":
        return "not masked"
    if name == _KIND:
        return f"of the kind {value}"
    return f"{name.replace('_', ' ')} {_written(value)}"


def _mask(value: Any, conditions: Sequence[Condition], beside_rate: bool) -> list[str] | None:
    """The mask in words; None where it has to be named, since there are several.

    Beside a rate, no mask needs no words.
    """
    if value == "none":
        return [] if beside_rate else ["not masked"]
    masks = {other[_MASK] for other in conditions if other.get(_MASK, "none") != "none"}
    return ["masked"] if len(masks) == 1 else None


def _shared(condition: Condition, conditions: Sequence[Condition]) -> set[str]:
    """Settings of mistakes, the rate included, that are equal in all conditions with mistakes.

    None for an error-free condition, and where no other setting of mistakes tells the condition
    from an error-free one.
    """
    if is_error_free(condition) or any(TRAINED in other for other in conditions):
        return set()
    mistaken = [meant(other) for other in conditions if not is_error_free(other)]
    names = {name for other in mistaken for name in other if name in _of_mistakes()}
    shared = {name for name in names if len({str(one.get(name)) for one in mistaken}) == 1}
    differs = any(name in condition for name in names - shared)
    return shared if RATE in shared and differs and len(mistaken) < len(conditions) else set()


def _beside_mistakes(condition: Condition) -> dict[str, Any]:
    return {name: value for name, value in condition.items() if name not in _of_mistakes()}


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
