"""A setting, stated once: name, type, default, meaning and range, beside the code that reads it.

A dataclass declares its settings as fields made by the functions here and calls `check(self)` when
it is made. What is allowed, how a refusal reads, what decides a run's identity and what
`--settings` prints all come from the declaration.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_KEY = "setting"


class RefusedError(ValueError):
    """A setting has a value that is not allowed; the text is one sentence."""

    def __init__(self, name: str, value: Any, allowed: str) -> None:
        """Says that `name` is `value`, and that it must be what `allowed` says."""
        self.name, self.value, self.allowed = name, value, allowed
        super().__init__(f"{name} is {value!r}; it must be {allowed}.")

    def within(self, section: str) -> "RefusedError":
        """The same about a setting of a section."""
        return RefusedError(f"{section}.{self.name}", self.value, self.allowed)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its name, type and default.

    Attributes:
      meaning: what it is, in a sentence or two.
      allowed: which values it may have, in words that go on after "it must be".
      accepts: whether it may have a value.
      decides: it can change a run's weights, so that it belongs to the run's identity.
      of_member: runs that are trained as one program may differ in it.
    """

    meaning: str
    allowed: str
    accepts: Callable[[Any], bool]
    decides: bool = True
    of_member: bool = False


def whole(default: Any, meaning: str, low: int = 0, high: int | None = None, **kinds: bool) -> Any:
    """A whole number from `low` up to `high`."""

    def accepts(value: Any) -> bool:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and low <= value and (high is None or value <= high)

    if high is not None:
        allowed = f"a whole number in {low}..{high}"
    else:
        allowed = f"a whole number, at least {low}" if low else "a whole number, not negative"
    return _field(default, meaning, allowed, accepts, kinds)


def number(
    default: Any,
    meaning: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    **kinds: bool,
) -> Any:
    """A finite number within bounds, which belong to it (`at_…`) or do not."""

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (at_least is None or value >= at_least)
            and (above is None or value > above)
            and (at_most is None or value <= at_most)
            and (below is None or value < below)
        )

    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    words = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    allowed = " ".join(["a number", " and ".join(words)]).strip()
    return _field(default, meaning, allowed, accepts, kinds)


def choice(default: Any, meaning: str, options: Sequence[str], **kinds: bool) -> Any:
    """One of some words."""
    return _field(default, meaning, f"one of {', '.join(options)}", options.__contains__, kinds)


def flag(default: Any, meaning: str, **kinds: bool) -> Any:
    """True or false."""
    accepts = (True, False).__contains__
    return _field(
        default, meaning, "true or false", lambda v: isinstance(v, bool) and accepts(v), kinds
    )


def text(default: Any, meaning: str, **kinds: bool) -> Any:
    """Any text."""
    return _field(default, meaning, "a text", lambda value: isinstance(value, str), kinds)


def wholes(default: Any, meaning: str, low: int = 0, **kinds: bool) -> Any:
    """Whole numbers, each from `low` up."""

    def accepts(value: Any) -> bool:
        return isinstance(value, tuple) and all(
            isinstance(item, int) and not isinstance(item, bool) and item >= low for item in value
        )

    return _field(default, meaning, f"whole numbers, each at least {low}", accepts, kinds)


def _field(
    default: Any,
    meaning: str,
    allowed: str,
    accepts: Callable[[Any], bool],
    kinds: Mapping[str, bool],
) -> Any:
    found = Setting(meaning, allowed, accepts, **kinds)
    return dataclasses.field(default=default, metadata={_KEY: found})


def of(holder: Any) -> dict[str, Setting]:
    """The settings of a dataclass, or of one of its values, by name."""
    return {
        field.name: field.metadata[_KEY]
        for field in dataclasses.fields(holder)
        if _KEY in field.metadata
    }


def check(holder: Any) -> None:
    """Sees to it that every setting has a value that is allowed.

    Raises:
      RefusedError: one has not.
    """
    for name, setting in of(holder).items():
        if not setting.accepts(value := getattr(holder, name)):
            raise RefusedError(name, value, setting.allowed)
