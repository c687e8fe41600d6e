"""Which mistakes solutions hold, how they are mended, and which of their tokens bear no loss."""

import dataclasses
import math

from data_gen import settings
from data_gen.spec import Spec

# A wrong parameter, and a wrong sentence about the right one.
PARAMETERS = ("retry", "retry_weak", "retry_weak_public", "retry_miss", "skip", "unneeded")
ERRORS = ("calculation", "value", "reference", "operator", "missing", "misread")
KINDS = (*PARAMETERS, *ERRORS)
MENDINGS = ("back", "fix", "restart")
MASKS = ("none", "name", "sentence", "all")

# Solutions that are begun anew so often are mended by going back from then on.
RESTARTS = 3
LATE_LIMIT = 16


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """A distribution of mistakes, each followed by its correction (Part 2.2, Section 4).

    Before each step a mistake is made with the probability that its kind's rate is, and after it
    is mended another one with the same, and so on; where the kind that is drawn has no candidate
    the step is written right. What a mistake is, and what a reader of its tokens could know:

    retry, skip: a parameter that cannot be computed yet. Its name alone shows it: something that
      it needs has not been computed.
    retry_weak: the parameter of a later step than the one about to be written (the paper's rule).
      It may well be computable; only who knows the rest of the solution can tell.
    retry_weak_public: the same, the step about to be written included, as in the public program.
    retry_miss: a parameter that the problem states and the solution has not reached. It may be
      computable, and even be what comes next.
    unneeded: a parameter that can be computed, and that the solution does without. All in its
      sentence is right; only the question tells that it is not needed.
    calculation: the step's own sentence, where a line's result is another number than its
      expression's. The line alone shows it. Later lines go on with the wrong number.
    value: the sentence quotes another number for a letter than the letter's, and computes with
      that. The line in which the letter was defined shows it.
    reference: the letter of another parameter, computed before and not needed for this one,
      stands where a needed one's should. Problem or structure show it.
    operator: a line adds, subtracts or multiplies where it should do another of these. Every
      number is right; the problem shows it, where the operation is stated, or the structure.
    missing: one of the needed parameters (of the products, for an abstract parameter of items'
      items) is left out. The problem or the structure shows it.
    misread: the constant that the problem states is another one. Only the problem shows it.

    Of operator and misread only those are drawn that change the parameter's value, so that the
    judge can see them. Wrong parameters are drawn uniformly, at one position none twice, later
    perhaps again; wrong sentences uniformly over places (lines, letters, terms) and then over what
    may stand there, each anew.
    """

    kind: str = settings.text(
        "retry",
        "A kind of mistake, or several, each with its share of the rate: skip:0.7,value:0.3. "
        "`python -m data_gen kinds` says which there are.",
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
        """Refuses what is unknown, out of range, or not possible together.

        Raises:
          ValueError: names the field, its value and what is allowed.
        """
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(f"rate={self.rate!r} is not allowed: a number in [0, 1) is.")
        _shares("kind", self.kind, KINDS)
        _shares("mend", self.mend, MENDINGS)
        if isinstance(self.late, bool) or not isinstance(self.late, int):
            raise ValueError(f"late={self.late!r} is not allowed: a whole number is.")
        if not 0 <= self.late <= LATE_LIMIT:
            raise ValueError(f"late={self.late} is not allowed: 0..{LATE_LIMIT} is.")
        if self.late and any(self.stops_at_name(kind) for kind, _ in self.rates):
            raise ValueError(
                f"late={self.late} is not allowed with kind={self.kind!r}, which stops at a name: "
                "whole=True writes its sentence."
            )
        if self.mask not in MASKS:
            raise ValueError(f"mask={self.mask!r} is unknown; choose one of {', '.join(MASKS)}.")

    @property
    def rates(self) -> tuple[tuple[str, float], ...]:
        """Each kind with its rate."""
        shares = _shares("kind", self.kind, KINDS)
        return tuple((kind, share * self.rate) for kind, share in shares)

    @property
    def mendings(self) -> tuple[tuple[str, float], ...]:
        """Each mending with its probability."""
        return _shares("mend", self.mend, MENDINGS)

    @property
    def restarts(self) -> bool:
        """Some mistakes make the solution begin anew."""
        return self.rate > 0 and dict(self.mendings).get("restart", 0.0) > 0

    @property
    def bodies(self) -> bool:
        """Sentences have lines of their own: wrong ones, or right ones written twice."""
        named = all(self.stops_at_name(kind) for kind, _ in self.rates)
        return self.rate > 0 and (not named or self.restarts)

    def stops_at_name(self, kind: str) -> bool:
        """A mistake of this kind is written as a name alone."""
        return not self.whole and kind in PARAMETERS and kind != "unneeded"

    def sentence_cap(self, spec: Spec) -> int:
        """Sentences of a solution that there is room for; all but one in ten million need less."""
        steps, rate = spec.op_room, self.rate
        if rate == 0.0:
            return steps
        # Mistakes before `steps` steps are distributed as failures before as many successes.
        most, left = 0, 1.0
        while True:
            log = math.lgamma(most + steps) - math.lgamma(steps) - math.lgamma(most + 1)
            left -= math.exp(log + most * math.log(rate) + steps * math.log1p(-rate))
            if left < 1e-7:
                break
            most += 1
        return steps * (1 + RESTARTS * self.restarts) + most * (1 + self.late)

    def usual_sentences(self, spec: Spec) -> int:
        """Sentences that about nineteen of twenty solutions do with (measured on `med`)."""
        each = 1 + (1 + self.late) * self.rate / (1 - self.rate)
        return math.ceil(0.6 * spec.op_room * each) + 3


def _shares(field: str, text: str, known: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Names with their shares, which sum to 1; one name alone has all of it."""
    if text in known:
        return ((text, 1.0),)
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition(":")
        if name not in known:
            raise ValueError(f"{field}={name!r} is unknown; choose one of {', '.join(known)}.")
        if name in found:
            raise ValueError(f"{field}={text!r} is not allowed: {name} stands there twice.")
        try:
            found[name] = float(number)
        except ValueError:
            raise ValueError(
                f"{field}={text!r} is not allowed: one of {', '.join(known)}, or several, each "
                "with its share, as in 'A:0.7,B:0.3'."
            ) from None
        if not 0.0 <= found[name] <= 1.0:
            raise ValueError(f"{field}={text!r} is not allowed: {number} is no share in [0, 1].")
    total = math.fsum(found.values())
    if not math.isclose(total, 1.0, abs_tol=1e-3):
        raise ValueError(
            f"{field}={text!r} is not allowed: its shares sum to {total:g}, and must sum to 1."
        )
    return tuple((name, share / total) for name, share in found.items())


ERROR_FREE = Mistakes()
