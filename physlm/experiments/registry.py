"""The studies there are: modules with a configuration and runs, found by their names."""

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
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
        get_config: a function of the scale: the configuration that all runs share.
        sweep: a generator of runs, each as changes of the configuration by dotted keys or as one of
            `physlm.experiments.conditions`. If it takes an argument, that is the configuration.
        figures: what is drawn (`FIGURES`); empty for the usual ones (`figures.USUAL`).
        beside: which conditions are rows of which table of the paper (`BESIDE`).
        versus: settings, each with the value that the others are compared with (`VERSUS`).
    """

    name: str
    doc: str
    get_config: Callable[[str], ConfigDict]
    sweep: Callable[..., Iterator[Overrides]]
    figures: "tuple[Figure, ...]" = ()
    beside: "tuple[Beside, ...]" = ()
    versus: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def runs(self, config: ConfigDict) -> list[Overrides]:
        """What `sweep` yields, given the configuration that all runs share.

        Raises:
            ValueError: `sweep` fails, or yields what is no run.
        """
        with _told(f"sweep of the study {self.name!r} fails", self.sweep):
            asked = self.sweep(config) if inspect.signature(self.sweep).parameters else self.sweep()
            found = list(asked) if isinstance(asked, Iterable) else [asked]
        for one in found:
            if not isinstance(one, Mapping | Planned):
                raise ValueError(
                    f"sweep of the study {self.name!r} yields {one!r}; it must yield settings, as "
                    "{'mistakes.rate': 0.5}, or conditions of physlm.experiments.conditions."
                )
        return found

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
        ValueError: there is none, or it cannot be imported; it lacks a docstring, `get_config` or
            `sweep`; or `FIGURES` or `BESIDE` is no tuple, or `VERSUS` no mapping.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(
            f"the study is {name!r}; it must be one of {', '.join(names())}, or the name of a "
            "module with its package, as mypackage.mystudy."
        )
    if not is_own(name) and name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f" (nearest: {close[0]})" if close else ""
        raise ValueError(
            f"unknown study {name!r}{hint}: there are {', '.join(names())}; one of your own is "
            "called with its package, as mypackage.mystudy."
        )
    module = _imported(name if is_own(name) else f"{PACKAGE}.{name}")
    for needed in ("get_config", "sweep"):
        if not callable(getattr(module, needed, None)):
            raise ValueError(f"the study {name!r} lacks the function {needed}.")
    doc = inspect.getdoc(module)
    if not doc:
        raise ValueError(f"the study {name!r} lacks a docstring.")
    figures, beside = (_several(name, module, constant) for constant in ("FIGURES", "BESIDE"))
    versus = getattr(module, "VERSUS", {})
    if not isinstance(versus, Mapping):
        raise ValueError(
            f"VERSUS of the study {name!r} is {versus!r}; it must be settings with values, as "
            "{'mask': 'none'}."
        )
    return Study(name, doc, module.get_config, module.sweep, figures, beside, dict(versus))


def is_own(name: str) -> bool:
    """Whether a study is a user's, who may have mistyped a setting in it, and not one of ours."""
    return "." in name


def _several(study: str, module: types.ModuleType, constant: str) -> tuple[Any, ...]:
    """The tuple that a study's module calls so; empty where it has none."""
    found = getattr(module, constant, ())
    if not isinstance(found, tuple | list):
        raise ValueError(f"{constant} of the study {study!r} is {found!r}; it must be a tuple.")
    return tuple(found)


def configure(study: Study, scale: str) -> ConfigDict:
    """The configuration of `study` at `scale`, before any override.

    Raises:
        ValueError: there is no such scale; the study sets what is not there; or its `get_config`
            fails otherwise, or returns no configuration.
    """
    config_lib.check_scale(scale)
    with _told(f"get_config of the study {study.name!r} fails", study.get_config):
        config = study.get_config(scale)
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"get_config of the study {study.name!r} returns {config!r}; it must return a "
            "configuration, as physlm.experiments.config.base(scale)."
        )
    config.study = study.name
    return config


def _imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, SyntaxError) as error:
        looked = ""
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            looked = "; Python looks in this directory and on PYTHONPATH"
        raise ValueError(f"the module {name} cannot be imported: {error}{looked}.") from error
    # A study is the user's own code, which may raise anything while it is imported.
    except Exception as error:
        raise ValueError(_in_words(f"the module {name} cannot be imported", error)) from error


@contextlib.contextmanager
def _told(what: str, function: Callable[..., Any]) -> Iterator[None]:
    """Turns errors of a study's own function into a sentence.

    Raises:
        ValueError: it fails; or settings of its are refused, which says so in its own words.
    """
    source = getattr(getattr(function, "__code__", None), "co_filename", "")
    try:
        yield
    # A study is somebody's code, which may go wrong in any way.
    except Exception as error:
        its_own = traceback.extract_tb(error.__traceback__)[-1].filename == source
        if isinstance(error, ValueError) and not its_own:
            raise
        raise ValueError(_in_words(what, error, source)) from error


def _in_words(what: str, error: Exception, source: str = "") -> str:
    """What fails, and where: in the last line of a source file that led to it, or of all."""
    frames = traceback.extract_tb(error.__traceback__)
    (*_, frame) = [one for one in frames if one.filename == source] or frames
    where = f"line {frame.lineno} of {frame.filename}"
    return f"{what}: {type(error).__name__} in {where}: {error}"
