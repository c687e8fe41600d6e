"""Strategies as texts, as command lines and studies give them: `NAME[:VALUE][,SETTING=VALUE…]`.

`greedy`, `sample:temperature=0.8,n=16`, `beam:4`, `regret:perfect,tries=50`. A strategy of one's
own is a dataclass in a file of one's own, with settings as its fields, and is called by its whole
name: `mypackage.mymodule.MyStrategy:setting=1`. Its class may name two of its settings: `FIRST`,
the one whose value can be given alone, and `BUDGET`, the one that says how much it may spend:
figures join what differs in this alone.
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
    kind = STRATEGIES.get(name) or _own(name)
    known, first = settings.of(kind), getattr(kind, "FIRST", None)
    values = {}
    for number, part in enumerate(rest.split(",") if colon else ()):
        key, equals, value = part.partition("=")
        if not equals and not number and first:
            key, value = first, part
        elif not equals or key not in known:
            there = f"SETTING=VALUE with one of {', '.join(known)}" if known else "nothing"
            raise RefusedError(f"{part!r} of decode", text, f"{there} after {name!r}")
        if key in values:
            raise RefusedError(f"{part!r} of decode", text, f"the only value of {key}")
        try:
            values[key] = known[key].parse(key, value)
        except RefusedError as error:
            raise RefusedError(f"{part!r} of decode", text, error.allowed) from None
    try:
        return kind(**values)
    except RefusedError as error:
        raise RefusedError(f"{error.name} of decode", text, error.allowed) from None
    except TypeError as error:
        allowed = f"of a class whose fields all have a value; {error}"
        raise RefusedError(f"{name!r} of decode", text, allowed) from None


def _own(name: str) -> type:
    allowed = f"one of {', '.join(STRATEGIES)}, or package.module.Class"
    module, dot, last = name.rpartition(".")
    # A dot at its beginning would be one that Python takes for a package of ours.
    if not dot or not all(part.isidentifier() for part in name.split(".")):
        raise RefusedError(f"{name!r} of decode", name, allowed)
    try:
        found = getattr(importlib.import_module(module), last)
    except (ModuleNotFoundError, AttributeError) as error:
        # What the module itself lacks is told below.
        if getattr(error, "name", None) in (last, *_parents(module)):
            raise RefusedError(f"{name!r} of decode", name, allowed) from None
        raise RefusedError(f"{name!r} of decode", name, _importable(module, error)) from error
    # Whatever a module of somebody's own raises.
    except Exception as error:
        raise RefusedError(f"{name!r} of decode", name, _importable(module, error)) from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise RefusedError(f"{name!r} of decode", name, f"{allowed}, a dataclass")
    if lacking := [member for member in _MEMBERS if not hasattr(found, member)]:
        members = ", ".join(f"`{member}`" for member in lacking)
        raise RefusedError(f"{name!r} of decode", name, f"{allowed}, one that has {members}")
    return found


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: number + 1]) for number in range(len(parts))]


def _importable(module: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"of a module that can be imported; {module} ends in {type(error).__name__}: {reason}"


def canonical(text: str) -> str:
    """The canonical text of a strategy: settings in order, without defaults."""
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
    """A hash of the file that a strategy of one's own is defined in; None of those here.

    What that file imports in turn does not count.

    Raises:
      RefusedError: as `parse`.
    """
    kind = type(parse(text))
    if kind in STRATEGIES.values():
        return None
    file = inspect.getsourcefile(kind)
    return hashlib.sha256(pathlib.Path(file or "").read_bytes()).hexdigest()[:8]


def manual() -> str:
    """All strategies with their settings, in a line."""
    found = []
    for name, kind in STRATEGIES.items():
        settings_of = ", ".join(
            f"{key}={settings.written(known.default)}" for key, known in settings.of(kind).items()
        )
        found.append(f"{name} ({settings_of})" if settings_of else name)
    return "; ".join(found)
