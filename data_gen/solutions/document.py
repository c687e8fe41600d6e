"""The data structure of a document: its tokens, and the part that each belongs to."""

from typing import NamedTuple

import jax
import numpy as np

from data_gen.solutions import grammar
from data_gen.solutions.grammar import Form
from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.spec import Spec

# What a token is part of: of a mistake, what is wrong, the marker that mends it, and the rest.
OUTSIDE, PROBLEM, SOLUTION, WRONG_NAME, WRONG_WORDS, WRONG_MARKER, ANSWER = range(7)


class Document(NamedTuple):
    """The tokens of one document; N is the room given."""

    tokens_N: jax.Array  # int32, the end marker from `length` on
    role_N: jax.Array  # int32: OUTSIDE, PROBLEM, …
    kind_N: jax.Array  # int32: what the token is, MARKER, WORD, … of `data_gen.solutions.language`
    sentence_N: jax.Array  # int32: the script's sentence that a solution token is in, or -1
    length: jax.Array  # int32: of the whole document, also where it exceeds the room N
    prompt: jax.Array  # int32: tokens up to and including the solution marker


def least_length(lengths_V: np.ndarray, spec: Spec, mistakes: Mistakes = ERROR_FREE) -> int:
    """Tokens that every document of the class has at least, one that begins anew among them.

    Args:
      lengths_V: how many tokens each symbol of the class's vocabulary is.
      spec: the class.
      mistakes: where they make solutions begin anew, the shortest that does is measured.
    """
    vocab = vocabulary(spec)
    name = int(lengths_V[vocab.categories :].min())
    letter = int(lengths_V[vocab.letters : vocab.categories].min())
    number = int(lengths_V[vocab.numbers : vocab.letters].min())
    slots = {"owner": name, "thing": name, "letter": letter, "number": number, "result": number}
    lengths = dict(zip(vocab.tokens, lengths_V.tolist(), strict=True))

    def least(*parts: Form | str) -> int:
        whole = (part if isinstance(part, Form) else Form(part) for part in parts)
        return sum(sum(form.fill(lengths, **slots)) for form in whole)

    edges = (spec.min_depth - 1) * spec.min_width
    length = edges * least(grammar.STATEMENT, grammar.CONSTANT, grammar.STOP)
    length += least(grammar.PROBLEM_MARKER, grammar.QUESTION, grammar.SOLUTION_MARKER)
    # An operation beyond a sentence's first takes more symbols than these of its own.
    operations = 1 if spec.op is None else spec.op
    length += least(grammar.HEADER, grammar.NEXT)
    length += operations * least(grammar.SO, grammar.LINES[0], grammar.STOP)
    if mistakes.restarts:
        # Before the first step a name and the marker, at least.
        length += least(grammar.NAMED, grammar.RESTART, grammar.STOP)
    return length + least(grammar.ANSWER)
