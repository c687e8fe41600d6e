"""Which tokenizer a class has: a token a symbol, a token a parameter, or GPT-2's byte pairs."""

import functools

import numpy as np

from data_gen.solutions.language import vocabulary
from data_gen.spec import Spec
from data_gen.windows.gpt2 import gpt2
from data_gen.windows.parameter import parameter
from data_gen.windows.table import Tokenizer


@functools.lru_cache(maxsize=64)
def tokenizer(spec: Spec) -> Tokenizer:
    """The tokenizer that a spec asks for; whoever needs token ids asks here.

    Raises:
      ValueError: one sentence that says why `spec.tokenizer_files` cannot serve.
      RefusedError: the class has too many parameters for a token each.
    """
    if spec.tokenizer == "gpt2":
        return gpt2(spec, spec.tokenizer_files)
    return parameter(spec) if spec.tokenizer == "parameter" else word(spec)


def word(spec: Spec) -> Tokenizer:
    """One token a symbol: the ids of `data_gen.solutions.language`."""
    vocab = vocabulary(spec)
    return Tokenizer(
        ids_VxK=np.arange(vocab.size, dtype=np.int32)[:, None],
        lengths_V=np.ones(vocab.size, np.int32),
        size=vocab.size,
        problem=vocab.problem,
        solution=vocab.solution,
        answer=vocab.answer,
        end=vocab.end,
        pieces=tuple(token.encode() for token in vocab.tokens),
    )
