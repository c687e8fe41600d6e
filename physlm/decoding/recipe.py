"""Strategies as texts, as command lines and studies give them: `NAME[:VALUE][,SETTING=VALUE…]`.

`greedy`, `sample:temperature=0.8,n=16`, `beam:4`, `regret:perfect,tries=50`.

A strategy of your own is a frozen dataclass in a module of your own, with its settings as fields
(`data_gen.settings`), and is called by its full name, `mypackage.mymodule.MyStrategy:setting=1`.
What it has to do says `physlm.decoding.strategy`. Its class may name two of its settings: `FIRST`,
whose value can be given alone after the colon, and `BUDGET`, which says how much the strategy may
spend; figures join strategies that differ in the budget alone.
"""

import dataclasses
import hashlib
import importlib
import inspect
import pathlib
from collections.abc import Mapping
from typing import Any

from data_gen import settings
from data_gen.settings import RefusedError
from physlm.decoding.beam import Beam
from physlm.decoding.regret import Regret
from physlm.decoding.sampling import Greedy, Sample
from physlm.decoding.strategy import Recipe

STRATEGIES: Mapping[str, type] = {
    "greedy": Greedy,
    "sample": Sample,
    "beam": Beam,
    "regret": Regret,
}


# What a `Recipe` has.
_MEMBERS = ("asks", "bound", "select")


def parse(text: str) -> Recipe:
    """The strategy that a text describes, not yet `bound` to a model.

    Raises:
      RefusedError: there is no such strategy, or it has no such setting, or not with this value;
        names the part of the text that is wrong.
    """
    name, colon, rest = text.partition(":")
    kind = STRATEGIES.get(name) or _own(name, text)
    known, first = settings.of(kind), getattr(kind, "FIRST", None)
    values = {}
    for number, part in enumerate(rest.split(",") if colon else ()):
        key, equals, value = part.partition("=")
        if not equals and not number and first:
            key, value = first, part
        elif not equals or key not in known:
            allowed = f"left out, as {name!r} has no settings"
            if known:
                allowed = f"SETTING=VALUE, where {name!r} has the settings {', '.join(known)}"
            raise RefusedError("decode", text, allowed, part=repr(part))
        if key in values:
            raise RefusedError("decode", text, f"the only value of {key}", part=repr(part))
        try:
            values[key] = known[key].parse(key, value)
        except RefusedError as error:
            raise RefusedError("decode", text, error.allowed, part=repr(part)) from None
    try:
        return kind(**values)
    except RefusedError as error:
        raise RefusedError("decode", text, error.allowed, part=error.name) from None
    except TypeError as error:
        allowed = f"of a class whose fields all have a value; {error}"
        raise RefusedError("decode", text, allowed, part=repr(name)) from None


def _own(name: str, text: str) -> type:
    allowed = f"one of {', '.join(STRATEGIES)}, or package.module.Class"
    module, dot, last = name.rpartition(".")

    def refused(allowed: str) -> RefusedError:
        return RefusedError("decode", text, allowed, part=repr(name))

    # A leading dot would have Python look in a package of ours.
    if not dot or not all(part.isidentifier() for part in name.split(".")):
        raise refused(allowed)
    try:
        found = getattr(importlib.import_module(module), last)
    except (ModuleNotFoundError, AttributeError) as error:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and missing in _parents(module):
            why = f"and Python finds no module {module} in this directory or on PYTHONPATH"
            raise refused(f"{allowed}, {why}") from None
        if missing == last:
            raise refused(f"{allowed}, and {module} has no {last}") from None
        # Something that the module itself imports or reads is missing.
        raise refused(_importable(module, error)) from error
    # The user's own module may raise anything.
    except Exception as error:
        raise refused(_importable(module, error)) from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise refused(f"{allowed}, a dataclass")
    if lacking := [member for member in _MEMBERS if not hasattr(found, member)]:
        members = ", ".join(f"`{member}`" for member in lacking)
        raise refused(f"{allowed}, one that has {members}")
    return found


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: number + 1]) for number in range(len(parts))]


def _importable(module: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"of a module that can be imported; {module} ends in {type(error).__name__}: {reason}"


def canonical(text: str) -> str:
    """The canonical text of a strategy: settings in their order, defaults left out."""
    strategy: Any = parse(text)
    name = text.partition(":")[0]
    first = getattr(strategy, "FIRST", None)
    said = [settings.written(getattr(strategy, first))] if first else []
    said += [
        f"{key}={settings.written(getattr(strategy, key))}"
        for key, known in settings.of(strategy).items()
        if key != first and getattr(strategy, key) != known.default
    ]
    return f"{name}:{','.join(said)}" if said else name


def code_of(text: str) -> str | None:
    """A hash of the file that defines a strategy of the user's own; None for those of this package.

    Changes in modules that the file imports are not noticed.

    Raises:
      RefusedError: as `parse`.
    """
    kind = type(parse(text))
    if kind in STRATEGIES.values():
        return None
    file = inspect.getsourcefile(kind)
    return hashlib.sha256(pathlib.Path(file or "").read_bytes()).hexdigest()[:8]


def manual() -> str:
    """All strategies with their settings and defaults, in one line."""
    found = []
    for name, kind in STRATEGIES.items():
        settings_of = ", ".join(
            f"{key}={settings.written(known.default)}" for key, known in settings.of(kind).items()
        )
        found.append(f"{name} ({settings_of})" if settings_of else name)
    return "; ".join(found)
