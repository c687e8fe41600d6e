"""The studies there are: modules with a configuration and runs, found by their names."""

import dataclasses
import importlib
import inspect
import pkgutil
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from physlm.experiments import config as config_lib
from physlm.experiments.conditions import Planned

if TYPE_CHECKING:
    from physlm.experiments.figures import Figure
    from physlm.experiments.published import Beside

Overrides = Mapping[str, Any] | Planned

# Where a name without a dot is looked for.
PACKAGE = "experiments"


@dataclasses.dataclass(frozen=True)
class Study:
    """A study's module: its question, its configuration, its runs, and its figures.

    Attributes:
        name: that of the module, with its package unless that is `experiments`.
        doc: the module's docstring: question, command, expected result, cost.
        get_config: scale -> the configuration that all its runs share.
        sweep: -> one set of dotted overrides, or one of `physlm.experiments.conditions`, a run. It
            is given the configuration at a scale where it takes an argument.
        figures: what is drawn (`FIGURES`); empty for what is usual (`figures.USUAL`).
        beside: which conditions are rows of which table of the paper (`BESIDE`).
        versus: with which value of a setting the others are compared (`VERSUS`).
    """

    name: str
    doc: str
    get_config: Callable[[str], ConfigDict]
    sweep: Callable[..., Iterator[Overrides]]
    figures: "tuple[Figure, ...]" = ()
    beside: "tuple[Beside, ...]" = ()
    versus: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def runs(self, config: ConfigDict) -> Iterator[Overrides]:
        """What `sweep` yields, given the configuration that all runs share."""
        return self.sweep(config) if inspect.signature(self.sweep).parameters else self.sweep()

    @property
    def question(self) -> str:
        """The first sentence of the docstring."""
        return self.doc.split("\n\n")[0].replace("\n", " ")


def names(package: str = PACKAGE) -> list[str]:
    """The names of all studies of a package, sorted.

    Raises:
        ValueError: there is no such package.
    """
    found = _imported(package)
    return sorted(
        module.name
        for module in pkgutil.iter_modules(getattr(found, "__path__", ()))
        if not module.name.startswith("_")
    )


def load(name: str) -> Study:
    """The study called `name`: a module of `experiments`, or of any package, as `mine.masking`.

    Raises:
        ValueError: there is none, or it cannot be imported; or it lacks a docstring, `get_config`
            or `sweep`.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(
            f"the study is {name!r}; it must be one of {', '.join(names())}, or the name of a "
            "module with its package, as mypackage.mystudy."
        )
    if "." not in name and name not in names():
        raise ValueError(f"unknown study {name!r}: there are {', '.join(names())}.")
    module = _imported(name if "." in name else f"{PACKAGE}.{name}")
    for needed in ("get_config", "sweep"):
        if not callable(getattr(module, needed, None)):
            raise ValueError(f"the study {name!r} lacks the function {needed}.")
    doc = inspect.getdoc(module)
    if not doc:
        raise ValueError(f"the study {name!r} lacks a docstring.")
    return Study(
        name,
        doc,
        module.get_config,
        module.sweep,
        tuple(getattr(module, "FIGURES", ())),
        tuple(getattr(module, "BESIDE", ())),
        dict(getattr(module, "VERSUS", {})),
    )


def configure(study: Study, scale: str) -> ConfigDict:
    """The configuration of `study` at `scale`, before any override.

    Raises:
        ValueError: there is no such scale, or the study sets what is not there.
    """
    config_lib.check_scale(scale)
    try:
        config = study.get_config(scale)
    # What ml_collections raises for a name or a type that is wrong.
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"get_config of the study {study.name!r} fails: {error}.") from error
    config.study = study.name
    return config


def _imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, SyntaxError) as error:
        raise ValueError(f"the module {name} cannot be imported: {error}.") from error
    # A study is somebody's code, which may go wrong in any way while it is imported.
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"line {frame.lineno} of {frame.filename}"
        raise ValueError(
            f"the module {name} cannot be imported: {type(error).__name__} in {where}: {error}"
        ) from error
