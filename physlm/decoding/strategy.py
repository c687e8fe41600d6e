"""What a strategy of decoding is: how each token is chosen, and whether a row goes back.

Names as in `physlm.model`, and L: tokens that a row's text has room for, G: problems at once, F:
problems that begin together, E: problems in all.
"""

from typing import Any, NamedTuple, Protocol

import jax

from data_gen.spec import Spec
from physlm.architecture import ModelConfig


class Rows(NamedTuple):
    """What is being written; all of them int32 [B] where nothing else is said.

    The rows of a problem, `Strategy.width` of them, stand together.
    """

    problem_B: jax.Array  # number of the row's problem, -1 where there is none
    text_BxL: jax.Array  # its prompt and what is written after it
    prompt_B: jax.Array  # how many tokens the prompt has
    length_B: jax.Array  # how many tokens the text has
    score_BxL: jax.Array  # float32: the log-probability of each written token, 0 elsewhere
    done_B: jax.Array  # bool: nothing more is to be written
    tokens_B: jax.Array  # tokens written, those that were taken back too
    passes_B: jax.Array  # forward passes one after the other, those of a detector too
    returns_B: jax.Array  # how often the row went back
    key_B: jax.Array  # the key of what is drawn for it


class Choice(NamedTuple):
    """The next token of every row.

    Attributes:
      token_B: int32, the tokens.
      own: the strategy's state afterwards.
      source_B: int32, the row whose text each row continues; None where it is its own.
      done_B: bool, rows to which nothing more is to be added; None where those are that have
        written the end or have no room for more.
    """

    token_B: jax.Array
    own: Any
    source_B: jax.Array | None = None
    done_B: jax.Array | None = None


class Review(NamedTuple):
    """What becomes of texts that have been looked at.

    Attributes:
      own: the strategy's state afterwards.
      length_B: int32, tokens of each text that stay.
      unsaid_B: int32, those of the tokens taken back that would not have been written if the
        strategy had looked at once; they do not count.
      passes_B: int32, forward passes that looking would have taken then.
      returns_B: int32, how often each row has gone back, or a text of its problem been left.
    """

    own: Any
    length_B: jax.Array
    unsaid_B: jax.Array
    passes_B: jax.Array
    returns_B: jax.Array


class Recipe(Protocol):
    """What a text says of decoding (`physlm.decoding.recipe`)."""

    @property
    def asks(self) -> str:
        """The detector that is needed, `probe` or `perfect`; "" for none."""
        ...

    def bound(self, spec: Spec, model: ModelConfig) -> "Strategy":
        """The strategy for a class of problems and a model."""
        ...


class Strategy(Protocol):
    """How what is written is chosen. A value: equal ones are compiled once.

    What is random is drawn from a row's key and the number of tokens written so far, so that
    neither batch nor neighbours decide it.
    """

    @property
    def width(self) -> int:
        """Rows that work on a problem together."""
        ...

    @property
    def samples(self) -> int:
        """How often each problem is solved, each time with another key."""
        ...

    @property
    def looks(self) -> bool:
        """Whether texts are looked at (`review`)."""
        ...

    def begin(self, resources: Any, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int) -> Any:
        """The state of the F * width rows of problems that begin.

        Args:
          resources: arrays that the strategy was given beside the model.
          prompts_FxP: int32, their prompts, padded on the right.
          prompt_F: int32, how many tokens each has.
          room: L.
        """
        ...

    def resized(self, own: Any, slots: int) -> Any:
        """The state for texts of at most so many tokens: the cache grows and shrinks with them."""
        ...

    def choose(self, rows: Rows, own: Any, logits_BxV: jax.Array, stop: int, most: int) -> Choice:
        """Chooses the next tokens; for rows that are done, any.

        Args:
          rows: what has been written.
          own: the strategy's state.
          logits_BxV: float32, of the next token of each row.
          stop: the id of the token that ends a text.
          most: tokens that may be written after a prompt.
        """
        ...

    def due(self, rows: Rows, own: Any) -> jax.Array:
        """Whether to look now, bool []; asked after every token where `looks` is true."""
        ...

    def review(self, resources: Any, rows: Rows, own: Any) -> Review:
        """Looks at what has been written, where that is due and before anything else happens than
        writing. A row that is done may be replaced by another problem's as soon as it returns."""
        ...

    def best(self, rows: Rows, own: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What a problem's rows have come to: texts int32 [G, L], how many tokens each has
        int32 [G], and a score float32 [G], higher for what the model takes to be likelier."""
        ...


class Each:
    """What strategies have in common whose rows go on alone."""

    @property
    def width(self) -> int:
        """One row a problem."""
        return 1

    @property
    def samples(self) -> int:
        """Once."""
        return 1

    @property
    def looks(self) -> bool:
        """Nothing is looked at."""
        return False

    @property
    def asks(self) -> str:
        """Nobody."""
        return ""

    def bound(self, spec: Spec, model: ModelConfig) -> Any:
        """The same for all."""
        del spec, model
        return self

    def begin(self, resources: Any, prompts_FxP: jax.Array, prompt_F: jax.Array, room: int) -> Any:
        """No state."""
        del resources, prompts_FxP, prompt_F, room
        return ()

    def resized(self, own: Any, slots: int) -> Any:
        """The same."""
        del slots
        return own

    def due(self, rows: Rows, own: Any) -> jax.Array:
        """Nothing is looked at."""
        raise NotImplementedError

    def review(self, resources: Any, rows: Rows, own: Any) -> Review:
        """Nothing is looked at."""
        raise NotImplementedError

    def best(self, rows: Rows, own: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The row's text, and its log-likelihood."""
        del own
        return rows.text_BxL, rows.length_B, rows.score_BxL.sum(-1)
