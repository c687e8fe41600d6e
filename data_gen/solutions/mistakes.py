"""The distribution of mistakes, their corrections, and the masking of their tokens in the loss."""

import dataclasses
import math
from collections.abc import Callable
from typing import TypeVar

from data_gen import settings
from data_gen.settings import RefusedError
from data_gen.solutions import kinds
from data_gen.solutions.kinds import Kind, WrongParameter
from data_gen.spec import Spec

MENDINGS = ("back", "fix", "restart")
BACK, FIX, RESTART = range(len(MENDINGS))
MASKS = ("none", "name", "sentence", "all")

# Solutions that are begun anew so often are mended by going back from then on.
RESTARTS = 3
LATE_LIMIT = 16
# Sentences of a solution that there is room for, at most. Hundreds of solutions are written at
# once, and a sentence takes a kilobyte of memory in each.
SENTENCE_LIMIT = 1 << 13

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """A distribution of mistakes, each followed by its correction (Part 2.2, Section 4).

    Before each step a mistake is made with the probability that its kind's rate is, and after it
    is mended another one with the same, and so on; where the kind that is drawn has no candidate
    the step is written right. The kinds are described in `data_gen.solutions.kinds`, and printed
    by `python -m data_gen kinds`.

    Wrong parameters are drawn uniformly; wrong sentences uniformly over places (lines, letters,
    terms) and over what may stand there. At one position none is there twice, later perhaps again.
    """

    kind: str = settings.text(
        "retry",
        "A kind of mistake, or several, each with its share of the rate: skip:0.7,value:0.3. "
        "`python -m data_gen kinds` says which there are.",
        "a kind of mistake, or several with their shares",
        of_member=True,
    )
    rate: float = settings.number(
        0.0, "Rate of mistakes of all kinds together.", at_least=0, below=1, of_member=True
    )
    whole: bool = settings.flag(
        False,
        "Write a wrong parameter's whole sentence before the marker, not its name alone (Part "
        "2.2, footnote 22). What it needs and is not known is written as letters that nothing "
        "has defined, with guessed numbers. Kinds that do not stop at a name are always whole.",
        of_member=True,
    )
    mend: str = settings.text(
        "back",
        "How mistakes are mended, or several ways, each with its share: back:0.5,restart:0.5. "
        "back: the marker BACK ends the sentence, and the solution goes on as if it were not "
        "there. fix: the marker FIX ends it, and the same step is written right at once; a wrong "
        "parameter has no right sentence at that point, and is mended by going back. restart: the "
        "marker RESTART ends it, and the solution begins anew, with other letters; up to where "
        "it was it makes no further mistake, and after three in a solution it goes back.",
        f"one of {', '.join(MENDINGS)}, or several with their shares",
        of_member=True,
    )
    late: int = settings.whole(
        0,
        "Steps after which a mistake is noticed, 0 in the paper. They are written as if it were "
        "right, fewer where the solution has fewer; then the marker, once for each sentence that "
        "it takes back (the mistake and those after it), and all of them are done again.",
        high=LATE_LIMIT,
        of_member=True,
    )
    mask: str = settings.choice(
        "none",
        "Which tokens of a mistake bear no loss. name: what is wrong, which is the wrong "
        "parameter's name or, in a sentence about the right one, the tokens in which it errs. "
        "sentence: all but the marker, with the steps that rest on it. all: the marker too.",
        MASKS,
        of_member=True,
    )

    def __post_init__(self) -> None:
        """Raises where a setting is unknown, out of range, or excluded by another.

        Raises:
          RefusedError: names the field, its value and what is allowed.
        """
        settings.check(self)
        _ = self.mendings
        named = [kind.name for kind, _ in self.rates if self.stops_at_name(kind)]
        if self.late and named:
            raise RefusedError(
                "late",
                self.late,
                f"0, since {named[0]} stops at a name: whole=true writes its sentence",
                ["whole"],
            )

    @property
    def kinds(self) -> tuple[tuple[Kind, float], ...]:
        """Each kind with its share of the mistakes."""
        return _shares("kind", self.kind, kinds.find, kinds.allowed)

    @property
    def kind_by_name(self) -> str:
        """The same as `kind`, with names instead of aliases."""
        if len(self.kinds) == 1:
            return self.kinds[0][0].name
        return ",".join(f"{kind.name}:{share:g}" for kind, share in self.kinds)

    @property
    def rates(self) -> tuple[tuple[Kind, float], ...]:
        """Each kind with its rate."""
        return tuple((kind, share * self.rate) for kind, share in self.kinds)

    @property
    def mendings(self) -> tuple[tuple[str, float], ...]:
        """Each mending with its probability."""
        allowed = f"one of {', '.join(MENDINGS)}"
        return _shares("mend", self.mend, {name: name for name in MENDINGS}.get, lambda _: allowed)

    @property
    def restarts(self) -> bool:
        """Whether some mistakes are mended by starting the solution afresh."""
        return self.rate > 0 and dict(self.mendings).get("restart", 0.0) > 0

    @property
    def bodies(self) -> bool:
        """Whether sentences, and not only steps, have lines: wrong ones, or right ones repeated."""
        named = all(self.stops_at_name(kind) for kind, _ in self.rates)
        return self.rate > 0 and (not named or self.restarts)

    def stops_at_name(self, kind: Kind) -> bool:
        """Whether a mistake of this kind is cut off after the wrong name."""
        return isinstance(kind, WrongParameter) and not (kind.right or self.whole)

    def sentence_cap(self, spec: Spec) -> int:
        """The capacity in sentences of a solution; all but one in ten million need less."""
        return self._cap_at(self.rate, spec.op_room)

    def _cap_at(self, rate: float, steps: int) -> int:
        """The same of a rate; where that is beyond `SENTENCE_LIMIT`, some number beyond it."""
        if rate == 0.0:
            return steps
        # Mistakes before `steps` steps are distributed as failures before as many successes.
        most, left = 0, 1.0
        while most <= SENTENCE_LIMIT:
            log = math.lgamma(most + steps) - math.lgamma(steps) - math.lgamma(most + 1)
            left -= math.exp(log + most * math.log(rate) + steps * math.log1p(-rate))
            if left < 1e-7:
                break
            most += 1
        return steps * (1 + RESTARTS * self.restarts) + most * (1 + self.late)

    def check(self, spec: Spec) -> None:
        """Raises where the mistakes would exceed the capacity, before anything compiles.

        Raises:
          RefusedError: says how many there is room for.
        """
        if self.sentence_cap(spec) <= SENTENCE_LIMIT:
            return
        fits, beyond = 0, math.ceil(self.rate * 1000)
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            if self._cap_at(middle / 1000, spec.op_room) <= SENTENCE_LIMIT:
                fits = middle
            else:
                beyond = middle
        allowed = (
            f"at most {fits / 1000:g}, so that {SENTENCE_LIMIT:,} sentences are enough for a "
            "solution with its mistakes"
        )
        raise RefusedError("rate", self.rate, allowed)

    def usual_sentences(self, spec: Spec) -> int:
        """The number of sentences that suffices for about 95% of solutions (measured on `med`)."""
        each = 1 + (1 + self.late) * self.rate / (1 - self.rate)
        return math.ceil(0.6 * spec.op_room * each) + 3


def _shares(
    field: str, text: str, find: Callable[[str], T | None], allowed: Callable[[str], str]
) -> tuple[tuple[T, float], ...]:
    """Parsed names with their shares, which sum to 1; a single name needs no share.

    `allowed` says in words what may stand in place of a name that `find` does not know.
    """
    if (only := find(text)) is not None:
        return ((only, 1.0),)
    shares: dict[T, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition(":")
        if (found := find(name)) is None:
            raise RefusedError(field, name, allowed(name))
        if found in shares:
            raise RefusedError(field, text, f"made of different ones, and {name} is there twice")
        try:
            shares[found] = float(number)
        except ValueError:
            several = f"{allowed(name)}, or several, each with its share, as in 'A:0.7,B:0.3'"
            raise RefusedError(field, text, several) from None
        if not 0.0 <= shares[found] <= 1.0:
            raise RefusedError(field, text, f"of shares in [0, 1], and {number} is none")
    total = math.fsum(shares.values())
    if not math.isclose(total, 1.0, abs_tol=1e-3):
        raise RefusedError(field, text, f"of shares that sum to 1, and these sum to {total:g}")
    return tuple((found, share / total) for found, share in shares.items())


ERROR_FREE = Mistakes()
