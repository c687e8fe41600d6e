"""The paper's tables (`published.csv`), and which of their rows correspond to which conditions.

The file holds every number of the tables of arXiv 2408.16293 (Figures 3(b), 4(b), 5, 8, 10 and 11)
as printed: strict accuracy in percent of 4,096 problems a cell, or the mean number of retries of a
solution. A cell is a class, an order and a number of operations, as `med_pq:23`; `avg` is the mean
of all 30. Accuracies of Figures 4(b), 8 and 10 are the best of two seeds and two beams in each
cell, and therefore biased upwards. The order of the rows on retries in wrong solutions is
inferred.
"""

import csv
import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.spec import NAMED, ORDERS, Spec
from physlm import cells as cells_lib
from physlm.cells import Cell, EvalConfig
from physlm.experiments import condition as condition_lib
from physlm.experiments import scales
from physlm.experiments.condition import PARENT, Condition

FILE = "published.csv"

# The four classes that the paper trains models on, and the one that its curves are of.
CLASSES = {
    f"{name}_{order}": dataclasses.replace(spec, order=order)
    for name, spec in NAMED.items()
    for order in ORDERS
}
CLASS = "med_pq"
_SCALES = {"med": "paper", "hard": "paper_hard"}
AVERAGE = "avg"
MODEL = "124M parameters, 39 billion tokens a model"

# By the end of a table's name: its quantity, as figures name it, and its title.
QUANTITIES = {
    "_acc": ("accuracy", "table of strict accuracy, %"),
    "_retries_on_right": ("retries_right", "table of steps taken back in right solutions"),
    "_retries_on_wrong": ("retries_wrong", "table of steps taken back in wrong solutions"),
}

# The values of settings that a condition does not name: those of the paper's recipe.
_UNSAID: Mapping[str, Any] = {"mask": "none", "kind": "skip", "trained": "", "decode": "greedy"}


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of a published table.

    Attributes:
        table: the table's name.
        row: the row's name in it.
        cells: its numbers by cell, `avg` among them where it is printed.
        of: the class of problems, one of `CLASSES`, that a study's results are compared on.
    """

    table: str
    row: str
    cells: Mapping[str, float]
    of: str = CLASS

    @property
    def quantity(self) -> str:
        """What the numbers are, as figures name it: accuracy, retries_right or retries_wrong."""
        return next(one for end, (one, _) in QUANTITIES.items() if self.table.endswith(end))

    @property
    def by_op(self) -> dict[int, float]:
        """Numbers of the class by number of operations."""
        ops = {name: name.partition(":")[2] for name in self.cells if name.startswith(self.of)}
        return {int(op): self.cells[name] for name, op in ops.items() if op.isdecimal()}

    @property
    def cap(self) -> int:
        """The most operations in training on the class."""
        return CLASSES[self.of].max_op

    @property
    def hardest(self) -> str:
        """The class's cell of the most operations."""
        return f"{self.of}:{max(_beyond(self.of))}"


@dataclasses.dataclass(frozen=True)
class Beside:
    """Maps conditions of a study to rows of a table of the paper.

    Attributes:
        table: the table's name in `published.csv`.
        rows: names of rows there, each with the settings that our condition must have: names and
            values as in `results.jsonl`. Settings that are not named must be the paper's.

    Raises:
        ValueError: the table or a row does not exist.
    """

    table: str
    rows: Mapping[str, Condition]

    def __post_init__(self) -> None:
        known = rows(self.table)
        for name in self.rows:
            if name not in known:
                raise ValueError(f"the paper's table {self.table!r} has no row {name!r}.")

    def find(self, condition: Condition, shared: Condition) -> Published | None:
        """The published row that corresponds to a condition, if any.

        Args:
            condition: of a study.
            shared: what all its conditions share and do not say.
        """
        said = condition_lib.meant(condition)
        for name, wanted in self.rows.items():
            keys = {*wanted, *said, *shared} - {PARENT}
            if all(_value(key, said, shared) == _value(key, wanted, {}) for key in keys):
                return rows(self.table)[name]
        return None


def _value(key: str, said: Condition, shared: Condition) -> Any:
    if key in said:
        return said[key]
    # An error-free run has no mistakes that could be masked.
    known = {} if condition_lib.is_error_free(said) else shared
    return known.get(key, _UNSAID.get(key))


def class_of(spec: Spec) -> str | None:
    """Which of the paper's `CLASSES` a class is, its names and tokens aside; else None."""
    plain = dataclasses.replace(
        spec, split="all", names_file="", tokenizer="word", tokenizer_files=""
    )
    return next((name for name, published in CLASSES.items() if published == plain), None)


def cells() -> dict[str, tuple[Spec, EvalConfig, Cell]]:
    """The 30 cells of the paper's tables, by their names there, as `med_pq:20re`.

    Each has the class that a model was trained on, the evaluation of 4,096 problems, and the cell.
    Its problems are those that fit the window of the class's scale, `paper` or `paper_hard`.
    """
    found = {}
    for name, spec in CLASSES.items():
        spec, config = dataclasses.replace(spec, split="train"), _evaluation(name)
        for cell in cells_lib.of(spec, config):
            found[f"{name}:{cell.name}"] = (spec, config, cell)
    return found


def _evaluation(of: str) -> EvalConfig:
    section = "evaluate."
    changes = scales.CHANGES[_SCALES[of.partition("_")[0]]].items()
    return EvalConfig(**{k.removeprefix(section): v for k, v in changes if k.startswith(section)})


def _beyond(of: str) -> Sequence[int]:
    return _evaluation(of).beyond


@functools.cache
def rows(table: str) -> Mapping[str, Published]:
    """The rows of a table by their names.

    Raises:
        ValueError: there is no such table.
    """
    if table not in tables():
        raise ValueError(f"the paper's table is {table!r}; it must be one of {', '.join(tables())}")
    found = {}
    for line in _lines():
        if line["table"] == table:
            cells = {k: float(v) for k, v in line.items() if v and k not in ("table", "row")}
            found[line["row"]] = Published(table, line["row"], cells)
    return found


@functools.cache
def tables() -> tuple[str, ...]:
    """The names of all tables."""
    return tuple(dict.fromkeys(line["table"] for line in _lines()))


@functools.cache
def _lines() -> Sequence[dict[str, str]]:
    text = importlib.resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
