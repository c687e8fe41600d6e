"""The kinds of mistake: where each can occur, what is written, and how it is judged.

A kind is one value. Those of the package are in `TABLE`, at the end; `register` adds others, from
a study, a notebook or a module of one's own, and they can be used wherever a kind is named.
"""

import dataclasses
import importlib
import re
import sys
import types
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

from data_gen.problems import bits
from data_gen.problems.parameters import NEVER, Parameters
from data_gen.problems.problem import Problem
from data_gen.solutions import faults, wrong_sentences
from data_gen.solutions.computation import Expression, Slip
from data_gen.solutions.wrong_sentences import Chosen, RightSentence
from data_gen.spec import Spec

Members: TypeAlias = np.ndarray | jax.Array | bits.Bits

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclasses.dataclass(frozen=True)
class Moment:
    """A point of a solution, before one of its steps, where a wrong parameter may be written.

    Attributes:
      problem: what is solved.
      params: which parameters there are, what they need and when they are computed.
      step: int32 scalar, how many steps are done; the one that comes next has this number.
      spec: the class of problems.
    """

    problem: Problem
    params: Parameters
    step: jax.Array
    spec: Spec

    @property
    def known_P(self) -> jax.Array:
        """bool: a step has computed it."""
        return self.params.solved_P < self.step

    @property
    def ready_P(self) -> jax.Array:
        """bool: all its dependencies are known, so that it is known or can be computed next."""
        return self.params.ready_P <= self.step


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of mistake. The name is its identity: a kind that is changed takes another name.

    Attributes:
      name: by which settings name it. One with dots, "mykinds.again", is a kind that the module
        `mykinds` registers, and that module is imported where the kind is first asked for.
      meaning: what is wrong, in words.
      told_by: what a reader of the solution's tokens could know it from, in words.
      judged: how the judge calls it (`data_gen.solutions.faults`), or None where that depends on
        the problem.
      aliases: other names for it.
    """

    name: str
    meaning: str
    told_by: str
    judged: str | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses a name that could not be written in a setting.

        Raises:
          ValueError: a name is not of letters, digits, underscores and dots.
        """
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"name is {name!r}; it must be one word of letters, digits and underscores, "
                    "or several with dots between them."
                )


@dataclasses.dataclass(frozen=True)
class WrongParameter(Kind):
    """A sentence about another parameter than the one that comes next, before that one's.

    It is drawn uniformly among the candidates, none twice before one step. It stops at the
    parameter's name, unless `Mistakes.whole` asks for its sentence: then letters and numbers that
    it needs and that are not known are made up.

    Attributes:
      candidates: from a `Moment` to bool[P], the parameters that may be written. Those that the
        problem does not have, or that no letters are left for, are taken out of it.
      right: the sentence is right in itself, and always written whole; parameters that cannot be
        computed yet are taken out of the candidates.
    """

    candidates: Callable[[Moment], jax.Array] = dataclasses.field(kw_only=True)
    right: bool = False


@dataclasses.dataclass(frozen=True)
class WrongSentence(Kind):
    """A sentence about the right parameter, with something wrong in it.

    It is drawn uniformly among the places where it may be wrong and what may stand there instead,
    no pair of them twice before one step. Both are sets of whole numbers, whose meaning is the
    kind's own.

    Attributes:
      places: from a `RightSentence` to bool[C], in which C is at most three times the lines of a
        sentence, or twice its terms. Without one the sentence cannot be wrong in this way.
      others: from a `RightSentence` to bool[O], where O is at most the slots of the class or its
        modulus, whichever is more; or to a `Bits` laid out as `RightSentence.earlier`.
      write: from what was `Chosen` to the expression that is written and how its lines depart
        from that.
    """

    places: Callable[[RightSentence], Members] = dataclasses.field(kw_only=True)
    others: Callable[[RightSentence], Members] = dataclasses.field(kw_only=True)
    write: Callable[[Chosen], tuple[Expression, Slip]] = dataclasses.field(kw_only=True)


_REGISTERED: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    """Makes a kind known by its name and aliases, and returns it.

    The same kind may be registered again, as when a cell of a notebook runs twice.

    Raises:
      ValueError: another kind has one of these names.
    """
    for name in (kind.name, *kind.aliases):
        if name in _REGISTERED and _content(_REGISTERED[name]) != _content(kind):
            raise ValueError(
                f"name is {name!r}; it must be one that no other kind has, also where a kind was "
                "changed after it was registered."
            )
    for name in (kind.name, *kind.aliases):
        _REGISTERED.setdefault(name, kind)
    return _REGISTERED[kind.name]


def _content(kind: Kind) -> tuple[Any, ...]:
    """The content of a kind, for its identity, with functions by their code."""

    def plain(value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            held = [cell.cell_contents for cell in value.__closure__ or ()]
            return plain(value.__code__), plain(value.__defaults__), plain(tuple(held))
        if isinstance(value, types.CodeType):
            return value.co_code, value.co_names, plain(value.co_consts)
        if isinstance(value, np.ndarray | jax.Array):
            return str(value.dtype), np.asarray(value).tolist()
        return tuple(map(plain, value)) if isinstance(value, tuple) else value

    values = (plain(getattr(kind, field.name)) for field in dataclasses.fields(kind))
    return type(kind), *values


def find(name: str) -> Kind | None:
    """The kind of a name or alias; None where there is none.

    The module of a name with dots is imported where it has not been.

    Raises:
      ValueError: that module is there and cannot be imported.
    """
    module, _, _ = name.rpartition(".")
    if name not in _REGISTERED and module and _NAME.fullmatch(name):
        try:
            importlib.import_module(module)
        # The user's own module may raise anything.
        except Exception as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing is None or not f"{module}.".startswith(f"{missing}."):
                why = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise ValueError(
                    f"the module {module} of the kind {name} cannot be imported: {why}."
                ) from error
    return _REGISTERED.get(name)


def allowed(name: str) -> str:
    """Which names a kind can be asked for by, and why this one is none of them, in words."""
    module, dot, _ = name.rpartition(".")
    why = ""
    if dot and _NAME.fullmatch(name):
        why = f"; Python finds no module {module} in this directory or on PYTHONPATH"
        if module in sys.modules:
            why = f"; the module {module} registers no such kind"
    return f"one of {', '.join(names())}, or module.name of a kind of your own{why}"


def known() -> tuple[Kind, ...]:
    """All kinds, those of the package first."""
    return tuple(dict.fromkeys(_REGISTERED.values()))


def names() -> tuple[str, ...]:
    """All names that a kind can be asked for by, aliases included."""
    return tuple(_REGISTERED)


def by_fault() -> dict[str, str]:
    """For each fault that the judge finds, the name of the first kind that is judged so."""
    found: dict[str, str] = {}
    for kind in known():
        if kind.judged is not None:
            found.setdefault(kind.judged, kind.name)
    return found


def in_words() -> str:
    """All kinds as text: names, meaning, and how a kind is recognised in a solution."""
    rows = []
    for kind in known():
        also = "".join(f", {alias}" for alias in kind.aliases)
        rows.append(f"{kind.name}{also}\n    {kind.meaning}\n    Told by: {kind.told_by}")
    return "\n".join(rows)


def _blocked(moment: Moment) -> jax.Array:
    return ~moment.known_P & ~moment.ready_P


def _later(moment: Moment) -> jax.Array:
    solved_P = moment.params.solved_P
    return (solved_P > moment.step) & (solved_P < NEVER)


def _this_or_later(moment: Moment) -> jax.Array:
    solved_P = moment.params.solved_P
    return (solved_P >= moment.step) & (solved_P < NEVER)


def _stated(moment: Moment) -> jax.Array:
    return ~moment.known_P & moment.params.stated_P


def _unneeded(moment: Moment) -> jax.Array:
    return moment.params.solved_P == NEVER


TABLE: tuple[Kind, ...] = (
    WrongParameter(
        "skip",
        "A parameter that cannot be computed yet (the paper's retry).",
        "its name alone: something that it needs has not been computed",
        faults.SKIP,
        aliases=("retry",),
        candidates=_blocked,
    ),
    WrongParameter(
        "retry_weak",
        "The parameter of a later step than the one about to be written (the paper's weak rule).",
        "the rest of the solution, where it can be computed; else its name",
        candidates=_later,
    ),
    WrongParameter(
        "retry_weak_public",
        "The parameter of this step or a later one, as in the public program.",
        "the rest of the solution or its name, and nothing where it is what comes next",
        candidates=_this_or_later,
    ),
    WrongParameter(
        "retry_miss",
        "A parameter that the problem states and the solution has not reached.",
        "its name, where it cannot be computed; nothing where it is what comes next",
        candidates=_stated,
    ),
    WrongParameter(
        "unneeded",
        "A parameter that can be computed, and that the solution does without.",
        "the question: all in its sentence is right, but it is not needed",
        faults.UNNEEDED,
        candidates=_unneeded,
        right=True,
    ),
    WrongSentence(
        "calculation",
        "The result of a line is another number than its expression's. Later lines go on with it.",
        "the line alone",
        faults.CALCULATION,
        places=wrong_sentences.results,
        others=wrong_sentences.distances,
        write=wrong_sentences.write_result,
    ),
    WrongSentence(
        "value",
        "Another number is quoted for a letter than the letter's, and computed with.",
        "the line in which the letter was defined",
        faults.VALUE,
        places=wrong_sentences.quotations,
        others=wrong_sentences.distances,
        write=wrong_sentences.write_quotation,
    ),
    WrongSentence(
        "reference",
        "A parameter that was computed before and is not needed stands for a needed one.",
        "the problem, or the structure",
        faults.REFERENCE,
        places=wrong_sentences.references,
        others=wrong_sentences.strangers,
        write=wrong_sentences.write_reference,
    ),
    WrongSentence(
        "operator",
        "A line adds, subtracts or multiplies where it should do another of these, so that the "
        "parameter's value changes.",
        "the problem, where the operation is stated, or the structure: every number is right",
        faults.OPERATOR,
        places=wrong_sentences.operators,
        others=wrong_sentences.nothing_else,
        write=wrong_sentences.write_operator,
    ),
    WrongSentence(
        "missing",
        "One of the needed parameters is left out (of an abstract parameter's products, one).",
        "the problem, or the structure",
        faults.MISSING,
        places=wrong_sentences.omissible,
        others=wrong_sentences.nothing_else,
        write=wrong_sentences.write_omission,
    ),
    WrongSentence(
        "misread",
        "The constant is another than the problem's, so that the parameter's value changes.",
        "the problem alone",
        faults.MISREAD,
        places=wrong_sentences.constant,
        others=wrong_sentences.other_constants,
        write=wrong_sentences.write_constant,
    ),
)
for _kind in TABLE:
    register(_kind)
