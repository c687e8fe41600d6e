"""The interface of decoding strategies: how each token is chosen, and whether a row rolls back.

To write one, derive a frozen dataclass from `Each`, which has defaults for all but `choose`, and
define that. A text then names it, `package.module.Class:setting=value` (`physlm.decoding.recipe`).

Names as in `physlm.model`, and L: tokens that a row's text has room for, G: problems at once, F:
problems that begin together, E: problems in all.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from data_gen.spec import Spec
from physlm.architecture import ModelConfig
from physlm.decoding import selection


class Rows(NamedTuple):
    """The texts that are being decoded, one a row; arrays are int32 [B] unless noted.

    The rows of a problem, `Strategy.width` of them, are adjacent.
    """

    problem_B: jax.Array  # number of the row's problem, -1 where there is none
    text_BxL: jax.Array  # its prompt and what is written after it
    prompt_B: jax.Array  # how many tokens the prompt has
    length_B: jax.Array  # how many tokens the text has
    score_BxL: jax.Array  # float32: the log-probability of each written token, 0 elsewhere
    done_B: jax.Array  # bool: the text is finished
    tokens_B: jax.Array  # tokens generated, including those rolled back later
    passes_B: jax.Array  # forward passes one after the other (`engine.Written`)
    returns_B: jax.Array  # how often the row was rolled back
    key_B: jax.Array  # the random key of the row


class Resources(NamedTuple):
    """What a strategy works with beside the rows.

    Attributes:
      shared: arrays that were given for all problems, as a probe's parameters.
      of_rows: arrays that were given for each problem, in the order of the rows.
      cache: of the model that writes, of each row: of its text but for the last token, at least. ()
        for rows that begin.
    """

    shared: Any = ()
    of_rows: Any = ()
    cache: Any = ()


class Choice(NamedTuple):
    """The next token of every row.

    Attributes:
      token_B: int32, the tokens.
      own: the strategy's state afterwards.
      source_B: int32, the row whose text each row continues; None where each continues its own.
      done_B: bool, rows that are finished. None: those that have written the end or have no room
        for more.
    """

    token_B: jax.Array
    own: Any
    source_B: jax.Array | None = None
    done_B: jax.Array | None = None


class Review(NamedTuple):
    """The outcome of `Strategy.review`: how far each text is rolled back, and at what cost.

    Attributes:
      own: the strategy's state afterwards.
      length_B: int32, tokens of each text that are kept.
      unsaid_B: int32, dropped tokens that were generated only because the review was delayed for
        batching; they are subtracted from the reported cost.
      passes_B: int32, forward passes that the review would have taken without delay, all rows of a
        problem together.
      returns_B: int32, how often each row was rolled back, or a beam of its problem was dropped.
    """

    own: Any
    length_B: jax.Array
    unsaid_B: jax.Array
    passes_B: jax.Array
    returns_B: jax.Array


class Recipe(Protocol):
    """A strategy's settings, before it is bound to a model and a class of problems."""

    @property
    def asks(self) -> str:
        """The detector that the strategy needs, `probe` or `perfect`; "" for none."""
        ...

    def bound(self, spec: Spec, model: ModelConfig) -> "Strategy":
        """The strategy itself, for a class of problems and a model."""
        ...

    def select(
        self, answers: Sequence[str | None], score_S: np.ndarray, trust_S: np.ndarray | None
    ) -> int:
        """Which of several solutions of a problem counts; called where there are several.

        Args:
          answers: of each solution, None where it has none.
          score_S: float, of each, as `Strategy.best` gives it.
          trust_S: float, how much the detector that the strategy `asks` trusts each, not negative;
            None where it asks none.

        Returns:
          the index of the solution.
        """
        ...


class Strategy(Protocol):
    """Chooses the tokens of each row. Hashable: equal strategies share one compiled program.

    Random draws depend on a row's key and its number of generated tokens alone, so that neither
    the batch size nor neighbouring rows change them.
    """

    @property
    def width(self) -> int:
        """Rows that a problem takes, e.g. the number of beams."""
        ...

    @property
    def samples(self) -> int:
        """Independent solutions of each problem, each with a key of its own."""
        ...

    @property
    def looks(self) -> bool:
        """Whether the strategy reviews texts and may roll them back (`due`, `review`)."""
        ...

    def begin(
        self, resources: Resources, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Any:
        """The strategy's state for F new problems, F * width rows.

        Args:
          resources: those of each of the F problems.
          prompts_FxP: int32, their prompts, padded on the right.
          prompt_F: int32, how many tokens each has.
          room: L.
        """
        ...

    def resized(self, own: Any, slots: int) -> Any:
        """The state for a cache of `slots` tokens a row; called whenever the cache is resized."""
        ...

    def choose(self, rows: Rows, own: Any, logits_BxV: jax.Array, stop: int, most: int) -> Choice:
        """Chooses the next token of every row; those of finished rows are ignored.

        Args:
          rows: what has been written.
          own: the strategy's state.
          logits_BxV: float32, of the next token of each row.
          stop: the id of the token that ends a text.
          most: tokens that may be written after a prompt.
        """
        ...

    def due(self, rows: Rows, own: Any) -> jax.Array:
        """Whether to review now, bool []; called after every token where `looks` is true."""
        ...

    def review(self, resources: Resources, rows: Rows, own: Any) -> Review:
        """Reviews all texts and decides how far each is rolled back.

        Called where `due` is true, and whenever generation pauses for another reason. Afterwards a
        finished row may be given to another problem.
        """
        ...

    def best(self, rows: Rows, own: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The result of each problem: text int32 [G, L], its length in tokens int32 [G], and its
        score float32 [G], by default the log-likelihood."""
        ...


class Each:
    """Defaults for strategies with one independent row a problem."""

    @property
    def width(self) -> int:
        """One row for each problem."""
        return 1

    @property
    def samples(self) -> int:
        """One solution for each problem."""
        return 1

    @property
    def looks(self) -> bool:
        """Texts are not reviewed."""
        return False

    @property
    def asks(self) -> str:
        """No detector is needed."""
        return ""

    def bound(self, spec: Spec, model: ModelConfig) -> Any:
        """The strategy itself: it depends on neither problems nor model."""
        del spec, model
        return self

    def select(
        self, answers: Sequence[str | None], score_S: np.ndarray, trust_S: np.ndarray | None
    ) -> int:
        """The likeliest of the solutions with the answer that most have."""
        return selection.chosen("vote", answers, score_S, trust_S)

    def begin(
        self, resources: Resources, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int
    ) -> Any:
        """An empty state."""
        del resources, prompts_FxP, prompt_F, room
        return ()

    def resized(self, own: Any, slots: int) -> Any:
        """The state as it is: it does not depend on the cache's size."""
        del slots
        return own

    def due(self, rows: Rows, own: Any) -> jax.Array:
        """Never called, since `looks` is false."""
        raise NotImplementedError

    def review(self, resources: Resources, rows: Rows, own: Any) -> Review:
        """Never called, since `looks` is false."""
        raise NotImplementedError

    def best(self, rows: Rows, own: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Each row's text, its length, and its log-likelihood."""
        del own
        return rows.text_BxL, rows.length_B, rows.score_BxL.sum(-1)
