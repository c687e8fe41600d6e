"""A setting, stated once: name, type, default, meaning and range, beside the code that reads it.

A dataclass declares its settings as fields made by the functions here and calls `check(self)` when
it is made. What is allowed, how a refusal reads, how a value is written in `--set`, what decides a
run's identity and what `--settings` prints all come from the declaration.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

_KEY = "setting"

# Whole numbers, of which all can be counted in 32 bits with a sign, as JAX does.
LIMIT = 2**31 - 1


class RefusedError(ValueError):
    """A setting has a value that is not allowed; the text is one sentence."""

    def __init__(
        self, name: str, value: Any, allowed: str, others: Sequence[str] = (), part: str = ""
    ) -> None:
        """Says that `name` is `value`, and that it must be what `allowed` says.

        Args:
          name: of the setting.
          value: that it has.
          allowed: what it must be; other settings that make it so are called by their names.
          others: which of the words there are such names.
          part: of the value, in words, where that alone must be so.
        """
        self.name, self.value, self.allowed, self.others = name, value, allowed, tuple(others)
        self.part = part
        wrong = f", in which {part}" if part and part != repr(value) else "; it"
        super().__init__(f"{name} is {value!r}{wrong} must be {allowed}.")

    def within(self, section: str) -> "RefusedError":
        """The same about a setting of a section, and others of it."""
        allowed = self.allowed
        if self.others:
            names = "|".join(map(re.escape, self.others))
            allowed = re.sub(rf"(?<![\w.])({names})\b", rf"{section}.\1", allowed)
        others = [f"{section}.{name}" for name in self.others]
        return RefusedError(f"{section}.{self.name}", self.value, allowed, others, self.part)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its name.

    Attributes:
      default: its value where nothing else is said.
      meaning: what it is, in a sentence or two.
      type: of its values: int, float, bool, str, or tuple (of whole numbers).
      allowed: which values it may have, in words that go on after "it must be".
      accepts: whether it may have a value.
      options: the words that it may be, in the order in which they are shown; empty for what is no
        choice between words.
      decides: it can change what comes out, so that it belongs to an identity: a run's, whose
        weights it changes, or an evaluation's, whose numbers.
      of_member: runs that are trained as one program may differ in it.
      added: there were runs, or evaluations, before it. One that does not name it has its default,
        which is no part of an identity, so that theirs stays.
    """

    default: Any
    meaning: str
    type: type
    allowed: str
    accepts: Callable[[Any], bool]
    options: tuple[str, ...] = ()
    decides: bool = True
    of_member: bool = False
    added: bool = False

    def goes_without_saying(self, value: Any) -> bool:
        """Whether a run or an evaluation that does not name the setting has this value for it."""
        return self.added and value == self.default

    def check(self, name: str, value: Any) -> None:
        """Sees to it that a value is allowed.

        Raises:
          RefusedError: it is not; the setting is called `name`.
        """
        if not self.accepts(value):
            counts = value if isinstance(value, tuple) else (value,)
            too_large = any(_is_whole(count) and count > LIMIT for count in counts)
            # A range says its own end.
            more = f", and at most {LIMIT}" if too_large and ".." not in self.allowed else ""
            raise RefusedError(name, value, f"{self.allowed}{more}")

    def parse(self, name: str, text: str) -> Any:
        """The value that is written as `text`, as `written` writes it.

        Raises:
          RefusedError: the text is no such value, or the value is not allowed.
        """
        if text == "none" and self.accepts(None):
            return None
        try:
            value = _READERS[self.type](text)
        except ValueError:
            raise RefusedError(name, text, self.allowed) from None
        self.check(name, value)
        return value


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _list(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


_READERS: Mapping[type, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: _truth,
    str: str,
    tuple: _list,
}


def written(value: Any) -> str:
    """A value as `--set` takes it: true and false, none, whole numbers with commas between."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def whole(
    default: Any,
    meaning: str,
    low: int = 0,
    high: int | None = None,
    besides: Sequence[int | None] = (),
    **kinds: bool,
) -> Any:
    """A whole number from `low` up to `high` (or `LIMIT`), or one of the values `besides` these."""

    def accepts(value: Any) -> bool:
        if value is None:
            return None in besides
        return _is_whole(value) and (value in besides or _lies_in(value, low, high))

    others = "".join(f", or {written(value)}" for value in besides)
    return declared(default, meaning, int, _range(low, high) + others, accepts, **kinds)


def check_whole(name: str, value: Any, low: int = 0, high: int | None = None) -> None:
    """Sees to it that what is no setting, but given like one, is a whole number in a range.

    Raises:
      RefusedError: it is not.
    """
    if not (_is_whole(value) and _lies_in(value, low, high)):
        above = high is None and _is_whole(value) and value > LIMIT
        raise RefusedError(name, value, _range(low, LIMIT if above else high))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _lies_in(value: int, low: int, high: int | None) -> bool:
    return low <= value <= (LIMIT if high is None else high)


def _range(low: int, high: int | None) -> str:
    if high is not None:
        return f"a whole number in {low}..{high}"
    return f"a whole number, at least {low}" if low else "a whole number, not negative"


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
    return declared(default, meaning, float, allowed, accepts, **kinds)


def choice(default: Any, meaning: str, options: Collection[str], **kinds: bool) -> Any:
    """One of some words."""

    def accepts(value: Any) -> bool:
        return isinstance(value, str) and value in options

    allowed = f"one of {', '.join(options)}"
    return declared(default, meaning, str, allowed, accepts, tuple(options), **kinds)


def flag(default: Any, meaning: str, **kinds: bool) -> Any:
    """True or false."""
    return declared(
        default, meaning, bool, "true or false", lambda value: isinstance(value, bool), **kinds
    )


def text(default: Any, meaning: str, allowed: str = "a text", **kinds: bool) -> Any:
    """Any text; `allowed` says what it stands for."""
    return declared(default, meaning, str, allowed, lambda value: isinstance(value, str), **kinds)


def wholes(default: Any, meaning: str, low: int = 0, **kinds: bool) -> Any:
    """Whole numbers, each from `low` up."""

    def accepts(value: Any) -> bool:
        return isinstance(value, tuple) and all(
            _is_whole(item) and _lies_in(item, low, None) for item in value
        )

    allowed = f"whole numbers with commas between them, each at least {low}"
    return declared(default, meaning, tuple, allowed, accepts, **kinds)


def declared(
    default: Any,
    meaning: str,
    type: type,
    allowed: str,
    accepts: Callable[[Any], bool],
    options: tuple[str, ...] = (),
    /,
    **kinds: bool,
) -> Any:
    """A field of a dataclass that is a setting; arguments as the attributes of `Setting`."""
    found = Setting(default, meaning, type, allowed, accepts, options, **kinds)
    return dataclasses.field(default=default, metadata={_KEY: found})


def of(holder: Any) -> dict[str, Setting]:
    """The settings of a dataclass, or of one of its values, by name, in their order."""
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
        setting.check(name, getattr(holder, name))


def assignment(text: str) -> tuple[str, str]:
    """The name and the value, as text, of what follows `--set`.

    Raises:
      ValueError: there is no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text!r} is not of the form KEY=VALUE.")
    return name, value


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """The values, as texts, of all that follows `--set`, by name.

    Raises:
      ValueError: one has no `=`, or a name is there twice.
    """
    found: dict[str, str] = {}
    for name, value in map(assignment, texts):
        if name in found:
            raise twice(name, [f"{name}={found[name]}", f"{name}={value}"])
        found[name] = value
    return found


def twice(name: str, ways: Sequence[str]) -> ValueError:
    """What to say where a setting is given in several ways."""
    return ValueError(f"{name} is given more than once, by {' and '.join(ways)}; give one of them.")


def unknown(name: str, known: Collection[str]) -> ValueError:
    """What to say of a name that no setting has: the nearest one, and those of its section."""
    same = [other for other in known if other.endswith(f".{name}")]
    close = same or difflib.get_close_matches(name, known, n=1)
    hint = f" (nearest: {', '.join(close)})" if close else ""
    section, dot, _ = name.partition(".")
    inside = sorted(other for other in known if dot and other.startswith(f"{section}."))
    sections = {f"{other.partition('.')[0]}.*" for other in known if "." in other}
    top = [other for other in known if "." not in other] + sorted(sections)
    return ValueError(f"unknown setting {name!r}{hint}: there are {', '.join(inside or top)}.")
