"""The studies there are: the modules of the package `experiments`, found by their names."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

import experiments
from physlm.experiments import config as config_lib

Overrides = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Study:
    """One file of `experiments/`: its question in words, its configuration, its runs.

    Attributes:
        name: the module's name.
        doc: the module's docstring: question, command, expected result, cost.
        get_config: scale -> the configuration that all its runs share.
        sweep: -> one set of dotted overrides a run.
    """

    name: str
    doc: str
    get_config: Callable[[str], ConfigDict]
    sweep: Callable[[], Iterator[Overrides]]


def names() -> list[str]:
    """The names of all studies, sorted."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(experiments.__path__)
        if not module.name.startswith("_")
    )


def load(name: str) -> Study:
    """The study called `name`.

    Raises:
        ValueError: there is none; or its module lacks a docstring, `get_config` or `sweep`.
    """
    if name not in names():
        raise ValueError(f"unknown study {name!r}: there are {', '.join(names())}.")
    module = importlib.import_module(f"experiments.{name}")
    for needed in ("get_config", "sweep"):
        if not callable(getattr(module, needed, None)):
            raise ValueError(f"the study {name!r} lacks the function {needed}.")
    doc = inspect.getdoc(module)
    if not doc:
        raise ValueError(f"the study {name!r} lacks a docstring.")
    return Study(name, doc, module.get_config, module.sweep)


def configure(study: Study, scale: str) -> ConfigDict:
    """The configuration of `study` at `scale`, before any override.

    Raises:
        ValueError: there is no such scale.
    """
    config_lib.check_scale(scale)
    config = study.get_config(scale)
    config.study = study.name
    return config
