"""The configuration of training windows."""

import dataclasses

from data_gen import settings
from data_gen.settings import RefusedError
from data_gen.solutions.document import least_length
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.spec import Spec
from data_gen.windows.tokenizer import tokenizer


@dataclasses.dataclass(frozen=True)
class Windows:
    """How documents are laid into training windows.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    window: int = settings.whole(
        768,
        "Tokens of a window that are fed to the model; one more follows, to be predicted.",
        low=1,
    )
    loss_on: str = settings.choice(
        "all",
        "Which tokens bear loss: all, or those of the solution and the answer. The paper does not "
        "say; to mask mistakes alone makes sense only where all others bear loss.",
        ("all", "solution"),
    )
    attention: str = settings.choice(
        "window",
        "How far attention reaches: over the whole window, as in the paper, or within a document; "
        "batches then say which document of its window a token belongs to.",
        ("window", "document"),
    )
    pack: str = settings.choice(
        "cut",
        "Documents that run over their window are cut, as in the paper (Part 2.2, Appendix), or go "
        "whole to the next.",
        ("cut", "whole"),
    )

    def __post_init__(self) -> None:
        settings.check(self)

    def check(self, spec: Spec, mistakes: Mistakes = ERROR_FREE) -> None:
        """Refuses a window that no document fits, or none that begins anew where some should.

        Raises:
          RefusedError: says how long the shortest document is.
        """
        for which in (ERROR_FREE, mistakes):
            shortest = shortest_document(spec, which)
            if self.window + 1 < shortest:
                what = "document of this class"
                if which.restarts:
                    what = f"document that begins anew (mend={which.mend!r})"
                allowed = f"at least {shortest - 1}: the shortest {what} has {shortest} tokens"
                raise RefusedError("window", self.window, allowed)


def shortest_document(spec: Spec, mistakes: Mistakes = ERROR_FREE) -> int:
    """Tokens that every document of the class has at least, one that begins anew among them."""
    return least_length(tokenizer(spec).lengths_V, spec, mistakes)
